package records

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
)

// What ended is kept for a while, so that neither a clock that jumps by an hour nor a reply that
// was cut destroys an acknowledged message.
const (
	keepExpired  = time.Hour           // after expires, the row and its bytes
	keepUsedUp   = 10 * time.Minute    // after the last pull, the bytes
	keepPages    = 35 * 24 * time.Hour // pages, after their acknowledgement: the evidence of a month's bill
	sweepEvery   = 10 * time.Second    // between passes
	sweepBatch   = 1000                // rows in one transaction: no long locks
	sweepTimeout = 30 * time.Second    // for one transaction
	sweepLock    = 0x72656c61795377    // advisory lock: one process sweeps at a time
)

func (s *Store) sweepLoop(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Sweep removes what has ended, until nothing is left to remove. [Store.Run] calls it every ten
// seconds; calling it at any other time is safe.
func (s *Store) Sweep(ctx context.Context) error {
	for _, step := range []func(context.Context, pgx.Tx) (int, error){s.sweepExpired, s.sweepUsedUp, s.sweepPages, s.sweepAbandoned} {
		for {
			done, err := s.sweepStep(ctx, step)
			if err != nil {
				return err
			}
			if done < sweepBatch {
				break
			}
		}
	}
	return nil
}

func (s *Store) sweepStep(ctx context.Context, step func(context.Context, pgx.Tx) (int, error)) (done int, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		done = 0
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(sweepLock)); err != nil {
			return err
		}
		var err error
		done, err = step(ctx, tx)
		return err
	})
	return done, wrap(err, "sweep")
}

// sweepExpired removes rows an hour after they expired. Tombstones were given back when they ended.
func (s *Store) sweepExpired(ctx context.Context, tx pgx.Tx) (int, error) {
	before := int64(s.now().Add(-keepExpired))
	rows, err := tx.Query(ctx, `SELECT `+victimColumns+` FROM records r LEFT JOIN pulls p USING (n)
		WHERE r.expires <= $1 ORDER BY r.expires LIMIT $2`, before, sweepBatch)
	if err != nil {
		return 0, err
	}
	victims, err := collectVictims(rows)
	if err != nil || len(victims) == 0 {
		return 0, err
	}
	done, err := s.end(ctx, tx, victims, `DELETE FROM records WHERE n = ANY($1) RETURNING n, state`)
	s.metrics.swept.Add(float64(done))
	return done, err
}

// sweepUsedUp frees the bytes of records whose last pull was made ten minutes ago.
func (s *Store) sweepUsedUp(ctx context.Context, tx pgx.Tx) (int, error) {
	rows, err := tx.Query(ctx, `SELECT `+victimColumns+` FROM pulls p JOIN records r USING (n)
		WHERE p.remaining = 0 AND p.last <= $1 ORDER BY p.last LIMIT $2`, int64(s.now().Add(-keepUsedUp)), sweepBatch)
	if err != nil {
		return 0, err
	}
	victims, err := collectVictims(rows)
	if err != nil || len(victims) == 0 {
		return 0, err
	}
	return s.end(ctx, tx, victims, `UPDATE records SET state = 2, envelope = NULL WHERE n = ANY($1) AND state = 0 RETURNING n, 0`)
}

func collectVictims(rows pgx.Rows) ([]victim, error) {
	var row victimRow
	var victims []victim
	_, err := pgx.ForEachRow(rows, row.targets(), func() error {
		victims = append(victims, row.victim())
		return nil
	})
	return victims, err
}

// end runs a statement that ends records and returns n and the state each was in. Those that were
// live are given back: a delete may have come in since the victims were read, and has done so itself.
func (s *Store) end(ctx context.Context, tx pgx.Tx, victims []victim, statement string) (int, error) {
	charges := make([]books.Charge, len(victims))
	ns := make([]int64, len(victims))
	byN := make(map[int64]victim, len(victims))
	for i, v := range victims {
		charges[i], ns[i], byN[v.n] = v.release.Charge, v.n, v
	}
	// Accounts first: the order of locks that writes have.
	batch, err := s.books.Lock(ctx, tx, charges)
	if err != nil {
		return 0, err
	}
	ended, err := tx.Query(ctx, statement, ns)
	if err != nil {
		return 0, err
	}
	var n int64
	var state int
	if _, err := pgx.ForEachRow(ended, []any{&n, &state}, func() error {
		if state == stateLive {
			batch.Release(byN[n].release)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM pulls WHERE n = ANY($1)`, ns); err != nil {
		return 0, err
	}
	return len(ns), batch.Save(ctx, tx)
}

// sweepPages removes acknowledged pages.
func (s *Store) sweepPages(ctx context.Context, tx pgx.Tx) (int, error) {
	tag, err := tx.Exec(ctx, `DELETE FROM pages WHERE ctid = ANY(ARRAY(
		SELECT ctid FROM pages WHERE got IS NOT NULL AND got_at <= $1 LIMIT $2))`, int64(s.now().Add(-keepPages)), sweepBatch)
	return int(tag.RowsAffected()), err
}

// sweepAbandoned removes pages that their readers never acknowledged, once nothing of them can be
// served any more: else each key that ever read and vanished would leave a row for good.
func (s *Store) sweepAbandoned(ctx context.Context, tx pgx.Tx) (int, error) {
	tag, err := tx.Exec(ctx, `DELETE FROM pages WHERE ctid = ANY(ARRAY(
		SELECT ctid FROM pages WHERE got IS NULL AND made <= $1 LIMIT $2))`, int64(s.now().Add(-keepPages-s.limits.Lifetime)), sweepBatch)
	return int(tag.RowsAffected()), err
}
