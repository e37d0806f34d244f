package api

import (
	"context"
	"net/http"
	"sync"

	"relaymarket/protocol"
)

// listeners counts open streams, in all and by reader.
type listeners struct {
	most       int
	mostPerKey int
	left       sync.Cond // a stream ended; of mu

	mu    sync.Mutex // guards what follows
	total int
	byKey map[protocol.PublicKey]int
}

func newListeners(b Bounds) *listeners {
	l := &listeners{most: b.MaxListeners, mostPerKey: b.MaxListenersPerKey, byKey: map[protocol.PublicKey]int{}}
	l.left.L = &l.mu
	return l
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
	defer s.listeners.leave(receiver)
	if s.draining.Err() != nil { // asked once it is counted: Drain waits for those
		s.metrics.drop(dropListenerDraining)
		s.refuse(w, r, protocol.Errorf(protocol.CodeOverloaded, "the relay is shutting down: listen again after your last cursor"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	stream := &stream{s: s.Server, x: x, ctx: ctx, end: cancel, busy: true}
	stream.sub, err = s.cfg.Records.Listen(ctx, receiver, request.Senders, request.After, stream.wake)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer stream.sub.Close()
	if err := stream.take(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	s.load.release(x) // a stream at rest is no work
	if err := stream.run(); err != nil && ctx.Err() == nil {
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
