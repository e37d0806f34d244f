package natsnode_test

import (
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"relaymarket/internal/leakcheck"
	"relaymarket/internal/natsnode"
	"relaymarket/internal/testlog"
	"relaymarket/internal/testnode"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// patience bounds what must come about by itself.
const patience = 2 * time.Minute

// start makes a node that ends with the test, and returns what it logs.
func start(t *testing.T, cfg natsnode.Config) (*natsnode.Node, *testlog.Log) {
	t.Helper()
	log := &testlog.Log{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	n, err := natsnode.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, log
}

// elsewhere is a NATS server that is not the node's. Port 0 takes a free one.
func elsewhere(t *testing.T, at string, o server.Options) *server.Server {
	t.Helper()
	host, port, _ := net.SplitHostPort(at)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if number == 0 {
		number = server.RANDOM_PORT
	}
	o.Host, o.Port, o.NoSigs, o.NoLog = host, number, true, true
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() { end(s) })
	return s
}

func end(s *server.Server) { s.Shutdown(); s.WaitForShutdown() }

func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

// heard tells whether what one node publishes gets to another.
func heard(t *testing.T, from, to *natsnode.Node) {
	t.Helper()
	got := make(chan string, 1)
	sub, err := to.Conn().Subscribe("test", func(m *nats.Msg) { got <- string(m.Data) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := to.Conn().FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	if err := from.Conn().Publish("test", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if text != "hello" {
			t.Errorf("it got %q", text)
		}
	case <-time.After(patience):
		t.Error("it got nothing")
	}
}

func TestAlone(t *testing.T) {
	n, _ := start(t, natsnode.Config{Token: "secret"})
	if n.Shared() || n.URL() != "" || !n.Connected() {
		t.Errorf("shared %t, at %q, connected %t", n.Shared(), n.URL(), n.Connected())
	}
	heard(t, n, n)
}

func TestListen(t *testing.T) {
	host, log := start(t, natsnode.Config{Listen: "127.0.0.1:0", Token: "secret"})
	if !host.Shared() || !strings.HasPrefix(host.URL(), "nats://127.0.0.1:") {
		t.Errorf("shared %t, at %q", host.Shared(), host.URL())
	}
	guest, _ := start(t, natsnode.Config{URLs: []string{host.URL()}, Token: "secret"})
	wait(t, "the guest is connected", guest.Connected)
	heard(t, host, guest)
	heard(t, guest, host)

	for name, token := range map[string]string{"wrong": "guess", "none": ""} {
		stranger, said := start(t, natsnode.Config{URLs: []string{host.URL()}, Token: token})
		wait(t, name+" token is told", func() bool { return strings.Contains(said.String(), "Authorization Violation") })
		if stranger.Connected() {
			t.Errorf("%s token: connected", name)
		}
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "guess") {
		t.Errorf("the log shows a token:\n%s", log)
	}

	_, err := natsnode.Start(natsnode.Config{Listen: strings.TrimPrefix(host.URL(), "nats://"), Token: "secret", Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("on a port in use: %v", err)
	}
	if _, err := natsnode.Start(natsnode.Config{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("it listens without a token")
	}
}

// A server that is not there yet is waited for, in the background; one that goes away is found again. The log has one line for each.
func TestServerComesAndGoes(t *testing.T) {
	at := testnode.FreeAddress(t)
	n, log := start(t, natsnode.Config{URLs: []string{"nats://" + at}, Token: "secret"})
	const away, back = "NATS is away", "NATS is connected"
	wait(t, "it is told that the server is away", func() bool { return strings.Contains(log.String(), away) })
	if n.Connected() {
		t.Error("connected to nothing")
	}
	if !strings.Contains(log.String(), "connection refused") {
		t.Errorf("it is not told why:\n%s", log)
	}
	for times := 1; times <= 2; times++ {
		s := elsewhere(t, at, server.Options{})
		wait(t, "connected", n.Connected)
		heard(t, n, n)
		end(s)
		wait(t, "not connected", func() bool { return !n.Connected() })
		if err := n.Conn().Publish("test", nil); err == nil {
			t.Error("a message is kept for a server that is away")
		}
		// How it stands is known a moment before it is told.
		wait(t, "it is told once that it is away again", func() bool { return strings.Count(log.String(), away) >= times+1 })
		if a, b := strings.Count(log.String(), away), strings.Count(log.String(), back); a != times+1 || b != times {
			t.Errorf("%d times told that it is away, %d times that it is back, want %d and %d:\n%s", a, b, times+1, times, log)
		}
	}
	elsewhere(t, at, server.Options{})
	wait(t, "connected", n.Connected)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if a := strings.Count(log.String(), away); a != 3 {
		t.Errorf("its own end is told as if NATS had gone away:\n%s", log)
	}
}

// A server that accepts and says nothing holds up neither the start nor the end, nor Connected.
func TestServerHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 16)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	defer func() {
		_ = l.Close()
		for conn := range accepted {
			_ = conn.Close()
		}
	}()
	// Whoever waits for the server waits each time; a busy machine is slow now and then.
	const rounds = 5
	var start, end time.Duration
	for range rounds {
		began := time.Now()
		n, err := natsnode.Start(natsnode.Config{URLs: []string{"nats://" + l.Addr().String()}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		start = time.Since(began)
		held := <-accepted
		began = time.Now()
		if n.Connected() {
			t.Error("connected to a server that says nothing")
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		end = time.Since(began)
		_ = held.Close()
		if start < time.Second && end < time.Second {
			return
		}
	}
	t.Errorf("the start waited %s, and the end %s", start, end)
}

// A server elsewhere gets what its URL holds, and this relay's token only if that is nothing.
func TestPassword(t *testing.T) {
	s := elsewhere(t, "127.0.0.1:0", server.Options{Username: "relayd", Password: "p,w"})
	at := s.Addr().String()
	n, log := start(t, natsnode.Config{URLs: []string{"nats://relayd:p%2Cw@" + at}, Token: "secret"})
	wait(t, "connected", n.Connected)
	heard(t, n, n)
	if strings.Contains(log.String(), "p,w") || strings.Contains(log.String(), "p%2Cw") {
		t.Errorf("the log shows the password:\n%s", log)
	}
	token := elsewhere(t, "127.0.0.1:0", server.Options{Authorization: "letmein"})
	n, _ = start(t, natsnode.Config{URLs: []string{"nats://letmein@" + strings.TrimPrefix(token.ClientURL(), "nats://")}, Token: "secret"})
	wait(t, "connected by token", n.Connected)
	open := elsewhere(t, "127.0.0.1:0", server.Options{})
	n, _ = start(t, natsnode.Config{URLs: []string{open.ClientURL()}, Token: "secret"})
	wait(t, "connected to a server that asks for nothing", n.Connected)
}

// A server that refuses is asked again for ever: what was wrong may be mended there.
func TestRefusedThenTaken(t *testing.T) {
	at := testnode.FreeAddress(t)
	s := elsewhere(t, at, server.Options{Authorization: "another"})
	n, log := start(t, natsnode.Config{URLs: []string{s.ClientURL()}, Token: "secret"})
	wait(t, "the refusal is told", func() bool { return strings.Contains(log.String(), "Authorization Violation") })
	attempts := func() uint64 {
		v, err := s.Varz(nil)
		if err != nil {
			t.Fatal(err)
		}
		return v.TotalConnections
	}
	before := attempts()
	wait(t, "it tries again", func() bool { return attempts() >= before+3 })
	if n.Connected() {
		t.Fatal("connected with a wrong token")
	}
	end(s)
	elsewhere(t, at, server.Options{Authorization: "secret"})
	wait(t, "connected", n.Connected)
	if away := strings.Count(log.String(), "NATS is away"); away != 1 {
		t.Errorf("told %d times:\n%s", away, log)
	}
}

func TestCredentials(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.creds")
	if err := os.WriteFile(broken, []byte("not what it should be"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"missing": filepath.Join(t.TempDir(), "no.creds"), "broken": broken} {
		_, err := natsnode.Start(natsnode.Config{URLs: []string{"nats://127.0.0.1:1"}, Credentials: path, Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseURL(t *testing.T) {
	for text, host := range map[string]string{
		"nats://10.0.0.1":                      "10.0.0.1",
		"nats://10.0.0.1:4223/":                "10.0.0.1:4223",
		"tls://relayd:secret@nats.example.org": "nats.example.org",
		"nats://secret@[::1]:4222":             "[::1]:4222",
	} {
		u, err := natsnode.ParseURL(text)
		if err != nil || u.Host != host {
			t.Errorf("%s: %v %v", text, u, err)
		}
	}
	for text, says := range map[string]string{
		"":                                   "begins with nats://",
		"10.0.0.1:4222":                      "cannot be read",
		"localhost:4222":                     "begins with nats://",
		"http://u:secret@host":               "begins with nats://",
		"nats://":                            "no host",
		"nats://u:secret@":                   "no host",
		"nats://u:secret@h:0":                "no port from 1",
		"nats://u:secret@h:70000":            "no port from 1",
		"nats://u:secret@h:x":                "cannot be read",
		"nats://u:secret@h/path":             "nothing may follow",
		"nats://u:secret@h?password=secret":  "nothing may follow",
		"nats://u:secret@h#secret":           "nothing may follow",
		"nats://u:sec%ret@h":                 "cannot be read",
		"nats://secret@h/":                   "",
		"nats://u:secret@h,nats://u:secret@": "nothing may follow",
	} {
		_, err := natsnode.ParseURL(text)
		if says == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"nats://10.0.0.1:4222":     "nats://10.0.0.1:4222",
		"nats://u:secret@h:1":      "nats://u:xxxxx@h:1",
		"nats://secret@h:1":        "nats://xxxxx@h:1",
		"nats://h:1/?token=secret": "nats://h:1",
		"u:secret@h":               "(set)",
		"secret":                   "(set)",
	} {
		if got := natsnode.Redact(text); got != want {
			t.Errorf("%s is shown as %s", text, got)
		}
		if u, err := url.Parse(text); err == nil && u.Host != "" && !strings.Contains(natsnode.Redact(text), u.Host) {
			t.Errorf("%s is not to be recognized", text)
		}
	}
}
