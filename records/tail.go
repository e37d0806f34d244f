package records

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// followEvery is how often the cursor is read while somebody listens, for what other processes
// committed. This process's own commits are told at once, and others' as soon as a hint of them comes; but a
// hint can be lost while everything looks well, so this is what bounds how late a listener hears.
const followEvery = 250 * time.Millisecond

// tailBatch is the most records read at once when the tail reads on from the database.
const tailBatch = 1000

// tail tells subscriptions of committed records, each once and in cursor order. Commits of this
// process arrive through publish; when one does not join on to the last told, something was
// committed elsewhere or is about to be published, and the tail reads on from the database.
type tail struct {
	store *Store
	gap   chan struct{} // capacity 1: reading on is wanted

	mu        sync.Mutex // guards what follows; never held during I/O
	last      int64      // everything up to here was told
	hints     hints
	listeners map[protocol.PublicKey]map[*Subscription]struct{}
	count     int
}

func newTail(s *Store, head int64) *tail {
	return &tail{store: s, gap: make(chan struct{}, 1), last: head, hints: hints{ask: make(chan struct{}, 1)}, listeners: make(map[protocol.PublicKey]map[*Subscription]struct{})}
}

// publish tells of records just committed, whose places are contiguous from first. It never blocks.
func (t *tail) publish(first int64, entries []*Entry) {
	if w := t.store.waker; w != nil {
		w.Committed(first + int64(len(entries)) - 1)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if first > t.last+1 {
		t.readOn()
		return
	}
	t.tell(entries, first+int64(len(entries))-1)
}

// readOn asks run to read from the database.
func (t *tail) readOn() {
	select {
	case t.gap <- struct{}{}:
	default:
	}
}

// tell dispatches what was not told yet and moves last to upto. The caller holds mu.
func (t *tail) tell(entries []*Entry, upto int64) {
	if t.count > 0 {
		for _, e := range entries {
			group := t.listeners[e.Receiver]
			if e.n <= t.last || len(group) == 0 {
				continue
			}
			e.shared = &form{}
			for sub := range group {
				sub.offer(e)
			}
		}
	}
	t.last = max(t.last, upto)
}

// run reads on from the database when there is a gap or a hint of one, and now and then while somebody listens.
func (t *tail) run(ctx context.Context) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		cause := readGap
		select {
		case <-ctx.Done():
			return
		case <-t.gap:
		case <-t.hints.ask:
			cause = readHint
		case <-ticker.C:
			if t.listening() == 0 {
				continue
			}
			cause = readPoll
		}
		hinted := t.hinted()
		if err := t.follow(ctx, cause); err != nil && ctx.Err() == nil {
			t.store.log.Warn("read on for listeners", "err", err)
		}
		t.judge(hinted)
	}
}

func (t *tail) listening() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// follow reads and tells everything committed after last.
func (t *tail) follow(ctx context.Context, cause readCause) error {
	for {
		t.mu.Lock()
		last, count := t.last, t.count
		t.mu.Unlock()
		if count == 0 {
			return t.skip(ctx)
		}
		entries, upto, err := t.store.committedAfter(ctx, last)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.tell(entries, upto)
		t.mu.Unlock()
		t.store.metrics.readOn.WithLabelValues(string(cause)).Add(float64(len(entries)))
		if len(entries) < tailBatch {
			return nil
		}
	}
}

// skip moves last to the head: nobody listens, so nobody needs what lies between.
func (t *tail) skip(ctx context.Context) error {
	head, err := t.store.head(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		t.last = max(t.last, head)
	}
	return nil
}

func (s *Store) head(ctx context.Context) (n int64, err error) {
	err = s.db.Pool().QueryRow(ctx, `SELECT n FROM relay_cursor`).Scan(&n)
	return n, wrap(err, "read cursor")
}

// committedAfter reads up to tailBatch records after a place, and up to where that is complete.
func (s *Store) committedAfter(ctx context.Context, after int64) (entries []*Entry, upto int64, err error) {
	rows, err := s.db.Pool().Query(ctx, `
		SELECT c.n, l.* FROM relay_cursor c LEFT JOIN LATERAL (
		  SELECT `+entryColumns+` FROM records r `+joinPulls+` WHERE r.n > $1 ORDER BY r.n LIMIT $2) l ON true
		ORDER BY l.n`, after, tailBatch)
	if err != nil {
		return nil, 0, wrap(err, "read committed records")
	}
	var row entryRow
	_, err = pgx.ForEachRow(rows, append([]any{&upto}, row.targets()...), func() error {
		if row.n != nil {
			entries = append(entries, row.entry(s))
		}
		return nil
	})
	if len(entries) == tailBatch {
		upto = entries[tailBatch-1].n
	}
	return entries, upto, wrap(err, "read committed records")
}
