package relayside_test

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// renew plans a contract that spends old's escrow, with these coins beside it.
func (old *deal) renew(deposit btcutil.Amount, lifetime int, coins ...escrow.Coin) (*deal, *escrow.Renewal) {
	old.u.h.t.Helper()
	d := old.u.plan(deposit, lifetime, coins...)
	d.asked.Renews = &old.id
	r := &escrow.Renewal{Contract: &old.terms, Funding: old.out, Amount: old.amount}
	d.offer(r)
	return d, r
}

// pending is the state of the escrow in the making that goes with a payment to the old one.
func (d *deal) pending(amount btcutil.Amount) *protocol.PendingState {
	d.u.h.t.Helper()
	d.seq++
	d.amount = amount
	return &protocol.PendingState{Contract: d.id, Seq: d.seq, Amount: amount, Signature: d.state(amount)}
}

// signedRenewal is a renewal whose funding was sent.
func (old *deal) signedRenewal(deposit btcutil.Amount, lifetime int, coins ...escrow.Coin) *deal {
	h := old.u.h
	h.t.Helper()
	d, r := old.renew(deposit, lifetime, coins...)
	if err := d.open(r); err != nil {
		h.t.Fatal(err)
	}
	d.witness(old.key)
	if s, err := d.send(); err != nil || s.Renews == nil || *s.Renews != old.id {
		h.t.Fatalf("renewal: %+v, %v", s, err)
	}
	h.inMempool(d.out.Hash)
	return d
}

// A contract is renewed out of its own escrow, without another coin. Writes go on all the time; what was used and not paid
// goes over to the successor, and is paid once.
func TestRenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(50_000)
	u := h.user()
	old := u.active(200_000, 1500)
	use := func(msat int64) {
		t.Helper()
		if err := h.use(u.key.Public(), msat); err != nil {
			t.Fatal(err)
		}
	}
	use(4_000_000)
	if _, err := old.pay(9_000, nil); err != nil {
		t.Fatal(err)
	}
	use(3_000_000)
	d := old.signedRenewal(100_000, 2000)
	if tx, _ := d.funding.Tx(); len(tx.TxIn) != 1 {
		t.Fatalf("the renewal has %d inputs", len(tx.TxIn))
	}
	if s := old.status(); s.State != escrow.Renewing || s.RenewedBy == nil || *s.RenewedBy != d.id {
		t.Fatalf("the renewed contract is %+v", s)
	}
	use(1_000_000)
	_, err := old.pay(13_000, nil)
	wantCode(t, err, protocol.CodeContractState) // the pending state is missing
	if s, err := old.pay(11_000, d.pending(7_000)); err != nil || s.Amount != 11_000 {
		t.Fatalf("%+v, %v", s, err)
	}
	use(2_000_000) // 10,000 sat were used, 6,000 paid
	h.mine(1)
	if s := d.reaches(escrow.Active); s.Owed != 5_000+6_000 || s.Amount != 7_000 { // 4,000 were paid by the renewal itself
		t.Fatalf("the successor is %+v", s)
	}
	old.reaches(escrow.Settling)
	use(500_000)
	wantCode(t, h.use(u.key.Public(), 600_000), protocol.CodePaymentDue) // 6,500 + 600 of 5,000 + 2,000
	if s, err := d.pay(15_000, nil); err != nil || s.Owed != 15_000 {
		t.Fatalf("%+v, %v", s, err)
	}
	h.mine(5)
	old.reaches(escrow.Closed)
	use(8_000_000) // with six confirmations what was paid counts in full
	renewal := h.spender(old.out)
	if renewal.TxHash() != d.out.Hash {
		t.Fatal("the escrow was not spent by its renewal")
	}
	if got := paid(renewal, d.terms.RelayScript); got != 9_000+20_000-10_000 { // A, and the bonds' difference
		t.Errorf("the relay got %d from the renewal", got)
	}
	_, err = d.refund(19_499, 500) // 14,500 were used beyond the 4,000
	wantCode(t, err, protocol.CodeWrongAmount)
	if _, err := d.refund(19_500, 500); err != nil {
		t.Fatal(err)
	}
	d.reaches(escrow.RefundRequested)
	h.mine(6)
	d.reaches(escrow.Closed)
	r, err := h.manager.Revenue(t.Context())
	if err != nil || r.Settled != 9_000+19_500 {
		t.Fatalf("revenue %+v, %v", r, err)
	}
}

// The renewal's block leaves the chain, and comes again; or the user spends the coin that he added to it, and the old contract goes
// on with all that is owed.
func TestRenewalIsReorganized(t *testing.T) {
	t.Parallel()
	for name, doubleSpent := range map[string]bool{"comes again": false, "double spent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, standardOffer)
			u := h.user()
			old := u.active(100_000, 1500)
			if err := h.use(u.key.Public(), 2_000_000); err != nil {
				t.Fatal(err)
			}
			if _, err := old.pay(6_000, nil); err != nil {
				t.Fatal(err)
			}
			coin, _ := u.coin(120_000)
			d := old.signedRenewal(150_000, 2000, coin)
			if _, err := old.pay(7_000, d.pending(6_000)); err != nil {
				t.Fatal(err)
			}
			h.mine(1)
			d.reaches(escrow.Active)
			old.reaches(escrow.Settling)
			if err := h.use(u.key.Public(), 1_000_000); err != nil {
				t.Fatal(err)
			}
			if !doubleSpent {
				h.node.Reorg(1)
				h.synced()
				old.reaches(escrow.Renewing)
				d.reaches(escrow.FundingSent)
				if err := h.use(u.key.Public(), 1_000_000); err != nil { // the old escrow stands for it
					t.Fatal(err)
				}
				h.inMempool(d.out.Hash)
				h.mine(6)
				old.reaches(escrow.Closed)
				if s := d.reaches(escrow.Active); s.Owed != 8_000 { // of 4,000 used the renewal paid 1,000
					t.Fatalf("owed are %d", s.Owed)
				}
				return
			}
			h.node.Reorg(1, u.elsewhere(coin, 5_000))
			h.synced()
			d.reaches(escrow.Abandoned)
			if s := old.reaches(escrow.Active); s.Owed != 8_000 || s.Amount != 7_000 || s.RenewedBy != nil {
				t.Fatalf("the old contract is %+v", s)
			}
			if err := h.use(u.key.Public(), 4_000_000); err != nil {
				t.Fatal(err)
			}
			wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
			if s, err := old.pay(12_000, nil); err != nil || s.Owed != 12_000 {
				t.Fatalf("%+v, %v", s, err)
			}
			if _, err := old.refund(12_000, 400); err != nil {
				t.Fatal(err)
			}
			h.mine(6)
			old.reaches(escrow.Closed)
		})
	}
}

// A payment between the offer of a renewal and its signature makes the offer void: it would take too little.
func TestRenewalAfterPayment(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	old := u.active(100_000, 1500)
	d, r := old.renew(80_000, 2000)
	if err := d.open(r); err != nil {
		t.Fatal(err)
	}
	d.witness(old.key)
	if _, err := old.pay(8_000, nil); err != nil {
		t.Fatal(err)
	}
	_, err := d.send()
	wantCode(t, err, protocol.CodeFundingEnded)
	if s := old.status(); s.State != escrow.Active || s.RenewedBy != nil {
		t.Fatalf("the old contract is %+v", s)
	}
	old.signedRenewal(80_000, 2000)
}

// While a contract is renewed, a payment must be worth as much in the pending escrow as in the old one: else the user would
// be served on a state that the renewal makes void.
func TestPendingPaysAsMuch(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	old := u.active(100_000, 1500)
	if _, err := old.pay(9_000, nil); err != nil {
		t.Fatal(err)
	}
	d := old.signedRenewal(80_000, 2000)
	for _, amount := range []btcutil.Amount{5_000, 5_001, 15_999} { // the renewal pays 9,000 out: 20,000 is 11,000 more
		_, err := old.pay(20_000, &protocol.PendingState{Contract: d.id, Seq: 1, Amount: amount, Signature: d.state(amount)})
		wantCode(t, err, protocol.CodeWrongAmount)
	}
	if _, err := d.pay(5_100, nil); err != nil {
		t.Fatal(err)
	}
	_, err := old.pay(20_000, &protocol.PendingState{Contract: d.id, Seq: 1, Amount: 5_100, Signature: d.state(5_100)}) // which is held already
	wantCode(t, err, protocol.CodeWrongAmount)
	if s := old.status(); s.Amount != 9_000 {
		t.Fatalf("a refused payment is held: %+v", s)
	}
	if err := h.use(u.key.Public(), 9_000_000); err != nil { // Δ and what was paid
		t.Fatal(err)
	}
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
	if s, err := old.pay(20_000, d.pending(16_000)); err != nil || s.Amount != 20_000 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := h.use(u.key.Public(), 11_000_000); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
}

// A contract whose funding can still be undone is not renewed: the renewal's credit would be undone with it.
func TestRenewalNeedsSixConfirmations(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	old := u.opened(100_000, 1500)
	h.mine(1)
	old.reaches(escrow.Active)
	d, r := old.renew(80_000, 2000)
	wantCode(t, d.open(r), protocol.CodeContractState)
	h.mine(4)
	wantCode(t, d.open(r), protocol.CodeContractState)
	h.mine(1)
	if err := d.open(r); err != nil {
		t.Fatal(err)
	}
	d.witness(old.key)
	h.node.Reorg(6) // after the offer
	h.synced()
	h.inMempool(old.out.Hash)
	h.mine(2)
	old.reaches(escrow.Active)
	_, err := d.send()
	wantCode(t, err, protocol.CodeContractState)
	h.mine(4)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
}

// A renewal into a larger contract: the user adds a coin, and so does the relay, for its larger bond.
func TestRenewalWithCoins(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(20_000)
	h.fundWallet(60_000)
	u := h.user()
	old := u.active(50_000, 1500)
	if _, err := old.pay(6_000, nil); err != nil {
		t.Fatal(err)
	}
	coin, _ := u.coin(400_000)
	d := u.plan(300_000, 2000, coin)
	d.asked.Renews = &old.id
	r := &escrow.Renewal{Contract: &old.terms, Funding: old.out, Amount: old.amount}
	// The relay brings a coin, so its output is part of its own share.
	draft := d.contract(30_000, old.terms.RelayKey, old.terms.RelayScript)
	f := &escrow.Funding{Contract: &draft, Feerate: escrow.Feerate(d.asked.Feerate), User: d.part, Renewal: r}
	f.Relay.Change = wire.NewTxOut(0, old.terms.RelayScript)
	if err := f.SetChange(escrow.User, p2wpkh(u.coins)); err != nil {
		t.Fatal(err)
	}
	d.part = f.User
	var err error
	if d.asked.PSBT, err = escrow.OfferPSBT(d.part); err != nil {
		t.Fatal(err)
	}
	if err := d.open(r); err != nil {
		t.Fatal(err)
	}
	d.witness(old.key)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
	if tx, _ := d.funding.Tx(); len(tx.TxIn) != 3 || len(d.funding.Relay.Coins) != 1 {
		t.Fatalf("the renewal has %d inputs", len(tx.TxIn))
	}
	h.mine(6)
	old.reaches(escrow.Closed)
	if s := d.reaches(escrow.Active); s.Bond != 30_000 {
		t.Fatalf("%+v", s)
	}
}
