package wake_test

import (
	"context"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/leakcheck"
	"relaymarket/internal/natsnode"
	"relaymarket/internal/wake"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const patience = 60 * time.Second

// process is one end of the wake-ups, and what it hears.
type process struct {
	*wake.Waker
	node     *natsnode.Node
	registry *prometheus.Registry
	heard    chan int64
	stop     func()
}

func node(t *testing.T, cfg natsnode.Config) *natsnode.Node {
	t.Helper()
	cfg.Token, cfg.Logger = "secret", slog.New(slog.DiscardHandler)
	n, err := natsnode.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// run runs a waker until the test ends or stop is called.
func run(t *testing.T, n *natsnode.Node, relay protocol.PublicKey, epoch string) *process {
	t.Helper()
	p := &process{node: n, registry: prometheus.NewRegistry(), heard: make(chan int64, 10_000)}
	p.Waker = wake.New(n, relay, p.registry)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, epoch, func(n int64) { p.heard <- n }) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.stop)
	wait(t, "connected", n.Connected)
	wait(t, "subscribed", func() bool { return n.Conn().NumSubscriptions() > 0 })
	if err := n.Conn().FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	return p
}

func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

func (p *process) hears(t *testing.T, want int64) {
	t.Helper()
	for {
		select {
		case n := <-p.heard:
			if n == want {
				return
			}
		case <-time.After(patience):
			t.Fatalf("%d is not heard", want)
		}
	}
}

// counted is a counter's value, of all labels if there is none.
func (p *process) counted(t *testing.T, name, label string) (sum float64) {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "relaymarket_wake_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func newKey(t *testing.T) protocol.PublicKey {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

// Processes of one relay and one life of its database hear each other; nobody else does, and nobody hears himself.
func TestWhoHears(t *testing.T) {
	host := node(t, natsnode.Config{Listen: "127.0.0.1:0"})
	guest := func() *natsnode.Node { return node(t, natsnode.Config{URLs: []string{host.URL()}}) }
	relay := newKey(t)
	a, b, c := run(t, host, relay, "one"), run(t, guest(), relay, "one"), run(t, guest(), relay, "one")
	others := []*process{run(t, guest(), newKey(t), "one"), run(t, guest(), relay, "two")}
	a.Committed(7)
	b.hears(t, 7)
	c.hears(t, 7)
	b.Committed(9)
	a.hears(t, 9)
	c.hears(t, 9)
	for _, p := range append(others, b) {
		select {
		case n := <-p.heard:
			t.Errorf("somebody hears %d, which is not for him", n)
		default:
		}
	}
	wait(t, "what was heard is counted as sent", func() bool { return b.counted(t, "sent_total", "") > 0 })
	if a.counted(t, "sent_total", "") != 1 || b.counted(t, "sent_total", "") != 1 || c.counted(t, "received_total", "") != 2 {
		t.Errorf("counted as sent %v and %v, as received %v, want 1, 1 and 2",
			a.counted(t, "sent_total", ""), b.counted(t, "sent_total", ""), c.counted(t, "received_total", ""))
	}
}

// What is committed last is heard, however quickly; what is older may be left out and is never sent after it.
func TestNewestOnly(t *testing.T) {
	host := node(t, natsnode.Config{Listen: "127.0.0.1:0"})
	relay := newKey(t)
	a, b := run(t, host, relay, "one"), run(t, node(t, natsnode.Config{URLs: []string{host.URL()}}), relay, "one")
	const last = 5000
	for n := int64(1); n <= last; n++ {
		a.Committed(n)
		a.Committed(n - 1) // two commits tell of themselves in any order
	}
	for before := int64(0); before < last; {
		select {
		case n := <-b.heard:
			if n <= before {
				t.Fatalf("%d is heard after %d", n, before)
			}
			before = n
		case <-time.After(patience):
			t.Fatalf("%d is the last that is heard", before)
		}
	}
	if sent := a.counted(t, "sent_total", ""); sent > last {
		t.Errorf("%v sent of %d", sent, last)
	}
}

// The last word of a process is heard although it ends.
func TestLastWord(t *testing.T) {
	host := node(t, natsnode.Config{Listen: "127.0.0.1:0"})
	relay := newKey(t)
	b := run(t, node(t, natsnode.Config{URLs: []string{host.URL()}}), relay, "one")
	for n := int64(1); n <= 20; n++ {
		a := wake.New(host, relay, nil)
		a.Committed(n)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ended, "one", func(int64) {}); err != nil {
			t.Fatal(err)
		}
		b.hears(t, n)
	}
}

// Only what has the form of a wake-up is one.
func TestMalformed(t *testing.T) {
	host := node(t, natsnode.Config{Listen: "127.0.0.1:0"})
	relay := newKey(t)
	a := run(t, host, relay, "one")
	bad := []string{"", " ", "x", "x ", " 1", "x 0", "x -1", "x 01", "x +1", "x 1 ", "x 1 1", "x 1.5", "x 9223372036854775808",
		"1", "x\n1", string(make([]byte, 60_000)), "x 12345678901234567890123456789012345678901234567890123456789012345"}
	stranger := node(t, natsnode.Config{URLs: []string{host.URL()}})
	wait(t, "connected", stranger.Connected)
	for _, message := range bad {
		if err := stranger.Conn().Publish(wake.Subject(relay, "one"), []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	if err := stranger.Conn().Publish(wake.Subject(relay, "one"), []byte("x 9223372036854775807")); err != nil {
		t.Fatal(err)
	}
	a.hears(t, math.MaxInt64)
	if got := a.counted(t, "dropped_total", "malformed"); got != float64(len(bad)) {
		t.Errorf("%v of %d are malformed", got, len(bad))
	}
	if got := a.counted(t, "received_total", ""); got != 1 {
		t.Errorf("%v are received", got)
	}
}

// A flood is dropped where it is more than is looked at, and counted; what comes after it is heard.
func TestFlood(t *testing.T) {
	host := node(t, natsnode.Config{Listen: "127.0.0.1:0"})
	relay := newKey(t)
	registry := prometheus.NewRegistry()
	p := &process{Waker: wake.New(host, relay, registry), registry: registry, heard: make(chan int64)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	slow := make(chan struct{})
	go func() {
		done <- p.Run(ctx, "one", func(n int64) {
			<-slow
			select {
			case p.heard <- n:
			case <-ctx.Done():
			}
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait(t, "subscribed", func() bool { return host.Conn().NumSubscriptions() > 0 })
	stranger := node(t, natsnode.Config{URLs: []string{host.URL()}})
	wait(t, "connected", stranger.Connected)
	publish := func(message string) {
		if err := stranger.Conn().Publish(wake.Subject(relay, "one"), []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	const flood = 20_000
	for range flood {
		publish("x 5")
	}
	wait(t, "flooded", func() bool { return host.Conn().Stats().InMsgs >= flood })
	close(slow)
	heard := 0
	publishLast := time.NewTicker(50 * time.Millisecond) // until there is room again
	defer publishLast.Stop()
	for last := false; !last; {
		select {
		case n := <-p.heard:
			heard++
			last = n == 6
		case <-publishLast.C:
			publish("x 6")
		case <-time.After(patience):
			t.Fatal("nothing is heard after a flood")
		}
	}
	if heard > flood/2 {
		t.Errorf("%d of %d were looked at", heard, flood)
	}
	if dropped := p.counted(t, "dropped_total", "flood"); dropped < flood/2 {
		t.Errorf("%v of %d are counted as dropped", dropped, flood)
	}
}

// Without NATS, or with a server that accepts and never answers, a commit waits for nothing and neither does the end.
func TestAway(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for name, url := range map[string]string{"refuses": "nats://127.0.0.1:1", "hangs": "nats://" + silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			// Whoever waits for a server waits each time; a busy machine is slow now and then.
			const rounds = 5
			var commits, end time.Duration
			for range rounds {
				if commits, end = away(t, url); commits < 2*time.Second && end < time.Second {
					return
				}
			}
			t.Errorf("100,000 commits were held up for %s, and the end took %s", commits, end)
		})
	}
}

// away is how long it takes to tell of 100,000 commits where there is no NATS, and then to end.
func away(t *testing.T, url string) (commits, end time.Duration) {
	t.Helper()
	n := node(t, natsnode.Config{URLs: []string{url}})
	registry := prometheus.NewRegistry()
	p := &process{Waker: wake.New(n, newKey(t), registry), registry: registry}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, "one", func(int64) { t.Error("it hears something") }) }()
	began := time.Now()
	for n := int64(1); n <= 100_000; n++ {
		p.Committed(n)
	}
	commits = time.Since(began)
	wait(t, "it is counted", func() bool { return p.counted(t, "dropped_total", "away") > 0 })
	began = time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return commits, time.Since(began)
}

// stalling is a wire to a server. Once stalled it takes nothing any more, and breaks nothing off.
func stalling(t *testing.T, server string) (url string, stall func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var stalled atomic.Bool
	ended := make(chan struct{})
	var running sync.WaitGroup
	pipe := func(to, from net.Conn) {
		buffer := make([]byte, 4096)
		for {
			n, err := from.Read(buffer)
			if stalled.Load() {
				<-ended
			}
			if err != nil {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			running.Go(func() { pipe(far, client); _ = far.Close() })
			running.Go(func() { pipe(client, far); _ = client.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(ended)
		running.Wait()
	})
	return "nats://" + l.Addr().String(), func() { stalled.Store(true) }
}

// A server that stops reading, with everything between filled up, holds up no commit.
func TestStalled(t *testing.T) {
	host := node(t, natsnode.Config{Listen: "127.0.0.1:0"})
	url, stall := stalling(t, strings.TrimPrefix(host.URL(), "nats://"))
	relay := newKey(t)
	b := run(t, host, relay, "one")
	guest, err := natsnode.Start(natsnode.Config{URLs: []string{url}, Token: "secret", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a := run(t, guest, relay, "one")
	t.Cleanup(func() { // before the wire ends, which it waits for
		if err := guest.Close(); err != nil {
			t.Error(err)
		}
	})
	a.Committed(1)
	b.hears(t, 1)
	stall()
	var slowest time.Duration
	n := int64(1)
	for began := time.Now(); a.counted(t, "dropped_total", "away") == 0 && time.Since(began) < patience; {
		for range 1000 {
			n++
			began := time.Now()
			a.Committed(n)
			slowest = max(slowest, time.Since(began))
		}
	}
	if a.counted(t, "dropped_total", "away") == 0 {
		t.Fatalf("%d wake-ups went into a wire that takes none", n)
	}
	t.Logf("%d commits, the slowest was held up for %s", n, slowest)
	if slowest > patience/4 { // a wire that takes none gives no commit back
		t.Errorf("a commit was held up for %s", slowest)
	}
}
