package records

import (
	"context"
	"sync"
	"time"
)

// Waker carries word of commits between the processes that share a database. What it carries are hints: each is checked in the
// database, so that one may be lost, doubled, late or a lie. See [Config].
type Waker interface {
	// Committed tells the other processes that everything up to place n is committed. It must not block, and may leave out
	// what a later call says as well.
	Committed(n int64)
	// Run sends and receives until ctx is done. The epoch is that of the database: other lives of it are other places.
	// heard takes a place that another process says is committed; it does not block, and any goroutine may call it.
	Run(ctx context.Context, epoch string, heard func(n int64)) error
}

// carryHints runs the waker, if there is one, until the committers have ended: the last commits are told too.
func (s *Store) carryHints(ctx context.Context, committing *sync.WaitGroup) {
	if s.waker == nil {
		return
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { committing.Wait(); stop() }()
	if err := s.waker.Run(ctx, s.epoch, s.tail.heard); err != nil {
		s.log.Warn("no hints: listeners are told by the poll of what other processes store", "err", err)
	}
}

// hintPause is how long hints are not followed after one that the database did not bear out. So whoever makes up hints causes a
// query in that time at most, and the worst for listeners is what they have without hints.
const hintPause = followEvery

// hints are what other processes said. The tail's lock guards what is not a channel.
type hints struct {
	ask    chan struct{} // capacity 1: reading on is wanted
	newest int64         // highest place that was hinted at since it was last looked at
	deaf   time.Time     // until then hints are not followed
}

// hintOutcome is what became of a hint.
type hintOutcome string

const (
	hintFollowed hintOutcome = "followed" // asked for a look into the database, perhaps with others
	hintKnown    hintOutcome = "known"    // listeners were told of that place already
	hintIdle     hintOutcome = "idle"     // nobody listens
	hintDeaf     hintOutcome = "deaf"     // hints are not followed at the moment
	hintFalse    hintOutcome = "false"    // it was followed, and the database did not show such a place
)

// heard takes a hint.
func (t *tail) heard(n int64) { t.store.metrics.hint(t.weigh(n)) }

func (t *tail) weigh(n int64) hintOutcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.count == 0:
		return hintIdle // whoever joins reads up to the head
	case n <= t.last:
		return hintKnown
	case time.Now().Before(t.hints.deaf):
		return hintDeaf
	}
	t.hints.newest = max(t.hints.newest, n)
	select {
	case t.hints.ask <- struct{}{}:
	default:
	}
	return hintFollowed
}

// hinted is the highest place that hints said is committed, to be compared with what is read from now on.
func (t *tail) hinted() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.hints.newest
	t.hints.newest = 0
	return n
}

// judge compares a hint with what was read after it was given: a place that was committed then has been read, unless the database
// does not answer, which is no time to ask it more often either.
func (t *tail) judge(hinted int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if hinted <= t.last {
		return
	}
	t.store.metrics.hint(hintFalse)
	t.hints.deaf = time.Now().Add(hintPause)
	// Those that came while it was read are not followed either.
	t.hints.newest = 0
	select {
	case <-t.hints.ask:
	default:
	}
}

// readCause is why the tail read from the database.
type readCause string

const (
	readGap  readCause = "gap"  // a commit of this process came after one of another, or somebody began to listen
	readHint readCause = "hint" // another process said that it committed
	readPoll readCause = "poll" // it was time to look
)
