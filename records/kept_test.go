package records_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// lines are all lines that a payer's reports have, as they are told him, and their sum.
func (p *payer) lines(t testing.TB) (n int, sum [32]byte, err error) {
	t.Helper()
	all := sha256.New()
	for after, more := int64(0), true; more; {
		r, err := p.h.books.Report(t.Context(), p.key.Public(), p.contract, after, p.sign)
		if err != nil {
			return 0, sum, err
		}
		if r.Envelope == nil {
			break
		}
		if err := p.h.books.Lines(t.Context(), r, func(line []byte) error {
			n++
			_, _ = all.Write(append(line, '\n'))
			return nil
		}); err != nil {
			return 0, sum, err
		}
		after, more = r.Last, r.More
	}
	return n, [32]byte(all.Sum(nil)), nil
}

// town is two payers whose records two readers have pulled in pages of many and of few, of one sender and of several, posted.
type town struct {
	*house
	payers  []*payer
	readers []*reader
}

func newTown(t *testing.T) *town {
	w := &town{house: newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))}
	for range 2 {
		w.payers, w.readers = append(w.payers, w.payer()), append(w.readers, &reader{h: w.house, key: key(t)})
	}
	grant := w.account()
	var batch []records.Incoming
	for i := range 120 {
		for k, p := range w.payers {
			in := w.compose(p.key, w.readers[(i+k)%2].key.Public(), fmt.Sprint("r", i), pulls(9), content(strings.Repeat("AAAA", i+1)))
			p.wrote(in)
			batch = append(batch, in)
		}
		batch = append(batch, w.compose(grant, w.readers[i%2].key.Public(), fmt.Sprint("r", i), pulls(9)))
	}
	for _, out := range w.write(batch...) {
		if out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	both := []protocol.PublicKey{w.payers[0].key.Public(), w.payers[1].key.Public(), grant.Public()}
	for _, r := range w.readers {
		for _, c := range []struct {
			limit   int64
			senders []protocol.PublicKey
		}{{20, both[:1]}, {20, both[1:2]}, {60, both}, {20, both[:2]}, {1, both[:1]}, {20, both[1:2]}} {
			r.after = nil
			for range 3 {
				if page, err := r.pull(t.Context(), c.limit, c.senders...); err != nil || len(page.Lines) == 0 {
					t.Fatal(page, err)
				}
			}
			if c.limit == 60 { // this one is acknowledged by itself
				if err := w.store.Got(t.Context(), r.key.Public(), *r.ack(*r.open)); err != nil {
					t.Fatal(err)
				}
				r.open = nil
			}
			for _, p := range w.payers { // makes a block
				p.check(t)
			}
		}
	}
	if n := w.count(`SELECT count(*) FROM ledger_blocks WHERE acked IS NOT NULL`); n < 6 {
		t.Fatalf("%d blocks name pages", n)
	}
	return w
}

func (w *town) sweep(t *testing.T) {
	t.Helper()
	if err := errors.Join(w.books.Tidy(t.Context()), w.store.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// A bill names the pages that are on it. Their rows stay until it has been written out, and its lines are the same before and after.
func TestBillsKeepTheirPages(t *testing.T) {
	w := newTown(t)
	var lines [2]int
	var sums [2][32]byte
	check := func(when string) {
		t.Helper()
		for i, p := range w.payers {
			n, sum, err := p.lines(t)
			if lines[i] == 0 {
				lines[i], sums[i] = n, sum
			}
			if err != nil || n != lines[i] || sum != sums[i] {
				t.Errorf("%s: %d lines of payer %d, want the same %d: %v", when, n, i, lines[i], err)
			}
		}
	}
	check("posted")
	if lines[0] < 120+2*3*50 {
		t.Fatalf("%d lines", lines[0])
	}
	bytes := w.count(`SELECT sum(length(lines)) FROM ledger_blocks WHERE acked IS NOT NULL`)
	pages := w.count(`SELECT count(*) FROM pages`)
	w.advance(44 * 24 * time.Hour)
	w.sweep(t)
	if n := w.count(`SELECT count(*) FROM pages`); n != pages {
		t.Fatalf("%d of %d pages that bills name are left", n, pages)
	}
	check("after 44 days")
	w.advance(2 * 24 * time.Hour)
	before := w.count(`SELECT sum(length(lines)) FROM ledger_blocks`)
	var all sync.WaitGroup
	for range 3 { // processes on one database
		all.Go(func() {
			if err := w.books.Tidy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := w.count(`SELECT count(*) FROM ledger_blocks WHERE acked IS NOT NULL`); n != 0 {
		t.Fatalf("%d blocks are not written out", n)
	}
	if grown := w.count(`SELECT sum(length(lines)) FROM ledger_blocks`) - before; grown < 3*bytes {
		t.Errorf("%d bytes name pages, and %d more have what is in them", bytes, grown)
	}
	w.sweep(t)
	if n := w.count(`SELECT count(*) FROM pages`); n != 2 { // each reader's last one, open: it lapsed
		t.Errorf("%d pages are left", n)
	}
	check("written out")
	for _, p := range w.payers {
		p.check(t)
	}
}

// What is paid in time is never written out: its blocks go, and then its pages.
func TestPaidBillsNameThemOnly(t *testing.T) {
	w := newTown(t)
	w.exec(`UPDATE usage_reports SET paid_at = $1`, int64(w.now()))
	w.advance(36 * 24 * time.Hour)
	w.sweep(t)
	if n := w.count(`SELECT count(*) FROM ledger_blocks`); n != 0 {
		t.Errorf("%d blocks are left", n)
	}
	if n := w.count(`SELECT count(*) FROM pages`); n != 2 {
		t.Errorf("%d pages are left", n)
	}
}

// A bill one of whose pages is damaged says so, and keeps neither the pages of others nor their bills waiting. When it is written out that
// page alone is lost.
func TestBillWithoutItsPage(t *testing.T) {
	for name, meddle := range map[string]string{
		"gone":        `DELETE FROM pages WHERE page_id = $1`,
		"other bytes": `UPDATE pages SET names = set_byte(names, octet_length(names) - 1, (get_byte(names, octet_length(names) - 1) + 1) % 8) WHERE page_id = $1`,
		"no names":    `UPDATE pages SET names = substr(names, 2) WHERE page_id = $1`,
		"no bill":     `UPDATE pages SET bills = '{NULL}' WHERE page_id = $1`,
		"another's":   `UPDATE pages SET bills = '{0}' WHERE page_id = $1`,
		"not signed":  `UPDATE pages p SET got_before = NULL WHERE got_before IS NOT NULL AND turn = (SELECT turn + 1 FROM pages t WHERE t.reader = p.reader AND page_id = $1)`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			var id string
			if err := w.db.Pool().QueryRow(t.Context(), `SELECT page_id FROM pages, bills b WHERE bills = ARRAY[b.id] AND b.contract = $1 AND cardinality(ns) = 20 AND got_at IS NULL ORDER BY turn LIMIT 1`, w.payers[0].contract[:]).Scan(&id); err != nil {
				t.Fatal(err)
			}
			before := w.count(`SELECT sum(length(lines)) FROM ledger_blocks`)
			w.exec(meddle, id)
			if _, _, err := w.payers[0].lines(t); err == nil || !strings.Contains(err.Error(), "page") {
				t.Errorf("its lines: %v", err)
			}
			if _, _, err := w.payers[1].lines(t); err != nil {
				t.Errorf("the other's: %v", err)
			}
			w.advance(46 * 24 * time.Hour)
			w.sweep(t)
			if n := w.count(`SELECT count(*) FROM ledger_blocks WHERE acked IS NOT NULL`); n != 0 {
				t.Errorf("%d blocks are not written out", n)
			}
			if grown := w.count(`SELECT sum(length(lines)) FROM ledger_blocks`) - before; grown < 20_000 {
				t.Errorf("%d bytes are written out: more than one page is lost", grown)
			}
			if _, _, err := w.payers[0].lines(t); err == nil || !strings.Contains(err.Error(), "page "+id) || !strings.Contains(err.Error(), "lost") {
				t.Errorf("its lines, once they are written out: %v", err)
			}
			if _, _, err := w.payers[1].lines(t); err != nil {
				t.Errorf("the other's, once they are written out: %v", err)
			}
		})
	}
}

// A relay at work writes out by itself.
func TestRunWritesOut(t *testing.T) {
	w := newTown(t)
	w.advance(46 * 24 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.books.Run(ctx) }()
	eventually(t, "no block names a page", func() bool { return w.count(`SELECT count(*) FROM ledger_blocks WHERE acked IS NOT NULL`) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A bill is written out and its pages are swept between a look at its block and one at them.
func TestLinesWhileTheyAreWrittenOut(t *testing.T) {
	w := newTown(t)
	p := w.payers[0]
	n, want, err := p.lines(t)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`CREATE TABLE named AS SELECT * FROM ledger_blocks`)
	w.exec(`CREATE TABLE kept AS SELECT * FROM pages`)
	w.advance(46 * 24 * time.Hour)
	w.sweep(t)
	w.exec(`CREATE TABLE whole AS SELECT * FROM ledger_blocks`)
	w.exec(`UPDATE ledger_blocks b SET lines = n.lines, acked = n.acked FROM named n WHERE b.bill = n.bill AND b.last = n.last`)
	w.exec(`DELETE FROM pages`)
	w.exec(`INSERT INTO pages SELECT * FROM kept`)
	// Whoever reads pages waits, and has read the block by then.
	tx, err := w.conn().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	exec := func(sql string) {
		t.Helper()
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`LOCK TABLE pages IN ACCESS EXCLUSIVE MODE`)
	type result struct {
		n   int
		sum [32]byte
		err error
	}
	read := make(chan result, 1)
	go func() {
		var got result
		got.n, got.sum, got.err = p.lines(t)
		read <- got
	}()
	eventually(t, "the reader waits for pages", func() bool {
		return w.count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pages'::regclass`) == 1
	})
	exec(`UPDATE ledger_blocks b SET lines = w.lines, acked = NULL FROM whole w WHERE b.bill = w.bill AND b.last = w.last`)
	exec(`DELETE FROM pages`)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got.err != nil || got.n != n || got.sum != want {
		t.Errorf("%d lines, want the same %d: %v", got.n, n, got.err)
	}
}
