package records_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// Pulls served in one transaction get what each would get by itself, whatever the others ask.
func TestPullsOfOneTransaction(t *testing.T) {
	t.Run("the process that wrote", func(t *testing.T) { h := newHouse(t); pullTogether(t, h, h) })
	// Another process knows no recent records: it reads all envelopes from the database.
	t.Run("another process", func(t *testing.T) {
		h := newHouse(t)
		pullTogether(t, h, joinHouse(t, h.url, h.relay, new(atomic.Int64)))
	})
}

func pullTogether(t *testing.T, h, store *house) {
	alice, carol := h.account(), h.account()
	group := make(map[string]*reader)
	for _, name := range []string{"new", "empty", "acknowledges", "asks again", "has one open", "false root", "unknown page", "ahead", "used up", "large", "merges", "dense"} {
		group[name] = &reader{h: h, key: key(t)}
	}
	for name, r := range group {
		if name == "empty" || name == "dense" {
			continue
		}
		for i := range 3 {
			h.mustWrite(h.compose(alice, r.key.Public(), fmt.Sprint("a", i), pulls(2)))
			h.mustWrite(h.compose(carol, r.key.Public(), fmt.Sprint("c", i), pulls(2)))
		}
	}
	both := []protocol.PublicKey{alice.Public(), carol.Public()}
	first := func(name string, limit int64) {
		t.Helper()
		if _, err := group[name].pull(t.Context(), limit, both...); err != nil {
			t.Fatal(name, err)
		}
	}
	first("acknowledges", 2)
	first("has one open", 2)
	first("false root", 2)
	first("used up", 3)
	group["used up"].after = nil
	first("used up", 3)
	group["used up"].after = nil
	for i := range 3 { // larger than what is read while records are looked for, and than the recent records keep
		h.mustWrite(h.compose(alice, group["large"].key.Public(), fmt.Sprint("big", i), content(strings.Repeat("AAAA", 5000<<i))))
	}
	many := append([]protocol.PublicKey{}, both...)
	for range 200 {
		many = append(many, key(t).Public())
	}
	for i := range 40 {
		h.mustWrite(h.compose(alice, group["dense"].key.Public(), fmt.Sprintf("d%02d", i)))
	}

	requests := make(map[string]records.PullRequest)
	for who, r := range group {
		r.h = store
		requests[who] = r.request(4, both...)
	}
	set := func(who string, change func(*records.PullRequest)) {
		r := requests[who]
		change(&r)
		requests[who] = r
	}
	set("has one open", func(r *records.PullRequest) { r.Got = nil })
	set("false root", func(r *records.PullRequest) { got := *r.Got; got.Root[0] ^= 1; r.Got = &got })
	set("unknown page", func(r *records.PullRequest) {
		r.Got = group["unknown page"].ack(protocol.PageHeader{PageID: "no-such-page-000000", Root: &protocol.Hash{}})
	})
	ahead := strings.Split(*group["acknowledges"].after, ".")[0] + ".99999"
	set("ahead", func(r *records.PullRequest) { r.After = &ahead })
	set("used up", func(r *records.PullRequest) { r.After = nil })
	set("merges", func(r *records.PullRequest) { r.Senders = many })
	set("dense", func(r *records.PullRequest) { r.Senders, r.Limit = many, 100 })
	set("large", func(r *records.PullRequest) { r.Limit = 100 })
	again, err := store.store.Pull(t.Context(), requests["asks again"])
	if err != nil {
		t.Fatal(err)
	}

	var names []string
	var list []records.PullRequest
	for who, r := range requests {
		names, list = append(names, who), append(list, r)
	}
	pages, errs, alone := store.store.PullTogether(t.Context(), list...)
	if alone != 5 { // asks again, false root, unknown page, used up, dense
		t.Errorf("%d pulls were left alone", alone)
	}
	for i, who := range names {
		var got string
		if errs[i] == nil {
			got = strings.Join(ids(t, pages[i]), " ")
		}
		var pe *records.PageError
		switch who {
		case "new", "merges", "asks again":
			if got != "a0 c0 a1 c1" || !pages[i].Header.More || who == "asks again" && (pages[i].Header.Served != 2 || *pages[i].Header.Root != *again.Header.Root) {
				t.Errorf("%s: %s %v %+v", who, got, errs[i], pages[i])
			}
		case "empty":
			if errs[i] != nil || got != "" || pages[i].Header.More {
				t.Errorf("%s: %q %v", who, got, errs[i])
			}
		case "acknowledges":
			if got != "a1 c1 a2 c2" || pages[i].Header.More {
				t.Errorf("%s: %s %v", who, got, errs[i])
			}
		case "has one open":
			if !errors.As(errs[i], &pe) || pe.Code != protocol.CodePageOpen || pe.PageID != group[who].open.PageID {
				t.Errorf("%s: %v", who, errs[i])
			}
		case "false root":
			wantCode(t, errs[i], protocol.CodeRootMismatch)
		case "unknown page":
			wantCode(t, errs[i], protocol.CodeNotFound)
		case "ahead":
			wantCode(t, errs[i], protocol.CodeCursorEpoch)
		case "used up": // a0 c0 a1 were pulled twice
			if got != "c1 a2 c2" {
				t.Errorf("%s: %s %v", who, got, errs[i])
			}
		case "large":
			if got != "a0 c0 a1 c1 a2 c2 big0 big1 big2" {
				t.Errorf("%s: %s %v", who, got, errs[i])
			}
		case "dense":
			if len(pages[i].Lines) != 40 {
				t.Errorf("%s: %d records, %v", who, len(pages[i].Lines), errs[i])
			}
		}
		if errs[i] != nil || len(pages[i].Lines) == 0 {
			continue
		}
		hashes := make([]protocol.Hash, len(pages[i].Lines))
		for k, l := range pages[i].Lines {
			e, err := protocol.ParseEnvelope(bytes.Clone(l.Envelope))
			if err != nil || e.Verify() != nil {
				t.Fatalf("%s: line %d: %v", who, k, err)
			}
			hashes[k] = e.Hash()
		}
		if protocol.MerkleRoot(hashes) != *pages[i].Header.Root {
			t.Errorf("%s: the root is not that of the lines", who)
		}
	}
	if n := h.count(`SELECT count(*) FROM pulls p JOIN records r USING (n) WHERE p.remaining < 0 OR p.remaining >= r.max_pulls`); n != 0 {
		t.Errorf("%d records have counts that cannot be", n)
	}
}

// A pull whose caller went away while it waited makes no page: nobody would have it, and it would be open.
func TestPullOfACallerWhoHasGone(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), &reader{h: h, key: key(t)}
	h.mustWrite(h.compose(alice, bob.key.Public(), "a"))
	// While its pages are locked, bob's first pull is being served, and the others wait.
	lock, err := h.db.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), `LOCK TABLE pages`); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		page *records.Page
		err  error
	}
	pull := func(ctx context.Context, sender protocol.PublicKey) <-chan answer {
		done := make(chan answer, 1)
		request := bob.request(10, sender)
		go func() {
			page, err := h.store.Pull(ctx, request)
			done <- answer{page, err}
		}()
		return done
	}
	waiting := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); h.store.WaitingPulls() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d pulls wait, want %d", h.store.WaitingPulls(), n)
			}
		}
	}
	first := pull(t.Context(), key(t).Public())
	for h.count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0 {
		time.Sleep(time.Millisecond)
	}
	gone, leave := context.WithCancel(t.Context())
	second := pull(gone, alice.Public())
	waiting(1)
	third := pull(t.Context(), alice.Public())
	waiting(2)
	leave()
	if a := <-second; !errors.Is(a.err, context.Canceled) {
		t.Fatal(a)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-first; a.err != nil || len(a.page.Lines) != 0 {
		t.Fatal(a)
	}
	if a := <-third; a.err != nil || len(a.page.Lines) != 1 {
		t.Fatalf("%+v %v", a.page, a.err)
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != 1 {
		t.Fatalf("%d pages for one pull that was answered", n)
	}
	waiting(0)
}
