package scenario_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"relaymarket/internal/relaynode"
	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

var (
	outages = flag.Int("outages", 1, "how often NATS goes away while people write and listen")
	outage  = flag.Duration("outage", 2*time.Second, "how long NATS is away each time")
)

// patience bounds what must come about by itself.
const patience = 2 * time.Minute

// natsServer is a NATS server of the operator's own, which a test takes away and brings back.
type natsServer struct {
	t  *testing.T
	at string // host:port
	s  *server.Server
}

// newNATS has an address and does not run yet.
func newNATS(t *testing.T) *natsServer {
	t.Helper()
	n := &natsServer{t: t, at: testnode.FreeAddress(t)}
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) url() string { return "nats://" + n.at }

func (n *natsServer) start() {
	n.t.Helper()
	host, port, _ := net.SplitHostPort(n.at)
	number, err := strconv.Atoi(port)
	if err != nil {
		n.t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{Host: host, Port: number, NoSigs: true, NoLog: true})
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	n.s = s
	if !s.ReadyForConnections(patience) {
		n.t.Fatal("the NATS server does not start")
	}
}

func (n *natsServer) stop() {
	if n.s != nil {
		n.s.Shutdown()
		n.s.WaitForShutdown()
		n.s = nil
	}
}

// ready tells whether /readyz is green. On a busy machine the database may take longer than that waits, once.
func ready(t *testing.T, n *testnode.Node) bool {
	t.Helper()
	reply, err := http.Get(n.OperatorURL + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = reply.Body.Close()
	return reply.StatusCode == http.StatusOK
}

// several starts relays on one database, with those settings for NATS.
func several(t *testing.T, settings ...relaynode.NATS) []*testnode.Node {
	t.Helper()
	var nodes []*testnode.Node
	for _, setting := range settings {
		o := testnode.Options{Setup: func(c *relaynode.Config) { c.NATS = setting }}
		if len(nodes) > 0 {
			o.DSN, o.Key = nodes[0].DSN, nodes[0].Secret
		}
		nodes = append(nodes, testnode.Start(t, o))
	}
	return nodes
}

// metric is a figure of a relay; missing is zero.
func metric(t *testing.T, n *testnode.Node, name string) float64 {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get(n.OperatorURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

const (
	byHint    = `relaymarket_records_read_on_total{cause="hint"}`
	connected = `relaymarket_nats_connected`
)

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

func (n *natsServer) joined(nodes ...*testnode.Node) {
	n.t.Helper()
	for _, node := range nodes {
		eventually(n.t, "connected to NATS", func() bool { return metric(n.t, node, connected) == 1 })
	}
}

// mustWrite stores one record and returns when it was acknowledged.
func mustWrite(t *testing.T, at *testnode.Node, alice *scenario.Person, bob protocol.PublicKey, id string) time.Time {
	t.Helper()
	reply, err := alice.Send(t.Context(), at.URL, alice.Write(bob, id, 1))
	if err != nil || reply.Status != http.StatusCreated {
		t.Fatalf("write of %s: %+v %v", id, reply, err)
	}
	return time.Now()
}

// latencies are how long after its acknowledgement at one relay each of some records is told to a listener at another.
func latencies(t *testing.T, from, to *testnode.Node, records int) []time.Duration {
	t.Helper()
	alice, bob := scenario.NewPerson(t, from.Key), scenario.NewPerson(t, from.Key)
	from.Grant(t, alice.Key.Public())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := bob.Follow(ctx, to.URL, nil, alice.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var took []time.Duration
	for i := range records {
		id := fmt.Sprint("r", i)
		wrote := mustWrite(t, from, alice, bob.Key.Public(), id)
		told, err := stream.Next()
		if err != nil || string(told.ID) != id {
			t.Fatalf("told %+v (%v), want %s", told, err, id)
		}
		took = append(took, max(told.At.Sub(wrote), 0))
	}
	slices.Sort(took)
	return took
}

// A listener at one relay is told of what is written at another because the other says so, not because it is looked for: through the NATS
// server in one of them, and through one elsewhere.
func TestListenersHearFromOtherProcesses(t *testing.T) {
	elsewhere := newNATS(t)
	elsewhere.start()
	host := several(t, relaynode.NATS{Listen: "127.0.0.1:0"})[0]
	guest := testnode.Start(t, testnode.Options{DSN: host.DSN, Key: host.Secret, Setup: func(c *relaynode.Config) { c.NATS.URLs = []string{host.NATSURL} }})
	apart := several(t, relaynode.NATS{URLs: []string{elsewhere.url()}}, relaynode.NATS{URLs: []string{elsewhere.url()}})
	for name, pair := range map[string][2]*testnode.Node{
		"to the one with the server":   {guest, host},
		"from the one with the server": {host, guest},
		"server elsewhere":             {apart[0], apart[1]},
	} {
		t.Run(name, func(t *testing.T) {
			elsewhere.joined(pair[:]...)
			before := metric(t, pair[1], byHint)
			const records = 40
			took := latencies(t, pair[0], pair[1], records)
			// The others were found by the poll, which on a busy machine is quicker now and then.
			if got := metric(t, pair[1], byHint) - before; got < records/10 {
				t.Errorf("%v of %d records were read because of a hint", got, records)
			}
			t.Logf("told after %s in the median, %s at most", took[records/2], took[records-1])
		})
	}
}

// Where NATS never was, or accepts and says nothing, a relay starts, is ready, and its listeners are told all the same.
func TestWithoutNATS(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for name, url := range map[string]string{"absent": newNATS(t).url(), "hangs": "nats://" + silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			nodes := several(t, relaynode.NATS{URLs: []string{url}}, relaynode.NATS{URLs: []string{url}})
			took := latencies(t, nodes[0], nodes[1], 10)
			t.Logf("told after %s in the median, %s at most", took[5], took[9])
			for _, n := range nodes {
				if metric(t, n, connected) != 0 {
					t.Error("it says that NATS is there")
				}
				eventually(t, "/readyz is green without NATS", func() bool { return ready(t, n) })
			}
		})
	}
}

// crowd are people who write at every relay without a pause to one who listens at every relay.
type crowd struct {
	t       *testing.T
	nodes   []*testnode.Node
	reader  *scenario.Person
	writers []*scenario.Person
	stop    context.CancelFunc
	writing sync.WaitGroup
	hearing sync.WaitGroup

	mu    sync.Mutex // guards what follows
	acked map[string]time.Time
	heard [][]scenario.Told // by relay
}

func newCrowd(t *testing.T, nodes []*testnode.Node) *crowd {
	t.Helper()
	c := &crowd{t: t, nodes: nodes, reader: scenario.NewPerson(t, nodes[0].Key), acked: map[string]time.Time{}, heard: make([][]scenario.Told, len(nodes))}
	var senders []protocol.PublicKey
	for range nodes {
		w := scenario.NewPerson(t, nodes[0].Key)
		nodes[0].Grant(t, w.Key.Public())
		c.writers, senders = append(c.writers, w), append(senders, w.Key.Public())
	}
	for i, n := range nodes {
		stream, err := c.reader.Follow(t.Context(), n.URL, nil, senders...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stream.Close)
		c.hearing.Go(func() { c.hear(i, stream) })
	}
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	for i, w := range c.writers {
		c.writing.Go(func() { c.write(ctx, i, w) })
	}
	return c
}

// end is the id of each writer's last record.
const end = "end"

func (c *crowd) write(ctx context.Context, i int, w *scenario.Person) {
	for n := 0; ; n++ {
		id := fmt.Sprintf("w%d-%d", i, n)
		if ctx.Err() != nil {
			id = fmt.Sprintf("w%d-%s", i, end)
		}
		reply, err := w.Send(c.t.Context(), c.nodes[i].URL, w.Write(c.reader.Key.Public(), id, 1))
		if err != nil || reply.Status != http.StatusCreated {
			c.t.Errorf("write of %s: %+v %v", id, reply, err)
			return
		}
		c.mu.Lock()
		c.acked[id] = time.Now()
		c.mu.Unlock()
		if strings.HasSuffix(id, end) {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// hear takes what one stream tells until every writer's last record was told.
func (c *crowd) hear(i int, stream *scenario.Stream) {
	for ends := 0; ends < len(c.writers); {
		told, err := stream.Next()
		if err != nil {
			c.t.Errorf("listener %d: %v", i, err)
			return
		}
		if strings.HasSuffix(string(told.ID), end) {
			ends++
		}
		c.mu.Lock()
		c.heard[i] = append(c.heard[i], told)
		c.mu.Unlock()
	}
}

// check ends the writing and holds what was heard against what was acknowledged: everything once, in one order, at every relay.
func (c *crowd) check() {
	c.t.Helper()
	c.stop()
	c.writing.Wait()
	heard := make(chan struct{})
	go func() { c.hearing.Wait(); close(heard) }()
	select {
	case <-heard:
	case <-time.After(patience):
		c.t.Fatal("not everything is told")
	}
	for i, told := range c.heard {
		if len(told) != len(c.acked) {
			c.t.Errorf("relay %d told of %d records, %d were acknowledged", i, len(told), len(c.acked))
		}
		seen := map[protocol.RecordID]bool{}
		var latest time.Duration
		for k, r := range told {
			if seen[r.ID] {
				c.t.Errorf("relay %d told of %s twice", i, r.ID)
			}
			seen[r.ID] = true
			if k < len(c.heard[0]) && c.heard[0][k].ID != r.ID {
				c.t.Fatalf("relay %d tells %s where relay 0 tells %s", i, r.ID, c.heard[0][k].ID)
			}
			at, acked := c.acked[string(r.ID)]
			if !acked {
				c.t.Errorf("relay %d told of %s, which nobody wrote", i, r.ID)
			}
			latest = max(latest, r.At.Sub(at))
		}
		c.t.Logf("relay %d: %d records, the slowest told %s after it was acknowledged", i, len(told), latest)
		if latest > patience/2 {
			c.t.Errorf("relay %d told of a record %s after it was acknowledged", i, latest)
		}
	}
}

// NATS goes away in the middle of everything and comes back. No write fails, nothing is lost, doubled or out of order, no relay is unready;
// and when it is back, listeners hear through it again.
func TestNATSGoesAway(t *testing.T) {
	bus := newNATS(t)
	bus.start()
	setting := relaynode.NATS{URLs: []string{bus.url()}}
	nodes := several(t, setting, setting, setting)
	bus.joined(nodes...)
	c := newCrowd(t, nodes)
	for range *outages {
		time.Sleep(200 * time.Millisecond)
		bus.stop()
		for began := time.Now(); time.Since(began) < *outage; time.Sleep(100 * time.Millisecond) {
			for _, n := range nodes {
				eventually(t, "/readyz is green while NATS is away", func() bool { return ready(t, n) })
			}
		}
		for _, n := range nodes {
			eventually(t, "NATS is away", func() bool { return metric(t, n, connected) == 0 })
		}
		bus.start()
		bus.joined(nodes...)
		before := metric(t, nodes[1], byHint)
		eventually(t, "hints come again", func() bool { return metric(t, nodes[1], byHint) > before+10 })
	}
	c.check()
}

// A relay that ends while people listen tells them nothing false: its streams end, and they resume at another.
func TestRelayEndsOthersGoOn(t *testing.T) {
	host := several(t, relaynode.NATS{Listen: "127.0.0.1:0"})[0]
	guest := testnode.Start(t, testnode.Options{DSN: host.DSN, Key: host.Secret, Setup: func(c *relaynode.Config) { c.NATS.URLs = []string{host.NATSURL} }})
	alice, bob := scenario.NewPerson(t, host.Key), scenario.NewPerson(t, host.Key)
	host.Grant(t, alice.Key.Public())
	at, err := bob.Follow(t.Context(), host.URL, nil, alice.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	mustWrite(t, guest, alice, bob.Key.Public(), "one")
	first, err := at.Next()
	if err != nil || first.ID != "one" {
		t.Fatalf("%+v %v", first, err)
	}
	host.Stop() // and with it the NATS server
	if told, err := at.Next(); !errors.Is(err, scenario.ErrCut) {
		t.Errorf("after the end it tells %+v (%v)", told, err)
	}
	mustWrite(t, guest, alice, bob.Key.Public(), "two")
	elsewhere, err := bob.Follow(t.Context(), guest.URL, &first.Cursor, alice.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	if told, err := elsewhere.Next(); err != nil || told.ID != "two" {
		t.Errorf("%+v %v", told, err)
	}
}
