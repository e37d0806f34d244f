package relayside

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// batch is how many contracts are looked at after one query.
const batch = 200

// advanceAll looks at every contract for which something is due at this height, each in a transaction of its own.
func (m *Manager) advanceAll(ctx context.Context, height uint32) error {
	rates := &rates{m: m}
	var faults []error
	for after := []byte(nil); ; {
		ids, err := m.due(ctx, height, after)
		if err != nil || len(ids) == 0 {
			return errors.Join(append(faults, err)...)
		}
		for _, id := range ids {
			if err := m.advance(ctx, id, rates); fatal(ctx, err) {
				return err
			} else if err != nil {
				faults = append(faults, err) // one contract's trouble is not the others'
			}
		}
		if len(ids) < batch {
			return errors.Join(faults...)
		}
		last := ids[len(ids)-1]
		after = last[:]
	}
}

func (m *Manager) due(ctx context.Context, height uint32, after []byte) ([]escrow.ID, error) {
	rows, err := m.db.Pool().Query(ctx, `SELECT id FROM contracts WHERE look_at <= $1 AND ($2::bytea IS NULL OR id > $2) ORDER BY id LIMIT $3`,
		int32(height), after, batch)
	if err != nil {
		return nil, wrap(err, "look for contracts that are due")
	}
	ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (id escrow.ID, err error) {
		var raw []byte
		err = row.Scan(&raw)
		copy(id[:], raw)
		return id, err
	})
	return ids, wrap(err, "look for contracts that are due")
}

// returnsEvery is after how many blocks a renewal looks again what came back of the contracts before it, if nobody pays.
const returnsEvery = 6

// advance brings one contract to where the chain, the height and what was decided put it.
func (m *Manager) advance(ctx context.Context, id escrow.ID, rates *rates) error {
	var moved bool
	err := m.workTx(ctx, func(tx pgx.Tx) error {
		r, err := lock(ctx, tx, id)
		if err != nil {
			return err
		}
		before := r.state
		f, err := readFacts(ctx, tx, r)
		if err != nil {
			return err
		}
		a := &advancing{m: m, ctx: ctx, tx: tx, r: r, f: f, rates: rates}
		if err := a.run(); err != nil {
			return err
		}
		moved = r.state != before
		return a.lookAgain()
	})
	if err != nil {
		return wrap(err, "look at contract %s", id.Short())
	}
	if moved {
		return m.reached("advanced")
	}
	return nil
}

// advancing is one look at one contract, whose row is locked.
type advancing struct {
	m     *Manager
	ctx   context.Context
	tx    pgx.Tx
	r     *record
	f     facts
	rates *rates
}

// run takes the events that follow from facts and decisions, one after the other, until none follows.
func (a *advancing) run() error {
	if err := a.learn(); err != nil {
		return err
	}
	for {
		event, ok := a.next()
		if !ok {
			break
		}
		before := a.r.state
		if err := a.m.move(a.ctx, a.tx, a.r, event); err != nil {
			return err
		}
		if err := a.effect(before, event); err != nil {
			return err
		}
	}
	if err := a.lapse(); err != nil {
		return err
	}
	if a.r.finalOwed == nil {
		if err := a.m.grantCredit(a.ctx, a.tx, a.r); err != nil {
			return err
		}
	}
	if err := a.bid(); err != nil {
		return err
	}
	return a.want()
}

// learn takes the state of a settlement on the chain if it is higher than the one held: this relay made it before its
// database was set back to an older copy.
func (a *advancing) learn() error {
	r, s := a.r, a.f.spent
	if s == nil || s.state == nil || s.amount <= r.held.Amount || escrow.VerifyState(&r.terms, r.outpoint(), s.amount, s.state) != nil {
		return nil
	}
	a.m.log.Warn("the chain has a higher state than this database: it was set back", "contract", r.terms.ID.Short(), "held", r.held.Amount, "settled", s.amount)
	r.held.Amount, r.held.Signature = s.amount, s.state
	return a.m.saveHeld(a.ctx, a.tx, r)
}

// next is the event that is due, if there is one.
func (a *advancing) next() (escrow.Event, bool) {
	r, f := a.r, &a.f
	funded := f.fundingHeight != nil
	switch r.state {
	case escrow.FundingSent:
		switch {
		case funded:
			return escrow.FundingConfirmed, true
		case f.cancelled != nil:
			return escrow.InputSpent, true
		}
	case escrow.Active:
		if !funded {
			return escrow.FundingReorged, true
		}
		return a.ending()
	case escrow.Renewing, escrow.PaymentRequested, escrow.RefundRequested:
		if !funded && f.cancelled != nil {
			return escrow.InputSpent, true
		}
		return a.ending()
	case escrow.Settling:
		switch {
		case !funded && f.cancelled != nil:
			return escrow.InputSpent, true
		case f.spent == nil && a.renewalWaits():
			return escrow.RenewalReorged, true
		case f.depth(f.spent) >= escrow.ClosedDepth:
			return escrow.SpendClosed, true
		}
	case escrow.Closed:
		switch {
		case f.depth(f.spent) < escrow.ClosedDepth:
			return escrow.SpendReorged, true
		case f.depth(f.spent) >= escrow.ArchiveDepth:
			return escrow.SpendArchived, true
		}
	case escrow.Abandoned:
		switch {
		case funded:
			return escrow.FundingConfirmed, true
		case f.depth(f.cancelled) >= escrow.ArchiveDepth:
			return escrow.SpendArchived, true
		}
	}
	return "", false
}

// ending is the event that ends a funded contract: its escrow is spent, or it is time that it is.
func (a *advancing) ending() (escrow.Event, bool) {
	r, f := a.r, &a.f
	switch {
	case f.spent != nil && a.isSuccessor(f.spent):
		return escrow.RenewalConfirmed, true
	case f.spent != nil:
		return escrow.SpendSeen, true
	case f.fundingHeight == nil:
	case r.settle || r.terms.SettlementDue(f.tip):
		return escrow.SettlementStarted, true
	case r.state == escrow.PaymentRequested && f.tip >= r.closing.since+a.m.limits.RequestPatience:
		return escrow.SettlementStarted, true
	}
	return "", false
}

// isSuccessor tells whether what spends the escrow is the funding of the contract that renews this one.
func (a *advancing) isSuccessor(s *spend) bool {
	if a.r.renewedBy == nil {
		return false
	}
	next, err := read(a.ctx, a.tx, *a.r.renewedBy)
	return err == nil && next.funding == s.txid
}

// renewalWaits tells whether the contract is settling only because its successor's funding was in a block, which it is no
// more.
func (a *advancing) renewalWaits() bool {
	if a.r.renewedBy == nil || a.r.settle || a.r.terms.SettlementDue(a.f.tip) {
		return false
	}
	next, err := read(a.ctx, a.tx, *a.r.renewedBy)
	return err == nil && next.state != escrow.Abandoned && next.state != escrow.Archived
}

// want marks which transactions are to be sent: the funding unless it is given up or too late, or what cancels it; and what ends
// the contract until a block shows that something does: of several of a kind, the one that pays most.
func (a *advancing) want() error {
	r, f := a.r, &a.f
	cancel, err := a.cancels()
	if err != nil {
		return err
	}
	funding := cancel == nil && r.state != escrow.Abandoned && r.state != escrow.Archived &&
		(f.fundingHeight != nil || r.state != escrow.FundingSent || !r.terms.SettlementDue(f.tip))
	ending := f.spent == nil && (r.state == escrow.Settling || r.state == escrow.RefundRequested)
	_, err = a.tx.Exec(a.ctx, `UPDATE contract_transactions t SET wanted = CASE
		WHEN kind = $2 THEN $3
		WHEN kind = $5 THEN coalesce(txid = $6, false)
		ELSE $4 AND txid = (SELECT txid FROM contract_transactions o WHERE o.contract = $1 AND o.kind = t.kind ORDER BY fee DESC, made DESC LIMIT 1) END
		WHERE contract = $1 AND height IS NULL`, r.terms.ID[:], protocol.TxFunding, funding, ending, protocol.TxCancel, hashBytes(cancel))
	return err
}

func hashBytes(h *chainhash.Hash) []byte {
	if h == nil {
		return nil
	}
	return h[:]
}

// lookAgain stores at which height there is something to do next. Blocks that touch the contract call earlier.
func (a *advancing) lookAgain() error {
	r, f := a.r, &a.f
	var at *uint32
	soonest := func(height uint32) {
		if height > f.tip && (at == nil || height < *at) {
			at = &height
		}
	}
	depthAt := func(height int32, depth int64) { soonest(uint32(int64(height) + depth - 1)) }
	if f.fundingHeight != nil && f.confirmations(f.fundingHeight) < escrow.FullCredit {
		soonest(f.tip + 1)
	}
	if r.state == escrow.FundingSent {
		soonest(f.tip + cancelStep)
	}
	if r.terms.Renews != nil && (r.state == escrow.Active || r.state == escrow.Renewing) {
		soonest(f.tip + returnsEvery)
	}
	switch r.state {
	case escrow.FundingSent, escrow.Active, escrow.Renewing, escrow.RefundRequested:
		soonest(r.terms.LastUsage())
		if r.terms.SettlementDue(f.tip) {
			soonest(f.tip + 1)
		}
	case escrow.PaymentRequested:
		soonest(min(r.terms.LastUsage(), r.closing.since+a.m.limits.RequestPatience))
	case escrow.Settling:
		soonest(f.tip + 1) // bids rise with every block
	}
	if f.spent != nil {
		depthAt(f.spent.height, escrow.ClosedDepth)
		depthAt(f.spent.height, escrow.ArchiveDepth)
	}
	if f.cancelled != nil {
		depthAt(f.cancelled.height, escrow.ArchiveDepth)
	}
	if at == nil && !escrow.Final(r.state) {
		next := f.tip + 144
		at = &next
	}
	_, err := a.tx.Exec(a.ctx, `UPDATE contracts SET look_at = $2 WHERE id = $1`, r.terms.ID[:], at)
	return err
}
