package records

import (
	"context"
	"sync"

	"relaymarket/protocol"
)

// Bounds of the pull queue. Full means that Postgres does not keep up: the pull is refused with
// [protocol.CodeOverloaded].
const (
	servers        = 3    // transactions of pulls at once
	maxQueuedPulls = 4096 // pulls waiting
	maxGroup       = 64   // pulls in one transaction
	maxLooks       = 4096 // senders looked at and records wanted in one transaction
)

// pull is one pull on its way through a group. It is complete when done is closed.
type pull struct {
	request PullRequest
	after   int64
	looks   int // senders it looks at and records it wants
	done    chan struct{}

	// What follows is of one attempt.
	page      *Page
	err       error
	alone     bool // to be served by a transaction of its own
	gotStored bool // its acknowledgement is committed
	sel       selection
}

// pullQueue is what waits for a server. It never blocks a producer.
type pullQueue struct {
	ready *sync.Cond

	mu     sync.Mutex // guards what follows
	pulls  []*pull
	closed bool
}

func newPullQueue() *pullQueue {
	q := &pullQueue{}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// put refuses when the queue is full or closed.
func (q *pullQueue) put(p *pull) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.pulls) >= maxQueuedPulls {
		return false
	}
	q.pulls = append(q.pulls, p)
	q.ready.Signal()
	return true
}

// take waits for work and takes what fits one transaction, at most one pull of each reader: his pulls
// follow each other. It returns nil when the queue is closed and empty.
func (q *pullQueue) take() []*pull {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pulls) == 0 && !q.closed {
		q.ready.Wait()
	}
	readers := make(map[protocol.PublicKey]struct{}, min(len(q.pulls), maxGroup))
	var taken, left []*pull
	looks := 0
	for _, p := range q.pulls {
		_, twice := readers[p.request.Reader]
		if twice || len(taken) == maxGroup || len(taken) > 0 && looks+p.looks > maxLooks {
			left = append(left, p)
			continue
		}
		readers[p.request.Reader] = struct{}{}
		taken, looks = append(taken, p), looks+p.looks
	}
	if q.pulls = left; len(left) > 0 {
		q.ready.Signal() // another server may take the rest
	}
	return taken
}

func (q *pullQueue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pulls)
}

func (q *pullQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}

// grouped has a pull served together with those of other readers. alone tells that it has to be served
// by itself, gotStored that its acknowledgement need not be stored any more.
func (s *Store) grouped(ctx context.Context, r PullRequest, after int64) (page *Page, alone, gotStored bool, err error) {
	done := make(chan struct{})
	p := &pull{request: r, after: after, looks: len(r.Senders) + int(r.Limit), done: done}
	if !s.pulls.put(p) {
		s.metrics.pullShed.Inc()
		return nil, false, false, protocol.Errorf(protocol.CodeOverloaded, "the pull queue is full: try again in a moment")
	}
	select {
	case <-done: // not p's, which each attempt writes anew
		return p.page, p.alone, p.gotStored, p.err
	case <-ctx.Done():
		return nil, false, false, ctx.Err()
	}
}

func (s *Store) serveLoop() {
	for {
		group := s.pulls.take()
		if group == nil {
			return
		}
		s.serve(group)
		for _, p := range group {
			close(p.done)
		}
	}
}
