package records_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"runtime"
	"sync/atomic"

	"relaymarket/internal/testpg"
	"relaymarket/migrations"
	"relaymarket/protocol"
	"relaymarket/records"
)

func TestZAmplify(t *testing.T) {
	h := newHouse(t)
	alice, bob, stranger := h.account(), key(t), key(t)
	for name, who := range map[string]*protocol.PrivateKey{"holder": alice, "stranger": stranger} {
		for _, same := range []bool{false, true} {
			var in []records.Incoming
			for i := range 1000 {
				id := fmt.Sprint("r", i)
				if same {
					id = "same"
				}
				in = append(in, h.compose(who, bob.Public(), id, content(fmt.Sprintf("%08d", i))))
			}
			start := time.Now()
			h.write(in...)
			t.Logf("%s same path %v: %v", name, same, time.Since(start))
		}
	}
}

func TestZReadOther(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	a := h.compose(alice, bob.Public(), "a")
	h.mustWrite(a)
	h.mustWrite(h.compose(alice, bob.Public(), "b"))
	path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "a"}
	if _, err := h.store.Read(t.Context(), path, "p"); err != nil {
		t.Fatal(err)
	}
	path.ID = "b"
	raw, err := h.store.Read(t.Context(), path, "p")
	if err == nil {
		t.Errorf("asked for b, got %v", strings.Contains(string(raw), `"recordId":"a"`))
	}
}

func TestZLateAck(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	h.mustWrite(h.compose(alice, bob.Public(), "a", ttl(h, 100*24*time.Hour)))
	r := &reader{h: h, key: bob}
	page, err := r.pull(t.Context(), 10, alice.Public())
	if err != nil {
		t.Fatal(err)
	}
	h.advance(36 * 24 * time.Hour)
	ack := r.ack(page.Header)
	for range 2 {
		if err := h.store.Got(t.Context(), bob.Public(), *ack); err != nil {
			t.Error(err)
		}
		if err := h.store.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestZMigrationRace(t *testing.T) {
	for range 5 {
		url := testpg.New(t)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if err := migrations.Up(t.Context(), url); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

func TestZStrangerLarge(t *testing.T) {
	h := newHouse(t)
	alice, stranger := h.account(), key(t)
	wantCode(t, h.write(h.compose(stranger, alice.Public(), "d", content(strings.Repeat("A", 66<<10))))[0].Err, protocol.CodeNoAccount)
}

func TestZListenerMemory(t *testing.T) {
	h := newHouse(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	bob := key(t).Public()
	const n = 200
	var subs []*records.Subscription
	for range n {
		senders := make([]protocol.PublicKey, 1000)
		for i := range senders {
			senders[i][0], senders[i][1] = byte(i), byte(i>>8)
		}
		sub, err := h.store.Listen(t.Context(), bob, senders, nil)
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d bytes a listener", (after.HeapAlloc-before.HeapAlloc)/n)
	for _, s := range subs {
		s.Close()
	}
}

func TestZMonth(t *testing.T) {
	// a process whose clock is ahead by a moment at the roll-over
	h := newHouse(t)
	edge := time.Date(time.Now().Year()+1, 4, 1, 0, 0, 0, 0, time.UTC)
	h.advance(time.Until(edge) - 10*time.Second)
	ahead := joinHouse(t, h.url, h.relay, new(atomic.Int64))
	ahead.offset.Store(h.offset.Load() + 20_000)
	alice, bob := h.account(), key(t)
	ahead.mustWrite(ahead.compose(alice, bob.Public(), "x"))
	h.mustWrite(h.compose(alice, bob.Public(), "a"))
	h.advance(time.Minute)
	for _, id := range []string{"x", "a"} {
		if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: protocol.RecordID(id)}); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := h.books.Get(t.Context(), alice.Public())
	t.Logf("%+v; want moved ~ 2 sizes", a)
}
