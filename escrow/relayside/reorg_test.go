package relayside_test

import (
	"fmt"
	"testing"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// The block of the funding leaves the chain. Without a double spend the funding comes again; with one the contract is
// given up, and its account with it. Whatever was used meanwhile, the relay's loss is the credit limit at most.
func TestFundingIsReorganized(t *testing.T) {
	t.Parallel()
	for _, depth := range []int{1, 3, 6} {
		for _, doubleSpent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d blocks, double spent %v", depth, doubleSpent), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, standardOffer)
				u := h.user()
				coin, _ := u.coin(150_000)
				d := u.plan(100_000, 1500, coin)
				d.offer(nil)
				if err := d.open(nil); err != nil {
					t.Fatal(err)
				}
				d.witness(nil)
				if _, err := d.send(); err != nil {
					t.Fatal(err)
				}
				h.inMempool(d.out.Hash)
				h.mine(depth)
				if s := d.reaches(escrow.Active); s.Funding.Confirmations != int64(depth) {
					t.Fatalf("after %d blocks: %+v", depth, s.Funding)
				}
				if _, err := d.pay(9_000, nil); err != nil {
					t.Fatal(err)
				}
				most := int64(9_000_000) // limit and payments
				if depth < 6 {
					most = 5_000_000 // payments do not raise it yet
				}
				used := int64(0)
				for h.use(u.key.Public(), 500_000) == nil {
					used += 500_000
				}
				if used > most {
					t.Fatalf("%d msat were used, of %d", used, most)
				}
				if doubleSpent {
					h.node.Reorg(depth, u.elsewhere(coin, 5_000))
					h.synced()
					s := d.reaches(escrow.Abandoned)
					if last := s.Transactions[len(s.Transactions)-1]; last.Kind != protocol.TxCancel {
						t.Errorf("the status ends with %+v", last)
					}
					wantCode(t, h.use(u.key.Public(), 1), protocol.CodeNoAccount)
					_, err := d.pay(12_000, nil)
					wantCode(t, err, protocol.CodeContractState)
					h.mine(100)
					d.reaches(escrow.Archived)
					return
				}
				h.node.Reorg(depth) // an empty branch
				h.synced()
				if s := d.reaches(escrow.FundingSent); s.Funding.Confirmations != 0 {
					t.Fatalf("reorganized: %+v", s.Funding)
				}
				wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
				h.inMempool(d.out.Hash)
				h.mine(6)
				if s := d.reaches(escrow.Active); s.Funding.Confirmations != 6 || s.Amount != 9_000 {
					t.Fatalf("again in a block: %+v", s)
				}
				if used < 9_000_000 {
					if err := h.use(u.key.Public(), 9_000_000-used); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// The user ends a funding by spending its input. When that is undone and the funding comes after all, it is settled at once.
func TestLateFundingIsSettled(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
	h.node.MineWith(u.elsewhere(coin, 5_000))
	h.synced()
	d.reaches(escrow.Abandoned)
	whole := h.latest(d.id, protocol.TxFunding)
	h.node.Reorg(1, whole)
	h.synced()
	d.reaches(escrow.Settling)
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.mine(1)
	spend, _ := escrow.Identify(&d.terms, d.out, h.spender(d.out))
	if spend.Amount != 5_000 {
		t.Fatalf("it was settled as %+v", spend)
	}
	h.mine(5)
	d.reaches(escrow.Closed)
	h.node.Reorg(6)
	h.synced()
	d.reaches(escrow.Settling) // its block is gone, and the settlement is sent again
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.mine(6)
	d.reaches(escrow.Closed)
}
