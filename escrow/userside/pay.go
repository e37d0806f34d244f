package userside

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// ErrCushion: a payment would run further ahead of accepted usage than the user allowed.
var ErrCushion = errors.New("the payment runs further ahead of the usage that you accepted than your cushion allows")

// Accept notes usage that the user, or his audit, accepted: millisatoshi since the contract was opened, cumulative.
// It never falls. Payments may go up to c₀ + accepted usage + cushion.
func (m *Manager) Accept(ctx context.Context, id protocol.ContractID, usage protocol.Msat) (*Record, error) {
	return m.Store.update(ctx, id, func(u *unit, r *Record) error {
		r.Accepted = max(r.Accepted, usage)
		return nil
	})
}

// SetCushion changes how far payments may run ahead of accepted usage, satoshi.
func (m *Manager) SetCushion(ctx context.Context, id protocol.ContractID, cushion btcutil.Amount) (*Record, error) {
	if cushion < 0 || cushion > btcutil.MaxSatoshi {
		return nil, protocol.Errorf(protocol.CodeWrongAmount, "a cushion is 0 to %d satoshi", int64(btcutil.MaxSatoshi))
	}
	return m.Store.update(ctx, id, func(u *unit, r *Record) error {
		r.Cushion = cushion
		return nil
	})
}

// Allowance is the highest A that the user stands by: c₀ + accepted usage + cushion, and no more than the contract can pay.
func (r *Record) Allowance() btcutil.Amount {
	c, _, ok := r.Terms()
	if !ok {
		return 0
	}
	// Each of the three is below 2^53: no overflow. Usage is rounded up, as a bill is.
	accepted := btcutil.Amount(r.Accepted/1000 + min(r.Accepted%1000, 1))
	return min(c.OpeningPrice+accepted+r.Cushion, c.Deposit-escrow.MinUserRest)
}

// PaidSince is how much of what was paid was signed after a time.
func (r *Record) PaidSince(at protocol.Timestamp) btcutil.Amount {
	last, ok := r.Last()
	if !ok {
		return 0
	}
	before := r.Payments[0].Amount // c₀ is agreed to with the contract
	for _, p := range r.Payments {
		if p.Created <= at {
			before = max(before, p.Amount)
		}
	}
	return max(last.Amount-before, 0)
}

// Pay raises A to amount and tells the relay. The state is on disk, with a seq of its own, before it is sent; a repetition
// sends the same bytes. An amount that is not above the highest signed one sends that one, if the relay does not say that it has it. ErrCushion if amount is
// above the allowance: Accept usage or raise the cushion first.
func (m *Manager) Pay(ctx context.Context, id protocol.ContractID, amount btcutil.Amount) (*Record, error) {
	r, err := m.Store.update(ctx, id, func(u *unit, r *Record) error { return m.raise(ctx, u, r, amount) })
	if err != nil {
		return nil, err
	}
	return m.sendStates(ctx, r)
}

// raise signs a state and writes it down, and beside it that of the contract that renews this one.
func (m *Manager) raise(ctx context.Context, u *unit, r *Record, amount btcutil.Amount) error {
	last, ok := r.Last()
	if ok && amount <= last.Amount {
		return nil
	}
	if !escrow.TakesPayments(r.State) || !ok && r.Step != StepRestored {
		return protocol.Errorf(protocol.CodeContractState, "contract %s is %s: it takes no payments", r.ID.Short(), r.State)
	}
	if most := r.Allowance(); amount > most {
		return fmt.Errorf("%w: %d sat, at most %d", ErrCushion, int64(amount), int64(most))
	}
	successor, err := m.successor(ctx, u, r)
	if err != nil {
		return err
	}
	seq := last.Seq + 1
	if r.Step == StepRestored {
		if seq, err = afterRestore(r, seq, amount); err != nil {
			return err
		}
	}
	if successor != nil {
		paid, _ := successor.Last()
		seq = max(seq, paid.Seq+1)
		if successor.Step == StepRestored {
			if seq, err = afterRestore(successor, seq, paid.Amount+amount-last.Amount); err != nil {
				return err
			}
		}
		if err := m.signState(ctx, u, successor, seq, paid.Amount+amount-last.Amount); err != nil {
			return err
		}
		if err := u.save(ctx, successor); err != nil {
			return err
		}
	}
	return m.signState(ctx, u, r, max(seq, 1), amount)
}

// afterRestore is the seq that follows what the relay has: this device does not know what was signed before the backup.
// An amount below what the relay has is refused here rather than there.
func afterRestore(r *Record, seq int64, amount btcutil.Amount) (int64, error) {
	s, err := r.Status()
	if err != nil {
		return 0, err
	}
	if s == nil {
		return 0, fmt.Errorf("contract %s was restored from a backup: ask the relay first what it has: relay contract show %s", r.ID.Short(), r.ID.Short())
	}
	if amount < s.Amount {
		return 0, protocol.Errorf(protocol.CodeWrongAmount, "the relay has a state of %d satoshi already", int64(s.Amount))
	}
	return max(seq, s.Seq+1), nil
}

// successor is the contract that renews this one, while that is on its way.
func (m *Manager) successor(ctx context.Context, u *unit, r *Record) (*Record, error) {
	if r.State != escrow.Renewing || r.Renewed == nil {
		return nil, nil
	}
	return u.contract(ctx, *r.Renewed)
}

func (m *Manager) signState(ctx context.Context, u *unit, r *Record, seq int64, amount btcutil.Amount) error {
	b, err := deal(r)
	if err != nil {
		return err
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return err
	}
	defer key.Zero()
	signature, err := escrow.SignState(&b.Contract, b.Funding, amount, key)
	if err != nil {
		return err
	}
	usage := r.Accepted
	return u.pay(ctx, r, Payment{Seq: seq, Amount: amount, Usage: &usage, Signature: signature})
}

// sendStates sends the highest state if the relay has not said that it has it. Those below it are covered by it.
func (m *Manager) sendStates(ctx context.Context, r *Record) (*Record, error) {
	last, ok := r.Last()
	if !ok || last.Taken || last.Seq == 0 {
		return r, nil
	}
	payment := &protocol.ContractPayment{Contract: r.ID, Seq: last.Seq, Amount: last.Amount, Signature: last.Signature, Usage: last.Usage}
	if r.State == escrow.Renewing && r.Renewed != nil {
		next, err := m.Store.Contract(ctx, *r.Renewed)
		if err != nil {
			return r, err
		}
		if p, ok := next.Last(); ok && p.Seq > 0 {
			payment.Pending = &protocol.PendingState{Contract: next.ID, Seq: p.Seq, Amount: p.Amount, Signature: p.Signature}
		}
	}
	relay, err := m.relay(r)
	if err != nil {
		return r, err
	}
	e, err := relay.PayContract(ctx, payment)
	if err != nil {
		return r, fmt.Errorf("the payment of %d sat is signed and will be sent again: %w", int64(last.Amount), err)
	}
	s, err := status(r, e)
	if err != nil {
		return r, err
	}
	if s.Seq < last.Seq || s.Amount < last.Amount {
		return r, &AnswerError{r.Relay, protocol.Errorf(protocol.CodeStateOrder, "it was given state %d of %d satoshi and says that it has %d of %d",
			last.Seq, int64(last.Amount), s.Seq, int64(s.Amount))}
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		r.Told = e.Bytes()
		if err := u.note(ctx, r, "Paid: the relay has %d sat of the deposit now.", int64(last.Amount)); err != nil {
			return err
		}
		if payment.Pending != nil {
			next, err := u.contract(ctx, payment.Pending.Contract)
			if err != nil {
				return err
			}
			if err := u.taken(ctx, next, payment.Pending.Seq); err != nil {
				return err
			}
		}
		return u.taken(ctx, r, last.Seq)
	})
}
