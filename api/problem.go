package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"relaymarket/protocol"
	"relaymarket/records"
)

// problemType and the code are the type of a problem document.
const problemType = "urn:relaymarket:problem:"

// diskFullWait is what is suggested when the disk is full: operators are not faster.
const diskFullWait = time.Minute

// problem makes the document of a refusal, and counts it. An error that is no refusal is "internal" to the
// stranger; the log gets it whole.
func (s *Server) problem(x *exchange, r *http.Request, err error) Problem {
	refusal := s.refusal(x, r, err)
	s.refusals.Refused(r.Context(), x.log, x.name(), refusal.Code, refusal.Detail)
	p := Problem{
		Type:   problemType + string(refusal.Code),
		Title:  refusal.Code.Title(),
		Status: refusal.Code.Status(),
		Code:   refusal.Code,
		Time:   protocol.TimestampOf(s.cfg.Clock()),
	}
	if refusal.Detail != "" {
		p.Detail = &refusal.Detail
	}
	var page *records.PageError
	if errors.As(err, &page) {
		if page.PageID != "" {
			p.PageId = (*string)(&page.PageID)
		}
		p.Root = page.Root
	}
	if p.Status == http.StatusPaymentRequired {
		if offer, err := s.announcer.current(r.Context()); err == nil {
			raw := json.RawMessage(offer)
			p.Announcement = &raw
		} else {
			x.log.Error("announcement", "error", err)
		}
	}
	return p
}

// refusal is what a stranger is told of an error.
func (s *Server) refusal(x *exchange, r *http.Request, err error) *protocol.Error {
	var page *records.PageError
	var known *protocol.Error
	var code protocol.Code
	switch {
	case errors.As(err, &page):
		return &protocol.Error{Code: page.Code, Detail: page.Detail}
	case errors.As(err, &known):
		if known.Code.Status() >= 500 && !x.warned {
			x.warned = true // once for all lines of a batch
			s.noteFailure(x, known, err)
		}
		return known
	case errors.As(err, &code):
		return &protocol.Error{Code: code}
	case r.Context().Err() != nil, errors.Is(err, context.DeadlineExceeded):
		// The client left, or the work took too long: no fault, and a repeat is safe.
		if r.Context().Err() == nil {
			s.metrics.drop(dropTooLong)
			s.seldom.Do(func() { x.log.Warn("took too long; told at most once a second", "operation", x.name(), "error", err) })
		}
		return protocol.Errorf(protocol.CodeOverloaded, "the answer took too long: repeat the request, that is safe")
	}
	x.log.Error("failed", "operation", x.name(), "error", err)
	return protocol.Errorf(protocol.CodeInternal, "%s", internalDetail(x))
}

// noteFailure counts a refusal that is the relay's fault, and logs one that has a cause beyond what is told.
func (s *Server) noteFailure(x *exchange, told *protocol.Error, err error) {
	caused := error(told) != err
	switch {
	case told.Code == protocol.CodeDiskFull:
		s.metrics.drop(dropDisk)
	case told.Code == protocol.CodeOverloaded && caused:
		s.metrics.drop(dropDatabase)
	}
	if caused {
		s.seldom.Do(func() { x.log.Warn("refused; told at most once a second", "operation", x.name(), "error", err) })
	}
}

func internalDetail(x *exchange) string {
	return "repeat the request later, that is safe; the relay's log has the cause under request " + x.logs.request()
}

// refuse answers with a problem document.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r)
	p := s.problem(x, r, err)
	x.code = s.refusals.Label(p.Code)
	body, encodeErr := jsonv2.Marshal(p)
	if encodeErr != nil {
		x.log.Error("encode problem", "error", encodeErr)
	}
	h := w.Header()
	if seconds := s.waitFor(p.Code, err); seconds > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds))
	}
	if p.Code == protocol.CodeUnauthorized {
		h.Set("WWW-Authenticate", "Relaymarket")
	}
	if r.ContentLength != 0 && !x.slot {
		h.Set("Connection", "close") // the body was not read to its end: nothing can follow it
	}
	h.Set("Content-Type", mediaProblem)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// waitFor is the Retry-After of a refusal in seconds; 0 for none.
func (s *Server) waitFor(code protocol.Code, err error) int {
	var rate *limited
	switch {
	case errors.As(err, &rate):
		return retryAfter(rate.wait)
	case code == protocol.CodeOverloaded, code == protocol.CodePageOpen, code.Status() == http.StatusTooManyRequests:
		return 1
	case code == protocol.CodeDiskFull:
		return retryAfter(diskFullWait)
	case code == protocol.CodeQuotaMoved:
		now := s.cfg.Clock().UTC()
		next := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		return retryAfter(next.Sub(now))
	}
	return 0
}
