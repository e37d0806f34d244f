package userside

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// cancelWeight is the weight of a transaction with one P2TR or P2WPKH input and one output, rounded up.
const cancelWeight escrow.Weight = 4 * 120

// Cancel ends a contract that is not funded. As long as the relay cannot have our signatures the coins are given back and
// that is all. After that only one thing helps: an input of the funding is spent to the user himself, at a feerate above
// the funding's, so that one of the two transactions is void for good. Once the funding is in a block, Cancel fails: close the
// contract instead. It may be repeated, with another feerate if the first was too low; 0 is chosen.
func (m *Manager) Cancel(ctx context.Context, id protocol.ContractID, wallet Wallet, feerate escrow.Feerate) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	switch r.Step {
	case StepDrawn, StepAnswered, StepKept:
		return m.drop(ctx, r, wallet)
	case StepOver:
		return r, nil
	case StepRestored:
		return r, fmt.Errorf("contract %s was restored from a backup: its inputs are not known here; it is refunded at block T", r.ID.Short())
	}
	if r.Confirmed(protocol.TxFunding) != nil {
		return r, fmt.Errorf("contract %s is funded already: close it instead", r.ID.Short())
	}
	return m.spendInput(ctx, r, wallet, feerate)
}

// drop ends an exchange in which nothing was signed.
func (m *Manager) drop(ctx context.Context, r *Record, wallet Wallet) (*Record, error) {
	if wallet != nil && !r.Foreign {
		open, err := asked(r)
		if err != nil {
			return r, err
		}
		part, err := escrow.ParseOffer(open.PSBT)
		if err != nil {
			return r, err
		}
		if err := wallet.Release(ctx, outpoints(part.Coins)); err != nil {
			return r, err
		}
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Step == StepSigned || r.Step == StepTaken {
			return errors.New("the funding was signed meanwhile by another process")
		}
		if r.Step == StepOver {
			return nil
		}
		r.Step = StepOver
		if err := u.note(ctx, r, "Nothing was signed. The coins are free."); err != nil {
			return err
		}
		return move(r, escrow.Dropped)
	})
}

// spendInput writes down and sends the transaction that makes the funding impossible.
func (m *Manager) spendInput(ctx context.Context, r *Record, wallet Wallet, feerate escrow.Feerate) (*Record, error) {
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	if len(f.User.Coins) == 0 {
		return r, fmt.Errorf("contract %s is funded from the old one alone, which the relay also signs: it ends when the old one does", r.ID.Short())
	}
	if r.Foreign || wallet == nil {
		return r, fmt.Errorf("contract %s may still be funded: spend the coin %s to yourself with the wallet it is in, at more than %d sat per 1000 vB, or run this with the wallet",
			r.ID.Short(), f.User.Coins[0].OutPoint, int64(f.Feerate))
	}
	tx, fee, err := m.cancelTx(ctx, r, f, wallet, feerate)
	if err != nil {
		return r, err
	}
	r, err = m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Confirmed(protocol.TxFunding) != nil {
			return fmt.Errorf("contract %s was funded meanwhile", r.ID.Short())
		}
		if err := u.disown(ctx, r, protocol.TxFunding); err != nil {
			return err
		}
		if err := u.note(ctx, r, "Spending the coin %s to yourself, so that the contract cannot be funded any more.", tx.TxIn[0].PreviousOutPoint); err != nil {
			return err
		}
		return u.track(ctx, r, Transaction{TxID: escrow.WireTxID(tx.TxHash()), Kind: protocol.TxCancel, Raw: serialize(tx), Fee: fee, Ours: true})
	})
	if err != nil {
		return r, err
	}
	if err := wallet.Release(ctx, outpoints(f.User.Coins)); err != nil {
		return r, err
	}
	err = m.Node.Broadcast(ctx, tx)
	if errors.Is(err, chain.ErrFeeTooLow) {
		err = fmt.Errorf("%w: try a higher --feerate", err)
	}
	return r, err
}

// cancelTx spends the largest of our coins to our payout script. It has to pay more than the funding that it may
// replace, and for its own relaying (BIP125).
func (m *Manager) cancelTx(ctx context.Context, r *Record, f *escrow.Funding, wallet Wallet, feerate escrow.Feerate) (*wire.MsgTx, btcutil.Amount, error) {
	coin := slices.MaxFunc(f.User.Coins, func(a, b escrow.Coin) int { return int(a.Value - b.Value) })
	now, err := m.feerate(ctx, feerate)
	if err != nil {
		return nil, 0, err
	}
	user, relay := f.Fees()
	fee := max(now.Fee(cancelWeight), user+relay+escrow.Feerate(protocol.MinContractFeerate).Fee(cancelWeight))
	for _, t := range r.Transactions {
		if t.Kind == protocol.TxCancel { // an earlier bid of ours
			fee = max(fee, t.Fee+escrow.Feerate(protocol.MinContractFeerate).Fee(cancelWeight))
		}
	}
	rest := coin.Value - fee
	if rest < f.Contract.UserScript.Dust() {
		return nil, 0, protocol.Errorf(protocol.CodeDust, "the fee of %d satoshi that cancelling takes is more than the coin has", int64(fee))
	}
	tx := wire.NewMsgTx(2)
	in := wire.NewTxIn(&coin.OutPoint, nil, nil)
	in.Sequence = wire.MaxTxInSequenceNum - 2 // replaceable, BIP125
	tx.AddTxIn(in)
	tx.AddTxOut(wire.NewTxOut(int64(rest), f.Contract.UserScript))
	packet, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		return nil, 0, err
	}
	packet.Inputs[0].WitnessUtxo = coin.Output()
	if err := wallet.SignFunding(ctx, packet); err != nil {
		return nil, 0, err
	}
	signed, err := psbt.Extract(packet)
	if err != nil {
		return nil, 0, fmt.Errorf("sign the cancelling transaction: %w", err)
	}
	return signed, fee, (&escrow.Tx{MsgTx: signed, Prev: []*wire.TxOut{coin.Output()}}).Verify()
}
