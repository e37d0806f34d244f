package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"relaymarket/protocol"
	"relaymarket/records"
)

// flushLines is how many lines are sent without a flush while more are ready.
const flushLines = 100

// listeners counts open streams, in all and by reader.
type listeners struct {
	most       int
	mostPerKey int

	mu    sync.Mutex
	total int
	byKey map[protocol.PublicKey]int
}

func newListeners(b Bounds) *listeners {
	return &listeners{most: b.MaxListeners, mostPerKey: b.MaxListenersPerKey, byKey: map[protocol.PublicKey]int{}}
}

func (l *listeners) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// join counts a stream, or says why there may be no more.
func (l *listeners) join(reader protocol.PublicKey) (dropReason, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.byKey[reader] >= l.mostPerKey:
		return dropListenersKey, protocol.Errorf(protocol.CodeRateKey, "this key has %d streams open, which is as many as it may", l.mostPerKey)
	case l.total >= l.most:
		return dropListenersTotal, protocol.Errorf(protocol.CodeOverloaded, "the relay has as many streams open as it can")
	}
	l.total++
	l.byKey[reader]++
	return "", nil
}

func (l *listeners) leave(reader protocol.PublicKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byKey[reader]--; l.byKey[reader] == 0 {
		delete(l.byKey, reader)
	}
}

// Listen implements ServerInterface.
func (s *routes) Listen(w http.ResponseWriter, r *http.Request, receiver Receiver) {
	x := exchangeOf(r)
	request, err := s.listenRequest(x, r, receiver)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if s.draining.Err() != nil {
		s.metrics.drop(dropListenerDraining)
		s.refuse(w, r, protocol.Errorf(protocol.CodeOverloaded, "the relay is shutting down: listen again after your last cursor"))
		return
	}
	if reason, err := s.listeners.join(receiver); err != nil {
		s.metrics.drop(reason)
		s.refuse(w, r, err)
		return
	}
	defer s.listeners.leave(receiver)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	sub, err := s.cfg.Records.Listen(ctx, receiver, request.Senders, request.After)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer sub.Close()
	s.load.release(x) // a stream at rest is no work
	x.Header().Set("Content-Type", mediaLines)
	stream := stream{s: s.Server, x: x, sub: sub}
	if err := stream.run(ctx); err != nil && ctx.Err() == nil {
		x.log.Warn("listen", "error", err)
	}
	if s.draining.Err() != nil {
		s.metrics.drop(dropListenerDraining)
	}
}

func (s *Server) listenRequest(x *exchange, r *http.Request, reader protocol.PublicKey) (*protocol.Listen, error) {
	var listen protocol.Listen
	e, err := s.inbox(x, r, reader, &listen)
	if err != nil {
		return nil, err
	}
	return &listen, s.authentic(x, e)
}

// stream is one listener's reply.
type stream struct {
	s   *Server
	x   *exchange
	sub *records.Subscription
	due time.Time // of the next sign of life
}

// run writes what the subscription tells until it ends, the client leaves or does not read. What
// is ready together is flushed once.
func (t *stream) run(ctx context.Context) error {
	if err := t.alive(); err != nil {
		return t.slow(err)
	}
	unflushed := 0
	for {
		if unflushed > 0 && (unflushed >= flushLines || !t.sub.Ready()) {
			if err := t.flush(); err != nil {
				return t.slow(err)
			}
			unflushed = 0
		}
		if !time.Now().Before(t.due) {
			if err := t.alive(); err != nil {
				return t.slow(err)
			}
			unflushed = 0
		}
		event, err := t.next(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			continue
		case err != nil:
			return err
		case event.Behind:
			t.s.metrics.drop(dropListenerBehind)
			if err := t.line(ListenLine{Behind: &Behind{Cursor: event.Cursor}}); err != nil {
				return t.slow(err)
			}
			return t.flush()
		}
		if event.Entry == nil {
			continue
		}
		record := recordOf(event.Entry)
		if err := t.line(ListenLine{Record: &record}); err != nil {
			return t.slow(err)
		}
		unflushed++
	}
}

// next waits no longer than until the next sign of life is due.
func (t *stream) next(ctx context.Context) (records.Event, error) {
	ctx, cancel := context.WithDeadline(ctx, t.due)
	defer cancel()
	return t.sub.Next(ctx)
}

// alive is due even while records come all the time: it also tells the relay's time.
func (t *stream) alive() error {
	t.due = time.Now().Add(t.s.cfg.Bounds.KeepAlive)
	if err := t.line(ListenLine{Alive: &Alive{Cursor: t.sub.Cursor(), Time: t.s.now()}}); err != nil {
		return err
	}
	return t.flush()
}

// line writes one line. Each has a deadline, because a long one may not wait for the flush.
func (t *stream) line(l ListenLine) error {
	data, err := jsonv2.Marshal(l)
	if err != nil {
		return err
	}
	_ = t.x.control.SetWriteDeadline(time.Now().Add(t.s.cfg.Bounds.FlushTimeout))
	_, err = t.x.Write(append(data, '\n'))
	return err
}

func (t *stream) flush() error {
	_ = t.x.control.SetWriteDeadline(time.Now().Add(t.s.cfg.Bounds.FlushTimeout))
	if err := t.x.control.Flush(); err != nil {
		return err
	}
	// At rest there is none: HTTP/2 would end the stream when it passes.
	return t.x.control.SetWriteDeadline(time.Time{})
}

// slow is a write that failed: the client left, or did not read in time and is cut off.
func (t *stream) slow(err error) error {
	t.s.metrics.drop(dropListenerSlow)
	t.x.log.Debug("listener cut off", "error", err)
	return nil
}
