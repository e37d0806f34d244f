package userside

import (
	"context"
	"errors"
	"fmt"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// sign makes our witnesses of the funding, and state 0. From here on the relay may have them.
func (m *Manager) sign(ctx context.Context, r *Record, purse Wallet) (*Record, error) {
	if r.Foreign {
		return r, ErrForeign
	}
	if purse == nil {
		return r, errors.New("the wallet is needed to sign the funding")
	}
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	packet, err := f.Packet()
	if err != nil {
		return r, err
	}
	if len(f.User.Coins) > 0 {
		// From now on until it is funded or cancelled nothing else may spend them.
		hold := wallet.FundRequest{Key: lease(r.ID), Amount: 1, Feerate: f.Feerate, For: signedTime}
		if _, err := purse.Fund(ctx, hold); err != nil {
			return r, err
		}
		if err := purse.SignFunding(ctx, lease(r.ID), packet); err != nil {
			return r, err
		}
	}
	signed, err := escrow.EncodePSBT(packet)
	if err != nil {
		return r, err
	}
	return m.signed(ctx, r, f, signed)
}

// ErrForeign: the funding has to be signed by a wallet that is not this program's.
var ErrForeign = errors.New("the funding waits for the signatures of your own wallet")

// SignedElsewhere takes the funding that the user's own wallet has signed and finalized.
func (m *Manager) SignedElsewhere(ctx context.Context, id protocol.ContractID, signed protocol.PSBT) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.Step != StepKept {
		return r, fmt.Errorf("contract %s does not wait for a signed funding: it is at the step %q", r.ID.Short(), r.Step)
	}
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	// Signing took its time. Only while the relay still stands by its part may it have the signatures.
	if err := m.askAgain(ctx, r); err != nil {
		return r, err
	}
	return m.signed(ctx, r, f, signed)
}

// askAgain asks the relay for its part once more: it has to be the same.
func (m *Manager) askAgain(ctx context.Context, r *Record) error {
	relay, err := m.relay(r)
	if err != nil {
		return err
	}
	open, err := asked(r)
	if err != nil {
		return err
	}
	e, err := relay.OpenContract(ctx, open)
	if err != nil {
		return err
	}
	_, answer, err := m.judge(ctx, r, open, e)
	if err != nil {
		return err
	}
	if answer.PSBT != r.PSBT {
		return &AnswerError{r.Relay, protocol.Errorf(protocol.CodeConflict, "its part of the funding is another than it was: nothing was given to it, open the contract anew")}
	}
	return nil
}

// signed writes our witnesses and state 0 down, once they are known to be good.
func (m *Manager) signed(ctx context.Context, r *Record, f *escrow.Funding, signed protocol.PSBT) (*Record, error) {
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return r, err
	}
	if err := escrow.CheckExpiry(f.Contract.Expiry, tip.Height); err != nil {
		return r, err
	}
	if f.Renewal != nil {
		old, err := m.Store.Contract(ctx, f.Renewal.Contract.ID)
		if err != nil {
			return r, err
		}
		if err := m.settled(ctx, old); err != nil { // blocks may have been replaced since the draft
			return r, err
		}
		if signed, err = m.signOld(f, signed); err != nil {
			return r, err
		}
	}
	if _, err := f.MergeUser(signed); err != nil {
		return r, err
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return r, err
	}
	defer key.Zero()
	at, err := f.Outpoint()
	if err != nil {
		return r, err
	}
	signature, err := escrow.SignState(f.Contract, at, f.Contract.OpeningPrice, key)
	if err != nil {
		return r, err
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Step != StepKept {
			return nil
		}
		if err := move(r, escrow.Signed); err != nil {
			return err
		}
		r.Step, r.PSBT = StepSigned, signed
		if err := m.renewing(ctx, u, f); err != nil {
			return err
		}
		return u.pay(ctx, r, Payment{Seq: 0, Amount: f.Contract.OpeningPrice, Signature: signature})
	})
}

// signOld adds our signature of the escrow that the funding spends.
func (m *Manager) signOld(f *escrow.Funding, signed protocol.PSBT) (protocol.PSBT, error) {
	packet, err := escrow.DecodePSBT(signed)
	if err != nil {
		return "", err
	}
	key, err := m.Keys.ContractKey(f.Renewal.Contract.Network, f.Renewal.Contract.ID)
	if err != nil {
		return "", err
	}
	defer key.Zero()
	if err := f.AddRenewalSignature(packet, key); err != nil {
		return "", err
	}
	return escrow.EncodePSBT(packet)
}

// renewing notes in the old contract that the funding of its successor has our signature.
func (m *Manager) renewing(ctx context.Context, u *unit, f *escrow.Funding) error {
	if f.Renewal == nil {
		return nil
	}
	old, err := u.contract(ctx, f.Renewal.Contract.ID)
	if err != nil {
		return err
	}
	if err := move(old, escrow.RenewalSigned); err != nil {
		return err
	}
	old.Renewed = &f.Contract.ID
	if err := u.note(ctx, old, "It is renewed by contract %s.", f.Contract.ID.Short()); err != nil {
		return err
	}
	return u.save(ctx, old)
}
