package relayside_test

import (
	"context"
	"encoding/base64"
	"log/slog"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
	"relaymarket/records"
)

// outbox is the records of a house, for what is used by writing.
type outbox struct {
	h     *house
	store *records.Store
	to    protocol.PublicKey
}

func (h *house) outbox() *outbox {
	h.t.Helper()
	store, err := records.New(h.t.Context(), records.Config{DB: h.db, Books: h.books, Relay: h.key.Public(), Clock: h.clock,
		Logger: slog.New(slog.DiscardHandler), Limits: records.DefaultLimits()})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	return &outbox{h: h, store: store, to: identity(h.t).Public()}
}

// write stores a record that reserves eight pulls, and returns what it costs in satoshi to have written it, and what it reserves
// beside that.
func (o *outbox) write(u *user, id protocol.RecordID) (written, reserved btcutil.Amount) {
	o.h.t.Helper()
	w := &protocol.Write{Relay: o.h.key.Public(), RecordID: id, Expires: o.h.now().Add(time.Hour), MaxPulls: 8,
		Content: base64.StdEncoding.EncodeToString(make([]byte, 60_000))}
	e, err := protocol.Sign(u.key, o.to, o.h.now(), w)
	if err != nil {
		o.h.t.Fatal(err)
	}
	if out := o.store.Write(o.h.t.Context(), []records.Incoming{{Envelope: e, Write: w}}); out[0].Err != nil {
		o.h.t.Fatal(out[0].Err)
	}
	size := btcutil.Amount(len(e.Bytes())) // a byte costs a millisatoshi
	o.post()
	return (size + 999) / 1000, (9*size+999)/1000 - (size+999)/1000
}

func (o *outbox) post() {
	o.h.t.Helper()
	if err := o.h.books.Post(o.h.t.Context()); err != nil {
		o.h.t.Fatal(err)
	}
}

func (o *outbox) remove(u *user, id protocol.RecordID) {
	o.h.t.Helper()
	if err := o.store.Delete(o.h.t.Context(), protocol.Path{Sender: u.key.Public(), Receiver: o.to, ID: id}); err != nil {
		o.h.t.Fatal(err)
	}
	o.post()
}

// balanced checks that the journal says of a contract in force what its status does, and of those before that they owe nothing.
func (d *deal) balanced(before ...*deal) {
	h := d.u.h
	h.t.Helper()
	owed := func(d *deal) int {
		id := d.id
		return h.count(`SELECT coalesce(sum(e.owed), 0)::bigint FROM ledger_entries e JOIN bills b ON b.id = e.bill WHERE b.contract = $1`, id[:])
	}
	if s := d.status(); btcutil.Amount((max(owed(d), 0)+999)/1000) != s.Owed-s.Amount { // paid ahead, nothing is owed
		h.t.Errorf("the journal says that %d msat are owed, the status %d satoshi", owed(d), s.Owed-s.Amount)
	}
	for _, old := range before {
		if owed(old) != 0 {
			h.t.Errorf("%d msat are owed under a contract that was renewed", owed(old))
		}
	}
}

// What a record reserved under a contract that was renewed meanwhile comes back to the renewal when the record ends: at the next
// payment, at a closing, or an hour later. What is reserved when a contract ends is bought, and who deletes first does not buy it.
func TestReservationsComeBackToTheRenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	o := h.outbox()
	u := h.user()
	old := u.active(100_000, 1500)
	written, reserved := o.write(u, "one")
	for _, id := range []protocol.RecordID{"two", "three", "four"} {
		o.write(u, id)
	}
	near := func(d *deal, want btcutil.Amount) {
		t.Helper()
		if s := d.status(); s.Owed < want-4 || s.Owed > want { // four records are rounded once
			t.Fatalf("owed are %d, not %d", s.Owed, want)
		}
	}
	all := 5_000 + 4*(written+reserved)
	near(old, all)
	o.remove(u, "one")
	near(old, all-reserved)
	d := old.signedRenewal(80_000, 2000)
	h.mine(1)
	d.reaches(escrow.Active)
	near(d, all-reserved)
	d.balanced(old)

	o.remove(u, "two")
	for range 2 { // once, however often it is looked at
		if _, err := d.pay(5_001, nil); err != nil {
			t.Fatal(err)
		}
		near(d, all-2*reserved)
		d.balanced(old)
	}
	o.remove(u, "three")
	h.mine(6)
	h.eventually("a look", func() bool { return d.status().Owed < all-2*reserved-4 })
	near(d, all-3*reserved)

	again := d.signedRenewal(70_000, 2000) // carries what the first left, and it comes back there
	h.mine(1)
	again.reaches(escrow.Active)
	o.write(u, "five")
	all += written + reserved
	near(again, all-3*reserved-1) // of which 1 was paid
	o.remove(u, "four")
	h.mine(6)
	owed := all - 4*reserved - 1
	_, err := again.refund(owed-10, 500)
	wantCode(t, err, protocol.CodeWrongAmount)
	owed = again.status().Owed
	near(again, all-4*reserved-1)
	again.balanced(d, old)
	if _, err := again.refund(owed, 500); err != nil {
		t.Fatal(err)
	}
	o.remove(u, "five") // too late
	h.mine(6)
	again.reaches(escrow.Closed)
	if got := paid(h.spender(again.out), again.terms.RelayScript); got != owed {
		t.Errorf("the relay got %d of %d", got, owed)
	}
	next := u.active(100_000, 1500)
	if s := next.status(); s.Owed != 5_000 {
		t.Errorf("the next contract begins with %d", s.Owed)
	}
	if n := h.count(`SELECT count(*) FROM contracts WHERE counted IS NOT NULL`); n != 0 {
		t.Errorf("%d contracts that are over are carried", n)
	}
}

// Lines of a contract that was renewed meanwhile are refused: what they came to is taken off what the renewal carries, once,
// beside what comes back of other records.
func TestRefusedLinesAreTakenOffOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	o := h.outbox()
	u := h.user()
	old := u.active(100_000, 1500)
	if _, err := old.pay(12_000, nil); err != nil { // something that may be written off
		t.Fatal(err)
	}
	written, reserved := o.write(u, "one")
	o.write(u, "two")
	o.write(u, "three")
	report, err := h.books.Report(t.Context(), u.key.Public(), old.id, 0, func(to protocol.PublicKey, r *protocol.UsageReport) (*protocol.Envelope, error) {
		return protocol.Sign(h.key, to, h.now(), r)
	})
	if err != nil || report.Last != 3 {
		t.Fatalf("%+v, %v", report, err)
	}
	envelope, err := protocol.ParseEnvelope(report.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	d := old.signedRenewal(80_000, 2000)
	h.mine(6)
	d.reaches(escrow.Active)
	if _, err := d.pay(12_000, nil); err != nil {
		t.Fatal(err)
	}
	carried := func() btcutil.Amount {
		id := d.id
		return btcutil.Amount(h.count(`SELECT carried FROM contracts WHERE id = $1`, id[:])) / 1000
	}
	near := func(want btcutil.Amount) {
		t.Helper()
		if got := carried(); got < want-4 || got > want+1 {
			t.Fatalf("%d are carried, not %d", got, want)
		}
		d.balanced(old)
	}
	all := 3*(written+reserved) - 7_000 // paid ahead
	near(all)
	refusal := &protocol.UsageRefusal{Contract: old.id, Report: envelope.Hash(), Lines: []protocol.RefusedLines{{First: 1, Last: 1, Reason: "not_mine"}}}
	for range 2 {
		answer, err := h.manager.Refuse(t.Context(), u.key.Public(), refusal)
		if err != nil || answer.Outcome != protocol.RefusalDropped {
			t.Fatalf("%+v, %v", answer, err)
		}
		near(all - written - reserved)
	}
	o.remove(u, "two")
	if _, err := d.pay(12_001, nil); err != nil {
		t.Fatal(err)
	}
	near(all - written - 2*reserved)
	o.remove(u, "one") // it is on no bill any more
	if _, err := d.pay(12_002, nil); err != nil {
		t.Fatal(err)
	}
	near(all - written - 2*reserved)
}

// A contract whose renewal was undone counts from 0 again: lines of before it are taken off what it carries, those of after off what
// it counts.
func TestRefusedAfterAnUndoneRenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	o := h.outbox()
	u := h.user()
	old := u.active(100_000, 1500)
	if _, err := old.pay(12_000, nil); err != nil { // something that may be written off
		t.Fatal(err)
	}
	written, reserved := o.write(u, "one")
	o.write(u, "two")
	hash, lines := old.report()
	if lines.Last != 2 {
		t.Fatalf("%+v", lines)
	}
	coin, _ := u.coin(120_000)
	d := old.signedRenewal(150_000, 2000, coin)
	h.mine(1)
	d.reaches(escrow.Active)
	h.node.Reorg(1, u.elsewhere(coin, 5_000))
	h.synced()
	d.reaches(escrow.Abandoned)
	ahead := 7_000 // paid, in satoshi
	near := func(records btcutil.Amount) {
		t.Helper()
		use, err := h.books.Owed(t.Context(), h.db.Pool(), u.key.Public(), old.id)
		if err != nil {
			t.Fatal(err)
		}
		id := old.id
		used := int(use.Cost) + h.count(`SELECT carried FROM contracts WHERE id = $1`, id[:])
		if got, want := btcutil.Amount(used/1000), records*(written+reserved); got < want-4 || got > want+1 {
			t.Fatalf("used are %d, not %d", got, want)
		}
		if owed := h.count(`SELECT sum(e.owed)::bigint FROM ledger_entries e JOIN bills b ON b.id = e.bill WHERE b.contract = $1`, id[:]); owed != used-1000*ahead {
			t.Fatalf("the journal says that %d msat are owed, the contract %d", owed, used-1000*ahead)
		}
	}
	old.reaches(escrow.Active)
	near(2)
	for range 2 {
		answer, err := old.refuseThese(hash, protocol.RefusedLines{First: 1, Last: 1, Reason: "not_mine"})
		if err != nil || answer.Outcome != protocol.RefusalDropped {
			t.Fatalf("%+v, %v", answer, err)
		}
		near(1)
	}
	o.write(u, "three")
	near(2)
	if answer, err := old.refuseThese(hash, lines); err != nil || answer.Outcome != protocol.RefusalDropped { // the second, too
		t.Fatalf("%+v, %v", answer, err)
	}
	near(1)
	if _, err := old.pay(12_001, nil); err != nil {
		t.Fatal(err)
	}
	ahead++
	near(1)
	if _, err := old.refund(12_001, 500); err != nil {
		t.Fatal(err)
	}
	h.mine(6)
	old.reaches(escrow.Closed)
}
