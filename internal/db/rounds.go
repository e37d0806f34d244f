package db

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// rollbackTimeout bounds the tidying of a connection whose transaction failed.
const rollbackTimeout = 5 * time.Second

// Load is a transaction that ends in a COPY. It takes two round trips: BEGIN with one statement whose
// row decides, and COPY with COMMIT; as separate requests these are seven.
type Load struct {
	Statement string
	Args      []any
	Row       []any // what the statement's one row is scanned into

	// Copy is called with the row scanned. It returns the COPY statement and its data in PostgreSQL's
	// binary format (see [Encoder]), or no data, and then the transaction is rolled back without an
	// error. The data must not change until Load returns. It may be called several times.
	Copy func() (sql string, data []byte, err error)
}

// Load runs the transaction in READ COMMITTED, with the retries and refusals of [DB.Tx].
func (d *DB) Load(ctx context.Context, l Load) error {
	return retry(ctx, func() error { return d.load(ctx, l) })
}

func (d *DB) load(ctx context.Context, l Load) (err error) {
	conn, err := d.loads.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	defer rollBack(conn)
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	b.Queue(l.Statement, l.Args...).QueryRow(func(row pgx.Row) error { return row.Scan(l.Row...) })
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	sql, data, err := l.Copy()
	if err != nil || data == nil {
		return err
	}
	tags, err := CopyIn(ctx, conn.Conn().PgConn(), sql+"; COMMIT", data)
	if err != nil {
		return err
	}
	return committed(tags[len(tags)-1])
}

// LoadOne runs one statement that is a transaction by itself, on the connections of [DB.Load] and with its retries, and has its
// rows read. It returns when the statement is committed.
func (d *DB) LoadOne(ctx context.Context, sql string, args []any, read func(pgx.Rows) error) error {
	return retry(ctx, func() error {
		rows, err := d.loads.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		return read(rows)
	})
}

// rollBack ends a transaction that did not end by itself. A connection that cannot do so is
// closed by the pool.
func rollBack(conn *pgxpool.Conn) {
	if pg := conn.Conn().PgConn(); pg.IsClosed() || pg.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_, _ = conn.Exec(ctx, "ROLLBACK")
}

// Rounds runs a transaction in two round trips: BEGIN with what first queues, and what then queues with
// COMMIT. Both are called with an empty batch, then only after the results of first were read (by the
// functions that are queued with its statements); both may be called several times. An error of then
// rolls back; one of reading what the second round trip answered may come after its COMMIT.
func (d *DB) Rounds(ctx context.Context, first func(*pgx.Batch), then func(*pgx.Batch) error) error {
	return retry(ctx, func() error { return d.rounds(ctx, first, then) })
}

func (d *DB) rounds(ctx context.Context, first func(*pgx.Batch), then func(*pgx.Batch) error) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	defer rollBack(conn)
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	first(b)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	b = &pgx.Batch{}
	if err := then(b); err != nil {
		return err
	}
	b.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error { return committed(tag) })
	return conn.SendBatch(ctx, b).Close()
}

// committed checks what COMMIT answered: in a failed transaction it rolls back, without an error.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return errors.New("COMMIT answered " + tag.String())
	}
	return nil
}
