// Package testpg gives tests real databases: one cluster a test binary, started when the first test asks for
// it, and in it a fresh database for everyone who asks. It commits as durably as a relay's own.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { testpg.Main(m) }
//
// which stops the cluster at the end, removes it, and fails if a goroutine is left. Fault tests, which
// halt or kill the server, start one of their own with Private or Config.
package testpg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"relaymarket/internal/leakcheck"
	"relaymarket/internal/localpg"
)

// folderPattern names the folders of test clusters, which sweep knows them by.
const folderPattern = "relaymarket-testpg-*"

// stopPatience bounds the end of a test's cluster and of its databases.
const stopPatience = 3 * time.Minute

// suite is the cluster of this test binary. It has to be found from every test and from TestMain, which hand
// nothing to each other: hence a variable of the package.
var suite struct {
	mu        sync.Mutex
	main      bool // Main runs, and will stop it
	cluster   *localpg.Cluster
	config    localpg.Config
	err       error // why it did not start: the next test need not try again
	databases int
}

// Main runs the tests of a package and ends the process. The options are goleak's.
func Main(m *testing.M, options ...goleak.Option) {
	suite.mu.Lock()
	suite.main = true
	suite.mu.Unlock()
	leakcheck.Main(runner{m}, options...)
}

// runner stops the cluster before goleak looks.
type runner struct{ m *testing.M }

func (r runner) Run() int {
	code := r.m.Run()
	suite.mu.Lock()
	defer suite.mu.Unlock()
	if suite.cluster == nil {
		return code
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := end(ctx, suite.cluster, suite.config); err != nil {
		fmt.Fprintln(os.Stderr, "testpg:", err)
		return max(code, 1)
	}
	return code
}

func end(ctx context.Context, c *localpg.Cluster, cfg localpg.Config) error {
	if err := c.Stop(ctx); err != nil {
		return err
	}
	if err := localpg.Remove(ctx, cfg); err != nil {
		return err
	}
	return os.Remove(filepath.Dir(cfg.Dir))
}

// New returns the URL of a fresh, empty database, which is dropped when the test ends, whoever
// is still connected. It is safe to call from parallel tests.
func New(t testing.TB) string {
	t.Helper()
	c := Shared(t)
	suite.mu.Lock()
	suite.databases++
	name := fmt.Sprintf("test_%d", suite.databases)
	suite.mu.Unlock()
	exec(t, c, `CREATE DATABASE `+name+` OWNER `+localpg.Database)
	t.Cleanup(func() { exec(t, c, `DROP DATABASE `+name+` WITH (FORCE)`) })
	dsn, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	dsn.Path = "/" + name
	return dsn.String()
}

func exec(t testing.TB, c *localpg.Cluster, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.AdminURL())
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for {
		_, err := conn.Exec(ctx, sql)
		// Postgres waits five seconds for those that it has told to leave the database, and a busy machine may need more.
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == inUse && ctx.Err() == nil {
			continue
		}
		if err != nil {
			t.Fatalf("testpg: %s: %v", sql, err)
		}
		return
	}
}

// inUse is Postgres' code for a database that somebody is connected to.
const inUse = "55006"

// Shared returns the cluster of this test binary. Whoever halts or kills it does so to the
// other tests as well.
func Shared(t testing.TB) *localpg.Cluster {
	t.Helper()
	suite.mu.Lock()
	defer suite.mu.Unlock()
	if !suite.main {
		t.Fatal("testpg: nobody would stop the cluster: let TestMain call testpg.Main")
	}
	if suite.cluster == nil && suite.err == nil {
		ctx := context.Background() // it outlives this test
		sweep(ctx, os.TempDir())
		suite.config, suite.err = newConfig()
		if suite.err == nil {
			suite.cluster, suite.err = localpg.Start(ctx, suite.config)
		}
	}
	if suite.err != nil {
		t.Fatalf("testpg: %v", suite.err)
	}
	return suite.cluster
}

// Private returns a cluster for one test alone, which ends with it. Its database is
// localpg.Database, empty.
func Private(t testing.TB) *localpg.Cluster {
	t.Helper()
	c, err := localpg.Start(t.Context(), Config(t))
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Errorf("testpg: %v", err)
		}
	})
	return c
}

// Config returns what to start a cluster with in a new folder, for tests that start it more than once or with
// other settings. The folder is removed when the test ends; the test has stopped the cluster by then.
func Config(t testing.TB) localpg.Config {
	t.Helper()
	cfg, err := newConfig()
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		if err := localpg.Remove(ctx, cfg); err != nil {
			t.Errorf("testpg: %v", err)
			return
		}
		if err := os.Remove(filepath.Dir(cfg.Dir)); err != nil {
			t.Errorf("testpg: %v", err)
		}
	})
	return cfg
}

func newConfig() (localpg.Config, error) {
	dir, err := os.MkdirTemp("", folderPattern)
	if err != nil {
		return localpg.Config{}, err
	}
	// As root, the cluster is another user's, who has to get there.
	if err := os.Chmod(dir, 0o711); err != nil {
		return localpg.Config{}, err
	}
	return localpg.Config{
		Dir:    filepath.Join(dir, "db"),
		NoSync: true,
		// Small, but no less durable: fsync and synchronous_commit are a relay's. Parallel tests bring
		// a pool of connections each.
		Settings: map[string]string{
			"shared_buffers":  "64MB",
			"min_wal_size":    "32MB",
			"max_wal_size":    "512MB",
			"max_connections": "300",
		},
	}, nil
}

// sweep removes what killed test binaries left behind. It is a courtesy, so it is silent about what it cannot
// remove. A lock keeps it from those that run, and their age from those that are about to.
func sweep(ctx context.Context, temp string) {
	left, err := filepath.Glob(filepath.Join(temp, folderPattern))
	if err != nil {
		return
	}
	for _, dir := range left {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < 10*time.Minute {
			continue
		}
		if localpg.Remove(ctx, localpg.Config{Dir: filepath.Join(dir, "db")}) == nil {
			_ = os.Remove(dir)
		}
	}
}
