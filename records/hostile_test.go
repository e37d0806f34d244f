package records_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// A thousand writes that contradict each other cost as many transactions as a thousand that do not:
// else one request holds up everybody's writes for seconds, and a stranger may send it.
func TestContradictionsCostNoTransactions(t *testing.T) {
	h := newHouse(t)
	holder, stranger, bob := h.account(), key(t), key(t)
	friend := key(t)
	admitter := h.account()
	if err := h.books.SetAdmitted(t.Context(), admitter.Public(), []protocol.Admitted{{Key: friend.Public(), Bytes: 1 << 20, Records: 10}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		by          *protocol.PrivateKey
		to          protocol.PublicKey
		first, rest protocol.Code
	}{
		{"holder", holder, bob.Public(), "", protocol.CodeConflict},
		{"admitted", friend, admitter.Public(), "", protocol.CodeConflict},
		{"stranger", stranger, admitter.Public(), protocol.CodeNoAccount, protocol.CodeNoAccount},
	} {
		t.Run(c.name, func(t *testing.T) {
			var batch []records.Incoming
			for i := range 1000 {
				batch = append(batch, h.compose(c.by, c.to, "same", content(fmt.Sprintf("%08d", i))))
			}
			count := `SELECT pg_current_xact_id()::text::bigint` // locking an account takes one
			before := h.count(count)
			out := h.write(batch...)
			// Autovacuum takes some too, and the sweeper, of all databases here.
			if taken := h.count(count) - before; taken > 200 {
				t.Errorf("%d transactions for one request", taken)
			}
			for i, o := range out {
				want := c.rest
				if i == 0 {
					want = c.first
				}
				if want != "" {
					wantCode(t, o.Err, want)
				} else if o.Err != nil {
					t.Fatal(o.Err)
				}
			}
		})
	}
	h.balanced()
}

func TestPageIDOfAnotherRecord(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	for _, id := range []string{"a", "b"} {
		h.mustWrite(h.compose(alice, bob.Public(), id))
	}
	path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "a"}
	if _, err := h.store.Read(t.Context(), path, "p"); err != nil {
		t.Fatal(err)
	}
	path.ID = "b"
	for range 5 { // and no serve of the other page is used up
		_, err := h.store.Read(t.Context(), path, "p")
		wantCode(t, err, protocol.CodeConflict)
	}
	path.ID = "a"
	if _, err := h.store.Read(t.Context(), path, "p"); err != nil {
		t.Fatal(err)
	}
}

// The evidence of a page is kept from its acknowledgement on, however late that came; and what was
// never acknowledged is not kept for good.
func TestLateAcknowledgementAndAbandonedPages(t *testing.T) {
	h := newHouse(t)
	alice, bob, gone := h.account(), key(t), key(t)
	var headers []protocol.PageHeader
	for _, k := range []*protocol.PrivateKey{bob, gone} {
		h.mustWrite(h.compose(alice, k.Public(), "a", ttl(h, 100*24*time.Hour)))
		page, err := (&reader{h: h, key: k}).pull(t.Context(), 10, alice.Public())
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, page.Header)
	}
	sweep := func(after time.Duration, pages int64) {
		t.Helper()
		h.advance(after)
		if err := h.store.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := h.count(`SELECT count(*) FROM pages`); n != pages {
			t.Fatalf("%d pages kept, want %d", n, pages)
		}
	}
	sweep(36*24*time.Hour, 2)
	ack := (&reader{h: h, key: bob}).ack(headers[0])
	for range 2 { // the same again, after a cut reply
		if err := h.store.Got(t.Context(), bob.Public(), *ack); err != nil {
			t.Fatal(err)
		}
		sweep(time.Hour, 2)
	}
	sweep(36*24*time.Hour, 1)
	sweep(366*24*time.Hour, 0)
}

// Two processes whose clocks are some seconds apart at the end of a month: what one charged to the
// next month comes back in it.
func TestMonthOfAProcessAhead(t *testing.T) {
	h := newHouse(t)
	h.advance(time.Until(time.Date(time.Now().Year()+1, 4, 1, 0, 0, 0, 0, time.UTC)) - 10*time.Second)
	ahead := joinHouse(t, h.url, h.relay, new(atomic.Int64))
	ahead.offset.Store(h.offset.Load() + 20_000)
	alice, bob := h.account(), key(t)
	var written int64
	for i, house := range []*house{ahead, h} {
		in := house.compose(alice, bob.Public(), fmt.Sprint("r", i))
		written += in.Envelope.Size()
		house.mustWrite(in)
	}
	h.advance(time.Minute)
	for i := range 2 {
		if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: protocol.RecordID(fmt.Sprint("r", i))}); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := h.books.Get(t.Context(), alice.Public()); err != nil || a.Moved != written {
		t.Fatalf("moved %d, want the %d that were written and nothing of the pulls: %v", a.Moved, written, err)
	}
}

// Thousands of tombstones, which stay until they expire, cost polls and inventories nothing, on
// tables that the planner knows nothing of.
func TestPollsDoNotWalkTombstones(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	const dead = 5000
	touched := func() int64 {
		return h.count(`SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'records') +
			(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'records')::bigint`)
	}
	const rounds = 20
	fill := func() {
		for i := range dead / 1000 {
			var batch []string
			for j := range 1000 {
				batch = append(batch, fmt.Sprintf("r%d-%d", i, j))
			}
			writeAll(t, h, alice, bob.Public(), batch)
		}
		if _, err := h.db.Pool().Exec(t.Context(), `UPDATE records SET state = 1, envelope = NULL`); err != nil {
			t.Fatal(err)
		}
		h.mustWrite(h.compose(alice, bob.Public(), "live"))
	}
	var before int64
	var polled []uint32
	t.Run("poll", func(t *testing.T) {
		polling := joinHouse(t, h.url, h.relay, h.offset)
		old := h.compose(alice, bob.Public(), "live", func(w *protocol.Write) { w.Expires = 1 })
		for range 10 { // plans are made while the tables are empty, and kept; a refusal is looked up first
			poll(t, polling, alice, key(t), 0)
			wantCode(t, polling.write(old)[0].Err, protocol.CodeExpired)
		}
		fill()
		filled := h.backendsOfPools()
		h.db.Pool().Reset()
		h.db.WritePool().Reset()
		h.gone(filled)
		before = touched()
		for range rounds {
			poll(t, polling, alice, bob, 1)
			wantCode(t, polling.write(old)[0].Err, protocol.CodeConflict)
		}
		r := &reader{h: polling, key: bob}
		if page, err := r.pull(t.Context(), 1000, alice.Public()); err != nil || len(page.Lines) != 1 {
			t.Fatal(page, err)
		}
		polled = polling.backendsOfPools()
	})
	h.gone(polled)
	if n := touched() - before; n > 4*dead {
		t.Fatalf("%d rounds looked at %d rows of %d", rounds, n, dead+1)
	}
}

// poll asks all that may be asked of what alice wrote to bob, and expects so many records.
func poll(t *testing.T, h *house, alice, bob *protocol.PrivateKey, live int) {
	t.Helper()
	stranger := &reader{h: h, key: key(t)}
	if _, err := stranger.pull(t.Context(), 1000, alice.Public()); err != nil {
		t.Fatal(err)
	}
	to := bob.Public()
	for _, receiver := range []*protocol.PublicKey{nil, &to} {
		l, err := h.store.List(t.Context(), records.ListRequest{Sender: alice.Public(), Receiver: receiver, Limit: 1000})
		if err != nil || len(l.Entries) != live {
			t.Fatal(l, err)
		}
	}
	sub, err := h.store.Listen(t.Context(), to, []protocol.PublicKey{alice.Public()}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if live == 0 {
		return
	}
	if e, err := sub.Next(t.Context()); err != nil || e.Entry.ID != "live" {
		t.Fatal(e, err)
	}
}

// One sender of forty wrote most, in one go: what is read of each at first is not enough of him.
func TestMergeOfManySenders(t *testing.T) {
	h := newHouse(t)
	bob := key(t)
	var senders []protocol.PublicKey
	var want []string
	for s := range 40 {
		k := h.account()
		senders = append(senders, k.Public())
		var batch []string
		for i := range 20 + 1180*(1-min(s, 1)) {
			batch = append(batch, fmt.Sprintf("s%d-%d", s, i))
		}
		writeAll(t, h, k, bob.Public(), batch)
		want = append(want, batch...)
	}
	r := &reader{h: h, key: bob}
	var pulled []string
	for more := true; more; {
		page, err := r.pull(t.Context(), 150, senders...)
		if err != nil {
			t.Fatal(err)
		}
		if more = page.Header.More; more && len(page.Lines) != 150 {
			t.Fatalf("a page of %d, and more is waiting", len(page.Lines))
		}
		pulled = append(pulled, ids(t, page)...)
	}
	if !slices.Equal(pulled, want) {
		t.Fatalf("pulled %d of %d, or in another order", len(pulled), len(want))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if told := listenFor(ctx, t, h, bob, senders, len(want)); !slices.Equal(told, want) {
		t.Fatalf("told %d of %d, or in another order", len(told), len(want))
	}
}

// An inventory of a time looks at so much at once and no more, and comes to the end of it.
func TestInventoryOfATimeIsBounded(t *testing.T) {
	h := newHouse(t)
	alice := h.account().Public()
	if _, err := h.db.Pool().Exec(t.Context(), `WITH c AS (UPDATE relay_cursor SET n = 25000)
		INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope)
		SELECT n, $1, $1, 'r' || n, $1, 1, n, $2, 0, 1, $1, $1, '' FROM generate_series(1, 25000) n`, alice[:], int64(h.now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	from, to := protocol.Timestamp(9_998), protocol.Timestamp(10_003)
	request := records.ListRequest{Sender: alice, Limit: 1000, AfterTs: &from, BeforeTs: &to}
	var names []string
	pages := 0
	for {
		l, err := h.store.List(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, e := range l.Entries {
			names = append(names, string(e.ID))
		}
		if !l.More {
			break
		}
		request.After = &l.Cursor
	}
	if got := strings.Join(names, " "); got != "r9999 r10000 r10001 r10002" || pages != 3 {
		t.Fatalf("%s in %d pages", got, pages)
	}
}

// A listener of a thousand senders costs little more than their keys: anybody may have many.
func TestListenerMemory(t *testing.T) {
	h := newHouse(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 200
	var subs []*records.Subscription
	for range n {
		senders := make([]protocol.PublicKey, protocol.MaxSenders)
		for i := range senders {
			senders[i][0], senders[i][1] = byte(i), byte(i>>8)
		}
		sub, err := h.store.Listen(t.Context(), protocol.PublicKey{}, senders, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := int64(after.HeapAlloc-before.HeapAlloc) / n; each > 32*protocol.MaxSenders*5/4 {
		t.Errorf("%d bytes a listener", each)
	}
	for _, sub := range subs {
		sub.Close()
	}
}

// Connections are cut all the time, COMMITs among them, whose outcome is then unknown. Whoever
// repeats what he got no answer to has one effect, and a listener is told of each once.
func TestCutConnections(t *testing.T) {
	h := newHouse(t)
	cutter := h.conn() // which is of no pool, or its own connections would be cut
	alice, bob := h.account(), key(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var wg sync.WaitGroup
	var cuts, stored atomic.Int64
	writing, written := context.WithCancel(ctx)
	wg.Go(func() {
		for writing.Err() == nil {
			var n int64
			before := stored.Load()
			if err := cutter.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL`).Scan(&n); err != nil { // it writes
				t.Error(err)
			}
			cuts.Add(n)
			time.Sleep(5 * time.Millisecond)
			// A machine on which a write takes longer than the pause would never get one through.
			for n > 0 && stored.Load() == before && writing.Err() == nil {
				time.Sleep(time.Millisecond)
			}
		}
	})
	const writers, each, enough = 8, 25, 10
	var writes sync.WaitGroup
	for w := range writers {
		writes.Go(func() {
			for i := 0; (i < each || cuts.Load() < enough) && ctx.Err() == nil; i++ {
				in := h.compose(alice, bob.Public(), fmt.Sprintf("r%d-%d", w, i))
				for {
					out := h.write(in)[0]
					if out.Err == nil {
						stored.Add(1)
						break
					}
					if ctx.Err() != nil {
						t.Error(out.Err)
						return
					}
				}
			}
		})
	}
	writes.Wait()
	written()
	wg.Wait()
	h.db.Pool().Reset() // idle connections were cut too, and what follows does not repeat itself
	total := stored.Load()
	if n := h.count(`SELECT count(*) FROM records`); n != total || cuts.Load() < enough {
		t.Fatalf("%d rows for %d writes, %d cuts", n, total, cuts.Load())
	}
	if head := h.count(`SELECT n FROM relay_cursor`); head != total {
		t.Fatalf("the cursor is at %d", head)
	}
	told := listenFor(ctx, t, h, bob, []protocol.PublicKey{alice.Public()}, int(total))
	slices.Sort(told)
	if int64(len(slices.Compact(told))) != total {
		t.Fatalf("told %d", len(told))
	}
	h.balanced()
	t.Logf("%d writes, %d connections cut", total, cuts.Load())
}
