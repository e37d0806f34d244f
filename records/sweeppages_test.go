package records_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
	"relaymarket/records"
)

const day = 24 * time.Hour

// storePages stores pages of grants, as many of each reader as there are times, which are when they were made. They are acknowledged by the next one,
// and the last one when it was made, if it is said so.
func (h *house) storePages(readers int, lastToo bool, made ...time.Time) {
	h.t.Helper()
	times := make([]int64, len(made))
	for i, at := range made {
		times[i] = at.UnixMilli()
	}
	h.exec(`INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, turn, got_at)
		SELECT sha256(r::text::bytea), 'page-' || i, made, '{}', '', '', 0, '', '', 0, false, 1, i, CASE WHEN $3 AND i = cardinality($2::bigint[]) THEN made END
		FROM generate_series(1, $1::integer) r, unnest($2::bigint[]) WITH ORDINALITY AS t (made, i)`, readers, times, lastToo)
}

func (h *house) sweep() {
	h.t.Helper()
	if err := h.store.Sweep(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// turns are those of the pages that a reader of storePages has.
func (h *house) turns(reader int) []int64 {
	h.t.Helper()
	rows, err := h.db.Pool().Query(h.t.Context(), `SELECT turn FROM pages WHERE reader = sha256($1::integer::text::bytea) ORDER BY turn`, reader)
	if err != nil {
		h.t.Fatal(err)
	}
	turns, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		h.t.Fatal(err)
	}
	return turns
}

func (h *house) wantTurns(reader int, want ...int64) {
	h.t.Helper()
	if turns := h.turns(reader); !slices.Equal(turns, want) {
		h.t.Errorf("reader %d has the pages %d, want %d", reader, turns, want)
	}
}

var noon = time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)

// Of a reader's pages the first ones go, whatever clocks said: one that was acknowledged or made late keeps those after it, which are due.
func TestPagesGoFromTheFirst(t *testing.T) {
	h := newStillHouse(t, noon)
	// Each is acknowledged when the next one is made: the second one on day 30, the third and the fourth on days 1 and 2, the fifth on day 60.
	h.storePages(2, false, noon, noon, noon.Add(30*day), noon.Add(day), noon.Add(2*day), noon.Add(60*day))
	// The second reader acknowledged that one by itself, on day 0.
	h.exec(`UPDATE pages SET got_at = made WHERE turn = 2 AND reader = sha256('2')`)
	for _, c := range []struct {
		on   time.Duration
		left []int64
	}{{35*day - time.Millisecond, []int64{1, 2, 3, 4, 5, 6}}, {40 * day, []int64{2, 3, 4, 5, 6}}, {65*day - time.Millisecond, []int64{2, 3, 4, 5, 6}}, {65 * day, []int64{5, 6}},
		{95*day - time.Millisecond, []int64{5, 6}}, {95 * day, []int64{6}}, {90 * day, []int64{6}}, {300 * day, []int64{6}}, {(60 + 35 + 366) * day, nil}} {
		h.offset.Store(c.on.Milliseconds())
		h.sweep()
		h.wantTurns(1, c.left...)
		if len(c.left) == 5 {
			c.left = c.left[1:]
		}
		h.wantTurns(2, c.left...)
	}
}

// A reader who is at something else keeps his pages, and nobody waits for him; his pages go another time.
func TestSweepLeavesReadersAtWork(t *testing.T) {
	h := newStillHouse(t, noon)
	h.storePages(3, true, noon, noon, noon)
	atWork := h.conn()
	lock := func(call string) {
		t.Helper()
		if _, err := atWork.Exec(t.Context(), `SELECT `+call+`(('x' || encode(substr(sha256('2'), 1, 8), 'hex'))::bit(64)::bigint)`); err != nil {
			t.Fatal(err)
		}
	}
	lock("pg_advisory_lock")
	h.advance(35 * day)
	h.sweep()
	h.wantTurns(1)
	h.wantTurns(2, 1, 2, 3)
	h.wantTurns(3)
	lock("pg_advisory_unlock")
	h.sweep()
	h.wantTurns(2)

	// One who is soon done with it is tried again.
	h.exec(`CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$`)
	h.exec(`CREATE TRIGGER wait AFTER DELETE ON pages FOR EACH ROW EXECUTE FUNCTION wait()`)
	lock("pg_advisory_lock")
	if _, err := atWork.Exec(t.Context(), `SELECT pg_advisory_lock(42)`); err != nil {
		t.Fatal(err)
	}
	h.storePages(3, true, noon, noon, noon)
	done := make(chan error, 1)
	go func() { done <- h.store.Sweep(t.Context()) }()
	eventually(t, "the other readers' pages go", func() bool { return h.count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND objid = 42`) == 1 })
	if _, err := atWork.Exec(t.Context(), `SELECT pg_advisory_unlock_all()`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for r := range 3 {
		h.wantTurns(r + 1)
	}
}

// The clock is set right while a sweep that was misled by it waits for another one: the pages that it found are not due.
func TestSweepOfPagesLooksAtTheClockAgain(t *testing.T) {
	h := newStillHouse(t, noon)
	h.storePages(1, true, noon, noon)
	conn := h.conn()
	holdSweeper(t, conn, true)
	h.advance(36 * day)
	asked := h.db.Pool().Stat().AcquireCount()
	done := make(chan error, 1)
	go func() { done <- h.store.Sweep(t.Context()) }()
	eventually(t, "the sweep waits", func() bool { return h.db.Pool().Stat().AcquireCount() > asked+10 })
	h.advance(-2 * day)
	holdSweeper(t, conn, false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	h.wantTurns(1, 1, 2)
}

// A page stays as long as the ledger has yet to post it, or a bill names it instead of saying what is in it. It holds up no page that was acknowledged before it, and no
// lapse.
func TestPagesStayThatTheLedgerNeeds(t *testing.T) {
	for table, need := range map[string]string{
		"ledger_acks":   `INSERT INTO ledger_acks (reader, page_id, upto, records, at) SELECT '', i::text, 1::bigint << 50, 1, $1::bigint + i FROM generate_series(0, 2) i`,
		"ledger_blocks": `INSERT INTO ledger_blocks (bill, last, lines, acked) SELECT id, i, '', CASE WHEN i > 1 THEN $1::bigint + i - 2 END FROM bills, generate_series(1, 4) i`,
	} {
		t.Run(table, func(t *testing.T) {
			h := newStillHouse(t, noon)
			p, bob := h.payer(), &reader{h: h, key: key(t)}
			for i := range 2 { // the first is acknowledged, the last is open
				h.mustWrite(h.compose(p.key, bob.key.Public(), fmt.Sprint("r", i), ttl(h, 300*day)))
				if page, err := bob.pull(t.Context(), 1, p.key.Public()); err != nil || len(page.Lines) != 1 {
					t.Fatal(page, err)
				}
			}
			h.exec(`DELETE FROM ledger_acks`) // as if it were posted
			h.storePages(2, true, noon.Add(-3*time.Millisecond), noon.Add(-time.Millisecond), noon, noon.Add(time.Hour))
			h.exec(need, noon.UnixMilli())
			h.advance(100 * day)
			for range 2 {
				h.sweep()
				h.wantTurns(1, 2, 3, 4)
				h.wantTurns(2, 2, 3, 4)
				if pages, lapsed := h.count(`SELECT count(*) FROM pages WHERE reader = $1`, bytesOf(bob.key)), h.count(`SELECT count(*) FROM ledger_facts WHERE kind = 2`); pages != 2 || lapsed != 1 {
					t.Errorf("%d pages and %d lapses, want 2 and 1", pages, lapsed)
				}
			}
			h.exec(`DELETE FROM ` + table)
			h.sweep()
			h.wantTurns(1)
			h.wantTurns(2)
			if n := h.count(`SELECT count(*) FROM pages WHERE lapsed`); n != 1 || h.count(`SELECT count(*) FROM pages`) != 1 {
				t.Errorf("%d pages have lapsed", n)
			}
		})
	}
}

// What a page held that nobody acknowledged goes back once, after 35 days; the page goes when all that it may name has expired, be it a payer's or a grant's.
func TestPagesThatNobodyAcknowledges(t *testing.T) {
	h := newStillHouse(t, noon)
	p, bob := h.payer(), &reader{h: h, key: key(t)}
	in := h.compose(p.key, bob.key.Public(), "a", ttl(h, 300*day))
	h.mustWrite(in)
	p.wrote(in)
	if page, err := bob.pull(t.Context(), 1, p.key.Public()); err != nil || len(page.Lines) != 1 {
		t.Fatal(page, err)
	}
	h.storePages(1, false, noon)
	for _, c := range []struct {
		on            time.Duration
		pages, lapsed int64
	}{{35*day - time.Millisecond, 2, 0}, {35 * day, 2, 1}, {36 * day, 2, 1}, {(35+366)*day - time.Millisecond, 2, 1}, {(35 + 366) * day, 0, 1}} {
		h.offset.Store(c.on.Milliseconds())
		h.sweep()
		if pages, lapsed := h.count(`SELECT count(*) FROM pages`), h.count(`SELECT count(*) FROM ledger_facts WHERE kind = 2`); pages != c.pages || lapsed != c.lapsed {
			t.Errorf("after %v: %d pages and %d lapses, want %d and %d", c.on, pages, lapsed, c.pages, c.lapsed)
		}
	}
	p.check(t)

	// Nobody looked at it for long: both at once.
	bob = &reader{h: h, key: key(t)}
	in = h.compose(p.key, bob.key.Public(), "b", ttl(h, 300*day))
	h.mustWrite(in)
	p.wrote(in)
	if page, err := bob.pull(t.Context(), 1, p.key.Public()); err != nil || len(page.Lines) != 1 {
		t.Fatal(page, err)
	}
	h.advance(500 * day)
	h.sweep()
	if pages, lapsed := h.count(`SELECT count(*) FROM pages`), h.count(`SELECT count(*) FROM ledger_facts WHERE kind = 2`); pages != 0 || lapsed != 1 {
		t.Errorf("%d pages are left, and %d have lapsed", pages, lapsed)
	}
	p.check(t)
}

// One walk is at all readers, however many of them have nothing that is due, and looks at so many at once.
func TestWalkOverManyReaders(t *testing.T) {
	h := newStillHouse(t, noon)
	const many = records.WalkLooks*records.WalkReaders + 1000
	h.storePages(many, true, noon)
	h.exec(`UPDATE pages SET made = made + $1, got_at = made + $1 WHERE reader < '\xf0'`, (10 * day).Milliseconds())
	h.advance(40 * day)
	old := h.count(`SELECT count(*) FROM pages WHERE reader >= '\xf0'`)
	w := h.store.NewWalker()
	pass := func() (int, bool) {
		t.Helper()
		looks, over, err := w.Pass(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return looks, over
	}
	looks, over := pass()
	if over || looks > records.WalkLooks {
		t.Errorf("%d looks in one pass", looks)
	}
	for all := looks; !over; all += looks {
		w.Anew() // it does not begin again
		if looks, over = pass(); all > 2*records.WalkLooks {
			t.Fatalf("%d looks, and it is not over", all)
		}
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != many-old {
		t.Errorf("%d pages are left, want %d", n, many-old)
	}
	h.advance(20 * day)
	if looks, _ := pass(); looks > 0 {
		t.Error("it begins again at once")
	}
	h.sweep()
	if n := h.count(`SELECT count(*) FROM pages`); n != 0 {
		t.Errorf("%d pages are left of those that became due", n)
	}
}

// However many pages of whom are due, one transaction ends few.
func TestManyPagesOfOneReader(t *testing.T) {
	h := newStillHouse(t, noon)
	made := make([]time.Time, 1002)
	for i := range made {
		made[i] = noon.Add(time.Duration(i) * time.Second)
	}
	made[1001] = noon.Add(20 * day) // the page before it is not due
	h.storePages(1, true, made...)
	h.exec(`INSERT INTO pages SELECT sha256(r::text::bytea), page_id, made, ns, senders, hashes, root, after_n, more, served, got, got_at, bills, lapsed, turn, got_before, names, bytes
		FROM pages, generate_series(2, 150) r WHERE turn <= 4`)
	h.exec(`CREATE TABLE ended (pages bigint, readers bigint)`)
	h.exec(`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ended SELECT count(*), count(DISTINCT reader) FROM gone; RETURN NULL; END $$`)
	h.exec(`CREATE TRIGGER note AFTER DELETE ON pages REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION note()`)
	h.advance(40 * day)
	h.sweep()
	h.wantTurns(1, 1001, 1002)
	for r := 2; r <= 150; r++ {
		h.wantTurns(r, 4) // open
	}
	if n, readers := h.count(`SELECT max(pages) FROM ended`), h.count(`SELECT max(readers) FROM ended`); n > 200 || readers > 100 || readers < 50 {
		t.Errorf("one transaction ended %d pages, and one those of %d readers", n, readers)
	}
	if n := h.count(`SELECT sum(pages) FROM ended`); n != 1000+149*3 {
		t.Errorf("%d pages were ended", n)
	}
}

// A page that cannot be ended, as its row is damaged, keeps no other from being.
func TestDamagedPageStopsNoSweep(t *testing.T) {
	h := newStillHouse(t, noon)
	p := h.payer()
	h.exec(`INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, turn, bills)
		SELECT sha256('50'), 'page', $1, '{1}', '', '\xff', 0, '', '', 0, false, 1, 1, ARRAY[id] FROM bills WHERE payer = $2`, noon.UnixMilli(), bytesOf(p.key))
	h.storePages(49, true, noon, noon)
	h.advance(40 * day)
	w, failed := h.store.NewWalker(), 0
	for passes := 0; ; passes++ {
		_, over, err := w.Pass(t.Context())
		if err != nil {
			failed++
		} else if over {
			break
		}
		if passes > 50 {
			t.Fatalf("it does not come to an end: %v", err)
		}
	}
	if n := h.count(`SELECT count(*) FROM pages`); n != 1 || failed == 0 {
		t.Errorf("%d pages are left, and %d passes failed", n, failed)
	}
}

// Readers ask for pages, for the same again, and acknowledge them, while two processes sweep what is due within seconds: no page is billed twice or not at all, and
// none opens again.
func TestSweepPagesBesidePulls(t *testing.T) {
	h := newStillHouse(t, noon)
	p := h.payer()
	const people, each = 6, 30
	readers := make([]*reader, people)
	for i := range readers {
		readers[i] = &reader{h: h, key: key(t)}
		for j := range each {
			in := h.compose(p.key, readers[i].key.Public(), fmt.Sprint("r", j), ttl(h, 360*day))
			h.mustWrite(in)
			p.wrote(in)
		}
	}
	over := make(chan struct{})
	other, _ := h.counted()
	var sweeps sync.WaitGroup
	for _, s := range []*records.Store{h.store, other} {
		sweeps.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				// What bills name is written out in time.
				if err := errors.Join(s.Sweep(t.Context()), h.books.Post(t.Context()), h.books.Tidy(t.Context())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for part := range 3 {
		var pulls sync.WaitGroup
		for _, r := range readers {
			pulls.Go(func() {
				for range each / 3 {
					request := r.request(1, p.key.Public())
					page, err := h.store.Pull(t.Context(), request)
					if err != nil || len(page.Lines) != 1 {
						t.Errorf("%+v %v", page, err)
						return
					}
					// Months later, as it may be, the page that it acknowledges is gone.
					if _, err := h.store.Pull(t.Context(), request); err != nil && !errors.Is(err, protocol.CodeNotFound) {
						t.Errorf("again: %v", err)
					}
					if n := h.count(openPages+` AND p.reader = $1`, bytesOf(r.key)); n != 1 {
						t.Errorf("%d pages are open", n)
					}
					r.open, r.after = &page.Header, &page.Header.Cursor
					h.advance(340 * day / (people * each))
				}
			})
		}
		pulls.Wait()
		eventually(t, "pages are swept meanwhile", func() bool {
			return h.count(`SELECT count(*) FROM pages`) < int64(people*each/3*(part+1)) || t.Failed()
		})
	}
	close(over)
	sweeps.Wait()
	if n := h.count(openPages); n != people {
		t.Errorf("%d pages are open", n)
	}
	for _, r := range readers {
		if err := h.store.Got(t.Context(), r.key.Public(), *r.ack(*r.open)); err != nil {
			t.Error(err)
		}
	}
	p.check(t)
	if want := int64(people * each * 2); p.place.Last != want {
		t.Errorf("%d lines for as many writes and pulls as %d", p.place.Last, want)
	}
}

// What the sweeper finds pages with are probes of indexes, whatever is known of the table when they are planned.
func TestPlansOfTheWalk(t *testing.T) {
	h := newStillHouse(t, noon)
	h.exec(`ALTER TABLE pages SET (autovacuum_enabled = off)`)
	conn, err := h.db.Pool().Acquire(t.Context()) // which plans as all of them do
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	explain := func(sql string) []string {
		t.Helper()
		described, err := conn.Conn().Prepare(t.Context(), "explained", sql)
		if err != nil {
			t.Fatal(err)
		}
		nulls := strings.Join(slices.Repeat([]string{"NULL"}, len(described.ParamOIDs)), ", ")
		rows, err := conn.Query(t.Context(), `EXPLAIN (COSTS OFF) EXECUTE explained (`+nulls+`)`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || conn.Conn().Deallocate(t.Context(), "explained") != nil {
			t.Fatal(err)
		}
		return lines
	}
	for _, readers := range []int{0, 1, 2, 3000} {
		h.exec(`TRUNCATE pages`)
		h.storePages(readers, false, noon, noon, noon)
		h.exec(`ANALYZE pages`)
		for name, sql := range map[string]string{"find": records.FindReaders, "end": records.EndPages} {
			probes := 0
			lines := explain(sql)
			for i, line := range lines {
				line = strings.TrimSpace(line)
				line = strings.TrimPrefix(line, "->  ")
				switch {
				case strings.HasPrefix(line, "Index") && strings.Contains(line, " pages"):
					probes++
					if cond := lines[i+1]; !strings.Contains(cond, "Index Cond: ") || !strings.Contains(cond, "reader ") {
						t.Errorf("%s, %d readers: %s by %s", name, readers, line, cond)
					}
				case strings.Contains(line, " on pages"):
					if !strings.HasPrefix(line, "Delete on pages") && !strings.HasPrefix(line, "Tid Scan on pages") {
						t.Errorf("%s, %d readers: %s", name, readers, line)
					}
				case strings.Contains(line, "Sort"):
					t.Errorf("%s, %d readers: %s", name, readers, line)
				}
			}
			if probes < 2 || t.Failed() {
				t.Errorf("%s, %d readers, %d probes:\n%s", name, readers, probes, strings.Join(lines, "\n"))
			}
		}
	}
}

// BenchmarkWalk is what it costs to look at readers who have nothing that is due, in processor time of Postgres.
func BenchmarkWalk(b *testing.B) {
	h := newStillHouse(b, noon)
	const many = 200_000
	h.storePages(many, false, noon)
	h.exec(`VACUUM ANALYZE pages`)
	var postgres time.Duration
	h.sweep()
	for b.Loop() {
		before := h.postgresTime()
		if err := h.store.Sweep(context.Background()); err != nil {
			b.Fatal(err)
		}
		postgres += h.postgresTime() - before
	}
	b.ReportMetric(float64(postgres.Nanoseconds())/1000/float64(b.N)/many, "postgres-µs/reader")
}
