package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/broadcast/hubserver"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 60 * time.Second
	network  = protocol.Regtest
)

var rules = broadcast.Rules{Network: network, Bits: 8}

var quiet = slog.New(slog.DiscardHandler)

// clock is the time of all hubs of a test.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// node is a hub with its server, which can be stopped and started.
type node struct {
	*hub.Hub
	t        *testing.T
	clock    *clock
	listen   string
	folder   string
	bounds   broadcast.Bounds
	peers    []string
	server   *hubserver.Server
	registry *prometheus.Registry
	stop     func()
}

func newNode(t *testing.T, c *clock, peers ...string) *node {
	n := &node{t: t, clock: c, listen: "127.0.0.1:0", folder: t.TempDir(), bounds: broadcast.DefaultBounds(), peers: peers}
	n.bounds.Bytes = 16 << 20
	return n
}

func startNode(t *testing.T, c *clock, peers ...string) *node {
	t.Helper()
	n := newNode(t, c, peers...)
	n.start()
	t.Cleanup(n.halt)
	return n
}

func (n *node) start() {
	n.t.Helper()
	server, err := hubserver.Start(hubserver.Config{Network: network, Listen: n.listen, Folder: n.folder, Bytes: 64 << 20, Logger: quiet})
	if err != nil {
		n.t.Fatal(err)
	}
	n.listen = strings.TrimPrefix(server.URL(), "nats://") // the same after a restart
	conn, err := server.Connect()
	if err != nil {
		n.t.Fatal(err)
	}
	var peers []hub.Peer
	for _, url := range n.peers {
		peers = append(peers, hub.Peer{URL: url, Access: feed.Access{Name: "test"}})
	}
	n.registry = prometheus.NewRegistry()
	h, err := hub.New(hub.Config{Conn: conn, Rules: rules, Bounds: n.bounds, Peers: peers, Clock: n.clock.now, Logger: quiet, Registerer: n.registry})
	if err != nil {
		n.t.Fatal(err)
	}
	n.Hub, n.server = h, server
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
	wait(n.t, "the hub serves", h.Ready)
}

func (n *node) halt() {
	if n.stop != nil {
		n.stop()
	}
}

// stranger is a connection as anybody has it.
func (n *node) stranger(options ...nats.Option) *nats.Conn {
	n.t.Helper()
	conn, err := nats.Connect(n.server.URL(), append([]nats.Option{nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, options...)...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(conn.Close)
	return conn
}

// book is what a newcomer finds: the seq of each relay whose announcement is valid.
func (n *node) book() map[protocol.PublicKey]int64 {
	n.t.Helper()
	conn := n.stranger()
	defer conn.Close()
	found := map[protocol.PublicKey]int64{}
	_, err := feed.FetchAll(n.t.Context(), conn, network, 0, 1_000_000, func(m feed.Message) error {
		o, err := rules.CheckOn(m.Subject, m.Data, protocol.TimestampOf(n.clock.now()), nil)
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

// send asks the hub to take an announcement.
func (n *node) send(conn *nats.Conn, data []byte) broadcast.Receipt {
	n.t.Helper()
	m, err := conn.Request(broadcast.IngestSubject(network), data, patience)
	if err != nil {
		n.t.Fatal(err)
	}
	var r broadcast.Receipt
	if err := json.Unmarshal(m.Data, &r); err != nil {
		n.t.Fatal(err)
	}
	return r
}

// counted is a counter's value, of all labels if there is none.
func (n *node) counted(name, label string) (sum int) {
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

func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

// relay is somebody who announces.
type relay struct {
	*protocol.PrivateKey
	host string
	seq  int64
}

var hostCount int

func newRelay(t *testing.T) *relay {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	hostCount++
	return &relay{key, fmt.Sprintf("relay-%d.example", hostCount), 0}
}

// says is the relay's next announcement.
func (r *relay) says(t *testing.T, at time.Time, bits int, valid time.Duration) []byte {
	t.Helper()
	r.seq++
	return r.saysAgain(t, at, bits, valid)
}

func (r *relay) saysAgain(t *testing.T, at time.Time, bits int, valid time.Duration) []byte {
	t.Helper()
	stamp := protocol.TimestampOf(at)
	e, err := broadcast.Prover{}.Announce(t.Context(), r.PrivateKey, stamp, &protocol.Announcement{Addresses: []string{"https://" + r.host},
		Network: network, Seq: r.seq, Terms: []protocol.Terms{}, ValidUntil: stamp.Add(valid)}, bits)
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

func stamp(c *clock) protocol.Timestamp { return protocol.TimestampOf(c.now()) }
