package records

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// Pages are found from reader to reader, in the order of the index that pulls need anyway: one by time would make every pull dearer, for a
// sweeper that may be an hour late. What goes of a reader's pages are always the first ones. The acknowledgement of a page may be in the row of
// the next one, which so outlives it, and no page becomes open, or loses its evidence, because the one after it is gone.
//
// Whoever ends pages has locked their readers, none of whom is waited for: a page that is asked for again changes its row, and a deletion that
// had seen the older one would pass it by and take the pages after it, so that it looked open, and could be billed twice.

const (
	walkEvery   = time.Hour // a walk over all readers begins, or whenever the one before is over
	walkReaders = 500       // that one look goes over
	walkLooks   = 40        // in one pass: a relay that has millions of readers does not spend all it has on looking
	walkFor     = sweepEvery

	// One transaction ends so many pages at most, which are long rows, of so many readers, who cannot pull meanwhile.
	sweepPagesBatch   = 200
	sweepReadersBatch = 100

	// Readers who are at something else are tried so often, with sweepRetry between; then they are left for the next walk.
	walkTries = 5
)

// walk is how far a walk over all readers has come.
type walk struct {
	began time.Time // zero: none has
	over  bool
	after []byte      // the last reader looked at
	due   []dueReader // of those looked at, who may have pages that are due
	most  int         // of them in the next transaction
	busy  int         // of them were at something else when they were tried, one after the other

	looks     int // in this pass
	passBegan time.Time
}

// dueReader may have pages that are due.
type dueReader struct {
	key []byte
	// next is the first page after those that are gone, if any are: the index still has their entries. As long as it is there, none is before it.
	next string
}

// pages looks at some readers, or ends some pages of those looked at.
func (w *sweeper) pages(ctx context.Context, e *ending) (swept, error) {
	if w.hasWalked() {
		return swept{}, nil
	}
	step := w.walkOn
	if len(w.walk.due) > 0 {
		step = w.endPages
	}
	if err := step(ctx, e); err != nil {
		return swept{}, err
	}
	return swept{more: true}, nil
}

// hasWalked tells whether nothing is to be done about pages, or no more in this pass. Who does not rest walks to the end.
func (w *sweeper) hasWalked() bool {
	k := &w.walk
	if w.rest > 0 && time.Since(k.passBegan) > walkFor {
		return true
	}
	switch {
	case len(k.due) > 0:
		return false
	case k.over:
		return time.Since(k.began) < walkEvery
	}
	return w.rest > 0 && k.looks == walkLooks
}

// The oldest page of each of the $2 readers after $1, by a probe of the index for each. A reader is named if his was made up to $3, unless it is one
// that waits for more than time: it was acknowledged later, or it is open and neither lapses now nor, if it was made up to $4, goes. The last of as many as
// there may be is named anyway.
const findReaders = `WITH RECURSIVE walk AS (
	  SELECT $1::bytea AS reader, false AS due, 0 AS k
	  UNION ALL
	  SELECT o.reader, o.due, w.k + 1 FROM walk w CROSS JOIN LATERAL (
	    SELECT reader, CASE WHEN made <= $3 THEN coalesce(` + acknowledgedAt + ` <= $3, ` + isReserved + ` OR made <= $4) ELSE false END AS due
	    FROM pages p WHERE p.turn > 0 AND p.reader > w.reader ORDER BY p.reader, p.turn LIMIT 1) o WHERE w.k < $2)
	SELECT reader, due, k = $2 FROM walk WHERE k > 0 AND (due OR k = $2)`

const (
	// acknowledgedAt is when the page p was, null if it is open.
	acknowledgedAt = `coalesce(p.got_at, (SELECT n.made FROM pages n WHERE n.reader = p.reader AND n.turn > 0 AND n.turn > p.turn ORDER BY n.turn LIMIT 1))`
	// isReserved tells whether payers have something reserved for the page p, if it is open.
	isReserved = `(p.bills IS NOT NULL AND NOT p.lapsed)`
)

// walkOn goes over the next readers. It needs no rest after that: it writes nothing.
func (w *sweeper) walkOn(ctx context.Context, e *ending) error {
	k := &w.walk
	if k.over || k.began.IsZero() {
		*k = walk{began: time.Now(), after: []byte{}, most: sweepReadersBatch, passBegan: k.passBegan}
	}
	k.looks++
	found, last, err := w.lookAtReaders(ctx, k.after, w.due(e))
	if err != nil {
		return err
	}
	k.due, k.after, k.over = found, last, last == nil
	return nil
}

// lookAtReaders returns those of the readers after one who may have pages that are due, and the last that it looked at, nil if there are no more. It
// holds no lock.
func (w *sweeper) lookAtReaders(ctx context.Context, after []byte, due int64) (found []dueReader, last []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	rows, err := w.store.db.Pool().Query(ctx, findReaders, after, walkReaders, due, w.abandoned(due))
	if err != nil {
		return nil, nil, err
	}
	var reader []byte
	var isDue, isLast bool
	_, err = pgx.ForEachRow(rows, []any{&reader, &isDue, &isLast}, func() error {
		key := bytes.Clone(reader)
		if isDue {
			found = append(found, dueReader{key: key})
		}
		if isLast {
			last = key
		}
		return nil
	})
	return found, last, err
}

// abandoned is the time up to which a page was made that nobody will acknowledge any more: a reader who pulled once and vanished would leave it for
// good. What it names has expired by then.
func (w *sweeper) abandoned(due int64) int64 {
	return due - w.store.limits.Load().Lifetime.Milliseconds()
}

// walkLate is how much longer the walk takes than it may.
func (w *sweeper) walkLate() time.Duration { return time.Since(w.walk.began) - walkEvery }

// endPages ends pages of readers who were looked at. One whose pages cannot be ended, as they are damaged, stops nobody else's from being: fewer and
// fewer are tried together, and in the end he is left out of this walk.
func (w *sweeper) endPages(ctx context.Context, e *ending) error {
	k := &w.walk
	readers := k.due[:min(len(k.due), k.most)]
	var again []dueReader
	var busy int
	took, err := w.tx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		again, busy, err = w.endPagesOf(ctx, tx, readers, w.due(e))
		return err
	})
	if err != nil {
		if len(readers) == 1 {
			k.due = k.due[1:]
		}
		k.most = max(len(readers)/2, 1)
		return err
	}
	k.most = min(2*k.most, sweepReadersBatch)
	k.due = append(k.due[len(readers):], again...)
	if busy < len(readers) {
		k.busy = 0
		return w.pause(ctx, took, w.walkLate())
	}
	if k.busy += busy; k.busy >= walkTries*len(k.due) {
		k.due, k.busy = nil, 0
		return nil
	}
	return sleep(ctx, sweepRetry)
}

// endPagesOf ends pages of the readers who are at nothing else. It returns those who may have more that are due, and those, so many, who were busy.
func (w *sweeper) endPagesOf(ctx context.Context, tx pgx.Tx, readers []dueReader, due int64) (again []dueReader, busy int, err error) {
	locked, again, err := lockReaders(ctx, tx, readers)
	if err != nil || len(locked) == 0 {
		return again, len(again), err
	}
	busy = len(again)
	keys, nexts := make([][]byte, len(locked)), make([]*string, len(locked))
	for i := range locked {
		if keys[i] = locked[i].key; locked[i].next != "" {
			nexts[i] = &locked[i].next
		}
	}
	// To each as many: one who has many does not keep the others waiting.
	rows, err := tx.Query(ctx, endPages, keys, nexts, max(sweepPagesBatch/len(locked), 1), due, w.abandoned(due))
	if err != nil {
		return nil, 0, err
	}
	var i int
	var next *string
	if _, err := pgx.ForEachRow(rows, []any{&i, &next}, func() error {
		if next != nil {
			again = append(again, dueReader{key: keys[i-1], next: *next})
		}
		keys[i-1] = nil
		return nil
	}); err != nil {
		return nil, 0, err
	}
	lapsed, err := w.store.lapse(ctx, tx, slices.DeleteFunc(keys, func(key []byte) bool { return key == nil }), due)
	for _, reader := range lapsed { // what lapsed may be abandoned, too
		again = append(again, dueReader{key: reader})
	}
	return again, busy, err
}

// lockReaders parts readers into those that are locked now, and those who are at something else: one of these may be acknowledging his page.
func lockReaders(ctx context.Context, tx pgx.Tx, readers []dueReader) (locked, busy []dueReader, err error) {
	locks := make([]int64, len(readers))
	for i := range readers {
		locks[i] = lockOf(protocol.PublicKey(readers[i].key))
	}
	rows, err := tx.Query(ctx, `SELECT i, pg_try_advisory_xact_lock(k) FROM unnest($1::bigint[]) WITH ORDINALITY AS t (k, i)`, locks)
	if err != nil {
		return nil, nil, err
	}
	var i int
	var mine bool
	_, err = pgx.ForEachRow(rows, []any{&i, &mine}, func() error {
		if mine {
			locked = append(locked, readers[i-1])
		} else {
			busy = append(busy, readers[i-1])
		}
		return nil
	})
	return locked, busy, err
}

// endPages removes of each of the readers $1 his first pages, $3 at most, up to the first that stays: one that was made or acknowledged after $4, that
// the ledger has yet to post, that a bill names instead of saying what is in it, or that is open; then it goes if it was made up to $5, and nothing is reserved
// for it. It tells of whom it removed as many as it may, and which page is his first now. It begins at the pages $2, where that is known.
const endPages = `WITH RECURSIVE gone AS (
	  SELECT t.i, t.reader, coalesce((SELECT turn - 1 FROM pages WHERE reader = t.reader AND page_id = t.next), 0) AS turn, NULL::tid AS place, 0 AS k
	  FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS t (reader, next, i)
	  UNION ALL
	  SELECT g.i, g.reader, f.turn, f.place, g.k + 1 FROM gone g CROSS JOIN LATERAL (
	    SELECT p.turn, p.ctid AS place, p.made, ` + acknowledgedAt + ` AS at, ` + isReserved + ` AS reserved
	    FROM pages p WHERE p.reader = g.reader AND p.turn > 0 AND p.turn > g.turn ORDER BY p.turn LIMIT 1) f
	  WHERE g.k < $3 AND coalesce(
	    f.at < least($4::bigint + 1, (SELECT min(at) FROM ledger_acks), (SELECT min(acked) FROM ledger_blocks WHERE acked IS NOT NULL)) AND f.made <= $4,
	    f.made <= $5 AND NOT f.reserved)),
	ended AS (DELETE FROM pages WHERE ctid = ANY(ARRAY(SELECT place FROM gone WHERE k > 0)))
	SELECT g.i, (SELECT page_id FROM pages n WHERE n.reader = g.reader AND n.turn > 0 AND n.turn > g.turn ORDER BY n.turn LIMIT 1) FROM gone g WHERE g.k = $3`
