package records_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// checkRuns wants each record to have been pulled as often as pages name it, by counts of runs of which none overlaps another and none
// is of nothing.
func (h *house) checkRuns(when string) {
	h.t.Helper()
	if n := h.count(`SELECT count(*) FROM records r LEFT JOIN pulls p ON p.receiver = r.receiver AND p.sender = r.sender AND r.n BETWEEN p.first AND p.upto
		WHERE r.state = 0 AND r.max_pulls - coalesce(p.remaining, r.max_pulls) <> (SELECT count(*) FROM pages WHERE reader = r.receiver AND r.n = ANY(ns))`); n != 0 {
		h.t.Fatalf("%s: %d records were pulled more or less often than pages name them", when, n)
	}
	if n := h.count(`SELECT count(*) FROM pulls a JOIN pulls b ON a.receiver = b.receiver AND a.sender = b.sender AND a.upto < b.upto WHERE b.first <= a.upto`); n != 0 {
		h.t.Fatalf("%s: %d runs overlap", when, n)
	}
	if n := h.count(`SELECT count(*) FROM pulls p WHERE NOT EXISTS (
		SELECT FROM records r WHERE p.receiver = r.receiver AND p.sender = r.sender AND r.n BETWEEN p.first AND p.upto AND r.state = 0)`); n != 0 {
		h.t.Fatalf("%s: %d runs are of no record", when, n)
	}
}

// A page of what lies together is counted by one row, also when it is pulled again; one that takes a part of a run takes it apart, and
// what ends in it is given back as what it was.
func TestRunsOfPulls(t *testing.T) {
	h := newHouse(t)
	alice, carol, bob := h.account(), h.account(), key(t)
	for i := range 10 {
		h.mustWrite(h.compose(alice, bob.Public(), fmt.Sprint("a", i), pulls(3)))
		h.mustWrite(h.compose(carol, bob.Public(), fmt.Sprint("c", i), pulls(3)))
	}
	r := &reader{h: h, key: bob}
	both := []protocol.PublicKey{alice.Public(), carol.Public()}
	rows := func(want int64) {
		t.Helper()
		h.checkRuns("")
		if n := h.count(`SELECT count(*) FROM pulls`); n != want {
			t.Fatalf("%d rows of pulls, want %d", n, want)
		}
	}
	pull := func(limit int64, want int, senders ...protocol.PublicKey) {
		t.Helper()
		page, err := r.pull(t.Context(), limit, senders...)
		if err != nil || len(page.Lines) != want {
			t.Fatalf("%v %v, want %d records", page, err, want)
		}
	}
	pull(100, 20, both...)
	rows(2)
	r.after = nil
	pull(100, 10, alice.Public())
	rows(2) // one of them pulled twice
	r.after = nil
	pull(6, 6, both...) // three of each
	rows(4)
	middle := protocol.Path{Sender: carol.Public(), Receiver: bob.Public(), ID: "c5"}
	if _, err := h.store.Read(t.Context(), middle, "single"); !isOpen(err) {
		t.Fatal(err)
	}
	pull(4, 4, both...) // alice's fourth and fifth, for the last time, and carol's
	rows(6)
	if err := h.store.Delete(t.Context(), middle); err != nil {
		t.Fatal(err)
	}
	rows(6) // its neighbours are left
	r.after = nil
	pull(100, 14, both...) // five of alice's are used up; of carol's, nine
	h.checkRuns("all of them")
	if n := h.count(`SELECT sum(p.remaining * (SELECT count(*) FROM records r WHERE r.receiver = p.receiver AND r.sender = p.sender AND r.state = 0 AND r.n BETWEEN p.first AND p.upto)) FROM pulls p`); n != 9*3-9-5-9 {
		t.Fatalf("%d pulls are left", n)
	}
	h.balanced()
	h.advance(26 * time.Hour)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows(0)
	h.balanced()
}

func isOpen(err error) bool {
	var e *protocol.Error
	return errors.As(err, &e) && e.Code == protocol.CodePageOpen
}

// Whatever is pulled from wherever, in groups and alone, while records are deleted and expire: what runs say is what pages say.
func TestRunsOfRandomPulls(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	senders := []*protocol.PrivateKey{h.account(), h.account(), h.account()}
	readers := []*reader{{h: h, key: key(t)}, {h: h, key: key(t)}}
	var paths []protocol.Path
	write := func() {
		var batch []records.Incoming
		for range 1 + random.IntN(12) {
			from, to := senders[random.IntN(len(senders))], readers[random.IntN(len(readers))]
			id := fmt.Sprint("r", len(paths))
			batch = append(batch, h.compose(from, to.key.Public(), id, pulls(1+random.Int64N(3)), ttl(h, time.Duration(1+random.IntN(4))*time.Hour)))
			paths = append(paths, protocol.Path{Sender: from.Public(), Receiver: to.key.Public(), ID: protocol.RecordID(id)})
		}
		for _, o := range h.write(batch...) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
	}
	pull := func() {
		requests := make([]records.PullRequest, len(readers))
		for i, r := range readers {
			var from []protocol.PublicKey
			for _, k := range random.Perm(len(senders))[:1+random.IntN(len(senders))] {
				from = append(from, senders[k].Public())
			}
			if random.IntN(3) == 0 {
				r.after = nil
			}
			requests[i] = r.request(1+random.Int64N(9), from...)
		}
		pages, errs, _ := h.store.PullTogether(t.Context(), requests...)
		for i, r := range readers {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			if r.open = nil; len(pages[i].Lines) > 0 {
				r.open = &pages[i].Header
			}
			r.after = &pages[i].Header.Cursor
		}
	}
	for step := range 150 {
		switch k := random.IntN(10); {
		case k < 3:
			write()
		case k == 3 && len(paths) > 0:
			if err := h.store.Delete(t.Context(), paths[random.IntN(len(paths))]); err != nil && !isGone(err) {
				t.Fatal(err)
			}
		case k == 4:
			h.advance(time.Duration(random.IntN(20)) * time.Minute)
			if err := h.store.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			pull()
		}
		h.checkRuns(fmt.Sprint("step ", step))
	}
	h.balanced()
}

func isGone(err error) bool {
	var e *protocol.Error
	return errors.As(err, &e) && (e.Code == protocol.CodeGone || e.Code == protocol.CodeNotFound)
}

// Two pages that rest on the same one cannot both be made, even by transactions that do not know of each other.
func TestPagesHaveTurns(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	h.mustWrite(h.compose(alice, bob.Public(), "a"))
	r := &reader{h: h, key: bob}
	if _, err := r.pull(t.Context(), 1, alice.Public()); err != nil {
		t.Fatal(err)
	}
	_, err := h.db.Pool().Exec(t.Context(), `INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, got, got_at, turn)
		SELECT reader, 'another', made, ns, senders, names, bytes, hashes, root, after_n, more, served, 'got', made, turn FROM pages`)
	if err == nil {
		t.Fatal("two pages have one turn")
	}
}
