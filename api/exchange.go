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

	"github.com/go-chi/chi/v5"

	"relaymarket/protocol"
)

// exchange is one request and its reply on their way. It is the ResponseWriter of the handlers, and found
// again through the request's context.
type exchange struct {
	http.ResponseWriter
	context  exchangeContext // of the request
	op       *operation      // nil when the request line is no route
	route    *chi.Context    // the values in the path
	address  netip.Addr      // the client's
	started  time.Time
	logs     exchangeLog
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

// exchangeContext is the context of a request with its exchange in it, and with the route for the generated code to
// find. One value that knows both spares a chain of contexts and chi's copy of the request.
type exchangeContext struct {
	context.Context
	x *exchange
}

type exchangeKey struct{}

// Value implements context.Context.
func (c *exchangeContext) Value(key any) any {
	switch key {
	case exchangeKey{}:
		return c.x
	case chi.RouteCtxKey:
		return c.x.route
	}
	return c.Context.Value(key)
}

// exchangeLog names the request in each line that is logged of it. Few requests have any, so the name is drawn when the
// first one needs it.
type exchangeLog struct {
	slog.Handler
	id string
}

// Handle implements slog.Handler.
func (l *exchangeLog) Handle(ctx context.Context, line slog.Record) error {
	return l.named().Handle(ctx, line)
}

// WithAttrs implements slog.Handler.
func (l *exchangeLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.named().WithAttrs(attrs) }

// WithGroup implements slog.Handler.
func (l *exchangeLog) WithGroup(name string) slog.Handler { return l.named().WithGroup(name) }

func (l *exchangeLog) named() slog.Handler {
	return l.Handler.WithAttrs([]slog.Attr{slog.String("request", l.request())})
}

// request is the name by which the log knows the request. A request has one goroutine that asks for it.
func (l *exchangeLog) request() string {
	if l.id == "" {
		var id [8]byte
		_, _ = rand.Read(id[:]) // it never fails
		l.id = hex.EncodeToString(id[:])
	}
	return l.id
}

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
	r = r.WithContext(&x.context)
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
	x.op.handler.ServeHTTP(x, r)
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{
		ResponseWriter: w,
		route:          routeContexts.Get().(*chi.Context),
		address:        clientAddress(r, s.live().TrustProxy),
		started:        time.Now(),
		logs:           exchangeLog{Handler: s.cfg.Logger.Handler()},
		control:        http.NewResponseController(w),
		code:           "ok",
	}
	x.context = exchangeContext{Context: r.Context(), x: x}
	x.log = slog.New(&x.logs)
	b := s.live().Bounds
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
			s.refusals.Refused(r.Context(), x.log, x.name(), protocol.CodeInternal, "the reply was cut")
			s.metrics.observe(x, string(protocol.CodeInternal))
			panic(http.ErrAbortHandler) // the reply has begun: a cut one is the only sign left
		}
		s.refuse(x, r, protocol.Errorf(protocol.CodeInternal, "%s", internalDetail(x)))
	}
	s.metrics.observe(x, x.code)
	if x.log.Enabled(r.Context(), slog.LevelDebug) {
		x.log.Debug("request", "operation", x.name(), "status", x.status, "code", x.code,
			"received", x.received, "sent", x.sent, "took", time.Since(x.started))
	}
	x.route.Reset()
	routeContexts.Put(x.route)
}

func (x *exchange) name() string {
	if x.op == nil {
		return "none"
	}
	return x.op.name
}

// The values of the headers that all replies have. They are shared, and never written to.
var (
	noSniff       = []string{"nosniff"}
	noStore       = []string{"no-store"}
	anyOrigin     = []string{"*"} // the signature is the authority, not a cookie: any page may ask
	exposeHeaders = []string{"Retry-After"}
)

func setHeaders(h http.Header) {
	h["X-Content-Type-Options"] = noSniff
	h["Cache-Control"] = noStore
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["Access-Control-Expose-Headers"] = exposeHeaders
}

// front finds the operation and checks size, path, query and media type, in that order. After it,
// a nil operation is a preflight.
func (s *Server) front(x *exchange, r *http.Request) error {
	pathFault := checkPath(r.RequestURI)
	op, allowed := (*operation)(nil), []string(nil)
	if pathFault == nil {
		op, allowed = s.find(x.route, r.Method, r.URL.Path)
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
	case op.media != "" && r.ContentLength > s.most(op):
		return tooLarge(s.most(op))
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
	if len(r.Header["Content-Encoding"]) > 0 {
		return protocol.Errorf(protocol.CodeContentEncoding, "bodies travel as they are signed, without Content-Encoding")
	}
	if op.media == "" {
		if r.ContentLength != 0 {
			return protocol.Errorf(protocol.CodeMalformed, "this request has no body")
		}
		return nil
	}
	given := r.Header["Content-Type"]
	media := ""
	switch {
	case len(given) != 1:
	case given[0] == op.media:
		media = op.media
	default:
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
