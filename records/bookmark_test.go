package records_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relaymarket/protocol"
	"relaymarket/records"
)

// Whatever two processes remember of a reader, each of his single pulls is answered with the first record there is after the place he asks for,
// while records come, are deleted and used up, and pages are pulled in other ways.
func TestSinglePullsFindTheNext(t *testing.T) {
	h := newHouse(t)
	stores := []*records.Store{h.store, joinHouse(t, h.url, h.relay, new(atomic.Int64)).store}
	held := h.store.KeepBookmarks(2)
	rapid.Check(t, func(rt *rapid.T) {
		type record struct {
			path  protocol.Path
			pulls int // left
		}
		alice, carol := h.account(), h.account()
		bob := &reader{h: h, key: key(t)}
		others := []*reader{{h: h, key: key(t)}, {h: h, key: key(t)}, {h: h, key: key(t)}}
		var there []*record // of alice's, in order; nil: it has ended
		at := 0             // of them bob has been at or passed
		name := 0
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			store := rapid.SampledFrom(stores).Draw(rt, "process")
			switch rapid.SampledFrom([]string{"write", "pull", "pull", "pull", "delete", "page", "back", "other"}).Draw(rt, "step") {
			case "write":
				var in []records.Incoming
				for range rapid.IntRange(1, 12).Draw(rt, "records") {
					name++
					most := rapid.SampledFrom([]int64{1, 2, 8}).Draw(rt, "pulls")
					in = append(in, h.compose(alice, bob.key.Public(), fmt.Sprint("r", name), pulls(most)), h.compose(carol, bob.key.Public(), fmt.Sprint("r", name)))
					for _, o := range others {
						in = append(in, h.compose(alice, o.key.Public(), fmt.Sprint("r", name)))
					}
					there = append(there, &record{path: protocol.Path{Sender: alice.Public(), Receiver: bob.key.Public(), ID: protocol.RecordID(fmt.Sprint("r", name))}, pulls: int(most)})
				}
				for _, o := range store.Write(t.Context(), in) {
					if o.Err != nil {
						rt.Fatal(o.Err)
					}
				}
			case "pull", "page":
				limit := rapid.SampledFrom([]int64{1, 1, 1, 2}).Draw(rt, "limit")
				page, err := store.Pull(t.Context(), bob.request(limit, alice.Public()))
				if err != nil {
					rt.Fatal(err)
				}
				var want []string
				left := 0
				for i := at; i < len(there); i++ {
					switch r := there[i]; {
					case r == nil || r.pulls == 0:
					case len(want) < int(limit):
						want = append(want, string(r.path.ID))
						r.pulls--
						at = i + 1
					default:
						left++
					}
				}
				if got := ids(t, page); !slices.Equal(got, want) {
					rt.Fatalf("pulled %v, want %v", got, want)
				}
				if left > 0 && !page.Header.More {
					rt.Fatalf("%d more, and the page says none", left)
				}
				if !page.Header.More {
					at = len(there)
				}
				if bob.open, bob.after = nil, &page.Header.Cursor; len(want) > 0 {
					bob.open = &page.Header
				}
			case "delete":
				if i := rapid.IntRange(0, len(there)).Draw(rt, "which"); i < len(there) && there[i] != nil {
					if err := store.Delete(t.Context(), there[i].path); err != nil {
						rt.Fatal(err)
					}
					there[i] = nil
				}
			case "back":
				bob.after, at = nil, 0
			case "other": // takes bob's bookmark, and from another sender
				for _, o := range others {
					page, err := store.Pull(t.Context(), o.request(1, alice.Public()))
					if err != nil {
						rt.Fatal(err)
					}
					if o.open, o.after = nil, &page.Header.Cursor; len(page.Lines) > 0 {
						o.open = &page.Header
					}
				}
				request := bob.request(1, carol.Public())
				page, err := store.Pull(t.Context(), request)
				if err != nil {
					rt.Fatal(err)
				}
				if bob.open = nil; len(page.Lines) > 0 {
					bob.open = &page.Header
				}
			}
			if n := held(); n > 2 {
				rt.Fatalf("%d bookmarks", n)
			}
		}
	})
}

// Records that follow each other are all served by the statement of single pulls, to the last and from then on; one that was deleted is not.
func TestSinglePullsInARow(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), &reader{h: h, key: key(t)}
	write := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			h.mustWrite(h.compose(alice, bob.key.Public(), fmt.Sprint("r", i)))
		}
	}
	next := func(i int, more bool) {
		t.Helper()
		page, left, err := h.store.PullSingle(t.Context(), bob.request(1, alice.Public()))
		if err != nil || left || fmt.Sprint(ids(t, page)) != fmt.Sprintf("[r%d]", i) || page.Header.More != more {
			t.Fatalf("%d: %+v %t %v", i, page, left, err)
		}
		bob.open, bob.after = &page.Header, &page.Header.Cursor
	}
	const first, all = 30, 60 // more than are looked for at once
	write(0, first)
	for i := range first {
		next(i, i < first-1)
	}
	write(first, all)
	for i := first; i < all-5; i++ {
		next(i, true)
	}
	deleted := all - 5
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.key.Public(), ID: protocol.RecordID(fmt.Sprint("r", deleted))}); err != nil {
		t.Fatal(err)
	}
	request := bob.request(1, alice.Public())
	if page, left, err := h.store.PullSingle(t.Context(), request); err != nil || !left || page != nil {
		t.Fatalf("%+v %t %v, want that others look past what was deleted", page, left, err)
	}
	page, err := h.store.Pull(t.Context(), request)
	if err != nil || fmt.Sprint(ids(t, page)) != fmt.Sprintf("[r%d]", deleted+1) || !page.Header.More {
		t.Fatalf("%+v %v", page, err)
	}
	bob.open, bob.after = &page.Header, &page.Header.Cursor
	for i := deleted + 2; i < all; i++ {
		next(i, i < all-1)
	}
}

// What is known of one database is not believed of another that answers in its place: nothing is remembered across a new connection.
func TestBookmarksAreOfOneDatabase(t *testing.T) {
	h := newHouse(t)
	held := h.store.KeepBookmarks(100)
	alice := h.account()
	pull := func(want int) {
		t.Helper()
		bob := &reader{h: h, key: key(t)}
		h.mustWrite(h.compose(alice, bob.key.Public(), "r"))
		if _, left, err := h.store.PullSingle(t.Context(), bob.request(1, alice.Public())); err != nil || left {
			t.Fatal(left, err)
		}
		if n := held(); n != want {
			t.Fatalf("%d bookmarks, want %d", n, want)
		}
	}
	pull(1)
	pull(2)
	h.db.Pool().Reset()
	pull(1)
}

// A pull under the id of a page of before is answered with that page, and those that came with it as ever; the next one spoils nothing.
func TestSinglePullUnderAnOldId(t *testing.T) {
	h := newHouse(t)
	alice := h.account()
	const people = 6
	readers := make([]*reader, people)
	for i := range readers {
		readers[i] = &reader{h: h, key: key(t)}
		for n := range 5 {
			h.mustWrite(h.compose(alice, readers[i].key.Public(), fmt.Sprint("r", n)))
		}
	}
	var first protocol.PageID
	for round, want := range []string{"r0", "r1", "r2", "r3"} {
		requests := make([]records.PullRequest, people)
		for i, r := range readers {
			requests[i] = r.request(1, alice.Public())
		}
		switch round {
		case 0:
			first = requests[3].PageID
		case 2, 3:
			requests[3].PageID = first
		}
		pages, errs, alone := h.store.PullTogether(t.Context(), requests...)
		old := 0
		for i, r := range readers {
			want := want
			if i == 3 && round >= 2 {
				want, old = "r0", 1
			}
			if errs[i] != nil || fmt.Sprint(ids(t, pages[i])) != "["+want+"]" {
				t.Fatalf("round %d, reader %d: %+v %v", round, i, pages[i], errs[i])
			}
			if i == 3 && round >= 2 {
				if r.open = nil; pages[i].Header.Served != int64(round) {
					t.Errorf("served %d times, in round %d", pages[i].Header.Served, round)
				}
				continue // what he acknowledged stays so
			}
			r.open, r.after = &pages[i].Header, &pages[i].Header.Cursor
		}
		if alone != old {
			t.Errorf("round %d: %d were served alone", round, alone)
		}
		if h.store.Careful() != (round >= 2) {
			t.Errorf("round %d: careful %t", round, h.store.Careful())
		}
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != 4*people-2 {
		t.Errorf("%d pages", n)
	}
}

// Turns begin again when a reader's pages are gone. A page that another process makes then is open for one that remembers later turns, too.
func TestBookmarksOutliveNoPages(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	offset := new(atomic.Int64)
	other := joinHouse(t, h.url, h.relay, offset)
	alice, bob := h.account(), &reader{h: h, key: key(t)}
	for i := range 5 {
		h.mustWrite(h.compose(alice, bob.key.Public(), fmt.Sprint("r", i), ttl(h, 300*day)))
	}
	for range 2 {
		if _, err := bob.pull(t.Context(), 1, alice.Public()); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.store.Got(t.Context(), bob.key.Public(), *bob.ack(*bob.open)); err != nil {
		t.Fatal(err)
	}
	bob.open = nil
	h.advance(46 * day)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != 0 {
		t.Fatalf("%d pages", n)
	}
	page, err := other.store.Pull(t.Context(), bob.request(1, alice.Public()))
	if err != nil || len(page.Lines) != 1 {
		t.Fatalf("%+v %v", page, err)
	}
	request := bob.request(1, alice.Public())
	if page, left, err := h.store.PullSingle(t.Context(), request); page != nil || !left || err != nil {
		t.Fatalf("%+v %t %v, want that others see to it", page, left, err)
	}
	if page, err := h.store.Pull(t.Context(), request); !isOpen(err) {
		t.Fatalf("%+v %v, want that a page is open", page, err)
	}
	if n := h.count(openPages); n != 1 {
		t.Errorf("%d pages are open", n)
	}
}
