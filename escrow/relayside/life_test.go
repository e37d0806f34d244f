package relayside_test

import (
	"testing"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// A contract from its opening over payments to a cooperative refund, every transaction mined under the policy of nodes.
func TestOpenPayRefund(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	d := u.opened(100_000, 1500)
	s := d.status()
	if s.State != escrow.FundingSent || s.Seq != 0 || s.Amount != 5_000 || s.Funding == nil || s.Funding.Confirmations != 0 {
		t.Fatalf("after signing the status is %+v", s)
	}
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue) // no credit yet
	h.mine(1)
	if s = d.reaches(escrow.Active); s.Funding.Confirmations != 1 {
		t.Fatalf("after a block: %+v", s.Funding)
	}
	if err := h.use(u.key.Public(), 833_000); err != nil { // a sixth of the limit
		t.Fatal(err)
	}
	wantCode(t, h.use(u.key.Public(), 1_000), protocol.CodePaymentDue)
	h.mine(5)
	if err := h.use(u.key.Public(), 4_167_000); err != nil { // the whole limit, 5,000 sat
		t.Fatal(err)
	}
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
	if s = d.status(); s.Owed != 10_000 || s.Due == nil || s.Due.Amount != 10_000 {
		t.Fatalf("with the limit used the status is %+v", s)
	}
	if s, err := d.pay(10_000, nil); err != nil || s.Seq != 1 || s.Amount != 10_000 || s.Due != nil {
		t.Fatalf("paid: %+v, %v", s, err)
	}
	if err := h.use(u.key.Public(), 1_000_500); err != nil {
		t.Fatal(err)
	}
	_, err := d.refund(11_000, 400) // owed are 11,000.5
	wantCode(t, err, protocol.CodeWrongAmount)
	if err := h.use(u.key.Public(), 1); err != nil { // a refused refund changes nothing
		t.Fatal(err)
	}
	if s, err = d.refund(11_001, 400); err != nil || s.State != escrow.RefundRequested {
		t.Fatalf("refund: %+v, %v", s, err)
	}
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodeContractEnded)
	h.mine(1)
	d.reaches(escrow.Settling)
	closing := h.spender(d.out)
	if got := paid(closing, d.terms.RelayScript); got != 11_001 {
		t.Errorf("the relay got %d", got)
	}
	if got := paid(closing, d.terms.UserScript); got != 100_000-11_001-400 {
		t.Errorf("the user got %d", got)
	}
	h.mine(5)
	d.reaches(escrow.Closed)
	h.mine(94)
	d.reaches(escrow.Archived)
}
