package client

import (
	"context"
	"sync"
)

// missesToLast is after how many misses in a row a relay is asked last: it has lost the file, or never had it.
const missesToLast = 8

// pool hands out the pieces that are to be fetched, each to one relay at a time. A piece that one relay does not have is
// left for the others.
type pool struct {
	first, count int64

	mu      sync.Mutex
	state   []pieceState
	open    int64         // not here yet
	hopeful int           // relays at work that do have pieces
	changed chan struct{} // closed and replaced with each change that somebody may wait for
	whole   chan struct{} // closed when all pieces are here
}

type pieceState uint8

const (
	pieceMissing pieceState = iota
	pieceTaken
	pieceHere
)

// newPool is one of count pieces from first on, without those that are here.
func newPool(first, count int64, here []int64) *pool {
	p := &pool{first: first, count: count, state: make([]pieceState, count), open: count, changed: make(chan struct{}),
		whole: make(chan struct{})}
	for _, i := range here {
		if at := i - first; at >= 0 && at < count && p.state[at] != pieceHere {
			p.state[at] = pieceHere
			p.open--
		}
	}
	return p
}

func (p *pool) join() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hopeful++
}

// leave notes that a relay is done.
func (p *pool) leave(r *pieceSource) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.misses < missesToLast {
		p.hopeful--
	}
	p.wake()
}

func (p *pool) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// take hands out a piece that the relay may have. It waits while others are at work on what is left; false: there is nothing
// more for this relay.
func (p *pool) take(ctx context.Context, r *pieceSource) (int64, bool) {
	for {
		p.mu.Lock()
		i, ok, busy := p.look(r)
		changed := p.changed
		p.mu.Unlock()
		if ok || !busy {
			return i, ok
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// look finds a piece. busy tells that there may be one later.
func (p *pool) look(r *pieceSource) (_ int64, ok, busy bool) {
	if p.open == 0 {
		return 0, false, false
	}
	if r.misses >= missesToLast && p.hopeful > 0 {
		return 0, false, true
	}
	for range p.count {
		i := r.next
		if r.next++; r.next == p.first+p.count {
			r.next = p.first
		}
		if p.state[i-p.first] == pieceHere || r.lacks[i] {
			continue
		}
		if p.state[i-p.first] == pieceTaken {
			busy = true
			continue
		}
		p.state[i-p.first] = pieceTaken
		return i, true, true
	}
	return 0, false, busy
}

// put gives a piece back. lacks: the relay does not have it.
func (p *pool) put(r *pieceSource, i int64, lacks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state[i-p.first] = pieceMissing
	if lacks {
		r.lacks[i] = true
		if r.misses++; r.misses == missesToLast {
			p.hopeful--
		}
	} else {
		r.next = i
	}
	p.wake()
}

// done notes that a piece is here.
func (p *pool) done(r *pieceSource, i int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state[i-p.first] = pieceHere
	if r.misses >= missesToLast {
		p.hopeful++
	}
	r.misses = 0
	if p.open--; p.open == 0 {
		close(p.whole)
	}
	p.wake() // also who waits for the last piece that is taken: the rest may be on no relay
}

// doubt notes that a relay does not answer: the others are asked for everything meanwhile.
func (p *pool) doubt(r *pieceSource) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.misses < missesToLast {
		r.misses = missesToLast
		p.hopeful--
		p.wake()
	}
}

func (p *pool) missing() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}
