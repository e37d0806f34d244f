package records_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/protocol"
	"relaymarket/records"
)

// counted is another process on the house's database, which only sweeps, and the count of what it removed.
func (h *house) counted() (*records.Store, func() int64) {
	h.t.Helper()
	registry := prometheus.NewRegistry()
	s := h.registered(registry)
	return s, func() int64 { return int64(value(h.t, registry, "relaymarket_records_swept_total")) }
}

func (h *house) registered(registry *prometheus.Registry) *records.Store {
	h.t.Helper()
	s, err := records.New(h.t.Context(), records.Config{DB: h.db, Books: h.books, Relay: h.relay.Public(), Clock: h.clock,
		Logger: slog.New(slog.DiscardHandler), Limits: records.DefaultLimits(), Registerer: registry})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// value is the sum of a metric over its labels.
func value(t testing.TB, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// An operator sees what the tables take.
func TestTablesAreMeasured(t *testing.T) {
	h := newHouse(t)
	for _, table := range []string{"records", "pulls", "pages"} { // which would be vacuumed again when the first sizes are known
		h.exec(`ALTER TABLE ` + table + ` SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)`)
	}
	h.fill(h.account(), 2000)
	conn := h.conn()
	if _, err := conn.Exec(t.Context(), `VACUUM records`); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	s := h.registered(registry)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	want := float64(h.count(`SELECT sum(pg_total_relation_size(t)) FROM unnest(ARRAY['records', 'pulls', 'pages']::regclass[]) t`))
	eventually(t, "rows and bytes are told", func() bool {
		return value(t, registry, "relaymarket_records_table_rows") == 2000 && value(t, registry, "relaymarket_records_table_bytes") == want
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// fill inserts live records of an account, as many as a test has no time to sign, and charges them. They expire when
// the hour after the house's now is over.
func (h *house) fill(owner *protocol.PrivateKey, records int) {
	h.t.Helper()
	tx, err := h.db.Pool().Begin(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	k, now := owner.Public(), h.now()
	for _, sql := range []string{
		`INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope)
		 SELECT c.n + i, $1::bytea, sha256($1::bytea), 'filled-' || (c.n + i), $1::bytea, 700, $2::bigint, $2::bigint + 3600000, $2::bigint, 3, sha256(int8send(i)), sha256(int8send(-i)), convert_to(repeat('x', 700), 'UTF8')
		 FROM relay_cursor c, generate_series(1, $3::bigint) i`,
		`UPDATE accounts SET stored = stored + 700 * $3::bigint, moved = moved + 2800 * $3::bigint,
		   month = to_char(to_timestamp($2::bigint / 1000) AT TIME ZONE 'UTC', 'YYYYMM')::integer WHERE key = $1::bytea`,
		`UPDATE relay_cursor SET n = n + $3::bigint WHERE $1::bytea IS NOT NULL AND $2::bigint > 0`,
	} {
		if _, err := tx.Exec(h.t.Context(), sql, k[:], int64(now), records); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := tx.Commit(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) exec(sql string, args ...any) {
	h.t.Helper()
	if _, err := h.db.Pool().Exec(h.t.Context(), sql, args...); err != nil {
		h.t.Fatal(err)
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// Two processes sweep thousands of records that expired, were used up, deleted or in part pulled, while others are
// written on the same accounts. Each is given back exactly once, and nothing that is not due is touched.
func TestSweepBesideWrites(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	alice, dora, bob := h.account(), h.account(), key(t)
	h.fill(alice, 2300)
	h.fill(dora, 2300)
	var keep []records.Incoming
	for i := range 300 {
		id := fmt.Sprintf("mixed-%d", i)
		keep = append(keep, h.compose(alice, bob.Public(), id, pulls(2), ttl(h, 10*24*time.Hour)), h.compose(dora, bob.Public(), id, pulls(1), ttl(h, 2*time.Hour)))
	}
	for _, out := range h.write(keep...) {
		if out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	r := &reader{h: h, key: bob}
	if page, err := r.pull(t.Context(), 400, alice.Public(), dora.Public()); err != nil || page.Header.Records != 400 {
		t.Fatalf("%v %v", page, err)
	}
	for i := range 100 { // some of what was pulled, some of what was not
		path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: protocol.RecordID(fmt.Sprintf("mixed-%d", 3*i))}
		if err := h.store.Delete(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	before := h.count(`SELECT count(*) FROM records`)
	h.advance(2*time.Hour + time.Minute) // an hour after the filled expired; dora's mixed have just expired
	other, removed := h.counted()
	mine, removedToo := h.counted()
	var written atomic.Int64
	over := make(chan struct{})
	var all sync.WaitGroup
	for w, from := range []*protocol.PrivateKey{alice, dora} {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				var batch []records.Incoming
				for j := range 20 {
					batch = append(batch, h.compose(from, bob.Public(), fmt.Sprintf("new-%d-%d-%d", w, i, j)))
				}
				for _, out := range h.store.Write(t.Context(), batch) {
					if out.Err != nil {
						t.Error(out.Err)
						return
					}
				}
				written.Add(20)
			}
		})
	}
	var sweeps sync.WaitGroup
	for _, s := range []*records.Store{other, mine} {
		sweeps.Go(func() {
			if err := s.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	sweeps.Wait()
	eventually(t, "writes beside the sweep", func() bool { return written.Load() > 100 || t.Failed() })
	close(over)
	all.Wait()
	if n := h.count(`SELECT count(*) FROM records WHERE id LIKE 'filled-%'`); n != 0 {
		t.Errorf("%d records that are due are left", n)
	}
	if is, want := h.count(`SELECT count(*) FROM records`), before-4600+written.Load(); is != want {
		t.Errorf("%d records are left, want %d", is, want)
	}
	// The house's own loop may have swept a part.
	if n := removed() + removedToo(); n > 4600 {
		t.Errorf("4600 records were due and %d are said to be removed", n)
	}
	if n := h.count(`SELECT count(*) FROM pulls p WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.receiver = p.receiver AND r.sender = p.sender AND r.n BETWEEN p.first AND p.upto AND r.state = 0)`); n != 0 {
		t.Errorf("%d counts of pulls are of no record", n)
	}
	h.balanced()
}

// More records than one look finds have the same end.
func TestSweepManyOfOneMoment(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	alice := h.account()
	h.fill(alice, 25_000)
	h.advance(2*time.Hour - time.Millisecond)
	s, removed := h.counted()
	for range 2 {
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := removed(); n != 0 {
			t.Fatalf("%d records were removed a millisecond too soon", n)
		}
	}
	conn := h.conn()
	holdSweeper(t, conn, true) // so that this process removes all of it, not the house's
	h.advance(time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- s.Sweep(t.Context()) }()
	holdSweeper(t, conn, false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM records`); n != 0 {
		t.Fatalf("%d records are left", n)
	}
	h.balanced()
}

func (h *house) conn() *pgx.Conn {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.url)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// What COMMIT refuses is not counted.
func TestSweptIsCountedAfterCommit(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	h.fill(h.account(), 50)
	h.exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$`)
	h.exec(`CREATE CONSTRAINT TRIGGER refuse AFTER DELETE ON records DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)
	h.advance(2 * time.Hour)
	s, removed := h.counted()
	if err := s.Sweep(t.Context()); err == nil {
		t.Fatal("a sweep that could not commit says nothing")
	}
	if n := removed(); n != 0 {
		t.Errorf("%d records count as removed, and are there", n)
	}
	conn := h.conn()
	holdSweeper(t, conn, true)
	h.exec(`DROP TRIGGER refuse ON records`)
	holdSweeper(t, conn, false)
	eventually(t, "all is swept, by this process or the house's", func() bool {
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return h.count(`SELECT count(*) FROM records`) == 0
	})
	h.balanced()
}

// A sweep that is told to end in the middle ends at once, leaves whole portions behind, and the next goes on.
func TestSweepIsInterrupted(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	first, last := h.account(), h.account()
	if a, b := first.Public(), last.Public(); bytes.Compare(a[:], b[:]) > 0 {
		first, last = last, first
	}
	h.fill(first, 1500)
	h.fill(last, 1500)
	// Somebody holds the account whose records come last.
	holder := h.conn()
	k := last.Public()
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1 FROM accounts WHERE key = $1 FOR UPDATE`, k[:]); err != nil {
		t.Fatal(err)
	}
	h.advance(2 * time.Hour)
	s, removed := h.counted()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "a part is swept, and the next waits", func() bool {
		return h.count(`SELECT count(*) FROM records`) == 2000 && h.count(`SELECT count(*) FROM pg_locks WHERE NOT granted`) > 0
	})
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- s.Sweep(ctx) }()
	eventually(t, "the next waits again", func() bool { return h.count(`SELECT count(*) FROM pg_locks WHERE NOT granted`) > 0 })
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a sweep that was ended: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if n := removed(); n > 1000 {
		t.Errorf("%d records count as removed", n)
	}
	if n := h.count(`SELECT count(*) FROM records`); n != 2000 {
		t.Errorf("%d records are left of what could not be ended", n)
	}
	h.balanced()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest is swept", func() bool {
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return h.count(`SELECT count(*) FROM records`) == 0
	})
	h.balanced()
}

// Many delete at once what one account wrote, twice, while it goes on writing.
func TestDeleteStorm(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	const total, deleters = 400, 16
	var batch []records.Incoming
	for i := range total {
		batch = append(batch, h.compose(alice, bob.Public(), fmt.Sprintf("d-%d", i)))
	}
	h.write(batch...)
	r := &reader{h: h, key: bob}
	if _, err := r.pull(t.Context(), 100, alice.Public()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for d := range deleters {
		all.Go(func() {
			for i := range total {
				if i%(deleters/2) != d%(deleters/2) {
					continue
				}
				path := protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: protocol.RecordID(fmt.Sprintf("d-%d", i))}
				if err := h.store.Delete(t.Context(), path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		h.mustWrite(h.compose(alice, bob.Public(), fmt.Sprintf("w-%d", i)))
	}
	all.Wait()
	if n := h.count(`SELECT count(*) FROM records WHERE state = 1 AND envelope IS NULL`); n != total {
		t.Errorf("%d of %d are deleted", n, total)
	}
	if n := h.count(`SELECT count(*) FROM pulls`); n != 0 {
		t.Errorf("%d counts of pulls are left", n)
	}
	h.balanced()
}

// Generation after generation of records comes and goes in the space that older ones left.
func TestSpaceIsUsedAgain(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	alice := h.account()
	conn := h.conn()
	h.exec(`ALTER TABLE records SET (autovacuum_enabled = off)`)
	vacuum := func() {
		// Twice: what somebody's statement was looking at, the relay's own among them, the first one leaves.
		for range 2 {
			if _, err := conn.Exec(t.Context(), `VACUUM records`); err != nil {
				t.Fatal(err)
			}
		}
	}
	var sizes []int64
	for generation := range 8 {
		h.fill(alice, 1500)
		h.advance(75 * time.Minute) // of two that are there, the older one ends
		if err := h.store.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		vacuum()
		size := h.count(`SELECT pg_total_relation_size('records')`)
		t.Logf("generation %d: %d rows, %d bytes", generation, h.count(`SELECT count(*) FROM records`), size)
		sizes = append(sizes, size)
	}
	if early, late := max(sizes[2], sizes[3]), max(sizes[6], sizes[7]); late > early+early/10 {
		t.Errorf("the table grows from generation to generation: %d bytes", sizes)
	}
}

// What comes back is exact: the bytes, and of the reserved pulls those that were not made. A tombstone has been given
// back before.
func TestSweepGivesBackOnce(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	alice, bob := h.account(), key(t)
	var size int64
	for _, id := range []string{"pulled", "deleted", "untouched", "stays"} {
		in := h.compose(alice, bob.Public(), id, pulls(3), ttl(h, time.Hour), content("AAAAAAAA"))
		if id == "stays" {
			in = h.compose(alice, bob.Public(), id, pulls(3), ttl(h, 240*time.Hour), content("AAAAAAAA"))
		}
		h.mustWrite(in)
		size += in.Envelope.Size()
	}
	r := &reader{h: h, key: bob}
	if page, err := r.pull(t.Context(), 1, alice.Public()); err != nil || len(page.Lines) != 1 {
		t.Fatalf("%v %v", page, err)
	}
	pulled := h.count(`SELECT bytes FROM records WHERE id = 'pulled'`)
	stays := h.count(`SELECT bytes FROM records WHERE id = 'stays'`)
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "deleted"}); err != nil {
		t.Fatal(err)
	}
	h.advance(2*time.Hour + time.Second)
	for range 2 {
		if err := h.store.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a, err := h.books.Get(t.Context(), alice.Public())
	if want := size + pulled + 3*stays; err != nil || a.Stored != stays || a.Moved != want {
		t.Errorf("stored %d, want %d; moved %d, want %d; %v", a.Stored, stays, a.Moved, want, err)
	}
}

// The clock is set right while a sweep that was misled by it waits for another one: what it found is not due.
func TestSweepLooksAtTheClockAgain(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	h.fill(h.account(), 50)
	conn := h.conn()
	holdSweeper(t, conn, true)
	h.advance(3 * time.Hour)
	asked := h.db.Pool().Stat().AcquireCount()
	done := make(chan error, 1)
	go func() { done <- h.store.Sweep(t.Context()) }()
	// Once it has looked, it asks for the lock again and again.
	eventually(t, "the sweep waits", func() bool { return h.db.Pool().Stat().AcquireCount() > asked+10 })
	h.advance(-2 * time.Hour)
	holdSweeper(t, conn, false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM records`); n != 50 {
		t.Errorf("%d of 50 records are left that are not due", n)
	}
	h.balanced()
}
