package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/daemon"
	"relaymarket/client/daemon/localapi"
	"relaymarket/internal/testlog"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// patience bounds every wait for what has to come. It is for a machine that is much slower than any: a test that waits for
// so long has failed.
const patience = 2 * time.Minute

// TestMain fails if a goroutine is left, of a daemon or of a caller. The test binary is a program that asks at a socket as well.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "ask" {
		os.Exit(askMain(os.Args[2]))
	}
	testpg.Main(m)
}

// askMain asks without any check of its own, and prints how much it is told.
func askMain(socket string) int {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println("cannot connect:", err)
		return 1
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = conn.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n"))
	told, _ := io.ReadAll(conn)
	fmt.Printf("told %d bytes\n", len(told))
	return 0
}

// home is a user's folder, and what he runs there.
type home struct {
	t      *testing.T
	dir    string
	client *client.Client
	log    *testlog.Log
	ahead  *atomic.Int64 // of his clock, seconds
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	secret := testnode.NewKey(t).Secret()
	sealing, err := protocol.NewSealingPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	ahead := &atomic.Int64{}
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }
	c, err := client.Open(t.Context(), client.Config{Dir: dir, Identity: testnode.NewKey(t), Sealing: sealing, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &home{t: t, dir: dir, client: c, log: &testlog.Log{}, ahead: ahead}
}

// joins adds relays.
func (h *home) joins(nodes ...*testnode.Node) *home {
	h.t.Helper()
	for _, n := range nodes {
		n.Grant(h.t, h.client.Key())
		if _, _, err := h.client.AddRelay(h.t.Context(), n.URL); err != nil {
			h.t.Fatal(err)
		}
	}
	return h
}

func (h *home) befriends(other *home) {
	h.t.Helper()
	card, err := other.client.Card(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.client.AddFriend(h.t.Context(), card.Bytes(), ""); err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) sends(to *home, text string) {
	h.t.Helper()
	if _, err := h.client.Send(h.t.Context(), to.client.Key(), []byte(text), client.SendOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

var settings = localapi.Settings{Version: "1", Proxy: "", Zone: "UTC"}

// running is a daemon, and how it is ended.
type running struct {
	*daemon.Daemon
	t    *testing.T
	end  context.CancelFunc
	done chan error
	call *daemon.Caller
}

// starts a daemon that ends with the test at the latest.
func (h *home) starts(c daemon.Config) *running {
	h.t.Helper()
	c.Client, c.Folder, c.Settings, c.Logger = h.client, h.dir, settings, slog.New(slog.NewTextHandler(h.log, nil))
	ready := make(chan struct{})
	c.Ready = func() { close(ready) }
	if c.Run == nil {
		c.Run = func(context.Context, *daemon.Command) int { return 0 }
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Daemon: daemon.New(c), t: h.t, end: cancel, done: make(chan error, 1)}
	r.LookOften(50 * time.Millisecond)
	go func() { r.done <- r.Run(ctx) }()
	select {
	case <-ready:
	case err := <-r.done:
		cancel()
		h.t.Fatalf("the daemon did not start: %v", err)
	}
	var err error
	if r.call, err = daemon.Find(h.dir, ""); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(r.stops)
	return r
}

// stops ends the daemon, which has to end well.
func (r *running) stops() {
	r.t.Helper()
	if r.done == nil {
		return
	}
	r.end()
	if err := <-r.done; err != nil {
		r.t.Errorf("the daemon ended with: %v", err)
	}
	r.done = nil
	r.call.Close()
}

// eventually waits for what has to come by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come: %s", what)
		}
	}
}

func problem(t *testing.T, err error, want localapi.ProblemCode) {
	t.Helper()
	var refused *daemon.RefusedError
	if !errors.As(err, &refused) || refused.Problem.Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
