package records_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
	"relaymarket/records"
)

func TestWriteIsIdempotent(t *testing.T) {
	h := newHouse(t)
	h.midMonth()
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "one")
	cursor := h.mustWrite(in)
	used, _ := h.books.Get(t.Context(), alice.Public())

	// Again at once, and hours later under a new signature and timestamp.
	for _, wait := range []time.Duration{0, 5 * time.Hour} {
		h.advance(wait)
		again, err := protocol.Sign(alice, bob.Public(), h.now(), in.Write)
		if err != nil {
			t.Fatal(err)
		}
		out := h.write(records.Incoming{Envelope: again, Write: in.Write})[0]
		if out.Err != nil || !out.Replayed || out.Cursor != cursor || out.Hash != in.Envelope.Hash() {
			t.Fatalf("repeated write: %+v", out)
		}
	}
	other := h.compose(alice, bob.Public(), "one", content("b3RoZXI="))
	wantCode(t, h.write(other)[0].Err, protocol.CodeConflict)
	if now, _ := h.books.Get(t.Context(), alice.Public()); now.Stored != used.Stored || now.Moved != used.Moved {
		t.Fatalf("repeats were charged: %+v, was %+v", now, used)
	}
	if n := h.count(`SELECT count(*) FROM records`); n != 1 {
		t.Fatalf("%d rows", n)
	}
}

func TestBatchJudgesEachWrite(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	stranger := key(t)
	a := h.compose(alice, bob.Public(), "a")
	conflict := h.compose(alice, bob.Public(), "a", content("eA=="))
	out := h.write(a, a, conflict, h.compose(stranger, bob.Public(), "b"), h.compose(alice, bob.Public(), "c", ttl(h, -time.Minute)), h.compose(alice, bob.Public(), "d"))
	for i, want := range []protocol.Code{"", "", protocol.CodeConflict, protocol.CodeNoAccount, protocol.CodeExpired, ""} {
		if want != "" {
			wantCode(t, out[i].Err, want)
		} else if out[i].Err != nil {
			t.Fatalf("write %d: %v", i, out[i].Err)
		}
	}
	if out[0].Cursor != out[1].Cursor || !out[1].Replayed {
		t.Fatalf("the same write twice in one batch: %+v", out[:2])
	}
	h.balanced()
}

// Every write is sent by several goroutines at once, to two processes on one database.
func TestConcurrentRepeatsHaveOneEffect(t *testing.T) {
	h := newHouse(t)
	h2 := joinHouse(t, h.url, h.relay, h.offset)
	alice, bob := h.account(), key(t)
	const n = 50
	var wg sync.WaitGroup
	cursors := make([][]string, n)
	var mu sync.Mutex
	for i := range n {
		in := h.compose(alice, bob.Public(), fmt.Sprint("r", i))
		for c := range 4 {
			wg.Go(func() {
				out := []*house{h, h2}[c%2].write(in)[0]
				if out.Err != nil {
					t.Errorf("write %d: %v", i, out.Err)
				}
				mu.Lock()
				cursors[i] = append(cursors[i], out.Cursor)
				mu.Unlock()
			})
		}
	}
	wg.Wait()
	for i, c := range cursors {
		if c[0] != c[1] || c[1] != c[2] || c[2] != c[3] {
			t.Fatalf("write %d has several places: %v", i, c)
		}
	}
	if got := h.count(`SELECT count(*) FROM records`); got != n {
		t.Fatalf("%d rows for %d writes", got, n)
	}
	h.balanced()
}

func TestQuotaIsExactUnderConcurrency(t *testing.T) {
	h := newHouse(t)
	h2 := joinHouse(t, h.url, h.relay, h.offset)
	alice, bob := key(t), key(t)
	size := h.compose(alice, bob.Public(), "r00", pulls(1)).Envelope.Size()
	h.grant(alice, 10*size+size/2, 1<<40)
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for i := range 64 {
		in := h.compose(alice, bob.Public(), fmt.Sprintf("r%02d", i), pulls(1))
		wg.Go(func() {
			out := []*house{h, h2}[i%2].write(in)[0]
			if out.Err == nil {
				mu.Lock()
				stored++
				mu.Unlock()
			} else {
				wantCode(t, out.Err, protocol.CodeQuotaStored)
			}
		})
	}
	wg.Wait()
	if stored != 10 {
		t.Fatalf("%d records stored in a quota of 10", stored)
	}
	h.balanced()
}

func TestMonthlyQuotaReservesPullsAndGivesBack(t *testing.T) {
	h := newHouse(t)
	h.midMonth()
	alice, bob := key(t), key(t)
	in := h.compose(alice, bob.Public(), "a", pulls(3))
	size := in.Envelope.Size()
	h.grant(alice, 1<<40, 4*size+1)
	h.mustWrite(in)
	wantCode(t, h.write(h.compose(alice, bob.Public(), "b", pulls(1)))[0].Err, protocol.CodeQuotaMoved)
	r := &reader{h: h, key: bob}
	if _, err := r.pull(t.Context(), 10, alice.Public()); err != nil {
		t.Fatal(err)
	}
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "a"}); err != nil {
		t.Fatal(err)
	}
	a, err := h.books.Get(t.Context(), alice.Public())
	if err != nil {
		t.Fatal(err)
	}
	if a.Stored != 0 || a.Moved != 2*size { // written once, pulled once, two pulls given back
		t.Fatalf("stored %d moved %d, want 0 and %d", a.Stored, a.Moved, 2*size)
	}
	h.advance(31 * 24 * time.Hour)
	if a, _ := h.books.Get(t.Context(), alice.Public()); a.Moved != 0 {
		t.Fatalf("a new month starts with %d", a.Moved)
	}
}

func TestRevokedAndEndedGrants(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "a")
	h.mustWrite(in)
	if err := h.books.Revoke(t.Context(), alice.Public()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.write(h.compose(alice, bob.Public(), "b"))[0].Err, protocol.CodeNoAccount)
	if out := h.write(in)[0]; out.Err != nil || !out.Replayed {
		t.Fatalf("what was stored before is still stored: %+v", out)
	}
	r := &reader{h: h, key: bob}
	page, err := r.pull(t.Context(), 10, alice.Public())
	if err != nil || len(page.Lines) != 1 {
		t.Fatalf("what is stored stays readable: %v %v", page, err)
	}
	wantCode(t, h.books.Revoke(t.Context(), bob.Public()), protocol.CodeNotFound)
	h.grant(alice, 1<<30, 1<<30)
	h.advance(400 * 24 * time.Hour)
	wantCode(t, h.write(h.compose(alice, bob.Public(), "c"))[0].Err, protocol.CodeNoAccount)
}

func TestAdmittedKeys(t *testing.T) {
	h := newHouse(t)
	alice, friend, stranger := h.account(), key(t), key(t)
	size := h.compose(friend, alice.Public(), "a", pulls(1)).Envelope.Size()
	admit := func(k ...protocol.Admitted) {
		t.Helper()
		if err := h.store.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := h.books.SetAdmitted(t.Context(), alice.Public(), k); err != nil {
			t.Fatal(err)
		}
	}
	admit(protocol.Admitted{Key: friend.Public(), Bytes: 3 * size, Records: 2})
	wantCode(t, h.write(h.compose(stranger, alice.Public(), "x"))[0].Err, protocol.CodeNoAccount)
	wantCode(t, h.write(h.compose(friend, stranger.Public(), "x"))[0].Err, protocol.CodeNoAccount)
	h.mustWrite(h.compose(friend, alice.Public(), "a", pulls(1)))
	h.mustWrite(h.compose(friend, alice.Public(), "b", pulls(1), ttl(h, time.Hour)))
	wantCode(t, h.write(h.compose(friend, alice.Public(), "c", pulls(1)))[0].Err, protocol.CodeQuotaAdmitted)
	big := make([]byte, 66<<10)
	for i := range big {
		big[i] = 'A'
	}
	wantCode(t, h.write(h.compose(friend, alice.Public(), "d", content(string(big))))[0].Err, protocol.CodeTooLarge)

	// Who is not admitted is told that, and not how much he might leave if he were.
	wantCode(t, h.write(h.compose(stranger, alice.Public(), "d", content(string(big))))[0].Err, protocol.CodeNoAccount)

	// No longer admitted, what he left still counts when he is admitted again.
	admit()
	wantCode(t, h.write(h.compose(friend, alice.Public(), "e"))[0].Err, protocol.CodeNoAccount)
	admit(protocol.Admitted{Key: friend.Public(), Bytes: 3 * size, Records: 2})
	wantCode(t, h.write(h.compose(friend, alice.Public(), "e"))[0].Err, protocol.CodeQuotaAdmitted)
	a, err := h.books.Get(t.Context(), alice.Public())
	if err != nil || len(a.Admitted) != 1 || a.Admitted[0].UsedRecords != 2 || a.Stored != 2*size {
		t.Fatalf("%+v %v", a, err)
	}
	// Expired and swept, there is room again.
	h.advance(2*time.Hour + time.Minute)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.mustWrite(h.compose(friend, alice.Public(), "f", pulls(1)))
	wantCode(t, h.books.SetAdmitted(t.Context(), friend.Public(), nil), protocol.CodeNoAccount)
	h.balanced()
}

func TestGrantBounds(t *testing.T) {
	h := newHouse(t)
	k := h.account().Public()
	for name, g := range map[string]books.Grant{
		"negative": {Key: k, QuotaStored: -1, LastDay: "2030-01-01"},
		"huge":     {Key: k, QuotaMoved: books.MaxQuota + 1, LastDay: "2030-01-01"},
		"day":      {Key: k, LastDay: "2030-02-30"},
		"year":     {Key: k, LastDay: "0000-01-01"},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, h.books.Put(t.Context(), g), protocol.CodeInvalidValue) })
	}
}

// Two relays with keys of their own would serve each other's records, which name one relay.
func TestDatabaseBelongsToOneRelay(t *testing.T) {
	h := newHouse(t)
	config := records.Config{DB: h.db, Books: h.books, Relay: key(t).Public(), Clock: h.clock, Logger: slog.New(slog.DiscardHandler), Limits: records.DefaultLimits()}
	if _, err := records.New(t.Context(), config); err == nil || !strings.Contains(err.Error(), h.relay.Public().Bech32()) {
		t.Fatalf("another key: %v", err)
	}
}

// A relay that lowered its limits still knows what it stored before.
func TestRepeatBeyondNewLimits(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "a", pulls(8))
	cursor := h.mustWrite(in)
	limits := records.DefaultLimits()
	limits.MaxPulls, limits.Lifetime = 2, time.Hour
	strict := joinWith(t, h.url, h.relay, h.offset, limits)
	if out := strict.write(in)[0]; out.Err != nil || !out.Replayed || out.Cursor != cursor {
		t.Fatalf("a repeat beyond the new limits: %+v", out)
	}
	wantCode(t, strict.write(strict.compose(alice, bob.Public(), "b", pulls(8)))[0].Err, protocol.CodeInvalidValue)
	wantCode(t, strict.write(strict.compose(alice, bob.Public(), "b", pulls(1)))[0].Err, protocol.CodeInvalidValue)
}
