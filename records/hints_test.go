package records_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
	"relaymarket/records"
)

// liar is a waker whose hints the test makes up.
type liar struct {
	heard     chan func(int64) // capacity 1
	committed chan int64
}

func newLiar() *liar {
	return &liar{heard: make(chan func(int64), 1), committed: make(chan int64, 100)}
}

func (l *liar) Committed(n int64) {
	select {
	case l.committed <- n:
	default:
	}
}

func (l *liar) Run(ctx context.Context, _ string, heard func(int64)) error {
	l.heard <- heard
	<-ctx.Done()
	return nil
}

// beside runs another process's worth of records on the same database, with a waker.
func (h *house) beside(t *testing.T, l *liar) (*records.Store, *prometheus.Registry) {
	t.Helper()
	database, err := db.Open(t.Context(), h.url, 16)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	store, err := records.New(t.Context(), records.Config{DB: database, Books: books.New(books.Config{DB: database, Clock: h.clock}), Relay: h.relay.Public(),
		Clock: h.clock, Logger: slog.New(slog.DiscardHandler), Limits: records.DefaultLimits(), Registerer: registry, Waker: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		database.Close()
	})
	return store, registry
}

// listening is a listener of bob's for what alice writes, at another process.
type listening struct {
	registry *prometheus.Registry
	sub      *records.Subscription
	hint     func(int64)
}

func listenBeside(t *testing.T, h *house, bob, alice protocol.PublicKey) *listening {
	t.Helper()
	waker := newLiar()
	store, registry := h.beside(t, waker)
	sub, err := store.Listen(t.Context(), bob, []protocol.PublicKey{alice}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	return &listening{registry: registry, sub: sub, hint: <-waker.heard}
}

// counted is the value of the counter with that label.
func counted(t *testing.T, g prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

const (
	hintsMetric  = "relaymarket_records_hints_total"
	readOnMetric = "relaymarket_records_read_on_total"
)

func (l *listening) told(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := l.sub.Next(ctx)
	if err != nil || e.Entry == nil || string(e.Entry.ID) != id {
		t.Fatalf("told %+v (%v), want %s", e, err, id)
	}
}

// A hint that is true is followed at once. With none, or with every kind that is not, listeners are told all the same: once, in order, by the
// poll.
func TestHints(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	l := listenBeside(t, h, bob.Public(), alice.Public())
	n := int64(0)
	write := func() string {
		n++
		id := fmt.Sprint(n)
		h.mustWrite(h.compose(alice, bob.Public(), id))
		return id
	}
	for name, hint := range map[string]func(){
		"true":   func() { l.hint(n) },
		"thrice": func() { l.hint(n); l.hint(n); l.hint(n) },
		"none":   func() {},
		"old":    func() { l.hint(n - 1); l.hint(0); l.hint(-1) },
		"false":  func() { l.hint(math.MaxInt64) },
		"mixed":  func() { l.hint(n + 1); l.hint(1); l.hint(n) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 4 {
				id := write()
				hint()
				l.told(t, id)
			}
		})
	}
	// Any of them may have been found by the poll before, which is as good.
	eventually(t, "records are read because of a hint", func() bool {
		if counted(t, l.registry, readOnMetric, "hint") >= 4 {
			return true
		}
		id := write()
		l.hint(n)
		l.told(t, id)
		return false
	})
}

// The commits of a process are hinted at to others, the newest place of each.
func TestCommitsAreHinted(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	told := newLiar()
	writer, _ := h.beside(t, told)
	var last records.Incoming
	for want := int64(1); want <= 3; want++ {
		last = h.compose(alice, bob.Public(), fmt.Sprint("a", want))
		out := writer.Write(t.Context(), []records.Incoming{last, h.compose(alice, bob.Public(), fmt.Sprint("b", want))})
		for _, o := range out {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		select {
		case n := <-told.committed:
			if n != 2*want {
				t.Errorf("hinted at %d, want %d", n, 2*want)
			}
		case <-time.After(patience):
			t.Fatal("a commit is not hinted at")
		}
	}
	// A repeat commits nothing.
	out := writer.Write(t.Context(), []records.Incoming{last})
	if out[0].Err != nil || !out[0].Replayed {
		t.Fatalf("%+v", out[0])
	}
	select {
	case n := <-told.committed:
		t.Errorf("hinted at %d for a repeat", n)
	default:
	}
}

// Whoever floods a process with made-up hints causes four queries a second, and delays nobody beyond the poll.
func TestForgedHints(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	l := listenBeside(t, h, bob.Public(), alice.Public())
	ctx, cancel := context.WithCancel(t.Context())
	began, done := time.Now(), make(chan int)
	go func() {
		made := 0
		for n := int64(1_000_000); ctx.Err() == nil; n += 1000 {
			l.hint(n)
			l.hint(math.MaxInt64)
			made += 2
		}
		done <- made
	}()
	for i := range 5 {
		wrote := time.Now()
		id := fmt.Sprint(i)
		h.mustWrite(h.compose(alice, bob.Public(), id))
		l.told(t, id)
		if took := time.Since(wrote); took > 20*time.Second {
			t.Errorf("a listener waited %s", took)
		}
	}
	cancel()
	made := <-done
	false_, most := counted(t, l.registry, hintsMetric, "false"), 2+time.Since(began).Seconds()*4
	if false_ < 1 || false_ > most {
		t.Errorf("%d made-up hints caused %v queries, want 1 to %.0f", made, false_, most)
	}
	// Those that come while the database is asked are not: on a busy machine that takes its time.
	if deaf := counted(t, l.registry, hintsMetric, "deaf"); deaf < float64(made)/10 {
		t.Errorf("%v of %d made-up hints were left out", deaf, made)
	}
}
