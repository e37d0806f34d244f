package relaybackup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// schema is where the relay's tables are: the only schema that is dumped, so that extensions and tables of others who use the database
// are no part of a backup.
const schema = "public"

// snapshot is one moment of the database, which pg_dump is shown too.
type snapshot struct {
	conn *pgx.Conn
	tx   pgx.Tx
	name string
}

// begin takes the snapshot. It is held until end: Postgres keeps what the dump will read.
func begin(ctx context.Context, conn *pgx.Conn) (*snapshot, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	s := &snapshot{conn: conn, tx: tx}
	if err := tx.QueryRow(ctx, `SELECT pg_export_snapshot()`).Scan(&s.name); err != nil {
		return nil, errors.Join(err, s.end(ctx))
	}
	return s, nil
}

func (s *snapshot) end(ctx context.Context) error { return s.tx.Rollback(context.WithoutCancel(ctx)) }

// database is what the manifest says of it, without its rows.
func (s *snapshot) database(ctx context.Context) (d Database, relay *protocol.PublicKey, err error) {
	var there bool
	if err := s.tx.QueryRow(ctx, `SELECT to_regclass('public.relay_cursor') IS NOT NULL AND to_regclass('public.goose_db_version') IS NOT NULL`).Scan(&there); err != nil {
		return d, nil, err
	}
	if !there {
		return d, nil, errors.New("this is no relay's database, or its tables are not in the schema public: see that database-url is right")
	}
	if d.Schema, err = schemaVersion(ctx, s.tx); err != nil {
		return d, nil, err
	}
	var key []byte
	if err := s.tx.QueryRow(ctx, `SELECT epoch, n, relay FROM relay_cursor`).Scan(&d.Epoch, &d.Cursor, &key); err != nil {
		return d, nil, fmt.Errorf("read the cursor: %w", err)
	}
	if key != nil {
		relay = (*protocol.PublicKey)(key)
	}
	if d.Bytes, _, err = s.sizes(ctx); err != nil {
		return d, nil, err
	}
	if d.Indexes, d.Rules, err = countRules(ctx, s.tx); err != nil {
		return d, nil, err
	}
	err = s.tx.QueryRow(ctx, `SELECT count(*) FROM contracts WHERE look_at IS NOT NULL`).Scan(&d.Contracts)
	return d, relay, err
}

// sizes are of all tables with their indexes, and of the rows alone.
func (s *snapshot) sizes(ctx context.Context) (all, rows int64, err error) {
	err = s.tx.QueryRow(ctx, `SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint, coalesce(sum(pg_table_size(oid)), 0)::bigint
		FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`).Scan(&all, &rows)
	return all, rows, err
}

// querier is a transaction or a connection.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func schemaVersion(ctx context.Context, q querier) (version int64, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(max(version_id) FILTER (WHERE is_applied), 0) FROM goose_db_version`).Scan(&version)
	return version, err
}

// countRows counts every table. The planner takes an index where there is one.
func countRows(ctx context.Context, q querier) (map[string]int64, error) {
	rows, err := q.Query(ctx, `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	counted := make(map[string]int64, len(names))
	for _, name := range names {
		var n int64
		if err := q.QueryRow(ctx, `SELECT count(*) FROM `+pgx.Identifier{schema, name}.Sanitize()).Scan(&n); err != nil {
			return nil, fmt.Errorf("count %s: %w", name, err)
		}
		counted[name] = n
	}
	return counted, nil
}

// countRules counts indexes that are whole, and constraints: what keeps an effect from happening twice.
func countRules(ctx context.Context, q querier) (indexes, rules int64, err error) {
	err = q.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace AND i.indisvalid),
		(SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND convalidated)`).Scan(&indexes, &rules)
	return indexes, rules, err
}
