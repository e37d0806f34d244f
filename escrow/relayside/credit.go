package relayside

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// grantCredit tells the account how much may be owed: the credit limit and what was paid for usage, as far as the funding
// is deep enough, less what is carried from contracts before. It does nothing while the account is another contract's, as a
// pending one's is.
func (m *Manager) grantCredit(ctx context.Context, tx pgx.Tx, c *record) error {
	f, err := readFacts(ctx, tx, c)
	if err != nil {
		return err
	}
	held := c.held.Amount
	if c.state == escrow.Renewing && c.renewedBy != nil {
		if held, err = heldEitherWay(ctx, tx, c); err != nil {
			return err
		}
	}
	secured, err := secured(ctx, tx, c)
	if err != nil {
		return err
	}
	credit, err := c.credit(held, f.confirmations(f.fundingHeight), secured)
	if err != nil {
		return err
	}
	err = m.books.SetCredit(ctx, tx, c.terms.User, c.terms.ID, credit)
	if errors.Is(err, books.ErrNotInForce) {
		return nil
	}
	if err != nil {
		return err
	}
	before := c.carried
	if err := m.returned(ctx, tx, c); err != nil || c.carried == before {
		return err
	}
	if credit, err = c.credit(held, f.confirmations(f.fundingHeight), secured); err != nil {
		return err
	}
	return m.books.SetCredit(ctx, tx, c.terms.User, c.terms.ID, credit)
}

// secured is what the old escrow's state is worth beyond what the renewal of it pays out; nil without an old escrow that is
// beyond being undone itself.
func secured(ctx context.Context, q querier, c *record) (*protocol.Msat, error) {
	if c.terms.Renews == nil {
		return nil, nil
	}
	old, err := read(ctx, q, *c.terms.Renews)
	if err != nil {
		return nil, err
	}
	f, err := readFacts(ctx, q, old)
	if err != nil || f.confirmations(f.fundingHeight) < escrow.FullCredit {
		return nil, err
	}
	more, err := ledger.MsatOf(old.held.Amount - *c.renewsPaid)
	return &more, err
}

// heldEitherWay is the A of a contract that is being renewed as far as the relay has it, whichever of the two escrows there
// will be: what the renewal pays out, and of the payments since what both escrows are worth.
func heldEitherWay(ctx context.Context, q querier, c *record) (btcutil.Amount, error) {
	next, err := read(ctx, q, *c.renewedBy)
	if err != nil {
		return 0, err
	}
	return *next.renewsPaid + min(c.held.Amount-*next.renewsPaid, next.held.Amount-next.terms.OpeningPrice), nil
}

// credit is what the cost of the account's own counters may come to while the relay holds the amount A.
//
// Up to six confirmations a funding can be undone by whoever has much work, and then all that was paid under it is gone. So
// meanwhile payments do not raise what may be owed above the limit: the relay's loss stays the limit's. A renewal that is
// undone gives the old escrow back, of which the relay holds a state that is worth secured more than what the renewal paid:
// so much of the payments counts at once, and the limit is full from the start. If the old escrow can be undone as well, or is
// (nil), the renewal counts as a contract of its own.
func (c *record) credit(held btcutil.Amount, confirmations int64, secured *protocol.Msat) (protocol.Msat, error) {
	limit, err := ledger.MsatOf(c.terms.CreditLimit)
	if err != nil {
		return 0, err
	}
	paid, err := ledger.MsatOf(held - c.terms.OpeningPrice)
	if err != nil {
		return 0, err
	}
	switch {
	case confirmations >= escrow.FullCredit:
		return limit + paid - c.carried, nil
	case secured != nil:
		return limit + min(paid, *secured) - c.carried, nil
	case confirmations == 0:
		return -max(c.carried, 0), nil
	}
	early, err := ledger.MsatOf(c.terms.Credit(confirmations))
	return min(early+paid-min(c.carried, 0), limit) - max(c.carried, 0), err
}

// usage is what was used under the contract and has to be paid by it, in msat: the account's, and what is carried.
func (m *Manager) usage(ctx context.Context, q books.Querier, c *record) (protocol.Msat, error) {
	if c.finalOwed != nil {
		return *c.finalOwed, nil
	}
	use, err := m.books.Owed(ctx, q, c.terms.User, c.terms.ID)
	if errors.Is(err, books.ErrNotInForce) {
		return max(c.carried, 0), nil // pending: nothing is used under it yet
	}
	return use.Cost + c.carried, err
}

// stop ends usage for good: what is owed is final, and the account is free for another contract. Repeated, it changes
// nothing.
func (m *Manager) stop(ctx context.Context, tx pgx.Tx, c *record) error {
	if c.finalOwed != nil {
		return nil
	}
	if err := m.stopTaking(ctx, tx, c); err != nil {
		return err
	}
	owed, err := m.usage(ctx, tx, c)
	if err != nil {
		return err
	}
	if err := m.setFinal(ctx, tx, c, &owed); err != nil {
		return err
	}
	if err := m.books.Close(ctx, tx, c.terms.ID, owed); err != nil {
		return err
	}
	err = m.books.CloseContract(ctx, tx, c.terms.User, c.terms.ID)
	if errors.Is(err, books.ErrNotInForce) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.forgetCounts(ctx, tx, c)
}

// stopTaking ends new usage, so that what is owed stays as it is until the transaction ends.
func (m *Manager) stopTaking(ctx context.Context, tx pgx.Tx, c *record) error {
	err := m.books.StopTaking(ctx, tx, c.terms.User, c.terms.ID)
	if errors.Is(err, books.ErrNotInForce) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.returned(ctx, tx, c)
}

func (m *Manager) setFinal(ctx context.Context, tx pgx.Tx, c *record, owed *protocol.Msat) error {
	c.finalOwed = owed
	_, err := tx.Exec(ctx, `UPDATE contracts SET final_owed = $2 WHERE id = $1`, c.terms.ID[:], (*int64)(owed))
	return err
}

// takeOver hands the account from one contract to the other, which owes from now on what was used before and not paid.
// taken is what of from's payments the funding of the successor took with it; going back, what it would have taken.
func (m *Manager) takeOver(ctx context.Context, tx pgx.Tx, from, to *record, taken protocol.Msat) error {
	if err := m.stopTaking(ctx, tx, from); err != nil {
		return err
	}
	owed, err := m.usage(ctx, tx, from)
	if err != nil {
		return err
	}
	if err := m.setFinal(ctx, tx, from, &owed); err != nil {
		return err
	}
	if err := m.count(ctx, tx, from); err != nil {
		return err
	}
	a := account(&to.terms)
	a.Renews = &from.terms.ID
	if err := m.books.OpenContract(ctx, tx, a); err != nil {
		return err
	}
	if err := m.handOver(ctx, tx, from, to, owed, taken); err != nil {
		return err
	}
	to.carried = owed - taken
	if _, err := tx.Exec(ctx, `UPDATE contracts SET carried = $2, final_owed = NULL, counted = NULL WHERE id = $1`, to.terms.ID[:], int64(to.carried)); err != nil {
		return err
	}
	to.finalOwed = nil
	return m.grantCredit(ctx, tx, to)
}

// handOver has the accounts follow. Of from's payments only what the successor's funding took is not lost; going back, what
// was paid to the successor is.
func (m *Manager) handOver(ctx context.Context, tx pgx.Tx, from, to *record, owed, taken protocol.Msat) error {
	paid, err := ledger.MsatOf(to.held.Amount - to.terms.OpeningPrice)
	if err != nil {
		return err
	}
	return m.books.HandOver(ctx, tx, books.HandOver{From: from.terms.ID, To: to.terms.ID, Used: owed, PaidFrom: max(taken, 0), PaidTo: paid})
}
