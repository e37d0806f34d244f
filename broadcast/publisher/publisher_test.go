package publisher_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/publisher"
	"relaymarket/internal/db"
	"relaymarket/internal/testhub"
	"relaymarket/internal/testpg"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

// relay is one whose price can change.
type relay struct {
	key   *protocol.PrivateKey
	price atomic.Int64
	asked atomic.Int64 // how often for its words
	mu    sync.Mutex
	shown []*protocol.Envelope // what it adopted, in order
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &relay{key: key}
}

func (r *relay) words() *protocol.Announcement {
	r.asked.Add(1)
	return &protocol.Announcement{Addresses: []string{"https://relay.example"}, Network: testhub.Network, Terms: []protocol.Terms{},
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: r.price.Load()}}
}

func (r *relay) adopt(_ context.Context, e *protocol.Envelope, _ *protocol.Announcement) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown = append(r.shown, e)
	return nil
}

func (r *relay) shows(e *protocol.Envelope) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.shown) > 0 && r.shown[len(r.shown)-1].Hash() == e.Hash()
}

// store is a database of a relay.
func store(t *testing.T) publisher.Store {
	t.Helper()
	url := testpg.New(t)
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return publisher.Store{DB: d}
}

// run publishes until the function it returns is called.
func (r *relay) run(t *testing.T, c *testhub.Clock, memory publisher.Memory, bits int, urls ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var hubs []publisher.Hub
	for _, url := range urls {
		hub, err := publisher.Dial(ctx, testhub.Network, url, feed.Access{Name: "test"})
		if err != nil {
			t.Fatal(err)
		}
		hubs = append(hubs, hub)
	}
	p := publisher.New(publisher.Config{Key: r.key, Words: r.words, Adopt: r.adopt, Bits: bits, Hubs: hubs, Memory: memory, Clock: c.Now, Logger: quiet})
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the publisher ended with: %v", err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the publisher does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// found is the relay's offer in a hub's book, nil if it is not there.
func (r *relay) found(t *testing.T, c *testhub.Clock, hub *testhub.Node) *broadcast.Offer {
	t.Helper()
	conn := hub.Stranger()
	defer conn.Close()
	var found *broadcast.Offer
	if _, err := feed.FetchAll(t.Context(), conn, testhub.Network, 0, 1000, func(m feed.Message) error {
		o, err := testhub.Rules.CheckOn(m.Subject, m.Data, protocol.TimestampOf(c.Now()), nil)
		if err != nil {
			return fmt.Errorf("the book has: %w", err)
		}
		if o.Relay == r.key.Public() {
			found = o
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// A relay is on all of its hubs, also on one that was away; a new price is there soon, under a higher seq; a restart works for nothing
// and announces the same again; and as time passes it announces anew.
func TestPublish(t *testing.T) {
	c := testhub.NewClock()
	one, two := testhub.Start(t, c), testhub.Start(t, c)
	two.Halt()
	r, memory := newRelay(t), store(t)
	stop := r.run(t, c, memory, 8, one.URL(), two.URL())
	testhub.Wait(t, "the first hub has it", func() bool { return r.found(t, c, one) != nil })
	two.Start()
	testhub.Wait(t, "the second hub has it", func() bool { return r.found(t, c, two) != nil })
	first := r.found(t, c, one)
	if !r.shows(first.Envelope) || r.found(t, c, two).Hash != first.Hash {
		t.Error("hubs and relay show different announcements")
	}

	r.price.Store(77)
	for _, hub := range []*testhub.Node{one, two} {
		testhub.Wait(t, "the new price is there", func() bool { return r.found(t, c, hub).Contracts.StorageMsatPerGBDay == 77 })
	}
	second := r.found(t, c, one)
	if second.Seq <= first.Seq || !r.shows(second.Envelope) {
		t.Errorf("seq %d after %d", second.Seq, first.Seq)
	}

	stop()
	three := testhub.Start(t, c)
	stop = r.run(t, c, memory, 8, three.URL())
	testhub.Wait(t, "it is announced after a restart", func() bool { return r.found(t, c, three) != nil })
	if r.found(t, c, three).Hash != second.Hash {
		t.Error("a restart made another announcement")
	}

	c.Pass(publisher.Validity/2 + time.Second)
	testhub.Wait(t, "it is announced anew", func() bool { return r.found(t, c, three).Seq > second.Seq })
	stop()
}

// A relay whose database was lost, or is older than what it announced, goes on above what the hubs know.
func TestSeqIsRaised(t *testing.T) {
	c := testhub.NewClock()
	hub := testhub.Start(t, c)
	r := newRelay(t)
	at := protocol.TimestampOf(c.Now())
	ahead := r.words()
	ahead.Seq, ahead.ValidUntil = int64(at)+1_000_000, at.Add(time.Hour)
	e, err := broadcast.Prover{}.Announce(t.Context(), r.key, at, ahead, 8)
	if err != nil {
		t.Fatal(err)
	}
	if receipt := hub.Send(hub.Stranger(), e.Bytes()); !receipt.Taken {
		t.Fatalf("%+v", receipt)
	}
	r.price.Store(5)
	defer r.run(t, c, store(t), 8, hub.URL())()
	testhub.Wait(t, "the new one is there", func() bool { return r.found(t, c, hub).Contracts.StorageMsatPerGBDay == 5 })
	if got := r.found(t, c, hub).Seq; got != ahead.Seq+1 {
		t.Errorf("seq %d after %d", got, ahead.Seq)
	}
}

// Two relayd on one database announce one thing.
func TestTwoOnOneDatabase(t *testing.T) {
	c := testhub.NewClock()
	hub := testhub.Start(t, c)
	r, memory := newRelay(t), store(t)
	other := &relay{key: r.key}
	defer r.run(t, c, memory, 8, hub.URL())()
	defer other.run(t, c, memory, 8, hub.URL())()
	testhub.Wait(t, "both show what is in the book", func() bool {
		o := r.found(t, c, hub)
		return o != nil && r.shows(o.Envelope) && other.shows(o.Envelope)
	})
}

// When a hub is full, the relay works somewhat more.
func TestMoreWorkForAFullHub(t *testing.T) {
	c := testhub.NewClock()
	hub := testhub.Start(t, c)
	hub.Halt()
	hub.Bounds.Relays = 1
	hub.Start()
	first, second := newRelay(t), newRelay(t)
	stop := first.run(t, c, store(t), 8, hub.URL())
	testhub.Wait(t, "the first is there", func() bool { return first.found(t, c, hub) != nil })
	stop()
	defer second.run(t, c, store(t), 8, hub.URL())()
	testhub.Wait(t, "the second is there", func() bool { return second.found(t, c, hub) != nil })
	if got := second.found(t, c, hub).Work; got != 9 {
		t.Errorf("it worked %d bits", got)
	}
}

// Work that would take for ever does not keep a relay from ending, nor from changing its mind.
func TestWorkIsGivenUp(t *testing.T) {
	c := testhub.NewClock()
	r := newRelay(t)
	stop := r.run(t, c, store(t), 200)
	testhub.Wait(t, "the work begins", func() bool { return r.asked.Load() > 0 })
	r.price.Store(3)
	testhub.Wait(t, "it has begun again with other words", func() bool { return r.asked.Load() > 2 })
	stop()
}

// The database keeps the highest seq, whoever comes in whatever order.
func TestMemory(t *testing.T) {
	s := store(t)
	if data, err := s.Last(t.Context()); data != nil || err != nil {
		t.Fatalf("%v, %v", data, err)
	}
	for _, step := range []struct {
		seq   int64
		saved bool
	}{{5, true}, {5, false}, {4, false}, {6, true}} {
		if saved, err := s.Save(t.Context(), step.seq, []byte{byte(step.seq)}); saved != step.saved || err != nil {
			t.Errorf("save %d: %t, %v", step.seq, saved, err)
		}
	}
	if data, err := s.Last(t.Context()); len(data) != 1 || data[0] != 6 || err != nil {
		t.Errorf("%v, %v", data, err)
	}
}
