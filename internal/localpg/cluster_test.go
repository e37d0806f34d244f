package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestDataSurvivesRestart(t *testing.T) {
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	run(t, c.URL(), `CREATE TABLE kept AS SELECT 7 AS n`)
	select {
	case <-c.Exited():
		t.Fatal("exited while it runs")
	default:
	}
	stop(t, c)
	<-c.Exited()
	stop(t, c) // twice is once
	if entries, err := os.ReadDir(c.place.runDir()); err != nil || len(entries) != 0 {
		t.Fatalf("left in the socket folder: %v, %v", entries, err)
	}

	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SELECT n::text FROM kept`); got != "7" {
		t.Fatalf("n = %s", got)
	}
}

func TestSettings(t *testing.T) {
	c := startCluster(t, config(t, folder(t)))
	for name, want := range map[string]string{
		"wal_compression": "lz4", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"listen_addresses": "", "max_connections": "60", "server_encoding": "UTF8", "lc_collate": "C",
		"autovacuum_vacuum_insert_scale_factor": "0.05", "logging_collector": "on", "is_superuser": "off",
	} {
		if got := query(t, c.URL(), `SHOW `+name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := query(t, c.AdminURL(), `SHOW is_superuser`); got != "on" {
		t.Errorf("the administrator is a superuser: %s", got)
	}
	stop(t, c)

	ok(t, os.WriteFile(filepath.Join(c.place.confDir(), operatorFile), []byte("max_connections = 70\n"), 0o644))
	cfg := config(t, c.Folder())
	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SHOW max_connections`); got != "70" {
		t.Errorf("the operator's setting is not used: %s", got)
	}
	stop(t, c)
	cfg.Settings = map[string]string{"max_connections": "80"}
	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SHOW max_connections`); got != "80" {
		t.Errorf("the caller's setting is not used: %s", got)
	}
}

func TestOddFolderNames(t *testing.T) {
	c := startCluster(t, config(t, filepath.Join(folder(t), `a b,"c'd[e]%f\g`)))
	if got := query(t, c.URL(), `SELECT current_database()::text`); got != Database {
		t.Fatal(got)
	}
	if newestLog(c.place.logDir()) == "" {
		t.Error("no log in the log folder")
	}
}

func TestLongPath(t *testing.T) {
	cfg := config(t, filepath.Join(folder(t), strings.Repeat("long/", 20)))
	c := startCluster(t, cfg)
	if got := query(t, c.URL(), `SELECT 1::text`); got != "1" {
		t.Fatal(got)
	}
	socketDir := c.socketDir
	if strings.HasPrefix(socketDir, c.Folder()) || uidOf(t, socketDir) != c.place.account.uid {
		t.Fatalf("socket folder %s, owner %d", socketDir, uidOf(t, socketDir))
	}
	borrowed, err := Open(t.Context(), cfg)
	ok(t, err)
	if borrowed.PID() != 0 || borrowed.socketDir != socketDir {
		t.Fatalf("process %d, socket %s", borrowed.PID(), borrowed.socketDir)
	}
	stop(t, c)
	if exists(socketDir) {
		t.Fatalf("%s is left behind", socketDir)
	}

	ok(t, os.Mkdir(socketDir, 0o755)) // somebody took the name
	t.Cleanup(func() { ok(t, os.RemoveAll(socketDir)) })
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), socketDir) {
		t.Fatalf("trusted a stranger's folder: %v", err)
	}
}

func TestOwnerKilled(t *testing.T) {
	dir := folder(t)
	for round := range 3 {
		o := startOwner(t, dir)
		for range 50 * (round + 1) {
			o.next(t)
		}
		last := o.kill(t)
		if round == 0 {
			eventually(t, "the postmaster of a killed owner ends by itself", func() bool { return !alive(o.postmaster) })
		}
		c := startCluster(t, config(t, dir))
		if file, err := readPIDFile(c.place.dataDir()); err != nil || file.pid != c.PID() {
			t.Fatalf("process %d runs the cluster that %d should run: %v", file.pid, c.PID(), err)
		}
		if got := query(t, c.URL(), `SELECT count(*)::text FROM row WHERE n <= `+strconv.Itoa(last)); got != strconv.Itoa(last) {
			t.Fatalf("round %d: %s of %d acknowledged rows", round, got, last)
		}
		stop(t, c)
	}
}

func TestOwnerKilledAtFirstStart(t *testing.T) {
	for delay := 100 * time.Millisecond; delay <= 500*time.Millisecond; delay += 200 * time.Millisecond {
		cfg := config(t, folder(t))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), ownerDir+"="+cfg.Dir)
		ok(t, cmd.Start())
		time.Sleep(delay)
		ok(t, cmd.Process.Kill())
		_ = cmd.Wait()
		c := startCluster(t, cfg)
		ok(t, ping(t.Context(), c.URL()))
		stop(t, c)
	}
}

func TestSecondProcess(t *testing.T) {
	cfg := config(t, folder(t))
	o := startOwner(t, cfg.Dir)

	_, err := Start(t.Context(), cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), cfg.Dir) || !strings.Contains(err.Error(), strconv.Itoa(o.cmd.Process.Pid)) {
		t.Fatalf("second start: %v", err)
	}
	if err := Remove(t.Context(), cfg); !errors.Is(err, ErrInUse) {
		t.Fatalf("removed what another process runs: %v", err)
	}
	borrowed, err := Open(t.Context(), cfg)
	ok(t, err)
	o.next(t) // the owner has a row
	if got := query(t, borrowed.URL(), `SELECT (count(*) > 0)::text FROM row`); got != "true" {
		t.Fatal(got)
	}
	if borrowed.PID() != 0 || borrowed.Exited() != nil || borrowed.Signal(syscall.SIGINT) == nil {
		t.Fatal("it took another process's cluster for its own")
	}
	stop(t, borrowed)
	o.next(t)
	if !alive(o.postmaster) {
		t.Fatal("stopped another process's cluster")
	}
	o.end(t)

	own, err := Open(t.Context(), cfg)
	ok(t, err)
	if own.PID() == 0 {
		t.Fatal("borrowed from nobody")
	}
	stop(t, own)
	if alive(own.PID()) {
		t.Fatal("an administrative command left its cluster running")
	}
}

func TestCommandsWaitForEachOther(t *testing.T) {
	cfg := config(t, folder(t))
	first, err := Open(t.Context(), cfg)
	ok(t, err)
	second := make(chan *Cluster)
	go func() {
		c, err := Open(t.Context(), cfg)
		if err != nil {
			t.Error(err)
		}
		second <- c
	}()
	select {
	case <-second:
		t.Error("borrowed from a command, which stops the cluster when it is done")
	case <-time.After(300 * time.Millisecond):
		stop(t, first)
		stop(t, <-second)
	}

	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			c, err := Open(t.Context(), cfg)
			if err != nil {
				t.Errorf("command %d: %v", i, err)
				return
			}
			if err := ping(t.Context(), c.URL()); err != nil {
				t.Errorf("command %d: %v", i, err)
			}
			if err := c.Stop(t.Context()); err != nil {
				t.Errorf("command %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Who has just taken the lock and not said for what is waited for, like any command.
func TestLockThatSaysNothingYet(t *testing.T) {
	p := place{base: t.TempDir()}
	other, err := os.Create(p.lockFile())
	ok(t, err)
	defer func() { _ = other.Close() }()
	ok(t, syscall.Flock(int(other.Fd()), syscall.LOCK_EX))
	for _, said := range []string{"", "12", "12 serv", "12 nobody\n"} {
		ok(t, os.WriteFile(p.lockFile(), []byte(said), 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := acquire(ctx, p, holderCommand); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %q: %v", said, err)
		}
		cancel()
	}
	ok(t, os.WriteFile(p.lockFile(), []byte("12 server\n"), 0o600))
	if _, err := acquire(t.Context(), p, holderCommand); !errors.Is(err, ErrInUse) {
		t.Errorf("a server is waited for: %v", err)
	}
	ok(t, syscall.Flock(int(other.Fd()), syscall.LOCK_UN))
	held, err := acquire(t.Context(), p, holderServer)
	ok(t, err)
	held.release()
	if text, err := os.ReadFile(p.lockFile()); err != nil || strings.Contains(string(text), "server") {
		t.Errorf("whoever is next is taken for %q (%v)", text, err)
	}
}

func TestPostmasterKilled(t *testing.T) {
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	run(t, c.URL(), `CREATE TABLE kept AS SELECT 7 AS n`)
	// A backend that computes does not notice that the postmaster is gone; one that waits does. This one computes until it is
	// let go, or for three minutes: nobody else would end it.
	busy, enough := connect(t, c.AdminURL()), filepath.Join(filepath.Dir(cfg.Dir), "enough")
	computed := make(chan struct{})
	go func() {
		defer close(computed)
		_, _ = busy.Exec(t.Context(), `DO $$ BEGIN
			WHILE (pg_stat_file('`+enough+`', true)).size IS NULL AND clock_timestamp() < now() + '3 minutes' LOOP END LOOP; END $$`)
	}()
	defer func() { <-computed }() // the connection is its own until then
	eventually(t, "the query runs", func() bool {
		return query(t, c.AdminURL(), `SELECT count(*)::text FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %' AND pid <> pg_backend_pid()`) == "1"
	})
	ok(t, c.Signal(syscall.SIGKILL))
	select {
	case <-c.Exited():
	case <-time.After(patience):
		t.Fatal("nobody noticed that the postmaster is dead")
	}
	if left := processesIn(t, c.place.dataDir()); len(left) == 0 {
		t.Error("the busy backend went at once: this test does not see whether Stop waits for it")
	}
	letGo := time.AfterFunc(300*time.Millisecond, func() { _ = os.WriteFile(enough, nil, 0o644) })
	defer letGo.Stop()
	stop(t, c)
	if left := processesIn(t, c.place.dataDir()); len(left) > 0 {
		t.Fatalf("stopped, but processes %v are left", left)
	}
	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SELECT n::text FROM kept`); got != "7" {
		t.Fatal(got)
	}
}

func TestHaltedPostmasterStops(t *testing.T) {
	c := startCluster(t, config(t, folder(t)))
	ok(t, c.Signal(syscall.SIGSTOP))
	stop(t, c)
	if alive(c.PID()) {
		t.Fatal("still there")
	}
}

func TestStopCutShort(t *testing.T) {
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	run(t, c.URL(), `CREATE TABLE kept AS SELECT 7 AS n`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Stop(ctx); err != nil && !strings.Contains(err.Error(), "recovers") {
		t.Fatal(err)
	}
	if alive(c.PID()) {
		t.Fatal("still there")
	}
	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SELECT n::text FROM kept`); got != "7" {
		t.Fatal(got)
	}
}

func TestStartCanceled(t *testing.T) {
	cfg := config(t, folder(t))
	for _, patience := range []time.Duration{0, 50 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, err := Start(ctx, cfg)
		cancel()
		if err == nil {
			stop(t, c) // quick enough: the later ones prove nothing then, which is no failure
			continue
		}
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Fatalf("after %v: %v", patience, err)
		}
	}
	c := startCluster(t, cfg)
	ok(t, ping(t.Context(), c.URL()))
	if c.Folder() != cfg.Dir {
		t.Fatalf("a cut start moved the database to %s", c.Folder())
	}
}

func TestLogsArePruned(t *testing.T) {
	dir := t.TempDir()
	for i := range keepLogs + 4 {
		ok(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("postgres-2030-01-01T0000%02d.log", i)), nil, 0o600))
	}
	ok(t, os.WriteFile(filepath.Join(dir, "note"), nil, 0o600))
	ok(t, pruneOnce(dir))
	logs, err := logFiles(dir)
	ok(t, err)
	if len(logs) != keepLogs || !strings.HasSuffix(logs[0], "04.log") || !exists(filepath.Join(dir, "note")) {
		t.Fatal(logs)
	}
}
