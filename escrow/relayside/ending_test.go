package relayside_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// mineTo mines up to a height.
func (h *house) mineTo(height uint32) {
	h.t.Helper()
	h.mine(int(height) - h.node.Height())
}

// latest is the transaction of a kind that was made last.
func (h *house) latest(id protocol.ContractID, kind string) *wire.MsgTx {
	h.t.Helper()
	var raw []byte
	h.eventually("a "+kind, func() bool {
		return h.db.Pool().QueryRow(h.t.Context(), `SELECT tx FROM contract_transactions WHERE contract = $1 AND kind = $2 ORDER BY feerate DESC LIMIT 1`,
			id[:], kind).Scan(&raw) == nil
	})
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		h.t.Fatal(err)
	}
	return tx
}

// The relay alone: at T − M usage ends, the highest state is settled, and the user has the rest a block later.
func TestSettlementAtItsTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	d := u.active(100_000, 900)
	if _, err := d.pay(30_000, nil); err != nil {
		t.Fatal(err)
	}
	h.mineTo(d.terms.LastUsage() - 1)
	err := h.use(u.key.Public(), 1_000)
	if err != nil {
		t.Fatal(err)
	}
	if s := d.status(); s.State != escrow.Active {
		t.Fatalf("a block before T − M the contract is %s", s.State)
	}
	h.mine(1)
	d.reaches(escrow.Settling)
	wantCode(t, h.use(u.key.Public(), 1), protocol.CodeNoAccount)
	_, err = d.pay(40_000, nil)
	wantCode(t, err, protocol.CodeContractState)
	settlement := h.latest(d.id, protocol.TxSettlement)
	h.inMempool(settlement.TxHash())
	if shown, err := h.manager.Show(t.Context(), d.id); err != nil || !shown.Settle { // there is no way back, whatever the height
		t.Fatalf("a contract whose settlement is sent: %+v, %v", shown, err)
	}
	pin, _ := escrow.Identify(&d.terms, d.out, settlement)
	child, err := escrow.Sweep(&d.terms, *pin.State, pin.Left, d.terms.UserScript, 1_000, d.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.chain.Broadcast(t.Context(), child.MsgTx); !errors.Is(err, chain.ErrNotFinal) {
		t.Fatalf("the user pins the settlement with a child: %v", err)
	}
	h.mine(1)
	if got := h.spender(d.out).TxHash(); got != settlement.TxHash() {
		t.Fatalf("%v spent the escrow, not the settlement %v", got, settlement.TxHash())
	}
	spend, _ := escrow.Identify(&d.terms, d.out, settlement)
	if spend.Amount != 30_000 || spend.Left != 70_000 {
		t.Fatalf("the settlement is %+v", spend)
	}
	if got := paid(settlement, d.terms.RelayScript); got < 29_000 {
		t.Errorf("the relay got %d of 30,000", got)
	}
	sweep, err := escrow.Sweep(&d.terms, *spend.State, spend.Left, d.terms.UserScript, 1_000, d.key)
	if err != nil {
		t.Fatal(err)
	}
	h.node.Send(sweep.MsgTx)
	h.mine(6)
	d.reaches(escrow.Closed)
	r, err := h.manager.Revenue(t.Context())
	if err != nil || r.Settled != paid(settlement, d.terms.RelayScript) || r.Live != 0 {
		t.Fatalf("revenue %+v, %v", r, err)
	}
}

// A relay that is gone over T loses what was not settled, and no more; the user needs nobody.
func TestRefundAtExpiry(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	d := u.active(100_000, 900)
	if _, err := d.pay(30_000, nil); err != nil {
		t.Fatal(err)
	}
	h.crash()
	h.node.Mine(int(d.terms.Expiry) - h.node.Height())
	refund, err := escrow.Refund(&d.terms, d.out, d.terms.UserScript, 1_000, d.key)
	if err != nil {
		t.Fatal(err)
	}
	h.node.Send(refund.MsgTx)
	h.node.Mine(1)
	h.start()
	h.synced()
	s := d.reaches(escrow.Settling)
	if last := s.Transactions[len(s.Transactions)-1]; last.Kind != protocol.TxRefund || last.Confirmations != 1 {
		t.Fatalf("the status ends with %+v", last)
	}
	h.mine(5)
	d.reaches(escrow.Closed)
	if n := h.count(`SELECT count(*) FROM contract_transactions WHERE kind = 'settlement'`); n > 1 {
		t.Errorf("%d settlements of an escrow that was spent", n)
	}
}

// A relay that was away when it should have settled does so when it is back, as long as T is ahead.
func TestSettlementIsLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	d := h.user().active(100_000, 900)
	if _, err := d.pay(30_000, nil); err != nil {
		t.Fatal(err)
	}
	h.crash()
	h.node.Mine(int(d.terms.Expiry) - 5 - h.node.Height())
	h.start()
	h.synced()
	d.reaches(escrow.Settling)
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.mine(1)
	if spend, _ := escrow.Identify(&d.terms, d.out, h.spender(d.out)); spend.Kind != protocol.TxSettlement || spend.Amount != 30_000 {
		t.Fatalf("the escrow ended in %+v", spend)
	}
	h.mine(5)
	d.reaches(escrow.Closed)
}

// A payment request: the user signs and broadcasts what is due; or does not, and the relay settles.
func TestPaymentRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	h.limits.RequestPatience = 10
	h.restart()
	for _, answers := range []bool{true, false} {
		u := h.user()
		d := u.active(100_000, 1500)
		if err := h.use(u.key.Public(), 2_000_001); err != nil {
			t.Fatal(err)
		}
		if err := h.manager.RequestPayment(t.Context(), d.id); err != nil {
			t.Fatal(err)
		}
		wantCode(t, h.use(u.key.Public(), 1), protocol.CodeNoAccount)
		s := d.reaches(escrow.PaymentRequested)
		if s.Closing == nil || s.Closing.Amount != 7_001 {
			t.Fatalf("the request is %+v", s.Closing)
		}
		if _, err := d.pay(8_000, nil); err == nil {
			t.Fatal("a payment was taken beside a closing signature")
		}
		want := btcutil.Amount(5_000)
		if answers {
			closing := escrow.Closing{Amount: s.Closing.Amount, Fee: s.Closing.Fee, Asked: escrow.Relay}
			sig, err := escrow.SignClosing(&d.terms, d.out, closing, d.key)
			if err != nil {
				t.Fatal(err)
			}
			tx, err := escrow.FinishClosing(&d.terms, d.out, closing, sig, s.Closing.Signature)
			if err != nil {
				t.Fatal(err)
			}
			h.node.Send(tx.MsgTx)
			want = 7_001
		} else {
			h.mine(9)
			if s := d.status(); s.State != escrow.PaymentRequested {
				t.Fatalf("before its patience ended the relay is %s", s.State)
			}
			h.mine(1)
			h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
		}
		h.mine(1)
		d.reaches(escrow.Settling)
		if got := paid(h.spender(d.out), d.terms.RelayScript); got > want || got < want-1_000 {
			t.Errorf("the relay got %d of %d", got, want)
		}
		h.mine(5)
		d.reaches(escrow.Closed)
	}
}

// spiky is a node whose estimates a test sets.
type spiky struct {
	*chain.Client
	rate atomic.Int64
}

// Feerate implements relayside.Node.
func (s *spiky) Feerate(ctx context.Context, blocks int) (escrow.Feerate, error) {
	if rate := s.rate.Load(); rate > 0 {
		return escrow.Feerate(rate), nil
	}
	return s.Client.Feerate(ctx, blocks)
}

// In a fee spike the settlement is in no block for a while. With each block the bid rises, what the node takes as a
// replacement, up to what the amount can pay.
func TestSettlementBidsInFeeSpike(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	node := &spiky{Client: h.chain}
	h.crash()
	h.contractChain = node
	h.start()
	u := h.user()
	d := u.active(100_000, 1500)
	if _, err := d.pay(20_000, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.manager.Settle(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	d.reaches(escrow.Settling)
	bids := func() int { return h.count(`SELECT count(*) FROM contract_transactions WHERE kind = 'settlement'`) }
	for round := 1; round <= 4; round++ {
		h.eventually("a bid", func() bool { return bids() == round })
		h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
		if round == 2 {
			node.rate.Store(40_000)
		}
		h.node.MineWith() // a block that is full of others
		h.synced()
	}
	var last int64
	h.eventually("the bid of the spike", func() bool {
		return h.db.Pool().QueryRow(t.Context(), `SELECT max(feerate) FROM contract_transactions WHERE kind = 'settlement'`).Scan(&last) == nil && last >= 40_000
	})
	for range 20 {
		h.node.MineWith()
		h.synced()
	}
	top := h.latest(d.id, protocol.TxSettlement)
	h.inMempool(top.TxHash())
	spend, _ := escrow.Identify(&d.terms, d.out, top)
	if spend.Amount != 20_000 {
		t.Fatalf("the highest bid settles %d", spend.Amount)
	}
	if fee := d.terms.Value() - btcutil.Amount(top.TxOut[0].Value) - paid(top, d.terms.RelayScript); fee > 20_000 || fee < 15_000 {
		t.Errorf("the highest bid pays %d of 20,000", fee)
	}
	h.mine(6)
	d.reaches(escrow.Closed)
}

// A closing that no block would take for long is not signed: it would stand in the way of the settlement.
func TestClosingPaysAsEstimated(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	node := &spiky{Client: h.chain}
	h.crash()
	h.contractChain = node
	h.start()
	d := h.user().active(100_000, 1500)
	node.rate.Store(20_000)
	_, err := d.refund(5_000, 1_819) // of 182 vB
	wantCode(t, err, protocol.CodeFeerate)
	if s := d.status(); s.State != escrow.Active {
		t.Fatalf("a refused closing left %+v", s)
	}
	if s, err := d.refund(5_000, 1_820); err != nil || s.State != escrow.RefundRequested {
		t.Fatalf("%+v, %v", s, err)
	}
}
