package userside

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// sight notes one transaction of a block.
func (m *Manager) sight(ctx context.Context, u *unit, s sighting, height uint32) error {
	r, err := u.contract(ctx, s.contract)
	if err != nil {
		return err
	}
	c, at, ok := r.Terms()
	if !ok {
		return nil
	}
	t := Transaction{TxID: escrow.WireTxID(s.tx.TxHash()), Raw: serialize(s.tx), Height: &height}
	if known := r.Transaction(t.TxID); known != nil {
		if known.Height != nil && *known.Height == height {
			return nil // the chain is looked at anew
		}
		t.Kind, t.Fee = known.Kind, known.Fee
	}
	spend, spends := escrow.Identify(c, at, s.tx)
	switch {
	case s.tx.TxHash() == at.Hash:
		t.Kind = protocol.TxFunding
		err = m.funded(ctx, u, r, s.tx)
	case spends:
		t.Kind = spend.Kind
		err = m.ended(ctx, u, r, s.tx, spend, &t)
	case r.bumps(s.tx):
		if t.Kind != TxBump {
			return nil // the wallet spent it otherwise
		}
	case r.Confirmed(protocol.TxSettlement) != nil:
		t.Kind = protocol.TxSweep
		err = u.note(ctx, r, "What the settlement left is yours: transaction %s.", s.tx.TxHash())
	default:
		t.Kind = protocol.TxCancel
		m.happened(r, escrow.InputSpent)
		if err := m.renewalEnded(ctx, u, c); err != nil {
			return err
		}
		err = u.note(ctx, r, "A coin of the funding was spent by %s: the contract can never be funded.", s.tx.TxHash())
	}
	if err != nil {
		return err
	}
	if err := u.track(ctx, r, t); err != nil {
		return err
	}
	return u.save(ctx, r)
}

// bumps tells whether a transaction spends the output of a closing that a child of the user's spends.
func (r *Record) bumps(tx *wire.MsgTx) bool {
	for _, t := range r.Transactions {
		if t.Kind == TxBump && spends(t.Raw, tx.TxIn[0].PreviousOutPoint) {
			return true
		}
	}
	return false
}

// happened moves the state by news from the chain. News that the state has no place for is a fact all the same: it is
// logged, and the transaction is noted.
func (m *Manager) happened(r *Record, e escrow.Event) {
	if err := move(r, e); err != nil {
		m.Logger.Info("the state of a contract stays as it is", "contract", r.ID, "event", e, "error", err)
	}
}

func (m *Manager) funded(ctx context.Context, u *unit, r *Record, tx *wire.MsgTx) error {
	b, err := deal(r)
	if err != nil {
		return err
	}
	b.Tx = tx
	if r.Document, err = b.Encode(); err != nil {
		return err
	}
	if r.Step == StepSigned {
		r.Step = StepTaken // it cannot be in a block without the relay
	}
	r.Fault = ""
	m.happened(r, escrow.FundingConfirmed)
	return u.note(ctx, r, "The funding is in a block: the contract pays for what you write.")
}

// ended notes what spent the escrow.
func (m *Manager) ended(ctx context.Context, u *unit, r *Record, tx *wire.MsgTx, spend escrow.Spend, t *Transaction) error {
	m.happened(r, escrow.SpendSeen)
	switch {
	case spend.Kind == protocol.TxSettlement:
		text := fmt.Sprintf("The relay settled the contract: it took %d sat, %d sat are left for you.", int64(spend.Amount), int64(spend.Left))
		if last, ok := r.Last(); ok && spend.Amount > last.Amount {
			text += fmt.Sprintf(" The highest that was signed on this device is %d sat.", int64(last.Amount))
		}
		return u.note(ctx, r, "%s", text)
	case spend.Kind == protocol.TxRefund:
		return u.note(ctx, r, "Refunded: the whole escrow is yours, by transaction %s.", tx.TxHash())
	}
	if r.Renewed != nil {
		next, err := u.contract(ctx, *r.Renewed)
		if err != nil {
			return err
		}
		if _, at, ok := next.Terms(); ok && at.Hash == tx.TxHash() {
			t.Kind = protocol.TxRenewal
			return u.note(ctx, r, "Renewed: contract %s goes on.", next.ID.Short())
		}
	}
	return u.note(ctx, r, "Closed by transaction %s.", tx.TxHash())
}

// renewalEnded tells the old contract that its successor can never be funded.
func (m *Manager) renewalEnded(ctx context.Context, u *unit, successor *escrow.Contract) error {
	if successor.Renews == nil {
		return nil
	}
	old, err := u.contract(ctx, *successor.Renews)
	if errors.Is(err, ErrNoContract) {
		return nil
	}
	if err != nil {
		return err
	}
	if old.Renewed == nil || *old.Renewed != successor.ID {
		return nil // another one renews it
	}
	m.happened(old, escrow.RenewalEnded)
	old.Renewed = nil
	return u.save(ctx, old)
}

// age closes and archives what is deep enough.
func (m *Manager) age(ctx context.Context, u *unit, tip uint32) error {
	records, err := load(ctx, u, `WHERE network = ? AND state <> ? AND step <> ?`, m.Network, protocol.StateArchived, StepOver)
	if err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		before := r.State
		if r.State == escrow.Settling && r.depth(tip, ending...) >= escrow.ClosedDepth {
			m.happened(r, escrow.SpendClosed)
			if err := u.note(ctx, r, "The contract is closed: what ended it has %d confirmations.", escrow.ClosedDepth); err != nil {
				return err
			}
		}
		if r.archivable(tip) {
			m.happened(r, escrow.SpendArchived)
		}
		if r.State == before {
			continue
		}
		if err := u.save(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// archivable tells whether nothing of a contract can change any more: what ended it is deep, and what a settlement
// left is with the user, as deep.
func (r *Record) archivable(tip uint32) bool {
	switch r.State {
	case escrow.Closed:
		if r.Confirmed(protocol.TxSettlement) != nil && r.depth(tip, protocol.TxSweep) < escrow.ArchiveDepth {
			return false
		}
		return r.depth(tip, ending...) >= escrow.ArchiveDepth
	case escrow.Abandoned:
		return r.depth(tip, protocol.TxCancel) >= escrow.ArchiveDepth
	}
	return false
}

// depth is how many confirmations a transaction of these kinds has, 0 if none is in a block.
func (r *Record) depth(tip uint32, kinds ...string) int64 {
	t := r.Confirmed(kinds...)
	if t == nil || *t.Height > tip {
		return 0
	}
	return int64(tip-*t.Height) + 1
}

// disconnect takes a block back, and what it said.
func (m *Manager) disconnect(ctx context.Context, b chain.BlockID) error {
	return m.Store.do(ctx, func(u *unit) error {
		if err := u.at(ctx, m.Network, b); err != nil {
			return err
		}
		if err := u.disconnect(ctx, m.Network, b); err != nil {
			return err
		}
		records, err := load(ctx, u, `WHERE network = ? AND id IN (SELECT contract FROM transactions WHERE height = ?)`, m.Network, b.Height)
		if err != nil {
			return err
		}
		for i := range records {
			if err := m.unsight(ctx, u, &records[i], b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Manager) unsight(ctx context.Context, u *unit, r *Record, b chain.BlockID) error {
	for _, t := range r.Transactions {
		if t.Height == nil || *t.Height != b.Height {
			continue
		}
		switch t.Kind {
		case protocol.TxFunding:
			m.happened(r, escrow.FundingReorged)
		case protocol.TxRenewal: // the escrow serves again, until the renewal is in a block or can never be
			m.happened(r, escrow.RenewalReorged)
		case protocol.TxSettlement, protocol.TxClosing, protocol.TxRefund:
			m.happened(r, escrow.SpendReorged)
		}
		t.Height = nil
		if err := u.track(ctx, r, t); err != nil {
			return err
		}
		if err := u.note(ctx, r, "Block %d was replaced: the %s %s is not in a block any more.", b.Height, t.Kind, t.TxID); err != nil {
			return err
		}
	}
	return u.save(ctx, r)
}
