package relayside_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// careful is a node that takes only what is on disk.
type careful struct {
	*chain.Client
	h *house
}

// Broadcast implements relayside.Node.
func (c *careful) Broadcast(ctx context.Context, tx *wire.MsgTx) error {
	id := tx.TxHash()
	var stored int
	err := c.h.db.Pool().QueryRow(ctx, `SELECT count(*) FROM contract_transactions t JOIN contracts c ON c.id = t.contract WHERE t.txid = $1 AND length(c.signature) > 8`, id[:]).Scan(&stored)
	if err == nil && stored != 1 { // an error: the process ends meanwhile
		c.h.t.Errorf("%v is sent, and not on disk", id)
	}
	return c.Client.Broadcast(ctx, tx)
}

// tale is a contract's life, told with faults.
type tale struct {
	h    *house
	name string
	end  func(*testing.T, *deal)
}

// tell goes through the life; whatever ends on the way is started again from what is on disk.
func (s tale) tell(t *testing.T) {
	h := s.h
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	h.retry(func() error { return d.open(nil) })
	d.witness(nil)
	h.retry(func() error { _, err := d.send(); return err })
	h.inMempool(d.out.Hash)
	h.mine(6)
	d.reaches(escrow.Active)
	if err := h.use(u.key.Public(), 3_000_000); err != nil {
		t.Fatal(err)
	}
	if _, err := d.pay(8_000, nil); err != nil {
		h.revive()
		h.retry(func() error { _, err := d.repay(); return err })
		d.seq, d.amount = 1, 8_000
	}
	if s := d.status(); s.Seq != 1 || s.Amount != 8_000 || s.Owed != 8_000 {
		t.Fatalf("paid: %+v", s)
	}
	s.end(t, d)
	h.mine(6)
	d.reaches(escrow.Closed)
	got := paid(h.spender(d.out), d.terms.RelayScript)
	if got > 18_000 || got < 17_000 { // A and the bond, less a fee
		t.Errorf("the relay got %d", got)
	}
	key := u.key.Public()
	if n := h.count(`SELECT count(*) FROM accounts WHERE key = $1 AND contract IS NOT NULL`, key[:]); n != 0 {
		t.Error("the account of a closed contract is in force")
	}
}

// A renewal, its payment for both escrows and its takeover, with an end at every durable step.
func TestCrashInRenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	h.crash()
	h.limits.Resend = time.Minute // what is sent is sent once, however slow the machine is: each time is a step to end at
	h.contractChain = &careful{Client: h.chain, h: h}
	h.start()
	tell := func(t *testing.T) {
		u := h.user()
		old := u.active(100_000, 1500)
		if err := h.use(u.key.Public(), 3_000_000); err != nil {
			t.Fatal(err)
		}
		d, r := old.renew(80_000, 2000)
		h.retry(func() error { return d.open(r) })
		d.witness(old.key)
		h.retry(func() error { _, err := d.send(); return err })
		h.inMempool(d.out.Hash)
		if _, err := old.pay(7_000, d.pending(7_000)); err != nil {
			h.revive()
			h.retry(func() error { _, err := old.repay(); return err })
		}
		h.mine(1)
		old.reaches(escrow.Settling)
		if s := d.reaches(escrow.Active); s.Owed != 8_000 || s.Amount != 7_000 || s.Seq != 1 {
			t.Fatalf("the successor is %+v", s)
		}
		if err := h.use(u.key.Public(), 1_000_000); err != nil {
			t.Fatal(err)
		}
		h.mine(5)
		old.reaches(escrow.Closed)
		request := d.refundRequest(9_000, 500)
		h.retry(func() error { _, err := h.manager.Refund(t.Context(), u.envelope(request), request); return err })
		h.inMempool(h.latest(d.id, protocol.TxClosing).TxHash())
		h.mine(6)
		d.reaches(escrow.Closed)
	}
	tell(t)
	h.faults.mu.Lock()
	passed := maps.Clone(h.faults.hits)
	h.faults.mu.Unlock()
	for _, step := range slices.Sorted(maps.Keys(passed)) {
		for skip := range passed[step] {
			if step == "block" && skip != 9 && skip != 10 {
				continue // the blocks around the renewal's
			}
			t.Run(fmt.Sprintf("%s %d", step, skip), func(t *testing.T) {
				h.faults.arm(step, skip)
				tell(t)
				if h.faults.missed() {
					t.Errorf("the process did not end at %s", step)
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// At every durable step the process ends, and another one goes on with what is on disk.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	for range 8 {
		h.fundWallet(200_000)
	}
	h.crash()
	h.limits.Resend = time.Minute // as above
	h.contractChain = &careful{Client: h.chain, h: h}
	h.start()
	tales := []tale{
		{h, "refund", func(t *testing.T, d *deal) {
			r := d.refundRequest(8_000, 500)
			h.retry(func() error { _, err := h.manager.Refund(t.Context(), d.u.envelope(r), r); return err })
			h.inMempool(h.latest(d.id, protocol.TxClosing).TxHash())
		}},
		{h, "settlement", func(t *testing.T, d *deal) {
			h.retry(func() error { return h.manager.Settle(t.Context(), d.id) })
			d.reaches(escrow.Settling)
			h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
		}},
		{h, "request", func(t *testing.T, d *deal) {
			h.retry(func() error { return h.manager.RequestPayment(t.Context(), d.id) })
			c := d.reaches(escrow.PaymentRequested).Closing
			closing := escrow.Closing{Amount: c.Amount, Fee: c.Fee, Asked: escrow.Relay}
			sig, err := escrow.SignClosing(&d.terms, d.out, closing, d.key)
			if err != nil {
				t.Fatal(err)
			}
			tx, err := escrow.FinishClosing(&d.terms, d.out, closing, sig, c.Signature)
			if err != nil {
				t.Fatal(err)
			}
			h.node.Send(tx.MsgTx)
		}},
	}
	done := make(map[string]bool) // the steps up to the end are the same in all of them
	for _, s := range tales {
		h.faults.mu.Lock()
		h.faults.hits = make(map[string]int)
		h.faults.mu.Unlock()
		s.tell(t)
		h.faults.mu.Lock()
		passed := maps.Clone(h.faults.hits)
		h.faults.mu.Unlock()
		if passed["signed"] != 1 || passed["funded"] != 1 || passed["paid"] != 1 || passed["sent"] < 1 || passed["advanced"] < 2 || passed["block"] < 10 {
			t.Fatalf("the %s passed %v", s.name, passed)
		}
		for _, step := range slices.Sorted(maps.Keys(passed)) {
			times := passed[step]
			if times == 1 && done[step] {
				continue
			}
			done[step] = true
			for _, skip := range slices.Compact([]int{0, times / 2, times - 1}) {
				t.Run(fmt.Sprintf("%s, %s %d", s.name, step, skip), func(t *testing.T) {
					h.faults.arm(step, skip)
					s.tell(t)
					if h.faults.missed() {
						t.Errorf("the process did not end at %s", step)
					}
					if n := h.count(`SELECT count(*) FROM contract_coins WHERE contract IS NULL`); n < 2 {
						h.fundWallet(200_000)
					}
				})
				if t.Failed() {
					return
				}
			}
		}
	}
}
