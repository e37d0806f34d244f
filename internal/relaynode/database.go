package relaynode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/db"
	"relaymarket/internal/diskspace"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaybackup"
	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/migrations"
	"relaymarket/records"
)

// stopPatience bounds the clean end of the private database. After it Postgres is made to leave, and
// recovers at the next start.
const stopPatience = 30 * time.Second

// startPatience bounds how long an external database may take to answer when the relay starts.
const startPatience = 10 * time.Second

// Database says where the relay's data is.
type Database struct {
	URL         string         // of an external Postgres; empty: the private cluster
	Cluster     localpg.Config // the private cluster, when there is no URL
	Connections int32          // at most
	Keep        int64          // bytes that are kept free of new records, on the private cluster's disk
}

// starter is localpg.Start, which wants the cluster for itself, or localpg.Open, which shares it.
type starter func(context.Context, localpg.Config) (*localpg.Cluster, error)

// store is an open, migrated database, and the cluster it is in if that is private.
type store struct {
	db      *db.DB
	cluster *localpg.Cluster // nil with an external database
}

func (d Database) open(ctx context.Context, start starter) (*store, error) {
	s := &store{}
	url := d.URL
	if url == "" {
		cluster, err := start(ctx, d.Cluster)
		if err != nil {
			return nil, err
		}
		s.cluster, url = cluster, cluster.URL()
	}
	if err := s.connect(ctx, url, d.Connections); err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *store) connect(ctx context.Context, url string, connections int32) error {
	opened, err := db.Open(ctx, url, connections)
	if err != nil {
		return err
	}
	s.db = opened
	ping, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := s.db.Ping(ping); err != nil {
		return fmt.Errorf("the database does not answer; see that Postgres runs and that database-url is right: %w", err)
	}
	return migrations.Up(ctx, url)
}

// close closes the pool, then stops the private cluster.
func (s *store) close(ctx context.Context) error {
	if s.db != nil {
		s.db.Close()
	}
	if s.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	return s.cluster.Stop(ctx)
}

// startWithRoom is localpg.Start for a relay that serves: on a full disk it waits for room instead of failing.
func startWithRoom(ctx context.Context, cfg localpg.Config) (*localpg.Cluster, error) {
	folder, err := localpg.Locate(cfg)
	if err == nil && folder != "" {
		err = diskspace.Await(ctx, folder, cfg.Logger)
	}
	if err != nil {
		return nil, err
	}
	return localpg.Start(ctx, cfg)
}

// watch is the watch over the private cluster's disk; nil with an external database.
func (s *store) watch(cfg Config, registry prometheus.Registerer) (*diskspace.Watch, error) {
	if s.cluster == nil {
		return nil, nil
	}
	w, err := diskspace.New(diskspace.Config{
		Folder: s.cluster.Folder(), Keep: cfg.Database.Keep, Grows: s.cluster.LogGrows, Logger: cfg.Logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	return w, w.Look()
}

// free tells what is free on the private cluster's disk; nil with an external database.
func (s *store) free() func() (int64, error) {
	if s.cluster == nil {
		return nil
	}
	return func() (int64, error) { return relaybackup.Free(s.cluster.Folder()) }
}

// exited is closed when the private cluster ends; nil, which never is, with an external database.
func (s *store) exited() <-chan struct{} {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Exited()
}

// WithBooks runs an administrative command on the relay's accounts. It may be called while a relay serves
// from the same database, private or not, and while none does.
func WithBooks(ctx context.Context, d Database, do func(context.Context, *books.Store) error) error {
	return d.withShared(ctx, func(s *store) error {
		return do(ctx, books.New(books.Config{DB: s.db, Clock: time.Now}))
	})
}

// WithLists runs an administrative command on the lists of whom the relay serves for nothing, while the relay serves or not.
func WithLists(ctx context.Context, d Database, p willing.Policy, do func(context.Context, *willing.Store) error) error {
	return d.withShared(ctx, func(s *store) error {
		return do(ctx, willing.New(willing.Config{DB: s.db, Books: books.New(books.Config{DB: s.db, Clock: time.Now}), Policy: p, Clock: time.Now}))
	})
}

// WithAccounts is [WithBooks] within one transaction, for what the manager of contracts does there.
func WithAccounts(ctx context.Context, d Database, do func(context.Context, *books.Store, pgx.Tx) error) error {
	return d.withShared(ctx, func(s *store) error {
		b := books.New(books.Config{DB: s.db, Clock: time.Now})
		return s.db.Tx(ctx, func(tx pgx.Tx) error { return do(ctx, b, tx) })
	})
}

// Restored begins another life of a database that was put back from a backup: every cursor handed out before is
// answered "start over", because readers may be ahead of what is here now. No relay may serve from it meanwhile; with
// a private cluster that is made sure of.
func Restored(ctx context.Context, d Database) error {
	return d.with(ctx, localpg.Start, func(s *store) error { return records.NewEpoch(ctx, s.db) })
}

func (d Database) withShared(ctx context.Context, do func(*store) error) error {
	return d.with(ctx, localpg.Open, do)
}

func (d Database) with(ctx context.Context, start starter, do func(*store) error) error {
	s, err := d.open(ctx, start)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.close(context.WithoutCancel(ctx)))
}
