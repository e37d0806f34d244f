package records_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// An acknowledgement that comes at the same time by itself, to another process, and again with the next pull bills a page once.
func TestSinglePullsAreBilledOnce(t *testing.T) {
	h := newHouse(t)
	other := joinHouse(t, h.url, h.relay, new(atomic.Int64))
	p := h.payer()
	const each, people = 12, 4
	var group sync.WaitGroup
	for range people {
		r := &reader{h: h, key: key(t)}
		for i := range each {
			in := h.compose(p.key, r.key.Public(), fmt.Sprint("r", i))
			h.mustWrite(in)
			p.wrote(in)
		}
		group.Go(func() {
			for i := range each + 1 {
				request := r.request(1, p.key.Public())
				got := request.Got
				var beside sync.WaitGroup
				if got != nil {
					beside.Go(func() {
						if err := other.store.Got(t.Context(), r.key.Public(), *got); err != nil {
							t.Error(err)
						}
					})
				}
				page, err := h.store.Pull(t.Context(), request)
				beside.Wait()
				if err != nil || len(page.Lines) != min(1, each-i) || page.Header.More != (i < each-1) {
					t.Errorf("%d: %+v %v", i, page, err)
					return
				}
				if got != nil { // long after the page that it made
					if err := other.store.Got(t.Context(), r.key.Public(), *got); err != nil {
						t.Error(err)
					}
				}
				r.open, r.after = &page.Header, &page.Header.Cursor
			}
		})
	}
	group.Wait()
	p.check(t)
	if want := int64(people * each * 2); p.place.Last != want {
		t.Errorf("%d lines for as many writes and pulls as %d", p.place.Last, want)
	}
	if n := h.count(openPages); n != 0 {
		t.Errorf("%d pages are open", n)
	}
}

// A relayd of before pages were acknowledged by the next one, which still runs on the database, bills none of them again: neither by the statement
// that it had for an acknowledgement by itself, nor by that for one that came with a pull. What it may store, it stores.
func TestOlderRelaysBillNothingTwice(t *testing.T) {
	const (
		posts = ` RETURNING p.reader, p.page_id, p.ns[cardinality(p.ns)] AS upto, cardinality(p.ns) AS records)
			INSERT INTO ledger_acks (reader, page_id, upto, records, at) SELECT reader, page_id, upto, records, $5 FROM g WHERE upto IS NOT NULL`
		alone = `WITH g AS (UPDATE pages p SET got = $4, got_at = $5 WHERE p.reader = $1 AND p.page_id = $2 AND p.root = $3 AND p.got IS NULL` + posts
		along = `WITH g AS (UPDATE pages p SET got = t.got, got_at = $5 FROM (SELECT t.got, f.place FROM (VALUES ($1::bytea, $2::text, $3::bytea, $4::bytea)) AS t (reader, page_id, root, got)
			CROSS JOIN LATERAL (SELECT ctid AS place FROM pages WHERE reader = t.reader AND page_id = t.page_id AND root = t.root AND got_at IS NULL OFFSET 0) f) t
			WHERE p.ctid = t.place AND p.got_at IS NULL` + posts
	)
	h := newHouse(t)
	for name, older := range map[string]string{"alone": alone, "along": along} {
		t.Run(name, func(t *testing.T) {
			p := h.payer()
			r := &reader{h: h, key: key(t)}
			var pages []protocol.PageHeader
			for i := range 3 {
				in := h.compose(p.key, r.key.Public(), fmt.Sprint("r", i))
				h.mustWrite(in)
				p.wrote(in)
				page, err := r.pull(t.Context(), 1, p.key.Public())
				if err != nil {
					t.Fatal(err)
				}
				pages = append(pages, page.Header)
			}
			p.check(t)
			for i, page := range pages {
				reader := r.key.Public()
				_, err := h.db.Pool().Exec(t.Context(), older, reader[:], string(page.PageID), page.Root[:], r.ack(page).Envelope.Bytes(), int64(h.now()))
				if last := i == len(pages)-1; (err == nil) != last {
					t.Errorf("page %d of %d: %v", i+1, len(pages), err)
				}
			}
			p.check(t)
			if p.place.Last != 6 {
				t.Errorf("%d lines for 3 writes and 3 pulls", p.place.Last)
			}
		})
	}
}

// A page whose acknowledgement is where the next one is stays acknowledged when clocks are set back, and the next one is due before it.
func TestSweptPagesOpenNone(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	alice, bob := h.account(), &reader{h: h, key: key(t)}
	for i := range 3 {
		h.mustWrite(h.compose(alice, bob.key.Public(), fmt.Sprint("r", i), ttl(h, 300*day)))
	}
	pull := func() {
		t.Helper()
		if page, err := bob.pull(t.Context(), 1, alice.Public()); err != nil || len(page.Lines) != 1 {
			t.Fatalf("%+v %v", page, err)
		}
	}
	sweep := func(after time.Duration, pages int64) {
		t.Helper()
		h.advance(after)
		if err := h.store.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := h.count(`SELECT count(*) FROM pages`); n != pages {
			t.Fatalf("%d pages, want %d", n, pages)
		}
		if n := h.count(openPages); n != 0 {
			t.Fatalf("%d pages are open", n)
		}
	}
	pull()
	h.advance(-10 * day)
	pull()
	if err := h.store.Got(t.Context(), bob.key.Public(), *bob.ack(*bob.open)); err != nil {
		t.Fatal(err)
	}
	bob.open = nil
	sweep(40*day, 2) // the second one is due, the first one is not
	sweep(6*day, 0)
	pull()
}

// Whatever a single pull meets, it is told what any pull would be.
func TestSinglePullsThatAreUnlike(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)) // or what is short might end by itself
	alice, bob := h.account(), &reader{h: h, key: key(t)}
	names := []string{"once", "large", "dies", "short", "last"}
	for _, name := range names {
		in := h.compose(alice, bob.key.Public(), name)
		switch name {
		case "once":
			in = h.compose(alice, bob.key.Public(), name, pulls(1))
		case "large":
			in = h.compose(alice, bob.key.Public(), name, content(string(make24k())))
		case "short":
			in = h.compose(alice, bob.key.Public(), name, ttl(h, time.Minute))
		}
		h.mustWrite(in)
	}
	next := func(want string, more bool) {
		t.Helper()
		request := bob.request(1, alice.Public())
		page, err := h.store.Pull(t.Context(), request)
		if err == nil && len(page.Lines) == 1 {
			again, err := h.store.Pull(t.Context(), request) // after a cut reply
			first := page.Header
			if err != nil || again.Header.Cursor != first.Cursor || again.Header.More != first.More || *again.Header.Root != *first.Root ||
				again.Header.Served != 2 || fmt.Sprint(ids(t, again)) != fmt.Sprint(ids(t, page)) {
				t.Fatalf("%+v %v, and first it was %+v", again, err, page)
			}
		}
		if err == nil {
			if bob.open, bob.after = nil, &page.Header.Cursor; len(page.Lines) > 0 {
				bob.open = &page.Header
			}
		}
		if err != nil || fmt.Sprint(ids(t, page)) != "["+want+"]" || page.Header.More != more {
			t.Fatalf("%v %+v, want %s", err, page, want)
		}
		h.checkRuns(want)
	}
	next("once", true)
	next("large", true)
	bob.after = nil
	next("large", true) // and not what is used up
	next("dies", true)
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.key.Public(), ID: "dies"}); err != nil {
		t.Fatal(err)
	}
	bob.after = nil
	next("large", true)
	next("short", true)
	h.advance(2 * time.Minute)
	bob.after = nil
	next("large", true)
	next("last", false)
	next("", false)
	bob.after = nil
	for range 6 { // each a pull of the whole run by itself
		if _, err := bob.pull(t.Context(), 100, alice.Public()); err != nil {
			t.Fatal(err)
		}
		bob.after = nil
	}
	next("last", false) // "large" has none left
	next("", false)
	h.balanced()
}

func make24k() []byte {
	b := make([]byte, 24<<10)
	for i := range b {
		b[i] = 'A'
	}
	return b
}

// A deletion that a single pull met comes before the pull or after it: what was deleted, and given back to who pays for it, is not served
// and billed as well. The pulls of the crowd share the pull's statement, so that time goes by between its beginning and its locks.
func TestSinglePullMeetsADeletion(t *testing.T) {
	h := newHouse(t)
	p := h.payer()
	for round := range 12 {
		const people = 40
		readers, paths := make([]*reader, people), make([]protocol.Path, people)
		var in []records.Incoming
		for i := range people {
			readers[i] = &reader{h: h, key: key(t)}
			in = append(in, h.compose(p.key, readers[i].key.Public(), fmt.Sprint("x", round), pulls(1)))
			paths[i] = p.wrote(in[i]).Path
		}
		for _, outcome := range h.write(in...) {
			if outcome.Err != nil {
				t.Fatal(outcome.Err)
			}
		}
		var all sync.WaitGroup
		for i, r := range readers {
			all.Go(func() {
				page, err := h.store.Pull(t.Context(), r.request(1, p.key.Public()))
				if err != nil {
					t.Error(err)
				} else if len(page.Lines) > 0 {
					r.open = &page.Header
				}
			})
			all.Go(func() {
				time.Sleep(time.Duration(i*round) * 10 * time.Microsecond)
				if err := h.store.Delete(t.Context(), paths[i]); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, r := range readers {
			if r.open == nil {
				continue
			}
			if err := h.store.Got(t.Context(), r.key.Public(), *r.ack(*r.open)); err != nil {
				t.Fatal(err)
			}
		}
		p.check(t)
	}
}

// What does not add up in one bill keeps no other bill waiting.
func TestPullThatIsNotReserved(t *testing.T) {
	h := newHouse(t)
	p, r := h.payer(), &reader{h: h, key: key(t)}
	in := h.compose(p.key, r.key.Public(), "x", pulls(1))
	h.mustWrite(in)
	if err := h.books.Post(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := h.store.Pull(t.Context(), r.request(1, p.key.Public()))
	if err != nil || len(page.Lines) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	if err := h.store.Got(t.Context(), r.key.Public(), *r.ack(page.Header)); err != nil {
		t.Fatal(err)
	}
	h.exec(`UPDATE bills SET reserved_pulled = 0`)
	other := h.payer()
	in = h.compose(other.key, r.key.Public(), "y")
	h.mustWrite(in)
	other.wrote(in)
	if bill, err := h.books.Posted(t.Context(), p.contract); err != nil || bill.Last != 1 {
		t.Fatalf("before: %+v, %v", bill, err)
	}
	other.check(t)
	if bill, err := h.books.Posted(t.Context(), p.contract); err != nil || bill.Last != 1 {
		t.Errorf("after: %+v, %v", bill, err)
	}
}
