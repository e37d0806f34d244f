// Package localpg runs a private PostgreSQL cluster from the system's binaries, for a relay
// that was given no database URL and for tests.
//
// One folder is one cluster. Start makes the cluster on first use, holds a lock on the folder for as
// long as it runs, and listens on a Unix socket only, which nobody but the cluster's user and root can
// reach. PostgreSQL refuses to run as root: then the cluster belongs to an unprivileged user, and stands
// outside the folder if that user cannot get there.
//
// It guarantees that two processes never run one folder, that a first start which was cut short starts over,
// and that a cluster does not outlive its process: it is told to shut down when that one dies, however it
// dies, and the next Start waits for it.
//
// relayd calls it (Start to serve, Open for administrative commands), and testpg.
package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is the name of the database that every cluster has, and of the role that owns it.
const Database = "relaymarket"

// superuser is the role initdb makes. A relay does not use it: its own role can neither read
// the server's files nor run its programs.
const superuser = "postgres"

// port only names the socket file; nothing listens on TCP.
const port = "5432"

// openPatience is how long Open waits for a cluster that another process is just starting or stopping.
const openPatience = time.Minute

// Config says where a cluster stands and how it runs. Dir is required.
type Config struct {
	// Dir is the cluster's folder; it is made if it is missing.
	Dir string
	// Logger is told what an operator wants to know; nil discards it.
	Logger *slog.Logger
	// BinDir is the folder of initdb and postgres; empty means: look for them.
	BinDir string
	// Settings override the PostgreSQL settings that this package chose. For tests, and while a backup is put back.
	Settings map[string]string
	// NoSync makes a new cluster without flushing it to disk: for tests, which throw it away.
	// It changes nothing about how commits are flushed.
	NoSync bool

	elsewhere string // replaces elsewhereRoot in tests
}

func (cfg Config) logger() *slog.Logger {
	if cfg.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return cfg.Logger
}

// Cluster is a running cluster. Its methods are safe for concurrent use.
type Cluster struct {
	place     place
	socketDir string
	log       *slog.Logger
	owned     *owned // nil: another process runs the cluster
}

// owned is what only the process that started a cluster has.
type owned struct {
	postmaster *postmaster
	lock       *lock
	pruned     chan struct{} // closed when the loop that prunes logs has ended
	socketTemp bool          // the socket folder stands outside the cluster's folder
	maxLog     int64         // max_wal_size in bytes
}

// Start starts the cluster in cfg.Dir, making it first if there is none, and returns when it answers. The
// context bounds the start only. Start fails with ErrInUse when another process runs the cluster.
//
// Recovery after a crash takes as long as it takes: Start says so in the log and goes on waiting.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	return start(ctx, cfg, holderServer)
}

// Open returns the cluster in cfg.Dir for an administrative command: the running one if another process runs
// it, else one that it starts and that Stop ends.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	deadline := time.Now().Add(openPatience)
	for {
		c, err := start(ctx, cfg, holderCommand)
		if !errors.Is(err, ErrInUse) {
			return c, err
		}
		// Its owner may be in the middle of starting or stopping it: try both ways until one works.
		c, borrowErr := borrow(ctx, cfg)
		if borrowErr == nil {
			return c, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w, but its database does not answer: %w", err, borrowErr)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// Remove deletes the cluster in cfg.Dir and the folder. It fails with ErrInUse while somebody runs it; a
// folder that is not there is no error.
func Remove(ctx context.Context, cfg Config) error {
	if !exists(cfg.Dir) {
		return nil
	}
	a, err := ownAccount()
	if err != nil {
		return err
	}
	p, err := find(cfg, a)
	if err != nil {
		return err
	}
	held, err := acquire(ctx, p, holderCommand)
	if err != nil {
		return err
	}
	defer held.release()
	if err := endLeftover(ctx, p, cfg.logger(), leftoverPatience); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(p.base), os.RemoveAll(p.dir))
}

func start(ctx context.Context, cfg Config, as holder) (*Cluster, error) {
	a, err := ownAccount()
	if err != nil {
		return nil, err
	}
	p, err := settle(ctx, cfg, a)
	if err != nil {
		return nil, err
	}
	held, err := acquire(ctx, p, as)
	if err != nil {
		return nil, err
	}
	c, err := boot(ctx, cfg, p)
	if err != nil {
		held.release()
		return nil, err
	}
	c.owned.lock = held
	return c, nil
}

// boot runs the cluster of a place whose lock is held.
func boot(ctx context.Context, cfg Config, p place) (*Cluster, error) {
	p, err := p.withOwner()
	if err != nil {
		return nil, err
	}
	log := cfg.logger()
	if err := endLeftover(ctx, p, log, leftoverPatience); err != nil {
		return nil, err
	}
	bin, err := findBinaries(cfg.BinDir, p)
	if err != nil {
		return nil, err
	}
	if err := p.makeFolders(); err != nil {
		return nil, err
	}
	if err := makeData(ctx, cfg, bin, p); err != nil {
		return nil, err
	}
	socketDir, temp, err := makeSocketDir(p)
	if err != nil {
		return nil, err
	}
	if err := writeSettings(p, bin); err != nil {
		return nil, err
	}
	c := &Cluster{place: p, socketDir: socketDir, log: log}
	pm, err := launch(ctx, cfg, bin, c)
	if err != nil {
		return nil, err
	}
	c.owned = &owned{postmaster: pm, pruned: make(chan struct{}), socketTemp: temp}
	go func() {
		defer close(c.owned.pruned)
		pruneLogs(p.logDir(), pm.done, log)
	}()
	if err := c.ensureDatabase(ctx); err != nil {
		c.shutDown(context.WithoutCancel(ctx))
		return nil, err
	}
	if c.owned.maxLog, err = c.readMaxLog(ctx); err != nil {
		c.shutDown(context.WithoutCancel(ctx))
		return nil, err
	}
	log.Info("database started", "folder", p.base, "version", bin.version, "pid", pm.pid)
	return c, nil
}

// borrow connects to a cluster that another process runs.
func borrow(ctx context.Context, cfg Config) (*Cluster, error) {
	a, err := ownAccount()
	if err != nil {
		return nil, err
	}
	p, err := find(cfg, a)
	if err != nil {
		return nil, err
	}
	file, err := readPIDFile(p.dataDir())
	if err != nil {
		return nil, err
	}
	c := &Cluster{place: p, socketDir: file.socketDir, log: cfg.logger()}
	if err := ping(ctx, c.URL()); err != nil {
		return nil, err
	}
	return c, nil
}

// URL is what pgx connects to: the database Database, as the role that owns it.
func (c *Cluster) URL() string { return c.url(Database, Database) }

// AdminURL connects to the database postgres as the superuser: for tests and maintenance.
func (c *Cluster) AdminURL() string { return c.url(superuser, "postgres") }

func (c *Cluster) url(role, database string) string {
	query := url.Values{"host": {c.socketDir}, "port": {port}, "sslmode": {"disable"}}
	// As libpq, pgx takes a plus sign for what it is, not for a space.
	escaped := strings.ReplaceAll(query.Encode(), "+", "%20")
	return (&url.URL{Scheme: "postgres", User: url.User(role), Path: "/" + database, RawQuery: escaped}).String()
}

// Folder is where the cluster's files are: Config.Dir, or the folder that stands for it
// because the cluster's user could not get there.
func (c *Cluster) Folder() string { return c.place.base }

// Locate is where the cluster in cfg.Dir stands, as Folder; empty if there is none yet.
func Locate(cfg Config) (string, error) {
	if !exists(cfg.Dir) {
		return "", nil
	}
	p, err := find(cfg, account{})
	return p.base, err
}

// LogGrows is what the write-ahead log may still grow by, in bytes, though nothing more is stored: Postgres lets it
// reach max_wal_size before it uses it again. 0 if another process runs the cluster.
func (c *Cluster) LogGrows() int64 {
	if c.owned == nil {
		return 0
	}
	// What cannot be looked into counts as empty.
	segments, _ := os.ReadDir(filepath.Join(c.place.dataDir(), "pg_wal"))
	files := 0
	for _, s := range segments {
		if s.Type().IsRegular() {
			files++
		}
	}
	return max(c.owned.maxLog-int64(files)*logSegment, 0)
}

func (c *Cluster) readMaxLog(ctx context.Context) (bytes int64, err error) {
	conn, err := pgx.Connect(ctx, c.AdminURL())
	if err != nil {
		return 0, fmt.Errorf("connect to the private database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, `SELECT setting::bigint << 20 FROM pg_settings WHERE name = 'max_wal_size'`).Scan(&bytes)
	if err != nil {
		return 0, fmt.Errorf("look into the private database: %w", err)
	}
	return bytes, nil
}

// PID is the postmaster's process, or 0 if another process runs the cluster.
func (c *Cluster) PID() int {
	if c.owned == nil {
		return 0
	}
	return c.owned.postmaster.pid
}

// Exited is closed when the postmaster has ended, be it after Stop or by itself. It never is for a cluster that
// another process runs.
func (c *Cluster) Exited() <-chan struct{} {
	if c.owned == nil {
		return nil
	}
	return c.owned.postmaster.done
}

// Stop shuts the cluster down: running transactions are rolled back, everything is written, and the folder is
// free when Stop returns. If the context ends first, the postmaster is made to leave at once and the next
// start recovers; nothing committed is lost either way. Stop does nothing to a cluster that
// another process runs, and nothing the second time.
func (c *Cluster) Stop(ctx context.Context) error {
	if c.owned == nil {
		return nil
	}
	err := c.shutDown(ctx)
	c.owned.lock.release()
	return err
}

func (c *Cluster) shutDown(ctx context.Context) error {
	err := c.owned.postmaster.stop(ctx)
	if err != nil {
		err = fmt.Errorf("%s: %w", c.place.base, err)
	}
	<-c.owned.pruned
	if c.owned.socketTemp {
		// Left behind, it costs an empty folder; the next start takes it over.
		_ = os.Remove(c.socketDir)
	}
	return err
}

// ensureDatabase makes the relay's role and database. It runs at every start, because the first one may have
// been cut short between the two.
func (c *Cluster) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.AdminURL())
	if err != nil {
		return fmt.Errorf("connect to the private database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	name := pgx.Identifier{Database}.Sanitize()
	for _, object := range []struct{ exists, create string }{
		{`SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, `CREATE ROLE ` + name + ` LOGIN`},
		{`SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, `CREATE DATABASE ` + name + ` OWNER ` + name},
	} {
		var exists bool
		if err := conn.QueryRow(ctx, object.exists, Database).Scan(&exists); err != nil {
			return fmt.Errorf("look into the private database: %w", err)
		}
		if exists {
			continue
		}
		if _, err := conn.Exec(ctx, object.create); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(object.create), err)
		}
	}
	return nil
}

func ping(ctx context.Context, dsn string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Signal sends a signal to the postmaster; it fails if another process runs the cluster. For fault tests.
func (c *Cluster) Signal(sig syscall.Signal) error {
	if c.owned == nil {
		return fmt.Errorf("%s: %w", c.place.dir, ErrInUse)
	}
	return c.owned.postmaster.process.Signal(sig)
}
