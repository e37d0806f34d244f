package relayside_test

import (
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// A reorganization deeper than a hundred blocks is followed back like any other: a contract that lost its funding has it
// again or ends, at the cost of the credit limit, and is settled at its time. One that was archived is looked at no more, but what ended it is
// sent again, so that its escrow is spent again.
func TestReorganizationBeyondArchive(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	start := h.node.Height()
	u, v, w := h.user(), h.user(), h.user()
	coins := make([]escrow.Coin, 3)
	for i, someone := range []*user{u, v, w} {
		coins[i], _ = someone.coin(150_000)
	}
	contract := func(someone *user, coin escrow.Coin) *deal {
		d := someone.plan(100_000, 1000, coin)
		d.offer(nil)
		if err := d.open(nil); err != nil {
			t.Fatal(err)
		}
		d.witness(nil)
		if _, err := d.send(); err != nil {
			t.Fatal(err)
		}
		h.inMempool(d.out.Hash)
		return d
	}
	fork := h.node.Height()
	stays, cheats, over := contract(u, coins[0]), contract(v, coins[1]), contract(w, coins[2])
	h.mine(6)
	for _, d := range []*deal{stays, cheats, over} {
		d.reaches(escrow.Active)
	}
	if _, err := over.refund(5_000, 400); err != nil {
		t.Fatal(err)
	}
	h.mine(100)
	over.reaches(escrow.Archived)
	for _, d := range []*deal{stays, cheats} {
		if err := h.use(d.u.key.Public(), 4_000_000); err != nil {
			t.Fatal(err)
		}
		if _, err := d.pay(9_000, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.mine(20)

	// All that was since the coins is undone, and one of them is spent elsewhere.
	h.node.Reorg(h.node.Height()-fork, v.elsewhere(coins[1], 5_000))
	h.synced()
	wantCode(t, h.use(v.key.Public(), 1), protocol.CodeNoAccount)
	if s := cheats.reaches(escrow.Archived); s.Owed != 9_000 { // the branch is that long; 4,000 of a limit of 5,000 are lost
		t.Fatalf("owed are %+v", s)
	}
	stays.reaches(escrow.FundingSent)
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
	for _, d := range []*deal{stays, over} {
		h.inMempool(d.out.Hash)
	}
	h.inMempool(h.latest(over.id, protocol.TxClosing).TxHash())
	h.mine(6)
	if s := stays.reaches(escrow.Active); s.Amount != 9_000 || s.Owed != 9_000 {
		t.Fatalf("it is %+v", s)
	}
	if got := paid(h.spender(over.out), over.terms.RelayScript); got != 5_000 {
		t.Fatalf("of a contract that was archived the relay has %d", got)
	}
	h.mineTo(stays.terms.LastUsage())
	h.inMempool(h.latest(stays.id, protocol.TxSettlement).TxHash())
	h.mine(1)
	if spend, _ := escrow.Identify(&stays.terms, stays.out, h.spender(stays.out)); spend.Amount != 9_000 {
		t.Fatalf("it was settled as %+v", spend)
	}
	if n := h.count(`SELECT count(*) FROM contract_blocks`); n != h.node.Height()-start+7 { // with six below the first
		t.Errorf("%d of %d blocks are remembered", n, h.node.Height()-start+7)
	}
}

// A relay is younger than the reorganization, so that none of the blocks it knows is left: it reads the chain again from well
// below, finds the funding that is in an earlier block now, and goes on. It may end at any step of that.
func TestReorganizationBelowAllThatIsKnown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	begun := h.node.Height()
	coin, paying := u.coin(150_000)
	d := u.plan(100_000, 1000, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
	h.mine(6)
	d.reaches(escrow.Active)
	if err := h.use(u.key.Public(), 4_000_000); err != nil {
		t.Fatal(err)
	}
	if _, err := d.pay(9_000, nil); err != nil {
		t.Fatal(err)
	}
	// As if it had begun here.
	if _, err := h.db.Pool().Exec(t.Context(), `DELETE FROM contract_blocks WHERE height < $1`, begun); err != nil {
		t.Fatal(err)
	}
	whole := h.latest(d.id, protocol.TxFunding)
	h.faults.arm("rescanned", 0)
	depth := h.node.Height() - begun + 4
	h.node.Reorg(depth, paying, whole)
	h.synced()
	if h.faults.missed() {
		t.Fatal("the chain was not read again")
	}
	if s := d.reaches(escrow.Active); s.Funding.Confirmations != int64(depth)+1 || s.Amount != 9_000 || s.Owed != 9_000 {
		t.Fatalf("it is %+v", s)
	}
	if err := h.use(u.key.Public(), 5_000_000); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
	again := h.user().opened(100_000, 1500) // it deals again
	h.mine(1)
	again.reaches(escrow.Active)
	if err := h.manager.Settle(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.mine(1)
	if spend, _ := escrow.Identify(&d.terms, wire.OutPoint{Hash: whole.TxHash()}, h.spender(d.out)); spend.Amount != 9_000 {
		t.Fatalf("it was settled as %+v", spend)
	}
}
