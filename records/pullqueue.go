package records

import (
	"context"
	"sync"
	"time"

	"relaymarket/protocol"
)

// Bounds of the pull queue. Full means that Postgres does not keep up: the pull is refused with
// [protocol.CodeOverloaded].
const (
	servers        = 2    // transactions of pulls at once
	maxQueuedPulls = 4096 // pulls waiting
	maxGroup       = 64   // pulls in one transaction
	maxLooks       = 4096 // senders looked at and records wanted in one transaction
	secondLooks    = 512  // looks waiting and under way that are worth a second transaction
)

// pull is one pull on its way through a group. It is complete when done is closed.
type pull struct {
	ctx     context.Context // the caller's: whoever has gone before his turn is not served
	request PullRequest
	after   int64
	looks   int // senders it looks at and records it wants
	done    chan struct{}
	attempt
}

// attempt is what one transaction found out for a pull.
type attempt struct {
	page      *Page
	locked    bool // nobody else serves its reader
	err       error
	alone     bool   // to be served by a transaction of its own
	gotStored bool   // its acknowledgement is committed
	turn      int64  // of its reader's last page
	acks      *acked // that page, if it acknowledges it
	runs      []run  // of its one sender, in order
	pastRuns  int    // of them that end before what was asked for
	sel       selection
	room      room
	ended     []protocol.PublicKey // whose records were found that have ended, one for each
}

// pullQueue is what waits for a server. It never blocks a producer.
type pullQueue struct {
	ready *sync.Cond

	mu     sync.Mutex // guards what follows
	pulls  []*pull
	served map[protocol.PublicKey]struct{} // readers of transactions under way
	busy   int                             // transactions under way
	looks  int                             // of pulls that wait or are under way
	closed bool
}

func newPullQueue() *pullQueue {
	q := &pullQueue{served: make(map[protocol.PublicKey]struct{})}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// free tells whether another transaction may begin. A second one beside one of small pulls is not worth it: these are
// over in a moment, and what comes meanwhile is dearer in two transactions than in one. It is beside large
// pages, while whose bytes are written others can be read; and so that nobody waits for a long one. The caller holds mu.
func (q *pullQueue) free() bool {
	return q.busy == 0 || q.busy < servers && q.looks >= secondLooks
}

// put queues a pull, or refuses it when the queue is full or closed. When nothing waits and a server
// is free, the caller is to be it, as with [queue.put].
func (q *pullQueue) put(p *pull) (accepted, lead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.pulls) >= maxQueuedPulls {
		return false, false
	}
	q.looks += p.looks
	if _, served := q.served[p.request.Reader]; len(q.pulls) == 0 && q.free() && !served {
		q.busy++
		q.served[p.request.Reader] = struct{}{}
		return true, true
	}
	q.pulls = append(q.pulls, p)
	q.ready.Signal()
	return true, false
}

// done ends what put or take began.
func (q *pullQueue) done(group []*pull) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range group {
		delete(q.served, p.request.Reader)
		q.looks -= p.looks
	}
	q.busy--
	if len(q.pulls) > 0 || q.closed {
		q.ready.Signal()
	}
}

// take waits for work and takes what fits one transaction, at most one pull of each reader, and none of a reader
// who is being served: his pulls follow each other. It returns nil when the queue is closed and empty; after
// anything else the caller calls done.
func (q *pullQueue) take() []*pull {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed || len(q.pulls) > 0 {
		if q.free() {
			if taken := q.pick(); len(taken) > 0 {
				q.busy++
				return taken
			}
		}
		q.ready.Wait()
	}
	q.ready.Signal() // the next may end as well
	return nil
}

// pick takes a group out of the queue, if there is one, and whoever does not wait any more. The caller holds mu.
func (q *pullQueue) pick() (taken []*pull) {
	var left []*pull
	looks := 0
	for _, p := range q.pulls {
		if p.err = p.ctx.Err(); p.err != nil {
			q.looks -= p.looks
			close(p.done)
			continue
		}
		_, served := q.served[p.request.Reader]
		if served || len(taken) == maxGroup || len(taken) > 0 && looks+p.looks > maxLooks {
			left = append(left, p)
			continue
		}
		q.served[p.request.Reader] = struct{}{}
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
	p := &pull{ctx: ctx, request: r, after: after, looks: len(r.Senders) + int(r.Limit), done: make(chan struct{})}
	accepted, lead := s.pulls.put(p)
	if !accepted {
		s.metrics.pullShed.Inc()
		return nil, false, false, protocol.Errorf(protocol.CodeOverloaded, "the pull queue is full: try again in a moment")
	}
	if lead {
		s.serveGroup(ctx, p)
	}
	select {
	case <-p.done:
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
		s.serveGroup(context.Background(), group...)
	}
}

// serveGroup serves and answers what put or take gave. A caller who leads may have a deadline, and is
// not waited for longer.
func (s *Store) serveGroup(ctx context.Context, group ...*pull) {
	defer s.pulls.done(group)
	limit := time.Now().Add(serveTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	ctx, cancel := context.WithDeadline(context.Background(), limit)
	defer cancel()
	s.serve(ctx, group)
	for _, p := range group {
		close(p.done)
	}
}
