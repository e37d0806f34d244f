package userside_test

import (
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// bumps are a contract's children of closings, cheapest first, and its closings.
func (u *user) bumps(id protocol.ContractID) (children, closings []userside.Transaction) {
	u.t.Helper()
	for _, t := range u.record(id).Transactions {
		switch t.Kind {
		case userside.TxBump:
			children = append(children, t)
		case protocol.TxClosing:
			closings = append(closings, t)
		}
	}
	slices.SortFunc(children, func(a, b userside.Transaction) int { return int(a.Fee - b.Fee) })
	return children, closings
}

// paysTogether is the feerate of transactions, in satoshi per 1000 vB.
func (u *user) paysTogether(txs ...userside.Transaction) int64 {
	u.t.Helper()
	var fee btcutil.Amount
	var size int64
	for _, t := range txs {
		hash := chainhash.Hash(t.TxID)
		slices.Reverse(hash[:])
		fee += t.Fee
		size += (&escrow.Tx{MsgTx: u.node.Transaction(hash)}).VSize()
	}
	return int64(fee) * 1000 / size
}

// waiting tells whether a transaction is in the mempool.
func (u *user) waiting(t userside.Transaction) bool {
	u.t.Helper()
	hash := chainhash.Hash(t.TxID)
	slices.Reverse(hash[:])
	return u.node.InMempool(hash)
}

// A closing at the least fee hangs, and the relay answers no more. The user's child pays for it, and then a dearer one does; both are in
// one block.
func TestBump(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	_, err := u.Bump(t.Context(), id, u.wallet, 20_000)
	want(t, err, userside.ErrBump) // nothing is closing
	if _, err := u.Close(t.Context(), id, openingPrice, 1000); err != nil {
		t.Fatal(err)
	}
	u.relay.refuse = func(string) error { return errCut }
	for range 3 {
		u.node.MineWith() // blocks that take nothing
	}
	u.steps()
	_, err = u.Bump(t.Context(), id, u.wallet, 1000)
	want(t, err, userside.ErrBump) // it pays that itself
	_, err = u.Bump(t.Context(), id, u.wallet, escrow.MaxFeerate)
	want(t, err, protocol.CodeDust)
	if _, err := u.Bump(t.Context(), id, u.wallet, 20_000); err != nil {
		t.Fatal(err)
	}
	children, closings := u.bumps(id)
	if len(children) != 1 || len(closings) != 1 || !u.waiting(children[0]) || !u.waiting(closings[0]) {
		t.Fatalf("%+v\n%s", children, u.journal(id))
	}
	if rate := u.paysTogether(children[0], closings[0]); rate < 20_000 || rate > 20_200 {
		t.Errorf("together they pay %d sat per 1000 vB, not 20000", rate)
	}
	u.restarts()
	if _, err := u.Bump(t.Context(), id, u.wallet, 20_000); err != nil { // once more is a quarter more
		t.Fatal(err)
	}
	children, _ = u.bumps(id)
	if len(children) != 2 || u.waiting(children[0]) || !u.waiting(children[1]) || children[1].Fee < children[0].Fee*5/4 {
		t.Fatalf("%+v\n%s", children, u.journal(id))
	}
	u.node.Mine(1)
	u.steps()
	r := u.is(id, escrow.Settling)
	if r.Confirmed(protocol.TxClosing) == nil || r.Confirmed(userside.TxBump) == nil || r.Confirmed(userside.TxBump).TxID != children[1].TxID {
		t.Errorf("%+v", r.Transactions)
	}
	u.adds(id, before, openingPrice)
	_, err = u.Bump(t.Context(), id, u.wallet, 50_000)
	want(t, err, userside.ErrBump)
	u.node.Mine(5)
	u.steps()
	u.is(id, escrow.Closed)
}

// The relay settles over a closing that was bumped: the child goes with its parent, and the user sweeps what the settlement left.
func TestBumpedAndOutbid(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.opens()
	if _, err := u.Close(t.Context(), id, openingPrice, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Bump(t.Context(), id, u.wallet, 3000); err != nil {
		t.Fatal(err)
	}
	u.node.MineWith(u.relay.settlement(id).MsgTx)
	u.steps()
	u.node.Mine(1)
	u.steps()
	r := u.is(id, escrow.Settling)
	if r.Confirmed(protocol.TxSweep) == nil || r.Confirmed(userside.TxBump) != nil {
		t.Errorf("%+v\n%s", r.Transactions, u.journal(id))
	}
	u.adds(id, before, openingPrice)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // it tries to send both again first
		b, err := u.wallet.Balance(t.Context())
		if err == nil && b.Unconfirmed == 0 {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the wallet waits for what can never be: %+v, %v", b, err)
		}
	}
}

// What goes to another wallet is for that one to spend.
func TestBumpElsewhere(t *testing.T) {
	u := somebody(t)
	elsewhere := protocol.Script(append([]byte{0x00, 0x14}, make([]byte, 20)...))
	r, err := u.Open(t.Context(), u.draft(func(w *userside.Wish) { w.Payout = elsewhere }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.advances(r.ID); err != nil {
		t.Fatal(err)
	}
	u.node.Mine(1)
	u.steps()
	if _, err := u.Close(t.Context(), r.ID, openingPrice, 1000); err != nil {
		t.Fatal(err)
	}
	_, err = u.Bump(t.Context(), r.ID, u.wallet, 20_000)
	want(t, err, wallet.ErrRequest)
	if children, _ := u.bumps(r.ID); len(children) > 0 {
		t.Errorf("%+v", children)
	}
	if !u.node.InMempool(wireHash(u.record(r.ID))) {
		t.Error("the closing is gone")
	}
}

// wireHash is the closing's.
func wireHash(r *userside.Record) (hash chainhash.Hash) {
	for _, t := range r.Transactions {
		if t.Kind == protocol.TxClosing {
			tx := new(wire.MsgTx)
			if decoded, err := escrow.DecodeTx(t.Raw); err == nil {
				tx = decoded
			}
			hash = tx.TxHash()
		}
	}
	return hash
}
