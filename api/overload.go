package api

import (
	"sync/atomic"

	"relaymarket/protocol"
)

// load counts the requests at work and the bytes of their bodies, and of replies on their way. Both are bounded, and
// what is over is refused at once: a queue would only make everybody late.
type load struct {
	working  atomic.Int64
	most     [3]atomic.Int64 // by class
	bytes    atomic.Int64
	maxBytes int64
}

func newLoad(b Bounds) *load {
	l := &load{maxBytes: b.MaxBodyBytes}
	l.change(b)
	return l
}

// change sets another bound on the requests at work. Those at work stay.
func (l *load) change(b Bounds) {
	most := int64(b.MaxConcurrent)
	l.most[classUnsigned].Store(max(most/2, 1))
	l.most[classReader].Store(max(most*3/4, 1))
	l.most[classWriter].Store(most)
}

// acquire takes a slot for the exchange; what is left for a class shrinks with its rank.
func (l *load) acquire(x *exchange, m *metrics) error {
	if l.working.Add(1) > l.most[x.op.class].Load() {
		l.working.Add(-1)
		m.drop(dropsByClass[x.op.class])
		return protocol.Errorf(protocol.CodeOverloaded, "the relay has as many requests at work as it can")
	}
	if x.op.class == classReader && l.bytes.Load() > l.maxBytes*3/4 {
		l.working.Add(-1)
		m.drop(dropMemory)
		return protocol.Errorf(protocol.CodeOverloaded, "the relay is sending as much as it can hold")
	}
	x.slot = true
	return nil
}

// carry is for a reply that is made and is to be sent: that is no work, or a few hundred readers of a byte a second
// would keep everybody out. Its bytes count until it is sent; once they are many, no more pages are made.
func (l *load) carry(x *exchange, size int64) {
	l.release(x)
	l.bytes.Add(size)
	x.held = size
}

// hold counts n more bytes for the exchange, or does not when they are too many.
func (l *load) hold(x *exchange, n int64) bool {
	if l.bytes.Add(n) > l.maxBytes {
		l.bytes.Add(-n)
		return false
	}
	x.held += n
	return true
}

// release gives back all that the exchange has. It may be called again.
func (l *load) release(x *exchange) {
	if x.slot {
		l.working.Add(-1)
		x.slot = false
	}
	l.bytes.Add(-x.held)
	x.held = 0
}
