package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"relaymarket/protocol"
)

// exchange is one request and its reply on their way. It is the ResponseWriter of the handlers, and found
// again through the request's context.
type exchange struct {
	http.ResponseWriter
	id       string
	op       *operation // nil when the request line is no route
	address  netip.Addr // the client's
	started  time.Time
	log      *slog.Logger
	control  *http.ResponseController
	status   int    // 0 until the reply began
	code     string // of the refusal; "ok" otherwise
	received int64
	sent     int64
	held     int64 // bytes of the body that count in Bounds.MaxBodyBytes
	slot     bool  // counts in Bounds.MaxConcurrent
	warned   bool  // the log has the cause of an overload
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader notes the status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write counts the bytes.
func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(p)
	x.sent += int64(n)
	return n, err
}

// serve takes a request through the checks that need no body, and hands it to its route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r)
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), exchangeKey{}, x))
	defer cancel()
	r = r.WithContext(ctx)
	defer s.end(x, r)
	setHeaders(x.Header())
	if err := s.front(x, r); err != nil {
		s.refuse(x, r, err)
		return
	}
	if x.op == nil {
		x.WriteHeader(http.StatusNoContent) // a preflight
		return
	}
	s.router.ServeHTTP(x, r)
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	x := &exchange{
		ResponseWriter: w,
		id:             hex.EncodeToString(id[:]),
		address:        clientAddress(r, s.cfg.TrustProxy),
		started:        time.Now(),
		control:        http.NewResponseController(w),
		code:           "ok",
	}
	x.log = s.cfg.Logger.With("request", x.id)
	b := s.cfg.Bounds
	// A writer that has no deadlines, like a test's recorder, cannot stall either.
	_ = x.control.SetWriteDeadline(x.started.Add(b.BodyTimeout + b.WorkTimeout + b.ReplyTimeout))
	return x
}

// end gives back what the request held and says what became of it. A panic is a refusal too.
func (s *Server) end(x *exchange, r *http.Request) {
	defer s.load.release(x)
	if fault := recover(); fault != nil {
		if err, ok := fault.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(fault)
		}
		x.log.Error("panic", "operation", x.name(), "fault", fault, "stack", string(debug.Stack()))
		if x.status != 0 {
			s.metrics.observe(x, string(protocol.CodeInternal))
			panic(http.ErrAbortHandler) // the reply has begun: a cut one is the only sign left
		}
		s.refuse(x, r, protocol.Errorf(protocol.CodeInternal, "%s", internalDetail(x)))
	}
	s.metrics.observe(x, x.code)
	x.log.Debug("request", "operation", x.name(), "status", x.status, "code", x.code,
		"received", x.received, "sent", x.sent, "took", time.Since(x.started))
}

func (x *exchange) name() string {
	if x.op == nil {
		return "none"
	}
	return x.op.name
}

func setHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	// The signature is the authority, not a cookie: any page may ask.
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Retry-After")
}

// front finds the operation and checks size, path, query and media type, in that order. After it,
// a nil operation is a preflight.
func (s *Server) front(x *exchange, r *http.Request) error {
	pathFault := checkPath(r.RequestURI)
	op, allowed := (*operation)(nil), []string(nil)
	if pathFault == nil {
		op, allowed = s.find(r.Method, r.URL.Path)
	}
	x.op = op
	switch {
	case pathFault != nil:
		return pathFault
	case op == nil && len(allowed) == 0:
		return protocol.Errorf(protocol.CodeNotFound, "there is no such path")
	case op == nil:
		x.Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
		if r.Method == http.MethodOptions {
			preflight(x.Header())
			return nil
		}
		return protocol.Errorf(protocol.CodeMethodNotAllowed, "this path has %s", strings.Join(allowed, ", "))
	case op.media != "" && r.ContentLength > op.size:
		return tooLarge(op.size)
	}
	if err := op.checkQuery(r.URL.RawQuery); err != nil {
		return err
	}
	if err := op.checkMedia(r); err != nil {
		return err
	}
	if op.media == "" {
		return s.load.acquire(x, s.metrics)
	}
	return nil
}

func preflight(h http.Header) {
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	h.Set("Access-Control-Max-Age", "86400")
}

// checkMedia checks what the headers say of the body.
func (op *operation) checkMedia(r *http.Request) error {
	if len(r.Header.Values("Content-Encoding")) > 0 {
		return protocol.Errorf(protocol.CodeContentEncoding, "bodies travel as they are signed, without Content-Encoding")
	}
	if op.media == "" {
		if r.ContentLength != 0 {
			return protocol.Errorf(protocol.CodeMalformed, "this request has no body")
		}
		return nil
	}
	given := r.Header.Values("Content-Type")
	media := ""
	if len(given) == 1 {
		media, _, _ = mime.ParseMediaType(given[0])
	}
	if media != op.media {
		return protocol.Errorf(protocol.CodeContentType, "the body of this request is %s", op.media)
	}
	return nil
}

func tooLarge(most int64) error {
	return protocol.Errorf(protocol.CodeTooLarge, "the body of this request has at most %d bytes", most)
}
