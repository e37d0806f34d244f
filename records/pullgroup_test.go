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

	"github.com/jackc/pgx/v5"

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
	if n := h.count(`SELECT count(*) FROM pulls p JOIN records r ON r.receiver = p.receiver AND r.sender = p.sender AND r.n BETWEEN p.first AND p.upto WHERE p.remaining < 0 OR p.remaining >= r.max_pulls`); n != 0 {
		t.Errorf("%d records have counts that cannot be", n)
	}
}

// heldPulls keeps all pulls from ending, by a lock on the pages.
type heldPulls struct {
	h      *house
	lock   pgx.Tx
	pulled []chan pulled
}

type pulled struct {
	page *records.Page
	err  error
}

func holdPulls(h *house) *heldPulls {
	h.t.Helper()
	lock, err := h.db.Pool().Begin(h.t.Context())
	if err == nil {
		_, err = lock.Exec(h.t.Context(), `LOCK TABLE pages`)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = lock.Rollback(context.Background()) }) // the database waits for it
	return &heldPulls{h: h, lock: lock}
}

// pull begins one. Then so many wait for a server, and so many transactions are held.
func (p *heldPulls) pull(ctx context.Context, request records.PullRequest, waiting, held int) {
	p.h.t.Helper()
	done := make(chan pulled, 1)
	p.pulled = append(p.pulled, done)
	go func() {
		page, err := p.h.store.Pull(ctx, request)
		done <- pulled{page, err}
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		// The sweeper, the poster and who measures the tables are not meant.
		locks := p.h.count(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE NOT l.granted AND l.relation = 'pages'::regclass AND (a.query LIKE '%relay.held%' OR a.query LIKE '%t (reader, page_id, i)%')`)
		if p.h.store.WaitingPulls() == waiting && locks == int64(held) {
			return
		}
		if time.Now().After(deadline) {
			p.h.t.Fatalf("%d pulls wait and %d transactions are held, want %d and %d", p.h.store.WaitingPulls(), locks, waiting, held)
		}
	}
}

func (p *heldPulls) release() {
	p.h.t.Helper()
	if err := p.lock.Rollback(p.h.t.Context()); err != nil {
		p.h.t.Fatal(err)
	}
}

// What comes while a small transaction is under way is one more, when that is over; large ones, and others beside
// them, do not wait.
func TestSecondTransactionOfPulls(t *testing.T) {
	h := newHouse(t)
	held := holdPulls(h)
	ask := func(limit int64, waiting, transactions int) {
		t.Helper()
		held.pull(t.Context(), (&reader{h: h, key: key(t)}).request(limit, key(t).Public()), waiting, transactions)
	}
	ask(1, 0, 1)
	ask(1, 1, 1)
	ask(1, 2, 1)
	ask(1000, 0, 2)
	ask(1000, 1, 2)
	held.release()
	for i, done := range held.pulled {
		if a := <-done; a.err != nil || len(a.page.Lines) != 0 {
			t.Errorf("%d: %+v %v", i, a.page, a.err)
		}
	}
	held = holdPulls(h)
	ask(1000, 0, 1)
	ask(1, 0, 2)
	held.release()
	for i, done := range held.pulled {
		if a := <-done; a.err != nil {
			t.Errorf("%d: %v", i, a.err)
		}
	}
}

// A pull whose caller went away while it waited makes no page: nobody would have it, and it would be open.
func TestPullOfACallerWhoHasGone(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), &reader{h: h, key: key(t)}
	h.mustWrite(h.compose(alice, bob.key.Public(), "a"))
	held := holdPulls(h)
	gone, leave := context.WithCancel(t.Context())
	held.pull(t.Context(), bob.request(10, key(t).Public()), 0, 1)
	held.pull(gone, bob.request(10, alice.Public()), 1, 1)
	held.pull(t.Context(), bob.request(10, alice.Public()), 2, 1)
	leave()
	if a := <-held.pulled[1]; !errors.Is(a.err, context.Canceled) {
		t.Fatal(a)
	}
	held.release()
	if a := <-held.pulled[0]; a.err != nil || len(a.page.Lines) != 0 {
		t.Fatal(a)
	}
	if a := <-held.pulled[2]; a.err != nil || len(a.page.Lines) != 1 {
		t.Fatalf("%+v %v", a.page, a.err)
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != 1 {
		t.Fatalf("%d pages for one pull that was answered", n)
	}
	if n := h.store.WaitingPulls(); n != 0 {
		t.Fatalf("%d pulls wait", n)
	}
}
