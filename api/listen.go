package api

import (
	"context"
	"net/http"
	"sync"

	"relaymarket/protocol"
)

// listeners counts open streams, in all and by reader.
type listeners struct {
	left sync.Cond // a stream ended; of mu

	mu         sync.Mutex // guards what follows
	most       int
	mostPerKey int
	total      int
	byKey      map[protocol.PublicKey]int
}

func newListeners(b Bounds) *listeners {
	l := &listeners{most: b.MaxListeners, mostPerKey: b.MaxListenersPerKey, byKey: map[protocol.PublicKey]int{}}
	l.left.L = &l.mu
	return l
}

// change sets other bounds. Streams that are open stay.
func (l *listeners) change(b Bounds) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most, l.mostPerKey = b.MaxListeners, b.MaxListenersPerKey
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
	l.left.Broadcast()
}

// none waits until no stream is open.
func (l *listeners) none() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.total > 0 {
		l.left.Wait()
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
	if reason, err := s.listeners.join(receiver); err != nil {
		s.metrics.drop(reason)
		s.refuse(w, r, err)
		return
	}
	if err := s.open(x, r, receiver, request); err != nil {
		s.listeners.leave(receiver)
		s.refuse(w, r, err)
	}
}

// open starts the stream of a reader who was counted, and leaves it to a goroutine of its own: the one that served the
// request would keep net/http's buffers for as long as the stream lasts.
func (s *Server) open(x *exchange, r *http.Request, reader protocol.PublicKey, request *protocol.Listen) error {
	if s.draining.Err() != nil { // asked once it is counted: Drain waits for those
		s.metrics.drop(dropListenerDraining)
		return protocol.Errorf(protocol.CodeOverloaded, "the relay is shutting down: listen again after your last cursor")
	}
	ctx, cancel := context.WithCancel(s.draining)
	t := &stream{s: s, log: s.cfg.Logger.With("request", x.logs.request()), ctx: ctx, end: cancel, busy: true}
	var err error
	if t.sub, err = s.cfg.Records.Listen(r.Context(), reader, request.Senders, request.After, t.wake); err != nil {
		cancel()
		return err
	}
	if err := t.take(x, r); err != nil {
		t.sub.Close()
		cancel()
		return err
	}
	s.load.release(x) // a stream at rest is no work
	go func() {
		defer s.listeners.leave(reader)
		defer cancel()
		defer t.sub.Close()
		if err := t.run(); err != nil && ctx.Err() == nil {
			t.log.Warn("listen", "error", err)
		}
		if s.draining.Err() != nil {
			s.metrics.drop(dropListenerDraining)
		}
	}()
	return nil
}

func (s *Server) listenRequest(x *exchange, r *http.Request, reader protocol.PublicKey) (*protocol.Listen, error) {
	var listen protocol.Listen
	e, err := s.inbox(x, r, reader, &listen)
	if err != nil {
		return nil, err
	}
	return &listen, s.authentic(x, e)
}
