package testpg

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
)

func TestMain(m *testing.M) { Main(m) }

func show(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestParallelTestsDoNotSeeEachOther(t *testing.T) {
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			dsn := New(t)
			if n := show(t, dsn, `SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'`); n != "0" {
				t.Fatalf("%s tables in a fresh database", n)
			}
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			// Left open on purpose: the database is dropped all the same.
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			if _, err := conn.Exec(t.Context(), `CREATE TABLE mine (n int)`); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDatabaseIsDropped(t *testing.T) {
	var dsn string
	t.Run("", func(t *testing.T) { dsn = New(t) })
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Fatal("it is still there")
	}
}

func TestAsDurableAsARelay(t *testing.T) {
	dsn := New(t)
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if value := show(t, dsn, `SHOW `+name); value != "on" {
			t.Errorf("%s = %s", name, value)
		}
	}
	if value := show(t, dsn, `SHOW is_superuser`); value != "off" {
		t.Error("tests run with more rights than a relay")
	}
}

func TestPrivateClusterCanBeKilled(t *testing.T) {
	c := Private(t)
	if c.PID() == Shared(t).PID() {
		t.Fatal("it is the shared one")
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Exited()
	show(t, New(t), `SELECT 1::text`)
}

func TestConfigStartsTwice(t *testing.T) {
	cfg := Config(t)
	cfg.Settings["synchronous_commit"] = "off"
	for range 2 {
		c, err := localpg.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if value := show(t, c.URL(), `SHOW synchronous_commit`); value != "off" {
			t.Errorf("synchronous_commit = %s", value)
		}
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSweep(t *testing.T) {
	temp := t.TempDir()
	old, young, running := filepath.Join(temp, "relaymarket-testpg-1"), filepath.Join(temp, "relaymarket-testpg-2"), filepath.Dir(filepath.Dir(Shared(t).Folder()))
	for _, dir := range []string{old, young} {
		if err := os.MkdirAll(filepath.Join(dir, "db", "data"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	for _, dir := range []string{old, filepath.Dir(Shared(t).Folder())} {
		if err := os.Chtimes(dir, long, long); err != nil {
			t.Fatal(err)
		}
	}
	sweep(t.Context(), temp)
	sweep(t.Context(), running)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("not swept: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("swept while it was about to start: %v", err)
	}
	show(t, New(t), `SELECT 1::text`)
	if _, err := os.Stat(Shared(t).Folder()); err != nil {
		t.Errorf("swept while it runs: %v", err)
	}
}
