package chain_test

import (
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow/chain"
	"relaymarket/internal/regtest"
)

// Whatever has become of a transaction, sending it again says so in the same words.
func TestBroadcastIsIdempotent(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	c := client(t, n)
	_, first := n.Pay(someAddress(t, 1), 50_000)
	tx := n.DoubleSpend(first, 5_000) // replaces it
	for range 3 {
		if err := c.Broadcast(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
	}
	want(t, c.Broadcast(t.Context(), first), chain.ErrFeeTooLow)
	n.Mine(1)
	if err := c.Broadcast(t.Context(), tx); err != nil {
		t.Errorf("in a block: %v", err)
	}
	want(t, c.Broadcast(t.Context(), first), chain.ErrConflict)
	// Its output is spent, so only the index of transactions still knows it.
	spend := wire.NewMsgTx(2)
	spend.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: tx.TxHash()}, nil, nil))
	spend.AddTxOut(wire.NewTxOut(tx.TxOut[0].Value-10_000, tx.TxOut[0].PkScript))
	n.SignAsMiner(spend)
	if err := c.Broadcast(t.Context(), spend); err != nil {
		t.Fatal(err)
	}
	n.Mine(3)
	for _, sent := range []*wire.MsgTx{tx, spend} {
		if err := c.Broadcast(t.Context(), sent); err != nil {
			t.Errorf("deep in the chain: %v", err)
		}
	}
	// btcd forgets its mempool when it ends.
	_, paid := n.Pay(someAddress(t, 2), 60_000)
	n.Stop()
	want(t, c.Broadcast(t.Context(), paid), chain.ErrUnreachable)
	n.Restart()
	if err := c.Broadcast(t.Context(), paid); err != nil || !n.InMempool(paid.TxHash()) {
		t.Errorf("after a restart: %v", err)
	}
	// A double spend in a reorganization ends it for good.
	n.Mine(1)
	n.Reorg(1, n.DoubleSpend(paid, 0))
	want(t, c.Broadcast(t.Context(), paid), chain.ErrConflict)
}

func TestBroadcastRefusals(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	c := client(t, n)
	_, paid := n.Pay(someAddress(t, 1), 50_000)
	n.Mine(1)
	change := wire.OutPoint{Hash: paid.TxHash(), Index: 1}
	spend := func(edit func(*wire.MsgTx)) *wire.MsgTx {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: change, Sequence: wire.MaxTxInSequenceNum - 2})
		tx.AddTxOut(wire.NewTxOut(paid.TxOut[1].Value-2_000, paid.TxOut[1].PkScript))
		edit(tx)
		n.SignAsMiner(tx)
		return tx
	}
	for name, c2 := range map[string]struct {
		edit func(*wire.MsgTx)
		want error
	}{
		"fee 0":               {func(tx *wire.MsgTx) { tx.TxOut[0].Value = paid.TxOut[1].Value }, chain.ErrFeeTooLow},
		"fee below the least": {func(tx *wire.MsgTx) { tx.TxOut[0].Value = paid.TxOut[1].Value - 50 }, chain.ErrFeeTooLow},
		"locktime":            {func(tx *wire.MsgTx) { tx.LockTime = uint32(n.Height() + 2) }, chain.ErrNotFinal},
		"relative locktime":   {func(tx *wire.MsgTx) { tx.TxIn[0].Sequence = 10 }, chain.ErrNotFinal},
		"dust":                {func(tx *wire.MsgTx) { tx.AddTxOut(wire.NewTxOut(100, tx.TxOut[0].PkScript)); tx.TxOut[0].Value -= 100 }, chain.ErrRejected},
		"more out than in":    {func(tx *wire.MsgTx) { tx.TxOut[0].Value = paid.TxOut[1].Value + 1 }, chain.ErrRejected},
	} {
		t.Run(name, func(t *testing.T) { want(t, c.Broadcast(t.Context(), spend(c2.edit)), c2.want) })
	}
	bad := spend(func(*wire.MsgTx) {})
	bad.TxIn[0].Witness[0][10] ^= 1
	want(t, c.Broadcast(t.Context(), bad), chain.ErrRejected)
	orphan := bad.Copy()
	orphan.TxIn[0].PreviousOutPoint.Hash = chainhash.Hash{1}
	want(t, c.Broadcast(t.Context(), orphan), chain.ErrOrphan)
	final := spend(func(tx *wire.MsgTx) { tx.LockTime = uint32(n.Height()) })
	if err := c.Broadcast(t.Context(), final); err != nil {
		t.Errorf("a locktime of the tip's height may be in the next block: %v", err)
	}
}
