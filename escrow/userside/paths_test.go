package userside_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// fees are what the user paid for the transactions of a contract that are in a block.
func fees(r *userside.Record) (sum btcutil.Amount) {
	for _, t := range r.Transactions {
		if t.Height != nil {
			sum += t.Fee
		}
	}
	return sum
}

// adds checks to the satoshi what a contract cost that is over.
func (u *user) adds(id protocol.ContractID, before, paid btcutil.Amount) {
	u.t.Helper()
	r := u.record(id)
	if spent := before - u.balance(); spent != paid+fees(r) {
		u.t.Errorf("%d sat were spent, %d paid to the relay and %d for fees\n%s", spent, paid, fees(r), u.journal(id))
	}
}

func TestOpenPayClose(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	if _, err := u.Pay(t.Context(), id, openingPrice+500); err != nil {
		t.Fatal(err)
	}
	_, err := u.Pay(t.Context(), id, openingPrice+creditLimit+1)
	want(t, err, userside.ErrCushion)
	if _, err := u.Accept(t.Context(), id, 200_500); err != nil { // 200.5 sat, which count as 201
		t.Fatal(err)
	}
	paid := openingPrice + creditLimit + 201
	_, err = u.Pay(t.Context(), id, paid+1)
	want(t, err, userside.ErrCushion)
	if _, err := u.Pay(t.Context(), id, paid); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Close(t.Context(), id, paid-1, 1000); err == nil {
		t.Error("a closing below what is paid was signed")
	}
	if _, err := u.Close(t.Context(), id, paid, 1000); err != nil {
		t.Fatal(err)
	}
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Settling)
	u.adds(id, before, paid)
	u.node.Mine(5)
	u.steps()
	u.is(id, escrow.Closed)
	u.node.Mine(94)
	u.steps()
	u.is(id, escrow.Archived)
	u.free()
}

func TestPaymentRequest(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	u.relay.request(id, openingPrice+700)
	u.steps() // the relay was asked a moment ago: it is not asked again
	u.is(id, escrow.Active)
	if _, err := u.Refresh(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	u.is(id, escrow.PaymentRequested)
	if _, err := u.Pay(t.Context(), id, openingPrice+701); err == nil {
		t.Error("a state was signed while a closing signature of the relay is out")
	}
	if _, err := u.Close(t.Context(), id, openingPrice+700, 0); err != nil {
		t.Fatal(err)
	}
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Settling)
	u.adds(id, before, openingPrice+700) // the fee is the relay's
}

// A relay settles with what it holds: what is left comes to the wallet by itself.
func TestSettledAndSwept(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	if _, err := u.Pay(t.Context(), id, openingPrice+600); err != nil {
		t.Fatal(err)
	}
	u.relay.settle(id)
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Settling)
	u.node.Mine(1)
	u.steps()
	r := u.record(id)
	if r.Confirmed(protocol.TxSweep) == nil {
		t.Fatalf("nothing was swept\n%s", u.journal(id))
	}
	u.adds(id, before, openingPrice+600)
	if !strings.Contains(u.journal(id), "took 1600 sat, 98400 sat are left") {
		t.Errorf("the journal says\n%s", u.journal(id))
	}
}

// The relay is gone. At T the user is refunded alone, with a bid that rises while no block takes it.
func TestRefund(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	u.relay.refuse = func(string) error { return errors.New("gone") }
	if _, err := u.Close(t.Context(), id, openingPrice, 0); err == nil {
		t.Fatal("a relay that is gone closed a contract")
	}
	c, _, _ := u.record(id).Terms()
	_, err := u.Refund(t.Context(), id, 0)
	want(t, err, userside.ErrTooEarly)
	u.mineTo(c.Expiry - 1)
	u.steps()
	if len(u.record(id).Transactions) != 2 {
		t.Fatalf("something was sent before T\n%s", u.journal(id))
	}
	u.node.Mine(1)
	u.steps()
	first := u.record(id).Transactions[2]
	if first.Kind != protocol.TxRefund {
		t.Fatalf("%+v", first)
	}
	for range 6 {
		u.node.MineWith() // blocks that take nothing
	}
	u.steps()
	r := u.record(id)
	if len(r.Transactions) != 4 || r.Transactions[3].Fee <= first.Fee && r.Transactions[2].Fee <= first.Fee {
		t.Fatalf("no higher bid\n%s", u.journal(id))
	}
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Settling)
	u.adds(id, before, 0)
	if again, err := u.Refund(t.Context(), id, 0); err == nil {
		t.Errorf("refunded twice: %+v", again)
	}
}

func TestRenew(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	old := u.opens()
	if _, err := u.Pay(t.Context(), old, openingPrice+400); err != nil {
		t.Fatal(err)
	}
	larger := func(w *userside.Wish) { w.Renews, w.Deposit, w.Lifetime = &old, deposit+50_000, escrow.MinLifetime+100 }
	u.node.Mine(4)
	// Whatever the relay says to it, a funding that may still be undone is not renewed.
	_, err := u.Draft(t.Context(), userside.Wish{Announcement: u.relay.announcement(nil), Address: "http://127.0.0.1:1", Deposit: deposit, Feerate: 2000, Renews: &old}, u.wallet)
	if want(t, err, protocol.CodeContractState); !strings.Contains(err.Error(), "renew it in 1 blocks") {
		t.Errorf("renewed at five confirmations: %v", err)
	}
	u.free()
	u.node.Mine(1)
	lost, err := u.Open(t.Context(), u.draft(larger))
	if err != nil {
		t.Fatal(err)
	}
	for u.record(lost.ID).Step != userside.StepKept {
		if _, err := u.Advance(t.Context(), lost.ID, u.wallet); err != nil {
			t.Fatal(err)
		}
	}
	u.node.Invalidate(1)
	_, err = u.Advance(t.Context(), lost.ID, u.wallet)
	want(t, err, protocol.CodeContractState)
	if r := u.record(lost.ID); r.Step != userside.StepOver || len(r.Payments) > 0 {
		t.Errorf("signed with five confirmations left: %s", r.Step)
	}
	u.free()
	u.node.Mine(2)
	u.steps()
	u.is(old, escrow.Active)
	r, err := u.Open(t.Context(), u.draft(larger))
	if err != nil {
		t.Fatal(err)
	}
	next := r.ID
	if _, err := u.advances(next); err != nil {
		t.Fatal(err)
	}
	u.is(old, escrow.Renewing)
	// While it is renewed, a payment is signed for both.
	if _, err := u.Pay(t.Context(), old, openingPrice+600); err != nil {
		t.Fatal(err)
	}
	if last, _ := u.record(next).Last(); last.Amount != openingPrice+200 || !last.Taken {
		t.Errorf("the successor's state is %+v", last)
	}
	u.node.Mine(1)
	u.steps()
	u.is(next, escrow.Active)
	r = u.is(old, escrow.Settling)
	if r.Confirmed(protocol.TxRenewal) == nil || r.Confirmed(protocol.TxRenewal).TxID != u.record(next).Confirmed(protocol.TxFunding).TxID {
		t.Errorf("the old contract ended by %+v", r.Transactions)
	}
	if _, err := u.Close(t.Context(), next, openingPrice+200, 1000); err != nil {
		t.Fatal(err)
	}
	u.node.Mine(6)
	u.steps()
	u.is(old, escrow.Closed)
	u.is(next, escrow.Closed)
	// The renewal's fee is counted in the new contract.
	paid, spent := openingPrice+400+openingPrice+200, before-u.balance()
	oldFee := u.record(old).Confirmed(protocol.TxFunding).Fee
	if spent != paid+oldFee+fees(u.record(next)) {
		t.Errorf("%d sat were spent, %d paid; fees %d and %d", spent, paid, oldFee, fees(u.record(next)))
	}
}

// A relay that has the signatures and says nothing: its contract is made impossible, and the coins are the user's.
func TestCancel(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.starts()
	u.relay.late = func(what string) error {
		if what == "signed" {
			return errors.New("silence")
		}
		return nil
	}
	if _, err := u.advances(id); err == nil {
		t.Fatal("silence was taken for an answer")
	}
	if r := u.record(id); r.Step != userside.StepSigned || r.State != escrow.FundingSent {
		t.Fatalf("%s %s", r.Step, r.State)
	}
	// The funding is in the mempool: the cancelling transaction has to replace it.
	if _, err := u.Cancel(t.Context(), id, u.wallet, 0); err != nil {
		t.Fatal(err)
	}
	u.relay.late = nil
	if r, err := u.Advance(t.Context(), id, u.wallet); err != nil || r.Opening() || r.Step != userside.StepSigned {
		t.Errorf("what was given up goes on: %s, %v", r.Step, err)
	}
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Abandoned)
	u.adds(id, before, 0)
	u.node.Mine(99)
	u.steps()
	u.is(id, escrow.Archived)
}

func TestCancelBeforeAnythingWasSigned(t *testing.T) {
	u := somebody(t)
	id := u.starts()
	if _, err := u.Advance(t.Context(), id, u.wallet); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Cancel(t.Context(), id, u.wallet, 0); err != nil {
		t.Fatal(err)
	}
	r := u.is(id, escrow.Abandoned)
	if r.Step != userside.StepOver {
		t.Errorf("step %s", r.Step)
	}
	u.free()
	if again, err := u.Advance(t.Context(), id, u.wallet); err != nil || again.Step != userside.StepOver {
		t.Errorf("it goes on: %v, %v", again, err)
	}
}
