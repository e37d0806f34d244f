package relayside_test

import (
	"fmt"
	"testing"
	"time"

	"relaymarket/escrow"
	"relaymarket/ledger/books"
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

// A reorganization undoes a renewal together with the funding of the contract that it renews. Until that one stands again the
// renewal gives no credit; when its coin is spent elsewhere both contracts end, and the account with them; and should both
// fundings come after all, both escrows are settled or spent.
func TestRenewalIsUndoneWithOldFunding(t *testing.T) {
	t.Parallel()
	for name, confirmed := range map[string]bool{"in a block": true, "pending": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, standardOffer)
			u := h.user()
			coin, _ := u.coin(150_000)
			old := u.plan(100_000, 1500, coin)
			old.offer(nil)
			if err := old.open(nil); err != nil {
				t.Fatal(err)
			}
			old.witness(nil)
			if _, err := old.send(); err != nil {
				t.Fatal(err)
			}
			h.inMempool(old.out.Hash)
			h.mine(6)
			old.reaches(escrow.Active)
			d := old.signedRenewal(80_000, 2000)
			depth := 6
			if confirmed {
				h.mine(1)
				d.reaches(escrow.Active)
				depth++
			}
			if err := h.use(u.key.Public(), 1_000_000); err != nil {
				t.Fatal(err)
			}
			h.node.Reorg(depth) // an empty branch
			h.synced()
			wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
			d.reaches(escrow.FundingSent)
			h.node.Reorg(depth+1, u.elsewhere(coin, 5_000))
			h.synced()
			old.reaches(escrow.Abandoned)
			d.reaches(escrow.Abandoned)
			wantCode(t, h.use(u.key.Public(), 1), protocol.CodeNoAccount)
			h.node.Reorg(depth+2, h.latest(old.id, protocol.TxFunding), h.latest(d.id, protocol.TxFunding))
			h.synced()
			old.reaches(escrow.Closed) // the branch is that long
			d.reaches(escrow.Settling)
			h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
			h.mine(6)
			d.reaches(escrow.Closed)
			if r, err := h.manager.Revenue(t.Context()); err != nil || r.Live != 0 || r.Settled < 5_000+4_000 {
				t.Fatalf("revenue %+v, %v", r, err)
			}
			wantCode(t, h.use(u.key.Public(), 1), protocol.CodeNoAccount)
		})
	}
}

// A funding that left its block and does not come back gives no credit up to T − M, and from there on no account.
func TestFundingStaysAwayUntilItsEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	d := u.opened(100_000, 900)
	whole := h.latest(d.id, protocol.TxFunding)
	h.mine(6)
	d.reaches(escrow.Active)
	if err := h.use(u.key.Public(), 1_000_000); err != nil {
		t.Fatal(err)
	}
	h.node.Reorg(6)
	h.synced()
	d.reaches(escrow.FundingSent)
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodePaymentDue)
	for h.node.Height() < int(d.terms.LastUsage()) {
		h.node.MineWith() // full of others
	}
	h.synced()
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodeNoAccount)
	if s := d.reaches(escrow.FundingSent); s.Owed != 6_000 {
		t.Fatalf("owed are %d", s.Owed)
	}
	h.node.MineWith(whole)
	h.synced()
	d.reaches(escrow.Settling)
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
}

// Who has a grant and opens a contract that comes to nothing has his grant again; one that was revoked stays so, before the contract
// or under it.
func TestGrantComesBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	for _, revoked := range []bool{false, true} {
		u := h.user()
		grant := books.Grant{Key: u.key.Public(), QuotaStored: 1_000_000, QuotaMoved: 1_000_000, LastDay: books.DayOf(h.clock().Add(48 * time.Hour))}
		if err := h.books.Put(t.Context(), grant); err != nil {
			t.Fatal(err)
		}
		if revoked {
			if err := h.books.Revoke(t.Context(), u.key.Public()); err != nil {
				t.Fatal(err)
			}
		}
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
		if err := h.use(u.key.Public(), 1); (err == nil) == revoked {
			t.Errorf("grant revoked %v: %v", revoked, err)
		}
	}
}

// Who has a grant and signs a contract is served under the grant until the funding is in a block, and so is a writer whom another
// contract lists; from there on under the contract, with its small credit. If the user undoes that block and spends his coin
// elsewhere, the relay has lost the credit that it gave, and the grant is in force again.
func TestGrantServesUntilTheFundingIsInABlock(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	granted := h.user()
	payer := granted.key.Public()
	writer := identity(t)
	grant := books.Grant{Key: payer, QuotaStored: 50_000_000, QuotaMoved: 50_000_000, LastDay: books.DayOf(h.clock().Add(48 * time.Hour))}
	if err := h.books.Put(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	listed := func(d *deal) {
		t.Helper()
		consent, err := protocol.Sign(writer, h.key.Public(), h.now(), &protocol.ContractConsent{Contract: d.id, Payer: d.u.key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		d.asked.Writers = []protocol.ContractWriter{{Key: writer.Public(), Consent: consent.Bytes()}}
	}
	sign := func(u *user, coin escrow.Coin) *deal {
		t.Helper()
		d := u.plan(100_000, 1500, coin)
		listed(d)
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
	use := func(key protocol.PublicKey, msat int64) {
		t.Helper()
		if err := h.use(key, msat); err != nil {
			t.Fatal(err)
		}
	}
	other := h.user()
	first, _ := other.coin(150_000)
	before := sign(other, first)
	h.mine(6)
	before.reaches(escrow.Active)

	coin, _ := granted.coin(150_000)
	second, _ := granted.coin(150_000)
	beside := granted.plan(100_000, 1500, second) // offered before the other one was signed
	beside.offer(nil)
	if err := beside.open(nil); err != nil {
		t.Fatal(err)
	}
	beside.witness(nil)
	d := sign(granted, coin)
	_, err := beside.send()
	wantCode(t, err, protocol.CodeConflict)
	use(payer, 10_000_000) // bytes, which the grant has
	use(writer.Public(), 1_000_000)
	if s := before.status(); s.Owed != 6_000 {
		t.Fatalf("a writer was taken away by a contract without a funding: %+v", s)
	}
	if s := d.status(); s.Owed != 5_000 {
		t.Fatalf("what was used under the grant is owed: %+v", s)
	}

	h.mine(1)
	d.reaches(escrow.Active)
	if _, err := d.pay(20_000, nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.use(payer, 5_000_001), protocol.CodePaymentDue) // the limit, whatever was paid
	use(payer, 4_000_000)
	use(writer.Public(), 1_000_000)
	wantCode(t, h.use(payer, 1), protocol.CodePaymentDue) // the writer's is on this contract now
	if s := before.status(); s.Owed != 6_000 {
		t.Fatalf("the other contract owes %d", s.Owed)
	}
	h.node.Reorg(1)
	h.synced()
	d.reaches(escrow.FundingSent)
	wantCode(t, h.use(payer, 1), protocol.CodePaymentDue) // it comes back, or it ends
	h.node.Reorg(2, granted.elsewhere(coin, 5_000))
	h.synced()
	d.reaches(escrow.Abandoned)
	id := d.id
	if lost := h.count(`SELECT final_owed FROM contracts WHERE id = $1`, id[:]); lost != 5_000_000 {
		t.Fatalf("the relay lost %d msat of a limit of 5,000,000", lost)
	}
	use(payer, 10_000_000)
}
