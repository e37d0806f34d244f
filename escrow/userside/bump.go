package userside

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// TxBump is the kind of the user's own spend of his output of a closing that is in no block: a child that pays for its parent. The relay
// is not told of it.
const TxBump = "bump"

// Bumper is a wallet that spends what is not in a block yet.
type Bumper interface {
	SignOwn(ctx context.Context, packet *psbt.Packet) error
	Publish(ctx context.Context, tx *wire.MsgTx) error
}

var _ Bumper = (*wallet.Wallet)(nil)

// ErrBump: there is no closing that a child of the user's could hurry.
var ErrBump = errors.New("there is nothing to bump")

// Bump hurries a closing that hangs, without the relay: the user's output of it is spent to the user again, at a fee with which the
// two together pay the feerate, so that whoever mines the second has to mine the first. Feerate 0 is as the node estimates. Called again
// it replaces its own transaction by a dearer one (BIP125). The transaction is on disk before it is sent. ErrBump if no closing waits in the
// node's mempool, the user has no output there, or it pays as much already; wallet.ErrRequest if the payout is another wallet's: that one
// can do the same.
func (m *Manager) Bump(ctx context.Context, id protocol.ContractID, purse Bumper, feerate escrow.Feerate) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	b, err := deal(r)
	if err != nil {
		return r, err
	}
	parent, err := m.hanging(ctx, r, b)
	if err != nil {
		return r, err
	}
	at, output, err := payoutOf(parent, b.Contract.UserScript)
	if err != nil {
		return r, err
	}
	rate, err := m.feerate(ctx, feerate)
	if err != nil {
		return r, err
	}
	child, err := m.child(ctx, r, parent, at, output, rate, purse)
	if err != nil {
		return r, err
	}
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return r, err
	}
	r, err = m.Store.update(ctx, id, func(u *unit, r *Record) error {
		if t := r.Confirmed(ending...); t != nil {
			return fmt.Errorf("%w: the %s is in block %d", ErrBump, t.Kind, *t.Height)
		}
		if err := u.note(ctx, r, "Hurrying the closing %s: transaction %s spends it to your wallet, with a fee of %d sat.", parent.ID(), child.ID(), int64(child.Fee())); err != nil {
			return err
		}
		return u.track(ctx, r, Transaction{TxID: child.ID(), Kind: TxBump, Raw: child.Bytes(), Fee: child.Fee(), Ours: true, Bid: tip.Height})
	})
	if err != nil {
		return r, err
	}
	if err := m.Node.Broadcast(ctx, child.MsgTx); err != nil {
		return r, fmt.Errorf("send the child of the closing: %w", err)
	}
	// Both are the wallet's business now: it must not spend the output once more when the closing is in a block.
	return r, errors.Join(purse.Publish(ctx, parent.MsgTx), purse.Publish(ctx, child.MsgTx))
}

// hanging is the closing that waits in the node's mempool.
func (m *Manager) hanging(ctx context.Context, r *Record, b *escrow.Backup) (*escrow.Tx, error) {
	if t := r.Confirmed(ending...); t != nil {
		return nil, fmt.Errorf("%w: contract %s was ended by the %s in block %d", ErrBump, r.ID.Short(), t.Kind, *t.Height)
	}
	for _, t := range r.Transactions {
		if t.Kind != protocol.TxClosing {
			continue
		}
		tx, err := escrow.DecodeTx(t.Raw)
		if err != nil {
			return nil, err
		}
		found, err := m.Node.Transaction(ctx, tx.TxHash()) // with the relay's signature, which is not here if the user asked
		if errors.Is(err, chain.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if found.Confirmations > 0 {
			return nil, fmt.Errorf("%w: the closing has a confirmation: relay contract show %s", ErrBump, r.ID.Short())
		}
		output, err := b.Contract.Output()
		if err != nil {
			return nil, err
		}
		return &escrow.Tx{MsgTx: found.Msg, Prev: []*wire.TxOut{output}}, nil
	}
	return nil, fmt.Errorf("%w: your node knows of no closing of contract %s that waits: ask for one with relay contract close %s", ErrBump, r.ID.Short(), r.ID.Short())
}

// payoutOf is the output of a closing that pays the user.
func payoutOf(closing *escrow.Tx, script protocol.Script) (wire.OutPoint, *wire.TxOut, error) {
	for i, out := range closing.TxOut {
		if bytes.Equal(out.PkScript, script) {
			return wire.OutPoint{Hash: closing.TxHash(), Index: uint32(i)}, out, nil
		}
	}
	return wire.OutPoint{}, nil, fmt.Errorf("%w: what the closing %s leaves you was too small for an output", ErrBump, closing.ID())
}

// child spends the output to the same script, so that it and its parent pay the feerate together, and it alone more than the
// last one.
func (m *Manager) child(ctx context.Context, r *Record, parent *escrow.Tx, at wire.OutPoint, output *wire.TxOut, rate escrow.Feerate, purse Bumper) (*escrow.Tx, error) {
	if parent.Fee() >= rate.Fee(escrow.Weight(4*parent.VSize())) {
		return nil, fmt.Errorf("%w: the closing %s pays %d sat for %d vB: give a higher --feerate", ErrBump, parent.ID(), int64(parent.Fee()), parent.VSize())
	}
	tx, err := spendTo(ctx, purse, at, output, output.Value)
	if err != nil {
		return nil, err
	}
	// A signature may be a byte longer the next time.
	size := tx.VSize() + 1
	fee := rate.Fee(escrow.Weight(4*(parent.VSize()+size))) - parent.Fee()
	for _, t := range r.Transactions {
		if t.Kind == TxBump && spends(t.Raw, at) {
			fee = max(fee, dearer(t.Fee, tx)+1)
		}
	}
	rest := btcutil.Amount(output.Value) - fee
	if dust := protocol.Script(output.PkScript).Dust(); rest < dust {
		return nil, protocol.Errorf(protocol.CodeDust, "a fee of %d satoshi is more than the closing leaves you: take a lower feerate", int64(fee))
	}
	return spendTo(ctx, purse, at, output, int64(rest))
}

// spends tells whether a stored transaction has an input.
func spends(raw []byte, at wire.OutPoint) bool {
	tx, err := escrow.DecodeTx(raw)
	return err == nil && len(tx.TxIn) == 1 && tx.TxIn[0].PreviousOutPoint == at
}

// spendTo is a signed transaction that brings so much of an output back to its script.
func spendTo(ctx context.Context, purse Bumper, at wire.OutPoint, output *wire.TxOut, value int64) (*escrow.Tx, error) {
	tx := wire.NewMsgTx(2)
	in := wire.NewTxIn(&at, nil, nil)
	in.Sequence = wire.MaxTxInSequenceNum - 2 // replaceable, BIP125
	tx.AddTxIn(in)
	tx.AddTxOut(wire.NewTxOut(value, output.PkScript))
	packet, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		return nil, err
	}
	packet.Inputs[0].WitnessUtxo = output
	if err := purse.SignOwn(ctx, packet); err != nil {
		return nil, err
	}
	signed, err := psbt.Extract(packet)
	if err != nil {
		return nil, fmt.Errorf("sign the child of the closing: %w", err)
	}
	whole := &escrow.Tx{MsgTx: signed, Prev: []*wire.TxOut{output}}
	return whole, whole.Verify()
}
