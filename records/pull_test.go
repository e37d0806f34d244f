package records_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

func TestPullPages(t *testing.T) {
	h := newHouse(t)
	alice, carol, eve, bob := h.account(), h.account(), h.account(), key(t)
	for i := range 5 {
		h.mustWrite(h.compose(alice, bob.Public(), fmt.Sprint("a", i)))
		h.mustWrite(h.compose(carol, bob.Public(), fmt.Sprint("c", i)))
		h.mustWrite(h.compose(eve, bob.Public(), fmt.Sprint("e", i))) // not asked for
		h.mustWrite(h.compose(alice, carol.Public(), fmt.Sprint("x", i)))
	}
	r := &reader{h: h, key: bob}
	var seen []string
	for {
		page, err := r.pull(t.Context(), 4, alice.Public(), carol.Public())
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, ids(t, page)...)
		if !page.Header.More {
			break
		}
	}
	if got, want := strings.Join(seen, " "), "a0 c0 a1 c1 a2 c2 a3 c3 a4 c4"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	// An idle poll touches no row but acknowledges the last page.
	page, err := r.pull(t.Context(), 4, alice.Public(), carol.Public())
	if err != nil || len(page.Lines) != 0 || page.Header.More {
		t.Fatalf("%+v %v", page, err)
	}
	if n := h.count(openPages); n != 0 {
		t.Fatalf("%d pages open", n)
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != 3 {
		t.Fatalf("%d pages kept, want 3", n)
	}
}

func TestPageLife(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	h.mustWrite(h.compose(alice, bob.Public(), "a", pulls(2)))
	h.mustWrite(h.compose(alice, bob.Public(), "b"))
	r := &reader{h: h, key: bob}
	req := r.request(10, alice.Public())
	first, err := h.store.Pull(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	// The next page waits for this one, and is told which.
	var pe *records.PageError
	_, err = h.store.Pull(t.Context(), r.request(10, alice.Public()))
	if !errors.As(err, &pe) || pe.Code != protocol.CodePageOpen || pe.PageID != req.PageID {
		t.Fatalf("second page: %v", err)
	}
	// Asked again it is the same page, though a record ended and another came since.
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "b"}); err != nil {
		t.Fatal(err)
	}
	h.mustWrite(h.compose(alice, bob.Public(), "c"))
	again, err := h.store.Pull(t.Context(), req)
	if err != nil || *again.Header.Root != *first.Header.Root || again.Header.Served != 2 || again.Header.Cursor != first.Header.Cursor {
		t.Fatalf("%+v %v", again, err)
	}
	if got := strings.Join(ids(t, again), " "); got != "a gone:b" {
		t.Fatalf("again: %s", got)
	}
	if _, err := h.store.Pull(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	_, err = h.store.Pull(t.Context(), req)
	if !errors.As(err, &pe) || pe.Code != protocol.CodePageSpent || *pe.Root != *first.Header.Root {
		t.Fatalf("fourth serve: %v", err)
	}
	if n := h.count(`SELECT remaining FROM pulls p JOIN records r ON r.receiver = p.receiver AND r.sender = p.sender AND r.n BETWEEN p.first AND p.upto WHERE id = 'a'`); n != 1 {
		t.Fatalf("three serves left %d pulls of 2, want 1", n)
	}
	// A false root is refused, the true one is accepted, again too.
	wrong := r.ack(first.Header)
	wrong.Root[0] ^= 1
	wantCode(t, h.store.Got(t.Context(), bob.Public(), *wrong), protocol.CodeRootMismatch)
	evidence := r.ack(first.Header)
	for _, ack := range []*records.Acknowledgement{evidence, r.ack(first.Header)} {
		if err := h.store.Got(t.Context(), bob.Public(), *ack); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.count(`SELECT count(*) FROM pages WHERE got = $1`, evidence.Envelope.Bytes()); n != 1 {
		t.Fatal("the first acknowledgement did not stay the evidence")
	}
	wantCode(t, h.store.Got(t.Context(), alice.Public(), *r.ack(first.Header)), protocol.CodeNotFound)
	r.after = &first.Header.Cursor
	next, err := r.pull(t.Context(), 10, alice.Public())
	if err != nil || strings.Join(ids(t, next), " ") != "c" {
		t.Fatalf("%v %v", next, err)
	}
}

func TestSinglePull(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "a", pulls(1))
	h.mustWrite(in)
	path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "a"}
	for range 3 {
		raw, err := h.store.Read(t.Context(), path, "p1")
		if err != nil || string(raw) != string(in.Envelope.Bytes()) {
			t.Fatalf("%q %v", raw, err)
		}
	}
	_, err := h.store.Read(t.Context(), path, "p1")
	wantCode(t, err, protocol.CodePageSpent)
	_, err = h.store.Read(t.Context(), path, "p2")
	wantCode(t, err, protocol.CodePageOpen)
	root := in.Envelope.Hash()
	r := &reader{h: h, key: bob}
	if err := h.store.Got(t.Context(), bob.Public(), *r.ack(protocol.PageHeader{PageID: "p1", Root: &root})); err != nil {
		t.Fatal(err)
	}
	_, err = h.store.Read(t.Context(), path, "p2")
	wantCode(t, err, protocol.CodeGone)
	path.ID = "none"
	_, err = h.store.Read(t.Context(), path, "p3")
	wantCode(t, err, protocol.CodeNotFound)
}

func TestPageCutAtBytes(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	big := strings.Repeat("A", 1<<20-600)
	for i := range 10 {
		h.mustWrite(h.compose(alice, bob.Public(), fmt.Sprint("r", i), content(big)))
	}
	r := &reader{h: h, key: bob}
	page, err := r.pull(t.Context(), 1000, alice.Public())
	if err != nil || len(page.Lines) != 8 || !page.Header.More {
		t.Fatalf("%d lines, more %v, %v", len(page.Lines), page.Header.More, err)
	}
	page, err = r.pull(t.Context(), 1000, alice.Public())
	if err != nil || len(page.Lines) != 2 || page.Header.More {
		t.Fatalf("%d lines, more %v, %v", len(page.Lines), page.Header.More, err)
	}
}

// 64 devices of one reader want the same records. However they interleave, each record is part of
// at most maxPulls pages.
func TestMaxPullsUnderConcurrency(t *testing.T) {
	h := newHouse(t)
	h2 := joinHouse(t, h.url, h.relay, h.offset)
	alice, bob := h.account(), key(t)
	const most = 5
	for i := range 3 {
		h.mustWrite(h.compose(alice, bob.Public(), fmt.Sprint("r", i), pulls(most)))
	}
	var mu sync.Mutex
	served := make(map[string]int)
	var wg sync.WaitGroup
	for i := range 64 {
		house := []*house{h, h2}[i%2]
		wg.Go(func() {
			r := &reader{h: house, key: bob}
			for range 5000 { // more tries than it takes on any machine
				page, err := r.pull(t.Context(), int64(1+i%3), alice.Public())
				if errors.Is(err, protocol.CodePageOpen) {
					time.Sleep(time.Millisecond) // another device's page is open: wait for its acknowledgement
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, id := range ids(t, page) {
					served[id]++
				}
				mu.Unlock()
				if page.Header.Records > 0 {
					if err := house.store.Got(t.Context(), bob.Public(), *r.ack(page.Header)); err != nil {
						t.Error(err)
					}
					r.open = nil
				}
				if !page.Header.More {
					return
				}
			}
		})
	}
	wg.Wait()
	for id, n := range served {
		if n > most {
			t.Errorf("%s was part of %d pages, maxPulls is %d", id, n, most)
		}
	}
	if len(served) != 3 {
		t.Fatalf("served %v", served)
	}
	t.Logf("pages each record was part of: %v", served)
}

func TestExpiryAndTombstones(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "a", ttl(h, time.Hour))
	h.mustWrite(in)
	path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "a"}
	h.advance(time.Hour + time.Second)
	_, err := h.store.Read(t.Context(), path, "p")
	wantCode(t, err, protocol.CodeGone)
	r := &reader{h: h, key: bob}
	if page, err := r.pull(t.Context(), 10, alice.Public()); err != nil || len(page.Lines) != 0 {
		t.Fatalf("served after it expired: %v %v", page, err)
	}
	if l, err := h.store.List(t.Context(), records.ListRequest{Sender: alice.Public(), Limit: 10}); err != nil || len(l.Entries) != 0 {
		t.Fatalf("listed after it expired: %v %v", l, err)
	}
	wantCode(t, h.write(in)[0].Err, protocol.CodeGone)
	// A clock that was wrong by most of an hour finds it whole: nothing was destroyed.
	h.advance(59 * time.Minute)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.advance(-2 * time.Hour)
	if _, err := h.store.Read(t.Context(), path, "p"); err != nil {
		t.Fatalf("destroyed before it expired: %v", err)
	}
	h.advance(3 * time.Hour)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM records`) + h.count(`SELECT count(*) FROM pulls`); n != 0 {
		t.Fatalf("%d rows left", n)
	}
	wantCode(t, h.write(in)[0].Err, protocol.CodeExpired)
	h.balanced()
}

func TestUsedUpIsFreedLater(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "a", pulls(1))
	h.mustWrite(in)
	r := &reader{h: h, key: bob}
	req := r.request(10, alice.Public())
	if _, err := h.store.Pull(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.write(in)[0].Err, protocol.CodeGone)
	h.advance(9 * time.Minute)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A cut reply: the page is asked again and still has the message.
	if page, err := h.store.Pull(t.Context(), req); err != nil || page.Lines[0].Gone != nil {
		t.Fatalf("lost by a cut reply: %v %v", page, err)
	}
	h.advance(2 * time.Minute)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM records WHERE state = 2 AND envelope IS NULL`); n != 1 {
		t.Fatal("the bytes were not freed")
	}
	wantCode(t, h.write(in)[0].Err, protocol.CodeGone)
	h.balanced()
}

func TestDelete(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	in := h.compose(alice, bob.Public(), "a")
	h.mustWrite(in)
	path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "a"}
	for range 2 {
		if err := h.store.Delete(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, h.write(in)[0].Err, protocol.CodeGone)
	_, err := h.store.Read(t.Context(), path, "p")
	wantCode(t, err, protocol.CodeGone)
	wantCode(t, h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "b"}), protocol.CodeNotFound)
	if a, _ := h.books.Get(t.Context(), alice.Public()); a.Stored != 0 {
		t.Fatalf("%d bytes still counted", a.Stored)
	}
}

func TestInventory(t *testing.T) {
	h := newHouse(t)
	alice, bob, carol := h.account(), key(t), key(t)
	var stamps []protocol.Timestamp
	for i := range 6 {
		to := []protocol.PublicKey{bob.Public(), carol.Public()}[i%2]
		in := h.compose(alice, to, fmt.Sprint("r", i))
		stamps = append(stamps, in.Envelope.Timestamp)
		h.mustWrite(in)
		h.advance(time.Second)
	}
	list := func(r records.ListRequest) (names []string, l *records.Listing) {
		t.Helper()
		r.Sender = alice.Public()
		l, err := h.store.List(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Entries {
			names = append(names, string(e.ID))
		}
		return names, l
	}
	names, first := list(records.ListRequest{Limit: 4})
	if !slices.Equal(names, []string{"r0", "r1", "r2", "r3"}) || !first.More {
		t.Fatalf("%v %v", names, first.More)
	}
	if names, l := list(records.ListRequest{Limit: 4, After: &first.Cursor}); !slices.Equal(names, []string{"r4", "r5"}) || l.More {
		t.Fatalf("%v", names)
	}
	to := bob.Public()
	if names, _ := list(records.ListRequest{Limit: 10, Receiver: &to}); !slices.Equal(names, []string{"r0", "r2", "r4"}) {
		t.Fatalf("%v", names)
	}
	if names, _ := list(records.ListRequest{Limit: 10, AfterTs: &stamps[1], BeforeTs: &stamps[4]}); !slices.Equal(names, []string{"r2", "r3"}) {
		t.Fatalf("%v", names)
	}
	foreign := "0123456789ab.3"
	_, err := h.store.List(t.Context(), records.ListRequest{Sender: alice.Public(), Limit: 1, After: &foreign})
	wantCode(t, err, protocol.CodeCursorEpoch)
	ahead := strings.Split(first.Cursor, ".")[0] + ".999"
	for _, c := range []string{ahead} {
		_, err = h.store.List(t.Context(), records.ListRequest{Sender: alice.Public(), Limit: 1, After: &c})
		wantCode(t, err, protocol.CodeCursorEpoch)
		r := &reader{h: h, key: bob, after: &c}
		_, err = r.pull(t.Context(), 1, alice.Public())
		wantCode(t, err, protocol.CodeCursorEpoch)
	}
	for _, c := range []string{"x", "a.", "a.-1", "a.01", ".1", "a.1.2"} {
		_, err = h.store.List(t.Context(), records.ListRequest{Sender: alice.Public(), Limit: 1, After: &c})
		wantCode(t, err, protocol.CodeBadCursor)
	}
}

func TestCards(t *testing.T) {
	h := newHouse(t)
	alice := h.account()
	seal, err := protocol.NewSealingPrivateKey([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	card := func(label string, at protocol.Timestamp) *protocol.Envelope {
		t.Helper()
		e, err := protocol.Sign(alice, alice.Public(), at, &protocol.Identity{Label: label, Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{seal.Public().Item()}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	_, err = h.store.Card(t.Context(), alice.Public())
	wantCode(t, err, protocol.CodeNotFound)
	newer := card("new", 2000)
	for range 2 {
		if err := h.store.PutCard(t.Context(), newer); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, h.store.PutCard(t.Context(), card("old", 1000)), protocol.CodeCardOlder)
	if raw, err := h.store.Card(t.Context(), alice.Public()); err != nil || string(raw) != string(newer.Bytes()) {
		t.Fatalf("%s %v", raw, err)
	}
	alice = key(t)
	wantCode(t, h.store.PutCard(t.Context(), card("x", 1)), protocol.CodeNoAccount)
}
