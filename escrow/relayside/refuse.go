package relayside

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Refuse hears which lines of a bill its payer does not pay for. They are dropped, and their credit is there again, as long as all
// that is written off of the contract is within [Limits.WriteOff] of its opening price, and within what its states have
// brought beyond the credit limit. So whoever disputes everything takes no more than the limit, as one who pays nothing does; and
// defaulting under many names earns nothing. What is more stays disputed, and the contract ends with the highest state held.
//
// Of a contract that was renewed, what is owed under its successor is less. Repeated, it has the same effect. Codes are
//
//   - not_found: no such contract of the signer, or no such report of it
//   - invalid_value: lines that are not of the report
//   - gone: they are not kept any more
//   - contract_state: nothing can be written off before the funding is [escrow.FullCredit] blocks deep: repeat it then
func (m *Manager) Refuse(ctx context.Context, payer protocol.PublicKey, r *protocol.UsageRefusal) (answer *protocol.UsageRefused, err error) {
	err = m.db.Tx(ctx, func(tx pgx.Tx) error {
		answer, err = m.refuse(ctx, tx, payer, r)
		return err
	})
	if err != nil {
		return nil, wrap(err, "refuse usage of contract %s", r.Contract.Short())
	}
	m.nudge()
	return answer, m.reached("refused")
}

func (m *Manager) refuse(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, r *protocol.UsageRefusal) (*protocol.UsageRefused, error) {
	c, err := lockOf(ctx, tx, payer, r.Contract)
	if err != nil {
		return nil, err
	}
	heirs, err := m.heirs(ctx, tx, c)
	if err != nil {
		return nil, err
	}
	most, err := m.writeOff(ctx, tx, c, heirs)
	if err != nil {
		return nil, err
	}
	out, err := m.books.Refuse(ctx, tx, books.Refusal{Payer: payer, Contract: r.Contract, Report: r.Report, Lines: r.Lines, Most: most})
	if err != nil {
		return nil, err
	}
	if out.Given > 0 {
		if err := m.oweLess(ctx, tx, c, heirs, out); err != nil {
			return nil, err
		}
	}
	answer := &protocol.UsageRefused{Contract: r.Contract, Report: r.Report, Outcome: protocol.RefusalDropped,
		WrittenOff: out.WrittenOff, Disputed: out.Disputed, Most: max(most, 0)}
	if out.Disputes > 0 {
		answer.Outcome = protocol.RefusalClosed
		return answer, m.endDisputed(ctx, tx, c, heirs)
	}
	return answer, nil
}

// heirs are the contracts that took over what c owes, one from the other, locked. The last has the account, or had it last.
func (m *Manager) heirs(ctx context.Context, tx pgx.Tx, c *record) ([]*record, error) {
	var all []*record
	for at := c; at.finalOwed != nil && at.renewedBy != nil; {
		next, err := lock(ctx, tx, *at.renewedBy)
		if err != nil {
			return nil, err
		}
		took, err := m.tookOver(ctx, tx, next)
		if err != nil || !took {
			return all, err
		}
		all, at = append(all, next), next
	}
	return all, nil
}

// tookOver tells whether a renewal got the account of the contract before it.
func (m *Manager) tookOver(ctx context.Context, tx pgx.Tx, next *record) (bool, error) {
	if _, err := m.books.Owed(ctx, tx, next.terms.User, next.terms.ID); !errors.Is(err, books.ErrNotInForce) {
		return err == nil, err
	}
	return next.finalOwed != nil && next.state != escrow.Abandoned, nil
}

// nothing is to be written off.
const nothing protocol.Msat = -1

// writeOff is how much may be written off of a contract, all in all.
func (m *Manager) writeOff(ctx context.Context, tx pgx.Tx, c *record, heirs []*record) (protocol.Msat, error) {
	live := c
	if len(heirs) > 0 {
		live = heirs[len(heirs)-1]
	}
	if !escrow.TakesPayments(live.state) || live.settle || live.finalOwed != nil || m.limits.WriteOff < 0 {
		return nothing, nil
	}
	f, err := readFacts(ctx, tx, live)
	if err != nil {
		return 0, err
	}
	if n := f.confirmations(f.fundingHeight); n < escrow.FullCredit {
		return 0, protocol.Errorf(protocol.CodeContractState, "the funding has %d of %d confirmations, and nothing is written off before: name the lines again then", n, escrow.FullCredit)
	}
	most := min(c.terms.OpeningPrice*m.limits.WriteOff/100, c.held.Amount-c.terms.CreditLimit)
	if most < 0 {
		return nothing, nil
	}
	return ledger.MsatOf(most)
}

// oweLess takes what was dropped from what is owed. While the account is the contract's own it did so itself, as far as it counts it:
// what was used before a renewal that was undone is carried.
func (m *Manager) oweLess(ctx context.Context, tx pgx.Tx, c *record, heirs []*record, out books.Refused) error {
	if len(heirs) == 0 {
		if err := m.reduce(ctx, tx, c, 0, out.Uncounted); err != nil {
			return err
		}
		return m.grantCredit(ctx, tx, c)
	}
	if err := m.countLess(ctx, tx, c.terms.ID, out.Given); err != nil {
		return err
	}
	if err := m.passOn(ctx, tx, c, heirs, out.Given); err != nil {
		return err
	}
	return m.grantCredit(ctx, tx, heirs[len(heirs)-1])
}

// reduce takes from what a contract owes finally, and from what it was given to owe.
func (m *Manager) reduce(ctx context.Context, tx pgx.Tx, c *record, final, carried protocol.Msat) error {
	if c.finalOwed != nil {
		owed := *c.finalOwed - final
		if err := m.setFinal(ctx, tx, c, &owed); err != nil {
			return err
		}
	}
	if carried == 0 {
		return nil
	}
	c.carried -= carried
	_, err := tx.Exec(ctx, `UPDATE contracts SET carried = $2 WHERE id = $1`, c.terms.ID[:], int64(c.carried))
	return err
}

// endDisputed has the contract settled whose payer disputes more than is written off. From now on it takes nothing.
func (m *Manager) endDisputed(ctx context.Context, tx pgx.Tx, c *record, heirs []*record) error {
	if len(heirs) > 0 {
		c = heirs[len(heirs)-1]
	}
	if _, err := escrow.Next(c.state, escrow.SettlementStarted); err != nil || c.settle {
		return nil // it is ending already
	}
	m.log.Warn("a payer disputes more than is written off: the contract is settled", "contract", c.terms.ID.Short())
	if err := m.books.StopTaking(ctx, tx, c.terms.User, c.terms.ID); err != nil && !errors.Is(err, books.ErrNotInForce) {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE contracts SET settle = true, look_at = 0 WHERE id = $1`, c.terms.ID[:])
	return err
}
