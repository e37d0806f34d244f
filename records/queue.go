package records

import (
	"context"
	"sync"
	"time"

	"relaymarket/protocol"
)

// Bounds of the write queue. Full means that Postgres does not keep up: the write is refused with
// [protocol.CodeOverloaded], so that memory stays bounded and the client knows at once.
const (
	committers      = 2        // one commits while the other collects
	maxQueuedWrites = 8192     // records waiting
	maxQueuedBytes  = 64 << 20 // envelope bytes waiting
	maxCommitWrites = 1000     // records in one transaction, unless one request alone has more
	maxCommitBytes  = 8 << 20
)

// job is the writes of one request; its outcomes are complete when done is closed.
type job struct {
	items []*item
	bytes int64
	done  chan struct{}
}

// queue is what waits for a committer. It never blocks a producer.
type queue struct {
	ready *sync.Cond

	mu     sync.Mutex // guards what follows
	jobs   []*job
	writes int
	bytes  int64
	busy   int // transactions under way
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// put queues a job, or refuses it when the queue is full or closed. When nothing waits and a
// committer is free, the caller is to be it: that spares an idle relay the hand-over, twice. He
// commits the job and calls done.
func (q *queue) put(j *job) (accepted, lead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	full := q.writes+len(j.items) > maxQueuedWrites || q.bytes+j.bytes > maxQueuedBytes
	if q.closed || full && len(q.jobs) > 0 {
		return false, false
	}
	if len(q.jobs) == 0 && q.busy < committers {
		q.busy++
		return true, true
	}
	q.jobs = append(q.jobs, j)
	q.writes += len(j.items)
	q.bytes += j.bytes
	q.ready.Signal()
	return true, false
}

// done ends what put or take began.
func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	if len(q.jobs) > 0 || q.closed {
		q.ready.Signal()
	}
}

// take waits for work and takes as many jobs as fit one transaction, with no timer: what queued
// while the last transaction committed is the next batch. It returns nil when the queue is closed
// and empty; after anything else the caller calls done.
func (q *queue) take() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.jobs) == 0 && !q.closed || q.busy >= committers {
		q.ready.Wait()
	}
	if len(q.jobs) == 0 {
		q.ready.Signal() // the queue is closed: the other may end as well
		return nil
	}
	q.busy++
	var taken []*job
	writes, bytes := 0, int64(0)
	for len(q.jobs) > 0 {
		j := q.jobs[0]
		if len(taken) > 0 && (writes+len(j.items) > maxCommitWrites || bytes+j.bytes > maxCommitBytes) {
			q.ready.Signal() // the other committer may take the rest
			break
		}
		q.jobs[0] = nil
		q.jobs = q.jobs[1:]
		taken = append(taken, j)
		writes, bytes = writes+len(j.items), bytes+j.bytes
	}
	q.writes -= writes
	q.bytes -= bytes
	return taken
}

// depth is the number of writes that wait.
func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.writes
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}

// Write stores a batch; there is one outcome an input, in their order. It returns when all are
// decided. When ctx ends first the outcomes are ctx's error, and the writes may or may not happen:
// writing again is safe.
func (s *Store) Write(ctx context.Context, batch []Incoming) []Outcome {
	j := &job{done: make(chan struct{}), items: make([]*item, len(batch))}
	for i, in := range batch {
		j.items[i] = newItem(in)
		j.bytes += in.Envelope.Size()
	}
	outcomes := make([]Outcome, len(batch))
	if len(batch) == 0 {
		return outcomes
	}
	if s.room != nil {
		if err := s.room(); err != nil {
			s.metrics.full.Inc()
			for i := range outcomes {
				outcomes[i].Err = err
			}
			return outcomes
		}
	}
	accepted, lead := s.queue.put(j)
	if lead {
		s.commitJobs(ctx, j)
	}
	var err error
	if accepted {
		select {
		case <-j.done:
			for i, it := range j.items {
				outcomes[i] = it.outcome
			}
			return outcomes
		case <-ctx.Done():
			err = ctx.Err()
		}
	} else {
		s.metrics.shed.Inc()
		err = protocol.Errorf(protocol.CodeOverloaded, "the write queue is full: try again in a moment")
	}
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

func (s *Store) commitLoop() {
	for {
		jobs := s.queue.take()
		if jobs == nil {
			return
		}
		s.commitJobs(context.Background(), jobs...)
	}
}

// commitJobs commits and answers what put or take gave. A caller who leads may have a deadline, and is
// not waited for longer; that he went away does not end a transaction.
func (s *Store) commitJobs(ctx context.Context, jobs ...*job) {
	defer s.queue.done()
	limit := time.Now().Add(commitTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	ctx, cancel := context.WithDeadline(context.Background(), limit)
	defer cancel()
	var items []*item
	for _, j := range jobs {
		items = append(items, j.items...)
	}
	s.commit(ctx, items)
	for _, j := range jobs {
		close(j.done)
	}
}
