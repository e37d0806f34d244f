package userside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// hand gives the relay our witnesses and state 0, which are on disk, and takes the whole funding back. A relay that puts in a
// coin may sign in another process than the one that answers: it is waited for as long as patience says.
func (m *Manager) hand(ctx context.Context, r *Record, patience time.Duration) (*Record, error) {
	relay, err := m.relay(r)
	if err != nil {
		return r, err
	}
	if len(r.Payments) == 0 || r.Payments[0].Seq != 0 {
		return r, fmt.Errorf("contract %s: state 0 is missing", r.ID.Short())
	}
	first := r.Payments[0]
	e, err := relay.ContractSigned(ctx, &protocol.ContractClientSigned{Contract: r.ID, PSBT: r.PSBT, Amount: first.Amount, Signature: first.Signature})
	if err != nil {
		return r, err
	}
	s, err := status(r, e)
	for waited := time.Duration(0); err == nil && s.Funding == nil && waited < patience; waited += fundingPause {
		if err := m.pause(ctx, min(fundingPause, patience)); err != nil {
			return r, err
		}
		if e, err = relay.Contract(ctx, r.ID); err == nil {
			s, err = status(r, e)
		}
	}
	if err != nil {
		return r, err
	}
	if s.Funding == nil {
		return r, ErrUnfunded
	}
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	tx, err := wholeFunding(f, s)
	if err != nil {
		return r, wrongAnswer(r, err)
	}
	if r, err = m.took(ctx, r, e, tx, share(f)); err != nil {
		return r, err
	}
	if _, err := m.Store.ExportBackup(ctx, m.BackupFile); err != nil {
		return r, fmt.Errorf("write the backup of contracts: %w", err)
	}
	// The relay has sent it. That our node has it too costs nothing, and shows at once if something is amiss.
	if err := m.Node.Broadcast(ctx, tx); err != nil {
		m.Logger.Info("the funding was not taken by our node", "contract", r.ID, "error", err)
	}
	return r, nil
}

// ErrUnfunded: the relay has our signatures and has not signed yet. The contract stays at StepSigned: Advance asks again, and
// Cancel spends the inputs, so that the relay can never complete it.
var ErrUnfunded = errors.New("the relay has not signed the funding yet")

// fundingPause is how long the relay is left alone before it is asked again for the funding that it has still to sign.
const fundingPause = 500 * time.Millisecond

// pause waits, unless ctx ends before.
func (m *Manager) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// wholeFunding is the funding that the relay says it has sent: ours, and validly signed by both.
func wholeFunding(f *escrow.Funding, s *protocol.ContractStatus) (*wire.MsgTx, error) {
	at, err := f.Outpoint()
	if err != nil {
		return nil, err
	}
	tx, err := escrow.DecodeTx(s.Funding.Tx)
	if err != nil {
		return nil, err
	}
	if err := escrow.CheckFundingTx(f.Contract, at, tx); err != nil {
		return nil, err
	}
	template, err := f.Tx()
	if err != nil {
		return nil, err
	}
	return tx, (&escrow.Tx{MsgTx: tx, Prev: template.Prev}).Verify()
}

// share is what the user pays of the funding's fee: what he brings, less his deposit and his change.
func share(f *escrow.Funding) btcutil.Amount {
	fee := -f.Contract.Deposit
	for _, coin := range f.User.Coins {
		fee += coin.Value
	}
	if f.User.Change != nil {
		fee -= btcutil.Amount(f.User.Change.Value)
	}
	if f.Renewal != nil {
		fee += f.Renewal.Contract.Deposit - f.Renewal.Amount
	}
	return fee
}

// took notes that the relay has everything, and the whole funding transaction in the backup.
func (m *Manager) took(ctx context.Context, r *Record, e *protocol.Envelope, tx *wire.MsgTx, fee btcutil.Amount) (*Record, error) {
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		b, err := deal(r)
		if err != nil {
			return err
		}
		b.Tx = tx
		if r.Document, err = b.Encode(); err != nil {
			return err
		}
		if r.Step == StepSigned {
			r.Step = StepTaken
		}
		r.Told, r.Fault = e.Bytes(), ""
		if err := u.taken(ctx, r, 0); err != nil {
			return err
		}
		if err := u.note(ctx, r, "The funding transaction %s is sent.", tx.TxHash()); err != nil {
			return err
		}
		funding := Transaction{TxID: escrow.WireTxID(tx.TxHash()), Kind: protocol.TxFunding, Raw: serialize(tx), Fee: fee, Ours: true}
		if known := r.Transaction(funding.TxID); known != nil {
			funding.Height = known.Height
		}
		return u.track(ctx, r, funding)
	})
}
