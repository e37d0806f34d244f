package localpg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/leakcheck"
)

// patience bounds what must come to an end by itself.
const patience = 2 * time.Minute

// ownerDir in the environment makes the test binary an owner: a process that runs the cluster in that folder.
const ownerDir = "LOCALPG_TEST_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerDir); dir != "" {
		if err := own(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	leakcheck.Main(m)
}

// own runs a cluster and commits rows until standard input ends, telling each on standard output.
func own(dir string) error {
	ctx := context.Background()
	c, err := Start(ctx, Config{Dir: dir, NoSync: true})
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS row (n bigint GENERATED ALWAYS AS IDENTITY)`); err != nil {
		return err
	}
	fmt.Println("ready", c.PID())
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for {
		select {
		case <-ended:
			_ = conn.Close(ctx)
			return c.Stop(ctx)
		default:
		}
		var n int
		if err := conn.QueryRow(ctx, `INSERT INTO row DEFAULT VALUES RETURNING n`).Scan(&n); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// owner is such a process.
type owner struct {
	cmd        *exec.Cmd
	stdin      io.Closer
	lines      *bufio.Scanner
	postmaster int
}

func startOwner(t *testing.T, dir string) *owner {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerDir+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	ok(t, err)
	stdout, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	o := &owner{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	first := o.next(t)
	pid, found := strings.CutPrefix(first, "ready ")
	if !found {
		t.Fatalf("owner said %q", first)
	}
	o.postmaster, err = strconv.Atoi(pid)
	ok(t, err)
	return o
}

func (o *owner) next(t *testing.T) string {
	t.Helper()
	if !o.lines.Scan() {
		t.Fatalf("owner ended: %v", o.lines.Err())
	}
	return o.lines.Text()
}

// kill ends the owner with SIGKILL and returns the last row that it told of.
func (o *owner) kill(t *testing.T) int {
	t.Helper()
	ok(t, o.cmd.Process.Kill())
	last := 0
	for o.lines.Scan() {
		if n, err := strconv.Atoi(o.lines.Text()); err == nil {
			last = n
		}
	}
	_ = o.cmd.Wait()
	return last
}

func (o *owner) end(t *testing.T) {
	t.Helper()
	ok(t, o.stdin.Close())
	for o.lines.Scan() {
		if strings.HasPrefix(o.lines.Text(), "error") {
			t.Error(o.lines.Text())
		}
	}
	ok(t, o.cmd.Wait())
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder is a new folder that the cluster's user can reach, unlike t.TempDir.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg-test-")
	ok(t, err)
	t.Cleanup(func() { ok(t, os.RemoveAll(dir)) })
	ok(t, os.Chmod(dir, 0o711))
	return filepath.Join(dir, "db")
}

func config(t *testing.T, dir string) Config {
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	return Config{Dir: dir, NoSync: true, Logger: logger, elsewhere: dir + "-elsewhere"}
}

func startCluster(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	ok(t, err)
	t.Cleanup(func() { stop(t, c) })
	return c
}

func stop(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ok(t, c.Stop(ctx))
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	ok(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, dsn, sql string) {
	t.Helper()
	conn := connect(t, dsn)
	_, err := conn.Exec(t.Context(), sql)
	ok(t, err)
	ok(t, conn.Close(t.Context()))
}

func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn := connect(t, dsn)
	var value string
	ok(t, conn.QueryRow(t.Context(), sql).Scan(&value))
	ok(t, conn.Close(t.Context()))
	return value
}

// needRoot skips a test that needs root, except in CI, where that would hide it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

func uidOf(t *testing.T, path string) uint32 {
	t.Helper()
	uid, err := ownerOf(path)
	ok(t, err)
	return uid
}

// processesIn lists the processes that work in a folder.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	ok(t, err)
	var found []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == dir {
			found = append(found, filepath.Base(filepath.Dir(link)))
		}
	}
	return found
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}
