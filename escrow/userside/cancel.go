package userside

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// Cancel ends a contract that is not funded. As long as the relay cannot have our signatures the coins are given back and
// that is all. After that only one thing helps: an input of the funding is spent to the user himself, at a feerate above
// the funding's, so that one of the two transactions is void for good. Once the funding is in a block, Cancel fails: close the
// contract instead. It may be repeated, with another feerate if the first was too low; 0 is chosen.
func (m *Manager) Cancel(ctx context.Context, id protocol.ContractID, purse Wallet, feerate escrow.Feerate) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	switch r.Step {
	case StepDrawn, StepAnswered, StepKept:
		return m.drop(ctx, r, purse)
	case StepOver:
		return r, nil
	case StepRestored:
		return r, fmt.Errorf("contract %s was restored from a backup: its inputs are not known here; it is refunded at block T", r.ID.Short())
	}
	if r.Confirmed(protocol.TxFunding) != nil {
		return r, fmt.Errorf("contract %s is funded already: close it instead", r.ID.Short())
	}
	return m.spendInputs(ctx, r, purse, feerate)
}

// drop ends an exchange in which nothing was signed.
func (m *Manager) drop(ctx context.Context, r *Record, purse Wallet) (*Record, error) {
	if purse != nil && !r.Foreign {
		if err := purse.Release(ctx, lease(r.ID)); err != nil {
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
func (m *Manager) spendInputs(ctx context.Context, r *Record, purse Wallet, feerate escrow.Feerate) (*Record, error) {
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	if len(f.User.Coins) == 0 {
		return r, fmt.Errorf("contract %s is funded from the old one alone, which the relay also signs: it ends when the old one does", r.ID.Short())
	}
	if r.Foreign || purse == nil {
		return r, fmt.Errorf("contract %s may still be funded: spend the coin %s to yourself with the wallet it is in, at more than %d sat per 1000 vB, or run this with the wallet",
			r.ID.Short(), f.User.Coins[0].OutPoint, int64(f.Feerate))
	}
	tx, fee, err := m.cancelTx(ctx, r, f, purse, feerate)
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
		if err := u.note(ctx, r, "Spending its coins to yourself, so that the contract cannot be funded any more: transaction %s.", tx.TxHash()); err != nil {
			return err
		}
		return u.track(ctx, r, Transaction{TxID: escrow.WireTxID(tx.TxHash()), Kind: protocol.TxCancel, Raw: serialize(tx), Fee: fee, Ours: true})
	})
	if err != nil {
		return r, err
	}
	err = m.Node.Broadcast(ctx, tx)
	if errors.Is(err, chain.ErrFeeTooLow) {
		err = fmt.Errorf("%w: try a higher --feerate", err)
	}
	return r, err
}

// cancelTx spends our coins of the funding to our payout script. It has to pay more than the funding that it may
// replace, and for its own relaying (BIP125).
func (m *Manager) cancelTx(ctx context.Context, r *Record, f *escrow.Funding, purse Wallet, feerate escrow.Feerate) (*wire.MsgTx, btcutil.Amount, error) {
	now, err := m.feerate(ctx, feerate)
	if err != nil {
		return nil, 0, err
	}
	weight := f.Weight() // more than what cancelling weighs: the same inputs, and fewer outputs
	step := escrow.Feerate(protocol.MinContractFeerate).Fee(weight)
	user, relay := f.Fees()
	fee := max(now.Fee(weight), user+relay+step)
	for _, t := range r.Transactions {
		if t.Kind == protocol.TxCancel { // an earlier bid of ours
			fee = max(fee, t.Fee+step)
		}
	}
	tx := wire.NewMsgTx(2)
	rest := -fee
	var coins []*wire.TxOut
	for _, coin := range f.User.Coins {
		in := wire.NewTxIn(&coin.OutPoint, nil, nil)
		in.Sequence = wire.MaxTxInSequenceNum - 2 // replaceable, BIP125
		tx.AddTxIn(in)
		coins = append(coins, coin.Output())
		rest += coin.Value
	}
	if rest < f.Contract.UserScript.Dust() {
		return nil, 0, protocol.Errorf(protocol.CodeDust, "the fee of %d satoshi that cancelling takes is more than the coins have", int64(fee))
	}
	tx.AddTxOut(wire.NewTxOut(int64(rest), f.Contract.UserScript))
	packet, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		return nil, 0, err
	}
	for i, coin := range coins {
		packet.Inputs[i].WitnessUtxo = coin
	}
	if err := purse.SignFunding(ctx, lease(r.ID), packet); err != nil {
		return nil, 0, err
	}
	signed, err := psbt.Extract(packet)
	if err != nil {
		return nil, 0, fmt.Errorf("sign the cancelling transaction: %w", err)
	}
	return signed, fee, (&escrow.Tx{MsgTx: signed, Prev: coins}).Verify()
}
