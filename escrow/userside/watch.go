package userside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

const (
	// askEvery is how often a relay is asked about a contract that nothing happens to.
	askEvery = 10 * time.Minute
	// rebidAfter is how many blocks a transaction of ours waits before it is bid for again, by a quarter more.
	rebidAfter = 6
)

// Run watches the contracts until ctx ends: it takes a Step now and each Poll. A step that fails is logged, and
// taken again.
func (m *Manager) Run(ctx context.Context) error {
	for {
		if err := m.Step(ctx); err != nil && ctx.Err() == nil {
			m.Logger.Warn("watching the contracts", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(m.Poll):
		}
	}
}

// Step does once what there is to do: it follows the chain, refunds what is due, takes what a settlement left, sends
// again what was not confirmed, and tells relays and is told. Without a contract that still matters it asks nobody. What
// was done is in the journal. The error joins what went wrong; the rest was done.
func (m *Manager) Step(ctx context.Context) error {
	if open, err := m.unfinished(ctx); err != nil || len(open) == 0 {
		return err
	}
	tip, err := m.follow(ctx)
	if err != nil {
		return fmt.Errorf("follow the chain: %w", err)
	}
	records, err := m.unfinished(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for i := range records {
		if err := m.tend(ctx, &records[i], tip); err != nil {
			failures = append(failures, fmt.Errorf("contract %s: %w", records[i].ID.Short(), err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(failures...)
}

// unfinished are the contracts on this network that something can happen to.
func (m *Manager) unfinished(ctx context.Context) ([]Record, error) {
	return load(ctx, m.Store.sql, `WHERE network = ? AND state <> ? AND step <> ?`, m.Network, protocol.StateArchived, StepOver)
}

// tend does for one contract what its place on the chain asks for.
func (m *Manager) tend(ctx context.Context, r *Record, tip uint32) error {
	c, _, ok := r.Terms()
	if !ok {
		return nil
	}
	var failures []error
	spent := r.Confirmed(ending...) != nil
	if c.RefundDue(tip) && !spent && (r.Confirmed(protocol.TxFunding) != nil || r.Step == StepRestored) {
		if _, err := m.Refund(ctx, r.ID, 0); err != nil {
			failures = append(failures, err)
		}
	} else if err := m.sweep(ctx, r, tip); err != nil {
		failures = append(failures, err)
	}
	if err := m.sendAgain(ctx, r); err != nil {
		failures = append(failures, err)
	}
	if !spent && !c.RefundDue(tip) {
		if err := m.converse(ctx, r); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// Refund takes the whole escrow back, alone, from block T on. The transaction is on disk before it is sent. Called again it
// sends the same one, or bids higher: if the last bid waits for long, or a feerate is given. Before T it fails with the
// number of blocks that are missing.
func (m *Manager) Refund(ctx context.Context, id protocol.ContractID, feerate escrow.Feerate) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	b, err := deal(r)
	if err != nil {
		return r, err
	}
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return r, err
	}
	if !b.Contract.RefundDue(tip.Height) {
		return r, fmt.Errorf("%w: block %d comes in %d blocks, about %s; until then the relay has to agree: relay contract close %s", ErrTooEarly,
			b.Contract.Expiry, b.Contract.Expiry-tip.Height, about(b.Contract.Expiry-tip.Height), r.ID.Short())
	}
	if t := r.Confirmed(ending...); t != nil {
		return r, fmt.Errorf("contract %s is ended already, by the %s %s", r.ID.Short(), t.Kind, t.TxID)
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return r, err
	}
	defer key.Zero()
	return m.bid(ctx, r, tip.Height, protocol.TxRefund, feerate, func(rate escrow.Feerate) (*escrow.Tx, error) {
		return escrow.Refund(&b.Contract, b.Funding, b.Contract.UserScript, rate, key)
	})
}

// about says how long blocks take, as a person reckons.
func about(blocks uint32) string {
	const hour, day = 6, 144
	if blocks < 2*day {
		return fmt.Sprintf("%d hours", (blocks+hour-1)/hour)
	}
	return fmt.Sprintf("%d days", (blocks+day/2)/day)
}

// ErrTooEarly: the user alone can spend the escrow from block T on.
var ErrTooEarly = errors.New("it is too early for a refund")

// sweep takes what a settlement left, one block after it.
func (m *Manager) sweep(ctx context.Context, r *Record, tip uint32) error {
	settled := r.Confirmed(protocol.TxSettlement)
	if settled == nil || r.Confirmed(protocol.TxSweep) != nil {
		return nil
	}
	b, err := deal(r)
	if err != nil {
		return err
	}
	tx, err := escrow.DecodeTx(settled.Raw)
	if err != nil {
		return err
	}
	spend, ok := escrow.Identify(&b.Contract, b.Funding, tx)
	if !ok || spend.State == nil {
		return nil
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return err
	}
	defer key.Zero()
	_, err = m.bid(ctx, r, tip, protocol.TxSweep, 0, func(rate escrow.Feerate) (*escrow.Tx, error) {
		return escrow.Sweep(&b.Contract, *spend.State, spend.Left, b.Contract.UserScript, rate, key)
	})
	if errors.Is(err, protocol.CodeDust) {
		m.Logger.Info("what the settlement left is worth less than the fee at present", "contract", r.ID, "satoshi", int64(spend.Left))
		return nil
	}
	return err
}

// bid sends the newest transaction of a kind, or makes the first or, when that one waits for long, a dearer one.
func (m *Manager) bid(ctx context.Context, r *Record, tip uint32, kind string, given escrow.Feerate, build func(escrow.Feerate) (*escrow.Tx, error)) (*Record, error) {
	var last *Transaction
	for i, t := range r.Transactions {
		if t.Kind == kind && t.Ours && (last == nil || t.Fee > last.Fee) {
			last = &r.Transactions[i]
		}
	}
	if last != nil && given == 0 && tip < last.Bid+rebidAfter {
		return r, m.send(ctx, last)
	}
	rate, err := m.feerate(ctx, given)
	if err != nil {
		return r, err
	}
	tx, err := build(rate)
	if err == nil && last != nil && given == 0 && tx.Fee() < dearer(last.Fee, tx) {
		// Fee by size, rounded up: a signature more or less must not bring it below.
		tx, err = build(escrow.Feerate((int64(dearer(last.Fee, tx))*1000 + tx.VSize() - 1) / tx.VSize()).Clamp())
	}
	if err != nil {
		if last != nil && errors.Is(err, protocol.CodeDust) {
			return r, m.send(ctx, last) // there is nothing left to bid with
		}
		return r, err
	}
	next := Transaction{TxID: tx.ID(), Kind: kind, Raw: tx.Bytes(), Fee: tx.Fee(), Ours: true, Bid: tip}
	r, err = m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if kind == protocol.TxRefund {
			m.happened(r, escrow.SettlementStarted)
		}
		verb := "Sending"
		if last != nil {
			verb = "Bidding higher:"
		}
		if err := u.note(ctx, r, "%s the %s %s to your wallet, with a fee of %d sat.", verb, kind, next.TxID, int64(next.Fee)); err != nil {
			return err
		}
		return u.track(ctx, r, next)
	})
	if err != nil {
		return r, err
	}
	return r, m.send(ctx, &next)
}

// dearer is the fee that replaces one of a transaction as large: a quarter more, and at least what its own relaying
// costs (BIP125).
func dearer(fee btcutil.Amount, tx *escrow.Tx) btcutil.Amount {
	relaying := (btcutil.Amount(tx.VSize())*protocol.MinContractFeerate + 999) / 1000
	return fee + max(fee/4, relaying)
}

// send broadcasts a stored transaction. That it is known, or too early by a block, is no error.
func (m *Manager) send(ctx context.Context, t *Transaction) error {
	tx, err := escrow.DecodeTx(t.Raw)
	if err != nil {
		return err
	}
	if err = m.Node.Broadcast(ctx, tx); errors.Is(err, chain.ErrNotFinal) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("send the %s: %w", t.Kind, err)
	}
	return nil
}

// sendAgain sends what is ours and in no block: btcd forgets its mempool when it ends, and relays forget, too. Of several
// bids the dearest counts. Refund and sweep are sent by those who make them.
func (m *Manager) sendAgain(ctx context.Context, r *Record) error {
	best := map[string]*Transaction{}
	over := r.Confirmed(ending...) != nil
	for i, t := range r.Transactions {
		if t.Kind == TxBump && over {
			continue // its closing needs it no more, or can never be
		}
		if !t.Ours || t.Kind == protocol.TxRefund || t.Kind == protocol.TxSweep || r.Confirmed(t.Kind) != nil {
			continue
		}
		if b := best[t.Kind]; b == nil || t.Fee > b.Fee {
			best[t.Kind] = &r.Transactions[i]
		}
	}
	var failures []error
	for _, t := range best {
		err := m.send(ctx, t)
		// Another transaction took its place: the block that it is in will say which.
		if err != nil && !errors.Is(err, chain.ErrConflict) && !errors.Is(err, chain.ErrOrphan) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// converse brings the relay what it does not have yet, asks it now and then, and pays what is due and allowed.
func (m *Manager) converse(ctx context.Context, r *Record) error {
	if r.Step == StepSigned {
		if r.State != escrow.FundingSent || r.has(protocol.TxCancel) {
			return nil // it is not to happen any more
		}
		_, err := m.hand(ctx, r, 0) // the next step asks again
		return err
	}
	if r.Step != StepTaken && r.Step != StepRestored || !escrow.TakesPayments(r.State) || r.Address == "" {
		return nil
	}
	r, err := m.sendStates(ctx, r)
	if err != nil {
		return err
	}
	if !m.mayAsk(r.ID) {
		return nil
	}
	if r, err = m.Refresh(ctx, r.ID); err != nil {
		return err
	}
	if r, err = m.sendStates(ctx, r); err != nil { // the relay may have lost what it had
		return err
	}
	return m.payDue(ctx, r)
}

// payDue pays what the relay says is due, as far as accepted usage and cushion go, and the user's policy.
func (m *Manager) payDue(ctx context.Context, r *Record) error {
	s, err := r.Status()
	if err != nil || s == nil || s.Due == nil {
		return err
	}
	last, _ := r.Last()
	amount := min(s.Due.Amount, r.Allowance())
	if m.Unasked != nil && s.Due.Amount > last.Amount {
		most, err := m.Unasked(ctx, r, s.Due.Amount)
		if most <= last.Amount {
			return err // it is the user's wish, or he is to be asked
		}
		amount = min(amount, most)
	}
	if amount <= last.Amount {
		if s.Due.Amount > last.Amount {
			return fmt.Errorf("%w: the relay asks for %d sat, and %d are allowed. Pay with: relay contract pay %s", ErrCushion,
				int64(s.Due.Amount), int64(r.Allowance()), r.ID.Short())
		}
		return nil
	}
	_, err = m.Pay(ctx, r.ID, amount)
	return err
}
