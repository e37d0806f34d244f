// Package relaycare keeps, while a relay serves, what its doctor and metrics want to know of the past: how large the database was and how full its
// disk, every ten minutes of the last days, and when the last backup was made.
//
// relaynode runs it; relayd doctor reads what it wrote. All of it is in the database, so that every relayd on it knows the same.
package relaycare

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/db"
	"relaymarket/internal/relaybackup"
	"relaymarket/protocol"
)

const (
	// look is how often the last backup is looked for.
	look = time.Minute
	// SizeEvery is how far apart sizes are kept.
	SizeEvery = 10 * time.Minute
	// sizesFor is how long they are.
	sizesFor = 8 * 24 * time.Hour
)

// Config is what a [Keeper] needs. Free may be nil: nobody knows what is free on the database's disk.
type Config struct {
	DB         *db.DB
	Free       func() (int64, error)
	Clock      func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Keeper keeps it. It is safe for concurrent use.
type Keeper struct {
	cfg    Config
	backup atomic.Pointer[relaybackup.Noted]
}

// New makes a keeper and its metric. It starts nothing.
func New(cfg Config) (*Keeper, error) {
	k := &Keeper{cfg: cfg}
	if cfg.Registerer == nil {
		return k, nil
	}
	return k, cfg.Registerer.Register(k)
}

// What the metrics are.
func backupAge() *prometheus.Desc {
	return prometheus.NewDesc("relaymarket_backup_age_seconds", "How old the last backup by relayd backup is; missing: there is none.", nil, nil)
}

func backupBytes() *prometheus.Desc {
	return prometheus.NewDesc("relaymarket_backup_bytes", "How large the last backup is; missing: there is none.", nil, nil)
}

// Describe implements [prometheus.Collector].
func (k *Keeper) Describe(to chan<- *prometheus.Desc) {
	to <- backupAge()
	to <- backupBytes()
}

// Collect implements [prometheus.Collector].
func (k *Keeper) Collect(to chan<- prometheus.Metric) {
	last := k.backup.Load()
	if last == nil {
		return
	}
	to <- prometheus.MustNewConstMetric(backupAge(), prometheus.GaugeValue, k.cfg.Clock().Sub(last.Taken.Time()).Seconds())
	to <- prometheus.MustNewConstMetric(backupBytes(), prometheus.GaugeValue, float64(last.Bytes))
}

// Run keeps on until ctx is done. A database that is away is tried again.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		if err := k.Look(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Logger.Warn("keep sizes and the age of the backup", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Look looks once.
func (k *Keeper) Look(ctx context.Context) error {
	last, err := relaybackup.LastNoted(ctx, k.cfg.DB.Pool())
	if err != nil {
		return err
	}
	k.backup.Store(last)
	return k.size(ctx)
}

// size keeps the size of these ten minutes, unless somebody has.
func (k *Keeper) size(ctx context.Context) error {
	now := k.cfg.Clock()
	at := protocol.TimestampOf(now.Truncate(SizeEvery))
	pool := k.cfg.DB.Pool()
	var there int64
	err := pool.QueryRow(ctx, `SELECT at FROM relay_sizes WHERE at = $1`, int64(at)).Scan(&there)
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	var free *int64
	if k.cfg.Free != nil {
		n, err := k.cfg.Free()
		if err != nil {
			return err
		}
		free = &n
	}
	_, err = pool.Exec(ctx, `WITH old AS (DELETE FROM relay_sizes WHERE at < $2)
		INSERT INTO relay_sizes (at, bytes, free) VALUES ($1, pg_database_size(current_database()), $3) ON CONFLICT DO NOTHING`,
		int64(at), int64(protocol.TimestampOf(now.Add(-sizesFor))), free)
	return err
}

// Size is what was kept of one time.
type Size struct {
	At    time.Time
	Bytes int64  // of the database
	Free  *int64 // on its disk; nil: nobody knows
}

// querier is a connection or a pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Sizes reads what was kept since a time, oldest first.
func Sizes(ctx context.Context, q querier, since time.Time) ([]Size, error) {
	rows, err := q.Query(ctx, `SELECT at, bytes, free FROM relay_sizes WHERE at >= $1 ORDER BY at`, int64(protocol.TimestampOf(since)))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Size, err error) {
		var at protocol.Timestamp
		err = row.Scan(&at, &s.Bytes, &s.Free)
		s.At = at.Time()
		return s, err
	})
}
