// Package testhub gives tests whole hubs on free ports of loopback: a NATS server with JetStream in a folder of the test, and the hub
// on it. Each ends with its test.
package testhub

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/broadcast/hubserver"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

const (
	patience = 3 * time.Minute
	// Network is the one of all hubs here.
	Network = protocol.Regtest
)

// Rules are those of all hubs here.
var Rules = broadcast.Rules{Network: Network, Bits: 8}

var quiet = slog.New(slog.DiscardHandler)

// Clock is the time of all hubs of a test.
type Clock struct {
	mu sync.Mutex
	at time.Time
}

// NewClock shows the machine's time, and stands still.
func NewClock() *Clock { return &Clock{at: time.Now()} }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Pass moves it.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// Node is a hub with its server, which can be stopped and started again. Bounds and Peers may be changed while it is stopped.
type Node struct {
	*hub.Hub
	Server *hubserver.Server
	Bounds broadcast.Bounds
	Peers  []string

	t        testing.TB
	clock    *Clock
	listen   string
	folder   string
	registry *prometheus.Registry
	stop     func()
}

// New makes a hub that is stopped.
func New(t testing.TB, c *Clock, peers ...string) *Node {
	t.Helper()
	listen, err := regtest.FreeAddress() // which is nobody else's while the node is halted
	if err != nil {
		t.Fatalf("testhub: %v", err)
	}
	n := &Node{t: t, clock: c, listen: listen, folder: t.TempDir(), Bounds: broadcast.DefaultBounds(), Peers: peers}
	n.Bounds.Bytes = 16 << 20
	return n
}

// Start makes a hub and starts it. It ends with the test.
func Start(t testing.TB, c *Clock, peers ...string) *Node {
	t.Helper()
	n := New(t, c, peers...)
	n.Start()
	return n
}

// URL is where strangers reach it, the same after a restart.
func (n *Node) URL() string { return "nats://" + n.listen }

// Address is its host and port.
func (n *Node) Address() string { return n.listen }

// Start starts a stopped hub and returns when it serves.
func (n *Node) Start() {
	n.t.Helper()
	server, err := hubserver.Start(hubserver.Config{Network: Network, Listen: n.listen, Folder: n.folder, Bytes: 64 << 20, Logger: quiet})
	if err != nil {
		n.t.Fatal(err)
	}
	n.listen = strings.TrimPrefix(server.URL(), "nats://")
	conn, err := server.Connect()
	if err != nil {
		n.t.Fatal(err)
	}
	var peers []hub.Peer
	for _, url := range n.Peers {
		peers = append(peers, hub.Peer{URL: url, Access: feed.Access{Name: "test"}})
	}
	n.registry = prometheus.NewRegistry()
	h, err := hub.New(hub.Config{Conn: conn, Rules: Rules, Bounds: n.Bounds, Peers: peers, Clock: n.clock.Now, Logger: quiet, Registerer: n.registry})
	if err != nil {
		n.t.Fatal(err)
	}
	n.Hub, n.Server = h, server
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("the hub ended with: %v", err)
		}
		conn.Close()
		server.Close()
	})
	n.t.Cleanup(n.stop)
	Wait(n.t, "the hub serves", h.Ready)
}

// Halt stops it.
func (n *Node) Halt() { n.stop() }

// Stranger is a connection as anybody has it.
func (n *Node) Stranger(options ...nats.Option) *nats.Conn {
	n.t.Helper()
	conn, err := nats.Connect(n.URL(), append([]nats.Option{nats.Timeout(patience), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, options...)...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(conn.Close)
	return conn
}

// Book is what a newcomer finds: the seq of each relay whose announcement is valid.
func (n *Node) Book() map[protocol.PublicKey]int64 {
	n.t.Helper()
	conn := n.Stranger()
	defer conn.Close()
	found := map[protocol.PublicKey]int64{}
	_, err := feed.FetchAll(n.t.Context(), conn, Network, 0, 1_000_000, func(m feed.Message) error {
		o, err := Rules.CheckOn(m.Subject, m.Data, protocol.TimestampOf(n.clock.Now()), nil)
		if broadcast.ReasonOf(err) == broadcast.ReasonExpired {
			return nil
		}
		if err != nil {
			n.t.Errorf("the book has: %v", err)
			return nil
		}
		found[o.Relay] = o.Seq
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

// Send asks the hub to take an announcement.
func (n *Node) Send(conn *nats.Conn, data []byte) broadcast.Receipt {
	n.t.Helper()
	m, err := conn.Request(broadcast.IngestSubject(Network), data, patience)
	if err != nil {
		n.t.Fatal(err)
	}
	var r broadcast.Receipt
	if err := json.Unmarshal(m.Data, &r); err != nil {
		n.t.Fatal(err)
	}
	return r
}

// Counted is a counter's value, of all labels if there is none.
func (n *Node) Counted(name, label string) (sum int) {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "relaymarket_hub_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				sum += int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return sum
}

// Wait waits for a condition.
func Wait(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}
