package userside_test

import (
	"strings"
	"testing"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

func TestOpenPayClose(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	r := u.record(id)
	if _, err := u.Pay(t.Context(), id, openingPrice+500); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Pay(t.Context(), id, openingPrice+100_000); err == nil {
		t.Error("a payment above the cushion was signed")
	}
	r, err := u.Close(t.Context(), id, openingPrice+500, 1000)
	if err != nil {
		t.Fatal(err)
	}
	u.node.Mine(1)
	u.steps()
	r = u.is(id, escrow.Settling)
	funding, closing := r.Confirmed(protocol.TxFunding), r.Confirmed(protocol.TxClosing)
	if funding == nil || closing == nil {
		t.Fatalf("%+v", r.Transactions)
	}
	fundingFee := before - u.balance() - openingPrice - 500 - closing.Fee
	if fundingFee < 200 || fundingFee > 700 {
		t.Errorf("the funding cost %d sat", fundingFee)
	}
	u.node.Mine(5)
	u.steps()
	u.is(id, escrow.Closed)
	u.node.Mine(94)
	u.steps()
	u.is(id, escrow.Archived)
	u.free()
	if text := u.journal(id); strings.Count(text, "\n") < 6 {
		t.Errorf("the journal says\n%s", text)
	}
}
