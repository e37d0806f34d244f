package records

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// What ended is kept for a while, so that neither a clock that jumps by an hour nor a reply that
// was cut destroys an acknowledged message.
const (
	keepExpired = time.Hour           // after expires, the row and its bytes
	keepUsedUp  = 10 * time.Minute    // after the last pull, the bytes
	keepPages   = 35 * 24 * time.Hour // pages, after their acknowledgement: the evidence of a month's bill
)

const (
	sweepEvery   = 10 * time.Second // between passes, unless the store is told otherwise
	sweepTimeout = 30 * time.Second // for one transaction
	sweepLock    = 0x72656c61795377 // advisory lock: one process sweeps at a time
	sweepRetry   = 20 * time.Millisecond

	// A look finds so many that are due, and holds no lock. It has read their rows, so that ending
	// them, with their accounts locked, waits for no disk.
	sweepLook = 10_000
	// One transaction ends so many at most: writes of the same accounts wait for it, some milliseconds.
	// A large record has a row for each 2 kB, which is what the second bound is for.
	sweepBatch = 1000
	sweepBytes = 4 << 20

	// Between its transactions a sweep rests for many times as long as they take: every row it removes adds to
	// the log that writes wait for, a page of it at worst. The further it is behind, the less it rests: ten
	// minutes late, not at all.
	sweepRest   = 15
	sweepHurry  = 10 * time.Minute
	sweepAnewIn = time.Hour // what a process with a clock behind wrote stands before what was swept
)

func (s *Store) sweepLoop(ctx context.Context) {
	t := time.NewTicker(s.sweeps)
	defer t.Stop()
	w := s.newSweeper(sweepRest)
	for {
		if time.Since(w.began) > sweepAnewIn {
			w.anew()
		}
		if err := w.pass(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Sweep removes what has ended, until nothing is left to remove, and does not rest. [Store.Run] sweeps every
// ten seconds; calling it at any other time is safe.
func (s *Store) Sweep(ctx context.Context) error { return s.newSweeper(0).pass(ctx) }

// sweeper removes what has ended: records oldest first, pages from reader to reader. It is not for concurrent use; several may be at work.
type sweeper struct {
	store *Store
	rest  float64 // times as long as a transaction took
	began time.Time
	kinds []*ending
	walk  walk
}

// ending is one way for things to end, those of records with an index on the time from which its keep counts.
type ending struct {
	name string
	keep time.Duration
	// from is where the next look begins. The index still has the entries of what was removed before it, until
	// vacuum comes, and must not be walked from its beginning each time.
	from int64
	// sweep ends some of what is due.
	sweep func(ctx context.Context, e *ending) (swept, error)
}

type swept struct {
	more bool  // there may be more to end, and sweeping on may end it
	last int64 // the time of the last, if any
}

func (s *Store) newSweeper(rest float64) *sweeper {
	w := &sweeper{store: s, rest: rest, began: time.Now()}
	w.kinds = []*ending{
		{name: "expired records", keep: keepExpired, sweep: w.records(findExpired, endExpired, s.removed)},
		{name: "used up records", keep: keepUsedUp, sweep: w.records(findUsedUp, endUsedUp, func(int) {})},
		{name: "pages", keep: keepPages, sweep: w.pages},
	}
	return w
}

// anew has what was swept looked at again: a process with a clock behind may have written before it. The walk over
// readers begins again by itself.
func (w *sweeper) anew() {
	w.began = time.Now()
	for _, e := range w.kinds {
		e.from = 0
	}
}

func (s *Store) removed(n int) { s.metrics.swept.Add(float64(n)) }

// due is the time up to which things of this kind have ended for long enough.
func (w *sweeper) due(e *ending) int64 { return int64(w.store.now().Add(-e.keep)) }

// pass sweeps all kinds in turns, until none has more: a kind that never ends must not starve the others.
func (w *sweeper) pass(ctx context.Context) error {
	w.walk.looks, w.walk.passBegan = 0, time.Now()
	todo := slices.Clone(w.kinds)
	for len(todo) > 0 {
		var again []*ending
		for _, e := range todo {
			done, err := e.sweep(ctx, e)
			if err != nil {
				return wrap(err, "sweep %s", e.name)
			}
			if done.last > 0 {
				e.from = done.last
			}
			if done.more {
				again = append(again, e)
			}
			if e == w.kinds[0] {
				w.tellBehind(e, done.more)
			}
		}
		todo = again
	}
	return nil
}

func (w *sweeper) tellBehind(e *ending, more bool) {
	behind := 0.0
	if more {
		behind = float64(max(w.due(e)-e.from, 0)) / 1000
	}
	w.store.metrics.sweepBehind.Set(behind)
}

// errSweeping: another process sweeps.
var errSweeping = errors.New("another process sweeps")

// tx runs one transaction, alone among the sweepers, and tells how long it took. It waits for its turn outside of any
// transaction: one that waits keeps all that dies meanwhile from being cleaned up, and the rows that
// every write updates become slow within seconds.
func (w *sweeper) tx(ctx context.Context, do func(context.Context, pgx.Tx) error) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	for {
		began := time.Now()
		err := w.store.db.Tx(ctx, func(tx pgx.Tx) error {
			var mine bool
			if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(sweepLock)).Scan(&mine); err != nil {
				return err
			}
			if !mine {
				return errSweeping
			}
			return do(ctx, tx)
		})
		if !errors.Is(err, errSweeping) {
			return time.Since(began), err
		}
		if err := sleep(ctx, sweepRetry); err != nil {
			return 0, err
		}
	}
}

// pause lets others work after a transaction: the shorter, the later what it ended is.
func (w *sweeper) pause(ctx context.Context, took, late time.Duration) error {
	rest := time.Duration(float64(took) * w.rest * min(max(1-late.Seconds()/sweepHurry.Seconds(), 0), 1))
	if rest <= 0 {
		return ctx.Err()
	}
	return sleep(ctx, rest)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Each finds what is due from $1 to $2, oldest first, $3 at most. OFFSET 0 keeps the planner from joining: for a table
// that was nearly empty when it was analyzed, it joins by walking the whole of an index for each row.
const (
	findExpired = `SELECT r.expires, r.n, r.account, r.sender, r.receiver, r.admitted, r.bytes FROM records r
		WHERE r.expires >= $1 AND r.expires <= $2 ORDER BY r.expires LIMIT $3`
	findUsedUp = `SELECT p.spent, r.n, r.account, r.sender, r.receiver, r.admitted, r.bytes FROM pulls p CROSS JOIN LATERAL (
		  SELECT * FROM records WHERE receiver = p.receiver AND sender = p.sender AND n >= p.first AND n <= p.upto AND state = 0 OFFSET 0) r
		WHERE p.spent >= $1 AND p.spent <= $2 ORDER BY p.spent LIMIT $3`
)

// Each ends those of the records $1 that are still due at $2: between the look and this, another process may
// have ended them, or a clock may have been set back. Tombstones were given back when they became that.
const (
	// What is not posted yet is not removed: the row is all that the ledger knows of the write.
	endExpired = `DELETE FROM records r WHERE n = ANY($1) AND expires <= $2 AND (bill IS NULL OR n <= (SELECT p.n FROM ledger_posted p))
		RETURNING n, state = 0, bytes, max_pulls, written, expires, bill, receiver, id, hash`
	endUsedUp = `UPDATE records r SET state = 2, envelope = NULL WHERE n = ANY($1) AND state = 0
		  AND (SELECT p.first <= r.n AND p.remaining = 0 AND p.last <= $2 FROM ` + nextRun + ` p)
		RETURNING n, true, bytes, max_pulls, written, expires, bill, receiver, id, hash`
)

// victim is a record about to end.
type victim struct {
	n        int64
	bytes    int64
	receiver protocol.PublicKey
	held     books.Held // who gets back what it holds
}

func newVictim(n int64, account, sender, receiver []byte, admitted bool, bytes int64) victim {
	v := victim{n: n, bytes: bytes, receiver: protocol.PublicKey(receiver), held: books.Held{Account: protocol.PublicKey(account), Writer: protocol.PublicKey(sender)}}
	if admitted {
		admitter := protocol.PublicKey(receiver)
		v.held.Admitted = &admitter
	}
	return v
}

// records sweeps one look's worth of records. done is told of what each transaction ended, after its commit.
func (w *sweeper) records(find, end string, done func(int)) func(context.Context, *ending) (swept, error) {
	return func(ctx context.Context, e *ending) (swept, error) {
		victims, last, err := w.look(ctx, find, e)
		if err != nil || len(victims) == 0 {
			return swept{}, err
		}
		full, all := len(victims) == sweepLook, 0
		// Those of one account together: each transaction then locks few.
		slices.SortFunc(victims, func(a, b victim) int {
			return cmp.Or(bytes.Compare(a.held.Account[:], b.held.Account[:]), cmp.Compare(a.n, b.n))
		})
		for len(victims) > 0 {
			k := portion(victims)
			var ended int
			took, err := w.tx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
				ended, err = w.store.endRecords(ctx, tx, victims[:k], end, w.due(e))
				return err
			})
			if err != nil {
				return swept{}, err
			}
			done(ended)
			victims, all = victims[k:], all+ended
			if err := w.pause(ctx, took, time.Duration(w.due(e)-last)*time.Millisecond); err != nil {
				return swept{}, err
			}
		}
		// If none ended, another process was quicker, or a clock was set back.
		return swept{more: full && all > 0, last: last}, nil
	}
}

// look reads what is due, and the time of the last.
func (w *sweeper) look(ctx context.Context, find string, e *ending) (victims []victim, last int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	rows, err := w.store.db.Pool().Query(ctx, find, e.from, w.due(e), sweepLook)
	if err != nil {
		return nil, 0, err
	}
	var n int64
	var account, sender, receiver []byte
	var admitted bool
	var size int32
	_, err = pgx.ForEachRow(rows, []any{&last, &n, &account, &sender, &receiver, &admitted, &size}, func() error {
		victims = append(victims, newVictim(n, account, sender, receiver, admitted, int64(size)))
		return nil
	})
	return victims, last, err
}

// portion is how many of the victims one transaction ends.
func portion(victims []victim) int {
	var size int64
	for i, v := range victims {
		if size += v.bytes; i == sweepBatch || i > 0 && size > sweepBytes {
			return i
		}
	}
	return len(victims)
}

// endRecords ends those of the victims that are due, and gives back what they held. It tells how many they were.
func (s *Store) endRecords(ctx context.Context, tx pgx.Tx, victims []victim, end string, due int64) (int, error) {
	held := make([]books.Held, len(victims))
	ns := make([]int64, len(victims))
	byN := make(map[int64]books.Held, len(victims))
	for i, v := range victims {
		held[i], ns[i], byN[v.n] = v.held, v.n, v.held
	}
	// Accounts first: the order of locks that writes have.
	batch, err := s.books.LockHeld(ctx, tx, held)
	if err != nil {
		return 0, err
	}
	rows, err := tx.Query(ctx, end, ns, due)
	if err != nil {
		return 0, err
	}
	now, ended := s.now(), ns[:0]
	releases := make(map[int64]books.Release, len(victims)) // of those that were live
	var n, written, expires int64
	var size, pulls int32
	var live bool
	var bill *int64
	var receiver, hash []byte
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&n, &live, &size, &pulls, &written, &expires, &bill, &receiver, &id, &hash}, func() error {
		ended = append(ended, n)
		if live {
			at := protocol.Timestamp(expires)
			r := books.Release{Held: byN[n], Bytes: int64(size), Pulls: int64(pulls),
				Written: time.UnixMilli(written), Ended: min(now, at), Expires: at}
			if bill != nil {
				r.Record = books.Billed{N: n, Bill: *bill, To: protocol.PublicKey(receiver), ID: protocol.RecordID(id), Hash: protocol.Hash(hash)}
			}
			releases[n] = r
		}
		return nil
	}); err != nil || len(ended) == 0 {
		return 0, err
	}
	if err := forgetPulls(ctx, tx, victims, releases); err != nil {
		return 0, err
	}
	for _, r := range releases {
		batch.Release(r)
	}
	return len(ended), batch.Save(ctx, tx)
}
