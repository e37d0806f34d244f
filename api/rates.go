package api

import (
	"container/list"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"relaymarket/protocol"
)

// limiter keeps a token bucket for each of the most recently seen names. One that is forgotten
// starts full again: that bounds memory, and whoever can afford more names than are tracked is
// held by the bound on concurrent requests.
type limiter struct {
	rate    atomic.Pointer[Rate]
	tracked int

	mu    sync.Mutex
	order *list.List // of *bucket, most recently seen first
	names map[[32]byte]*list.Element
}

type bucket struct {
	name   [32]byte
	tokens *rate.Limiter
}

func newLimiter(r Rate, tracked int) *limiter {
	l := &limiter{tracked: tracked, order: list.New(), names: map[[32]byte]*list.Element{}}
	l.rate.Store(&r)
	return l
}

// change sets another rate; every bucket is full then.
func (l *limiter) change(r Rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *l.rate.Load() == r {
		return
	}
	l.rate.Store(&r)
	l.order.Init()
	clear(l.names)
}

// take takes n tokens of the name's bucket. When there are too few it takes none, and returns how
// long until there are enough.
func (l *limiter) take(name [32]byte, n int, now time.Time) time.Duration {
	if l.rate.Load().PerSecond <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rate.Load()
	if r.PerSecond <= 0 {
		return 0 // it was changed meanwhile
	}
	burst := max(r.Burst, 1)
	n = min(n, burst)
	at, ok := l.names[name]
	if ok {
		l.order.MoveToFront(at)
	} else {
		for l.order.Len() >= l.tracked {
			last := l.order.Back()
			delete(l.names, l.order.Remove(last).(*bucket).name)
		}
		at = l.order.PushFront(&bucket{name: name, tokens: rate.NewLimiter(rate.Limit(r.PerSecond), burst)})
		l.names[name] = at
	}
	reservation := at.Value.(*bucket).tokens.ReserveN(now, n)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

// limited is a refusal with the time to wait.
type limited struct {
	refusal *protocol.Error
	wait    time.Duration
}

// Error implements error.
func (l *limited) Error() string { return l.refusal.Error() }

// Unwrap makes errors.As find the refusal.
func (l *limited) Unwrap() error { return l.refusal }

// retryAfter is the wait in whole seconds, rounded up, at least one.
func retryAfter(wait time.Duration) int {
	return max(int(math.Ceil(wait.Seconds())), 1)
}

func (s *Server) rateAddress(x *exchange, n int) error {
	wait := s.addresses.take(addressName(x.address), n, s.cfg.Clock())
	if wait <= 0 {
		return nil
	}
	s.metrics.drop(dropRateAddress)
	return &limited{protocol.Errorf(protocol.CodeRateAddress, "try again in %d s", retryAfter(wait)), wait}
}

func (s *Server) rateKey(key protocol.PublicKey, n int) error {
	wait := s.keys.take(key, n, s.cfg.Clock())
	if wait <= 0 {
		return nil
	}
	s.metrics.drop(dropRateKey)
	return &limited{protocol.Errorf(protocol.CodeRateKey, "try again in %d s", retryAfter(wait)), wait}
}

// addressName is what an address is known by: IPv6 by its /64, which is what one subscriber has.
func addressName(a netip.Addr) [32]byte {
	var name [32]byte
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	if a.IsValid() {
		full := a.As16()
		copy(name[:], full[:])
	}
	return name
}
