package records_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// A report is made once: asked again it is the same, also after more was posted, and none begins where none ended.
func TestReportIsMadeOnce(t *testing.T) {
	h := newHouse(t)
	p := h.payer()
	stranger := key(t)
	ctx := t.Context()
	report := func(after int64) *books.Report {
		t.Helper()
		if err := h.books.Post(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := h.books.Report(ctx, p.key.Public(), p.contract, after, p.sign)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := report(0); r.Envelope != nil {
		t.Error("a report of nothing")
	}
	h.mustWrite(h.compose(p.key, stranger.Public(), "a"))
	first := report(0)
	h.mustWrite(h.compose(p.key, stranger.Public(), "b"))
	again := report(0)
	if string(first.Envelope) != string(again.Envelope) || first.More || !again.More || again.Last != 1 {
		t.Errorf("%+v, then %+v", first, again)
	}
	second := report(1)
	if second.First != 2 || second.Last != 2 || second.More {
		t.Errorf("%+v", second)
	}
	_, err := h.books.Report(ctx, p.key.Public(), p.contract, 7, p.sign)
	wantCode(t, err, protocol.CodeInvalidValue)
	_, err = h.books.Report(ctx, stranger.Public(), p.contract, 0, p.sign)
	wantCode(t, err, protocol.CodeNotFound)
}

// What is not posted is not removed, however late the poster is.
func TestSweepWaitsForThePoster(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	bob := key(t)
	in := h.compose(p.key, bob.Public(), "a", ttl(h, time.Hour))
	h.mustWrite(in)
	p.wrote(in)
	r := &reader{h: h, key: bob}
	for range 2 {
		if _, err := r.pull(t.Context(), 1, p.key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	h.advance(100 * 24 * time.Hour)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, pages := h.count(`SELECT count(*) FROM records`), h.count(`SELECT count(*) FROM pages`); rows != 1 || pages != 1 {
		t.Fatalf("%d records and %d pages are left that are not posted", rows, pages)
	}
	p.check(t)
	// Now the bill names the page. Once it has said all that is in it, it may go.
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, pages := h.count(`SELECT count(*) FROM records`), h.count(`SELECT count(*) FROM pages`); rows != 0 || pages != 1 {
		t.Errorf("%d records and %d pages are left, of which one is evidence", rows, pages)
	}
	if err := errors.Join(h.books.Tidy(t.Context()), h.store.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
	if rows, pages := h.count(`SELECT count(*) FROM records`), h.count(`SELECT count(*) FROM pages`); rows != 0 || pages != 0 {
		t.Errorf("%d records and %d pages are left that are posted", rows, pages)
	}
	p.check(t)
	if p.place.Last != 3 || p.wholeBill(t).Waiting != 0 {
		t.Errorf("%+v, %+v", p.place, p.wholeBill(t))
	}
}

// Evidence of what is not paid is kept; of what is, for a set time. The report stays.
func TestEvidenceIsKeptUntilPaid(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	bob := key(t)
	in := h.compose(p.key, bob.Public(), "a")
	h.mustWrite(in)
	p.wrote(in)
	p.check(t)
	cost := p.wholeBill(t).Accepted
	dropped := func() bool {
		t.Helper()
		h.advance(36 * 24 * time.Hour)
		if err := h.books.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := h.books.Report(t.Context(), p.key.Public(), p.contract, 0, p.sign)
		if err != nil || r.Envelope == nil {
			t.Fatal(r, err)
		}
		return r.Dropped
	}
	for _, paid := range []protocol.Msat{0, cost - 1, cost} {
		if dropped() {
			t.Fatalf("dropped with less than %d msat paid", cost)
		}
		tx, err := h.db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(h.books.Paid(t.Context(), tx, p.contract, paid), tx.Commit(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if !dropped() {
		t.Error("kept for good")
	}
	if n := h.count(`SELECT count(*) FROM ledger_blocks`); n != 0 {
		t.Errorf("%d blocks are left", n)
	}
}

// Reports that are paid out of their order, by clocks that jump, lose their lines in their order.
func TestEvidenceGoesInItsOrder(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	for i := range 3 { // a block and a report each
		in := h.compose(p.key, key(t).Public(), fmt.Sprint(i))
		h.mustWrite(in)
		p.wrote(in)
		p.check(t)
	}
	h.exec(`UPDATE usage_reports SET paid_at = $1 - first`, int64(h.now())) // the last one first
	h.advance(35*24*time.Hour - 2*time.Millisecond)
	for kept := int64(3); kept >= 0; kept -= 3 {
		if err := h.books.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if dropped, blocks := h.count(`SELECT count(*) FROM usage_reports WHERE dropped`), h.count(`SELECT count(*) FROM ledger_blocks`); dropped == 0 || blocks != kept {
			t.Errorf("%d reports are dropped, and %d blocks are left, want %d", dropped, blocks, kept)
		}
		if r, err := h.books.Report(t.Context(), p.key.Public(), p.contract, 0, p.sign); err != nil || r.Dropped != (kept == 0) {
			t.Errorf("%+v, %v", r, err)
		}
		h.advance(time.Minute)
	}
}

// Whoever pays for a report has paid for those before it, also for one that came to more before lines of it were taken back.
func TestPaidUpToTheLast(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	for i := range 3 {
		in := h.compose(p.key, key(t).Public(), fmt.Sprint(i))
		h.mustWrite(in)
		p.wrote(in)
		p.check(t)
	}
	h.exec(`UPDATE usage_reports SET cost = (ARRAY[900, 500, 600])[first]`)
	if err := h.inTx(func(tx pgx.Tx) error { return h.books.Paid(t.Context(), tx, p.contract, 550) }); err != nil {
		t.Fatal(err)
	}
	if first, all := h.count(`SELECT count(*) FROM usage_reports WHERE paid_at IS NOT NULL AND first < 3`), h.count(`SELECT count(*) FROM usage_reports WHERE paid_at IS NOT NULL`); first != 2 || all != 2 {
		t.Errorf("%d reports are paid, %d of the first two", all, first)
	}
}
