package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
)

// barePostgres is a cluster set up as a relay's private one is, without a relay: it has connections enough for
// the limits, and one table.
type barePostgres struct {
	cluster *localpg.Cluster
	config  localpg.Config
	next    atomic.Int64 // the primary key of the next row
	filled  int          // size of the rows that limit_select reads; 0: none are there
}

func startPostgres(ctx context.Context, dir string) (*barePostgres, error) {
	db := &barePostgres{config: localpg.Config{Dir: filepath.Join(dir, "bare"), Settings: map[string]string{"max_connections": "100"}}}
	var err error
	db.cluster, err = localpg.Start(ctx, db.config)
	return db, err
}

func (db *barePostgres) stop(ctx context.Context) error {
	return errors.Join(db.cluster.Stop(ctx), localpg.Remove(ctx, db.config))
}

// tableSQL makes the table like a relay's: records are not compressed, and stay in the row.
const tableSQL = `
	DROP TABLE IF EXISTS bare;
	CREATE TABLE bare (id bigint PRIMARY KEY, body bytea NOT NULL) WITH (toast_tuple_target = 8160);
	ALTER TABLE bare ALTER COLUMN body SET STORAGE EXTERNAL`

// filledRows are what limit_select and limit_select50 read from.
const filledRows = 100_000

// bare is what the four workloads share: connections, and rows of the size of records.
type bare struct {
	db     *barePostgres
	conns  []*pgx.Conn
	bodies [][]byte
	rows   int // a request
	do     func(ctx context.Context, w *bare, c, i int) error
}

// bodyKinds different contents are enough: nothing compresses them or compares them.
const bodyKinds = 256

func (b *bench) openBare(ctx context.Context, p point, size, rows int, do func(ctx context.Context, w *bare, c, i int) error) (*bare, error) {
	w := &bare{db: b.postgres, rows: rows, do: do}
	for i := range bodyKinds {
		body := make([]byte, size)
		_, _ = randomness(int64(i)).Read(body) // never fails
		w.bodies = append(w.bodies, body)
	}
	for range p.conns {
		conn, err := pgx.Connect(ctx, b.postgres.cluster.URL())
		if err != nil {
			return w, err
		}
		w.conns = append(w.conns, conn)
		// What a relay promises for a write holds for the row that it is compared with.
		if _, err := conn.Exec(ctx, `SET synchronous_commit = on`); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *bare) workers() int                       { return len(w.conns) }
func (w *bare) servers() servers                   { return servers{postmaster: postmasterOf(w.db.cluster)} }
func (w *bare) prepare(context.Context, int) error { return nil }

func (w *bare) close() error {
	var err error
	for _, c := range w.conns {
		err = errors.Join(err, c.Close(context.Background()))
	}
	return err
}

func (w *bare) step(ctx context.Context, c, i int) (sample, error) {
	return sample{records: w.rows}, w.do(ctx, w, c, i)
}

// empty gives limit_insert and limit_copy a new table.
func (w *bare) empty(ctx context.Context) error {
	w.db.filled = 0
	if _, err := w.conns[0].Exec(ctx, tableSQL); err != nil {
		return fmt.Errorf("make the table: %w", err)
	}
	return nil
}

func openInsert(ctx context.Context, b *bench, p point, size int) (workload, error) {
	w, err := b.openBare(ctx, p, size, 1, func(ctx context.Context, w *bare, c, _ int) error {
		id := w.db.next.Add(1)
		_, err := w.conns[c].Exec(ctx, `INSERT INTO bare VALUES ($1, $2)`, id, w.bodies[id%bodyKinds])
		return err
	})
	if err != nil {
		return w, err
	}
	return w, w.empty(ctx)
}

func openCopy(ctx context.Context, b *bench, p point, size int) (workload, error) {
	w, err := b.openBare(ctx, p, size, copyRows, func(ctx context.Context, w *bare, c, _ int) error {
		return w.copyIn(ctx, c, copyRows)
	})
	if err != nil {
		return w, err
	}
	return w, w.empty(ctx)
}

func (w *bare) copyIn(ctx context.Context, c, rows int) error {
	first := w.db.next.Add(int64(rows)) - int64(rows) + 1
	_, err := w.conns[c].CopyFrom(ctx, pgx.Identifier{"bare"}, []string{"id", "body"}, pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
		id := first + int64(i)
		return []any{id, w.bodies[id%bodyKinds]}, nil
	}))
	return err
}

// openSelect is limit_select for one row a request, limit_select50 for more.
func openSelect(rows int) func(context.Context, *bench, point, int) (workload, error) {
	return func(ctx context.Context, b *bench, p point, size int) (workload, error) {
		w, err := b.openBare(ctx, p, size, rows, selectOne)
		if err != nil {
			return w, err
		}
		if rows > 1 {
			w.do = selectMany
		}
		return w, w.fill(ctx, size)
	}
}

// fill makes the rows that are read, unless they are there.
func (w *bare) fill(ctx context.Context, size int) error {
	if w.db.filled == size {
		return nil
	}
	if err := w.empty(ctx); err != nil {
		return err
	}
	w.db.next.Store(0)
	for range filledRows / copyRows {
		if err := w.copyIn(ctx, 0, copyRows); err != nil {
			return err
		}
	}
	if _, err := w.conns[0].Exec(ctx, `VACUUM ANALYZE bare`); err != nil {
		return err
	}
	w.db.filled = size
	return nil
}

// key walks over all rows with a stride, so that neither neighbours nor the same rows are asked for.
func key(c, i, j int) int64 {
	return (int64(c)*7919+(int64(i)*selectRows+int64(j))*104_729)%filledRows + 1
}

func selectOne(ctx context.Context, w *bare, c, i int) error {
	var body []byte
	return w.conns[c].QueryRow(ctx, `SELECT body FROM bare WHERE id = $1`, key(c, i, 0)).Scan(&body)
}

func selectMany(ctx context.Context, w *bare, c, i int) error {
	keys := make([]int64, selectRows)
	for j := range keys {
		keys[j] = key(c, i, j)
	}
	rows, err := w.conns[c].Query(ctx, `SELECT b.id, b.body FROM unnest($1::bigint[]) AS k (id) JOIN bare b USING (id)`, keys)
	if err != nil {
		return err
	}
	var id int64
	var body []byte
	tag, err := pgx.ForEachRow(rows, []any{&id, &body}, func() error { return nil })
	if err == nil && tag.RowsAffected() != selectRows {
		err = fmt.Errorf("%d of %d rows were found", tag.RowsAffected(), selectRows)
	}
	return err
}
