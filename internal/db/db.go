// Package db is the shared access to Postgres: one pool, one transaction helper, one translation of
// the database's failures into refusals. The domain packages own their SQL; they get it run here.
//
// A transaction that Postgres undid for a reason that another attempt may not meet
// (serialization failure, deadlock) is run again, also when COMMIT was what failed. A COMMIT whose
// reply was lost is never run again: its outcome is unknown, and every effect of this system is
// idempotent by constraint, so the caller's own retry is what settles it.
package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"relaymarket/protocol"
)

// maxAttempts bounds how often a transaction is run again. A deadlock costs Postgres a second to
// notice, so more attempts would only hide a defect.
const maxAttempts = 8

// loaders is how many connections writes have for themselves, so that no crowd of readers makes one
// wait for a connection. There is no work for more: what is written waits for one cursor.
const loaders = 2

// DB is two pools of connections, one of them for writes: [DB.Load], [DB.WriteTx] and [DB.WritePool]. Who uses
// it must not need a second connection while he has one. It is safe for concurrent use.
type DB struct {
	pool  *pgxpool.Pool
	loads *pgxpool.Pool
}

// Open makes pools of at most maxConns connections together. It connects lazily: a database that is
// away is found out by [DB.Ping].
//
// Every statement of this system is some probes of an index, and is planned so whatever the planner
// knows: its statistics are missing on a new relay and old on one that grows, plans are kept with the
// statement, and one that reads or sorts a table whole is a thousand times slower. For the same reason
// a plan is made once: the planner takes longer than these statements run.
func Open(ctx context.Context, url string, maxConns int32) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	cfg.MaxConns = max(maxConns-loaders, loaders)
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	// A relay's acknowledgement means durable, whatever the database's own default is.
	cfg.ConnConfig.RuntimeParams["synchronous_commit"] = "on"
	cfg.ConnConfig.RuntimeParams["application_name"] = "relayd"
	// A client that went away must not hold a lock for longer than this.
	cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "30000"
	// A relay whose host or network is gone must not hold a lock for the two hours of a system's own keep-alive. Where the
	// connection is a Unix socket these are ignored.
	cfg.ConnConfig.RuntimeParams["tcp_keepalives_idle"] = "10"
	cfg.ConnConfig.RuntimeParams["tcp_keepalives_interval"] = "5"
	cfg.ConnConfig.RuntimeParams["tcp_keepalives_count"] = "3"
	cfg.ConnConfig.RuntimeParams["tcp_user_timeout"] = "30000"
	// Nothing is looked up twice in one statement: remembering what was found is only a copy of it.
	for _, plan := range []string{"enable_memoize", "enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"} {
		cfg.ConnConfig.RuntimeParams[plan] = "off"
	}
	cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	// Walking an index that has three entries today is not cheaper than looking three keys up in it.
	cfg.ConnConfig.RuntimeParams["cpu_index_tuple_cost"] = "10"
	cfg.ConnConfig.RuntimeParams["cpu_operator_cost"] = "1"
	d := &DB{}
	if d.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	cfg = cfg.Copy()
	cfg.MaxConns = loaders
	if d.loads, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		d.pool.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return d, nil
}

// Close waits for connections in use and closes the pools.
func (d *DB) Close() {
	d.loads.Close()
	d.pool.Close()
}

// Ping tells whether the database answers.
func (d *DB) Ping(ctx context.Context) error { return Refusal(d.pool.Ping(ctx)) }

// Pool is for single statements, which need no transaction of their own.
func (d *DB) Pool() *pgxpool.Pool { return d.pool }

// WritePool is [DB.Pool] for those who write records.
func (d *DB) WritePool() *pgxpool.Pool { return d.loads }

// WriteTx is [DB.Tx] for those who write records.
func (d *DB) WriteTx(ctx context.Context, fn func(pgx.Tx) error) error {
	return d.run(ctx, d.loads, pgx.TxOptions{}, fn)
}

// Tx runs fn in a READ COMMITTED transaction and commits it. fn may run several times: it must
// reset whatever it writes outside the transaction. An error of fn rolls back.
func (d *DB) Tx(ctx context.Context, fn func(pgx.Tx) error) error {
	return d.run(ctx, d.pool, pgx.TxOptions{}, fn)
}

// Snapshot runs fn in a read-only REPEATABLE READ transaction: all its statements see one moment.
func (d *DB) Snapshot(ctx context.Context, fn func(pgx.Tx) error) error {
	return d.run(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

func (d *DB) run(ctx context.Context, pool *pgxpool.Pool, opts pgx.TxOptions, fn func(pgx.Tx) error) error {
	return retry(ctx, func() error { return pgx.BeginTxFunc(ctx, pool, opts, fn) })
}

func retry(ctx context.Context, attempt func() error) error {
	var err error
	for n := range maxAttempts {
		if n > 0 {
			if werr := backoff(ctx, n); werr != nil {
				return werr
			}
		}
		if err = attempt(); !retryable(err) {
			return Refusal(err)
		}
	}
	return Refusal(fmt.Errorf("transaction undone %d times: %w", maxAttempts, err))
}

func backoff(ctx context.Context, attempt int) error {
	t := time.NewTimer(time.Duration(1+rand.IntN(1<<attempt)) * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func retryable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// IsUniqueViolation tells whether err is a breach of the named unique index.
func IsUniqueViolation(err error, index string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.ConstraintName == index
}

// IsUniqueViolationIn tells whether err is a breach of any unique index of the table: one that is being built anew has other names.
func IsUniqueViolationIn(err error, table string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.TableName == table
}

// refusal keeps the cause for the log beside the code for the stranger.
type refusal struct {
	told  *protocol.Error
	cause error
}

func (r *refusal) Error() string   { return r.told.Error() + ": " + r.cause.Error() }
func (r *refusal) Unwrap() []error { return []error{r.told, r.cause} }

// Refusal translates the failures that a client can wait out: a full disk is
// [protocol.CodeDiskFull], a database that is away or too busy [protocol.CodeOverloaded]. Anything
// else comes back as it is.
func Refusal(err error) error {
	if err == nil {
		return nil
	}
	var known *protocol.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case pg.Code == "53100":
			return &refusal{protocol.Errorf(protocol.CodeDiskFull, "the relay has no room at present"), err}
		case pg.Code[:2] == "53", pg.Code[:2] == "57", pg.Code[:2] == "08", pg.Code[:2] == "40", pg.Code == "25P03":
			return away(err)
		}
		return err
	}
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) || pgconn.Timeout(err) || isClosed(err) {
		return away(err)
	}
	return err
}

func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

func away(err error) error {
	return &refusal{protocol.Errorf(protocol.CodeOverloaded, "the relay's database does not answer at present"), err}
}
