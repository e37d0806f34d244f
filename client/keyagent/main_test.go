//go:build linux || darwin

package keyagent_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"relaymarket/client/keyagent"
)

// patience bounds every wait for what has to come. It is for a machine that is much slower than any: a test that waits for
// so long has failed.
const patience = time.Minute

// TestMain makes the test binary the program that is spawned, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			os.Exit(agentMain(os.Args[2:]))
		case "ask":
			os.Exit(askMain(os.Args[2]))
		case "hang":
			time.Sleep(time.Hour)
			os.Exit(1)
		case "lie":
			fmt.Println("ready")
			_ = os.Stdout.Close()
			time.Sleep(time.Hour)
			os.Exit(1)
		case "babble":
			fmt.Println("Usage: something else")
			os.Exit(0)
		case "exit":
			os.Exit(3)
		}
	}
	goleak.VerifyTestMain(m)
}

// agentMain is what the hidden subcommand of a program does.
func agentMain(args []string) int {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	c := keyagent.Config{}
	flags.StringVar(&c.Socket, "socket", "", "")
	flags.DurationVar(&c.For, "for", 0, "")
	report := flags.String("report", "", "file for what only the process itself can tell")
	if flags.Parse(args) != nil {
		return 2
	}
	c.Ready = func() {
		if *report != "" {
			_ = os.WriteFile(*report, []byte(selfReport()), 0o600)
		}
	}
	if keyagent.ServeSpawned(context.Background(), c) != nil {
		return 1
	}
	return 0
}

// askMain speaks the protocol without the client's own checks, and prints what
// it is given.
func askMain(socket string) int {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println("cannot connect:", err)
		return 1
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(`{"v":1,"op":"fetch"}` + "\n"))
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	fmt.Printf("%d bytes, %v\n", n, err)
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needRoot skips without root, and fails in CI: there it would skip for ever.
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

// newSocket is a path in a folder that the agent makes. It is short: t.TempDir
// puts the test's name into it.
func newSocket(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "ka")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return filepath.Join(folder, "agent", "socket")
}

func newSecret(t testing.TB) []byte {
	t.Helper()
	secret := make([]byte, 32)
	_, err := rand.Read(secret)
	must(t, err)
	return secret
}

// serve runs an agent until the test ends, and returns when it answers. The
// result of Serve comes through the channel.
func serve(t testing.TB, c keyagent.Config) (stop func(), done <-chan error) {
	t.Helper()
	if c.For == 0 {
		c.For = time.Hour
	}
	c.Secret = append([]byte(nil), c.Secret...)
	ready := make(chan struct{})
	c.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		result <- keyagent.Serve(ctx, c)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("Serve ended: %v", <-result)
	}
	return cancel, result
}

// ends fails unless Serve returns nil.
func ends(t testing.TB, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(patience):
		t.Fatalf("still serving after %v", patience)
	}
}

// quickly fails if something takes longer than that every time: a busy machine may stop for seconds, but not always.
func quickly(t *testing.T, within time.Duration, do func()) {
	t.Helper()
	const tries = 20
	var took time.Duration
	for range tries {
		start := time.Now()
		do()
		if took = time.Since(start); took <= within {
			return
		}
	}
	t.Errorf("it took %v, and more than %v %d times", took, within, tries)
}

func expectSecret(t testing.TB, socket string, want []byte) {
	t.Helper()
	got, err := keyagent.Fetch(t.Context(), socket)
	if err != nil || string(got) != string(want) {
		t.Fatalf("fetch: %d bytes, %v", len(got), err)
	}
}

func expectNotRunning(t testing.TB, socket string) {
	t.Helper()
	if got, err := keyagent.Fetch(t.Context(), socket); !errors.Is(err, keyagent.ErrNotRunning) || got != nil {
		t.Fatalf("fetch: %d bytes, %v", len(got), err)
	}
	if _, err := keyagent.Status(t.Context(), socket); !errors.Is(err, keyagent.ErrNotRunning) {
		t.Fatalf("status: %v", err)
	}
	if err := keyagent.Lock(t.Context(), socket); !errors.Is(err, keyagent.ErrNotRunning) {
		t.Fatalf("lock: %v", err)
	}
}

func expectNoFile(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%s is still there: %v", path, err)
	}
}
