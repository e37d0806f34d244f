package relayside

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// A write reserves its pulls and its whole life. What is not used of that comes back when the record ends, under the contract
// that it was written under. When another contract has the account by then, that one carries it: contracts.counted says how much
// of a bill is carried, and as the bill falls below it, less is.

// count notes how much of what goes over to another contract is of this one's own bill. What came back to a contract that had the account
// twice is counted once: its bill is the whole, this its second part, and the bill falls below it later.
func (m *Manager) count(ctx context.Context, tx pgx.Tx, from *record) error {
	use, err := m.books.Owed(ctx, tx, from.terms.User, from.terms.ID)
	if errors.Is(err, books.ErrNotInForce) {
		return nil // it was stopped before: what it owes is final
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE contracts SET counted = $2 WHERE id = $1`, from.terms.ID[:], int64(use.Cost))
	return err
}

// countLess follows when lines were taken off the bill of a contract whose account another one has: what they came to is not carried any more.
func (m *Manager) countLess(ctx context.Context, tx pgx.Tx, id escrow.ID, given protocol.Msat) error {
	_, err := tx.Exec(ctx, `UPDATE contracts SET counted = greatest(counted - $2, 0) WHERE id = $1`, id[:], int64(given))
	return err
}

// forgetCounts makes what is carried final: a contract in force has ended, and what is reserved under it and those before is bought.
func (m *Manager) forgetCounts(ctx context.Context, tx pgx.Tx, c *record) error {
	_, err := tx.Exec(ctx, `UPDATE contracts SET counted = NULL WHERE payer = $1 AND counted IS NOT NULL`, c.terms.User[:])
	return err
}

// returned takes off what c, which is in force, carries what came back of it since.
func (m *Manager) returned(ctx context.Context, tx pgx.Tx, c *record) error {
	rows, err := tx.Query(ctx, `SELECT id, counted FROM contracts WHERE payer = $1 AND counted IS NOT NULL AND id <> $2 ORDER BY id`,
		c.terms.User[:], c.terms.ID[:])
	if err != nil {
		return err
	}
	type before struct {
		ID      []byte
		Counted protocol.Msat
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[before])
	if err != nil {
		return err
	}
	for _, b := range all {
		id := escrow.ID(b.ID)
		cost, known, err := m.books.Billed(ctx, tx, id)
		if err != nil {
			return err
		}
		if !known || cost >= b.Counted {
			continue
		}
		if err := m.giveUnused(ctx, tx, id, c, b.Counted-cost); err != nil {
			return err
		}
	}
	return nil
}

// giveUnused takes an amount that came back under a contract from what it owes, and those that took over from it up to c.
func (m *Manager) giveUnused(ctx context.Context, tx pgx.Tx, id escrow.ID, c *record, back protocol.Msat) error {
	from, err := lock(ctx, tx, id)
	if err != nil {
		return err
	}
	heirs, err := m.heirs(ctx, tx, from)
	if err != nil {
		return err
	}
	if len(heirs) == 0 && from.terms.Renews != nil && *from.terms.Renews == c.terms.ID {
		heirs = []*record{c} // a renewal that was undone, and gave the account back
	}
	if len(heirs) == 0 || heirs[len(heirs)-1].terms.ID != c.terms.ID {
		return nil
	}
	heirs[len(heirs)-1] = c
	if err := m.countLess(ctx, tx, id, back); err != nil {
		return err
	}
	if err := m.books.Returned(ctx, tx, id, back); err != nil {
		return err
	}
	return m.passOn(ctx, tx, from, heirs, back)
}

// passOn takes an amount from what c owed when its account was taken over, and from what its heirs carry of it.
func (m *Manager) passOn(ctx context.Context, tx pgx.Tx, c *record, heirs []*record, amount protocol.Msat) error {
	for _, next := range heirs {
		if err := m.reduce(ctx, tx, c, amount, 0); err != nil {
			return err
		}
		if err := m.books.Carry(ctx, tx, c.terms.ID, next.terms.ID, -amount); err != nil {
			return err
		}
		if err := m.reduce(ctx, tx, next, 0, amount); err != nil {
			return err
		}
		c = next
	}
	return nil
}
