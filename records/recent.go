package records

import (
	"sync"

	"relaymarket/protocol"
)

// recentBytes bounds the envelopes that are kept in memory. A message is pulled soon after it was
// written or much later; this is some seconds of a busy relay.
const recentBytes = 32 << 20

// recent holds the envelopes of the newest records that this process committed, so that a pull need not
// read them from the database. It is only a hint: whether a record may be served, the database says. The
// bytes lie in one ring, which the garbage collector does not look into.
type recent struct {
	mu    sync.Mutex // guards what follows
	ring  []byte
	end   int // where the next envelope goes
	order []held
	at    map[int64]held // by place
}

// held is one envelope in the ring.
type held struct {
	n     int64
	hash  protocol.Hash // a database that lost commits hands their places out again
	start int
	size  int
}

func newRecent(bytes int) *recent {
	return &recent{ring: make([]byte, bytes), at: make(map[int64]held)}
}

// add keeps the items, and forgets the oldest for them.
func (c *recent) add(items []*item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range items {
		envelope := it.in.Envelope.Bytes()
		if len(envelope) > len(c.ring)/4 {
			continue
		}
		h := held{n: it.n, hash: it.hash, start: c.end, size: len(envelope)}
		if h.start+h.size > len(c.ring) {
			h.start = 0
		}
		c.forget(h)
		copy(c.ring[h.start:], envelope)
		c.end = h.start + h.size
		c.order = append(c.order, h)
		c.at[h.n] = h
	}
}

// forget drops the oldest records until none overlaps the room that h takes. The oldest lie
// right after the newest in the ring.
func (c *recent) forget(h held) {
	for len(c.order) > 0 {
		old := c.order[0]
		skipped := h.start == 0 && c.end > 0 && old.start >= c.end // the rest of the ring, too small for h
		if !skipped && (old.start >= h.start+h.size || old.start+old.size <= h.start) {
			return
		}
		c.order = c.order[1:]
		delete(c.at, old.n)
	}
}

// envelope is a copy, in the room, of the envelope of the record with that hash at that place, nil if it is not held.
func (c *recent) envelope(n int64, hash protocol.Hash, to *room) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.at[n]
	if !ok || h.hash != hash {
		return nil
	}
	return to.copy(c.ring[h.start : h.start+h.size])
}

// oldest is the lowest place that may be held: what is below is not.
func (c *recent) oldest() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.order) == 0 {
		return 1<<63 - 1
	}
	return c.order[0].n
}
