package userside

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// ErrOwed: the relay counts more than the user would pay.
var ErrOwed = errors.New("the relay counts more usage than you accepted")

// Close asks the relay for a cooperative refund at amount, which has to be what the relay is owed: it gets that much of the
// deposit, and the user the rest less the fee. If the relay has asked to be paid by a closing transaction of its own, and that
// takes no more than amount, its transaction is completed and sent instead.
//
// What was signed is on disk before it is sent. A relay that does not answer leaves the contract as it is: it can be asked
// again, and at T the user is refunded alone. Feerate 0 is as the node estimates.
func (m *Manager) Close(ctx context.Context, id protocol.ContractID, amount btcutil.Amount, feerate escrow.Feerate) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	s, err := r.Status()
	if err != nil {
		return r, err
	}
	if r.State == escrow.Renewing && r.Renewed != nil {
		return r, protocol.Errorf(protocol.CodeContractState, "contract %s is being renewed by %s: close that one, or, while it waits for its block, give it up with the same command: relay contract close %s",
			r.ID.Short(), r.Renewed.Short(), r.Renewed.Short())
	}
	if s != nil && s.Closing != nil && s.Closing.Amount <= amount {
		return m.accept(ctx, r, s.Closing)
	}
	tx, request, err := m.signClosing(ctx, r, amount, feerate)
	if err != nil {
		return r, err
	}
	r, err = m.Store.update(ctx, id, func(u *unit, r *Record) error {
		if last, ok := r.Last(); ok && last.Amount > amount {
			return fmt.Errorf("contract %s: %d sat are paid already, a closing cannot pay less: %d", r.ID.Short(), int64(last.Amount), int64(amount))
		}
		if err := move(r, escrow.RequestRefund); err != nil {
			return err
		}
		if err := u.note(ctx, r, "Asking for the rest: the relay gets %d sat, the fee is %d sat.", int64(amount), int64(request.Fee)); err != nil {
			return err
		}
		// Not ours to broadcast: the relay's signature is missing.
		return u.track(ctx, r, Transaction{TxID: tx.ID(), Kind: protocol.TxClosing, Raw: tx.Bytes(), Fee: request.Fee})
	})
	if err != nil {
		return r, err
	}
	relay, err := m.relay(r)
	if err != nil {
		return r, err
	}
	e, err := relay.RefundContract(ctx, request)
	if err != nil {
		return r, err
	}
	return m.heard(ctx, r, e)
}

// signClosing makes the closing transaction that the user asks for, and his signature of it.
func (m *Manager) signClosing(ctx context.Context, r *Record, amount btcutil.Amount, feerate escrow.Feerate) (*escrow.Tx, *protocol.ContractRefund, error) {
	b, err := deal(r)
	if err != nil {
		return nil, nil, err
	}
	if feerate, err = m.feerate(ctx, feerate); err != nil {
		return nil, nil, err
	}
	closing, err := escrow.NewClosing(&b.Contract, amount, escrow.User, feerate)
	if err != nil {
		return nil, nil, err
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return nil, nil, err
	}
	defer key.Zero()
	signature, err := escrow.SignClosing(&b.Contract, b.Funding, closing, key)
	if err != nil {
		return nil, nil, err
	}
	tx, err := escrow.ClosingTx(&b.Contract, b.Funding, closing)
	return tx, &protocol.ContractRefund{Contract: r.ID, Amount: amount, Fee: closing.Fee, Signature: signature}, err
}

// accept completes the closing transaction that the relay has signed, and sends it.
func (m *Manager) accept(ctx context.Context, r *Record, offer *protocol.RequestPayment) (*Record, error) {
	b, err := deal(r)
	if err != nil {
		return r, err
	}
	closing := escrow.Closing{Amount: offer.Amount, Fee: offer.Fee, Asked: escrow.Relay}
	if err := escrow.VerifyClosing(&b.Contract, b.Funding, closing, escrow.Relay, offer.Signature); err != nil {
		return r, &AnswerError{r.Relay, err}
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return r, err
	}
	defer key.Zero()
	signature, err := escrow.SignClosing(&b.Contract, b.Funding, closing, key)
	if err != nil {
		return r, err
	}
	tx, err := escrow.FinishClosing(&b.Contract, b.Funding, closing, signature, offer.Signature)
	if err != nil {
		return r, err
	}
	r, err = m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if err := move(r, escrow.SettlementStarted); err != nil {
			return err
		}
		if err := u.note(ctx, r, "Agreed to the relay's payment request of %d sat; the rest is on its way to you.", int64(offer.Amount)); err != nil {
			return err
		}
		return u.track(ctx, r, Transaction{TxID: tx.ID(), Kind: protocol.TxClosing, Raw: tx.Bytes(), Ours: true})
	})
	if err != nil {
		return r, err
	}
	return r, m.Node.Broadcast(ctx, tx.MsgTx)
}

// Status is what the relay said last; nil if it said nothing yet. It is the relay's word, and no more.
func (r *Record) Status() (*protocol.ContractStatus, error) {
	if r.Told == nil {
		return nil, nil
	}
	e, err := protocol.ParseEnvelope(r.Told)
	if err != nil {
		return nil, fmt.Errorf("contract %s: the stored status: %w", r.ID.Short(), err)
	}
	var s protocol.ContractStatus
	if err := e.Decode(&s); err != nil {
		return nil, fmt.Errorf("contract %s: the stored status: %w", r.ID.Short(), err)
	}
	return &s, nil
}

// Refresh asks the relay where the contract stands in its eyes.
func (m *Manager) Refresh(ctx context.Context, id protocol.ContractID) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	relay, err := m.relay(r)
	if err != nil {
		return r, err
	}
	e, err := relay.Contract(ctx, id)
	if err != nil {
		return r, err
	}
	return m.heard(ctx, r, e)
}

// heard notes what the relay says, as far as it can be believed: that it has our states, that it has them no more, that it
// asks to be paid, and its closing signature once that was verified.
func (m *Manager) heard(ctx context.Context, r *Record, e *protocol.Envelope) (*Record, error) {
	s, err := status(r, e)
	if err != nil {
		return r, err
	}
	before, err := r.Status()
	if err != nil {
		return r, err
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		r.Told = e.Bytes()
		if last, ok := r.Last(); ok && s.Seq <= last.Seq {
			if err := u.taken(ctx, r, s.Seq); err != nil {
				return err
			}
		}
		if err := u.lost(ctx, r, s.Seq, s.Amount); err != nil {
			return err
		}
		if s.Closing == nil || before != nil && before.Closing != nil {
			return nil
		}
		b, err := deal(r)
		if err != nil {
			return err
		}
		closing := escrow.Closing{Amount: s.Closing.Amount, Fee: s.Closing.Fee, Asked: escrow.Relay}
		if err := escrow.VerifyClosing(&b.Contract, b.Funding, closing, escrow.Relay, s.Closing.Signature); err != nil {
			return &AnswerError{r.Relay, err}
		}
		if err := move(r, escrow.RequestPayment); err != nil {
			return nil //nolint:nilerr // it comes too late to matter
		}
		return u.note(ctx, r, "The relay asks for %d sat and to end the contract with that. Agree with: relay contract close %s", int64(s.Closing.Amount), r.ID.Short())
	})
}
