package relayside

import (
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// effect does what an event brings with it.
func (a *advancing) effect(before escrow.State, event escrow.Event) error {
	switch r := a.r; {
	case r.state == escrow.Abandoned && before != escrow.Abandoned:
		return a.abandon()
	case before == escrow.Abandoned && event == escrow.FundingConfirmed:
		a.m.log.Warn("a funding that was given up is in a block: it is settled at once", "contract", r.terms.ID.Short())
		return nil // its account ended when it was given up
	case event == escrow.FundingConfirmed && r.terms.Renews != nil:
		return a.takeOver()
	case event == escrow.FundingConfirmed && r.finalOwed == nil:
		return a.m.books.OpenContract(a.ctx, a.tx, account(&r.terms)) // from a grant, if there was one; else it has the account
	case event == escrow.SpendClosed:
		return a.over()
	case event == escrow.RenewalConfirmed, event == escrow.RenewalReorged:
		return nil // the successor's own confirmation moves the account
	case r.state == escrow.Settling && before != escrow.Settling && before != escrow.Closed:
		return a.m.stop(a.ctx, a.tx, r)
	}
	return nil
}

// takeOver gives the account to a renewal whose funding is in a block.
func (a *advancing) takeOver() error {
	old, err := lock(a.ctx, a.tx, *a.r.terms.Renews)
	if err != nil {
		return err
	}
	if has, err := a.hasAccount(a.r); has || a.r.finalOwed != nil || err != nil {
		return err // it took over before, and the block came again; or it came so late that its account has ended
	}
	taken, err := ledger.MsatOf(*a.r.renewsPaid - old.terms.OpeningPrice)
	if err != nil {
		return err
	}
	if err := a.m.takeOver(a.ctx, a.tx, old, a.r, taken); err != nil {
		return err
	}
	return a.touch(old.terms.ID)
}

// over writes off what a contract whose escrow is spent for good did not bring.
func (a *advancing) over() error {
	r, kind := a.r, a.f.spent.kind
	if kind == protocol.TxClosing && !a.isSuccessor(a.f.spent) {
		got, err := net(a.ctx, a.tx, r)
		if err != nil {
			return err
		}
		if r.closing != nil && got+r.closing.fee == r.closing.amount {
			got = r.closing.amount // the relay asked, and bears the fee
		}
		if err := a.received(got); err != nil {
			return err
		}
	}
	if kind == protocol.TxRefund { // the user took everything at T
		if err := a.received(r.terms.OpeningPrice); err != nil {
			return err
		}
	}
	return a.m.books.Lose(a.ctx, a.tx, r.terms.ID)
}

// received has the account say what the chain does of the relay's A.
func (a *advancing) received(amount btcutil.Amount) error {
	paid, err := ledger.MsatOf(amount - a.r.terms.OpeningPrice)
	if err != nil {
		return err
	}
	return a.m.books.Received(a.ctx, a.tx, a.r.terms.ID, paid)
}

// abandon gives up a contract whose funding cannot happen as far as the chain shows. Its account ends; that of the
// contract it was to renew goes on, unless that one is given up as well. A contract that was to renew this one spends its escrow:
// it is looked at next, and finds itself cancelled too.
func (a *advancing) abandon() error {
	r := a.r
	if r.renewedBy != nil {
		if err := a.touch(*r.renewedBy); err != nil {
			return err
		}
	}
	if r.terms.Renews == nil {
		if err := a.m.stop(a.ctx, a.tx, r); err != nil {
			return err
		}
		return a.m.books.Lose(a.ctx, a.tx, r.terms.ID)
	}
	old, err := lock(a.ctx, a.tx, *r.terms.Renews)
	if err != nil {
		return err
	}
	if err := a.giveBack(old); err != nil {
		return err
	}
	if old.state == escrow.Renewing {
		if err := a.m.move(a.ctx, a.tx, old, escrow.RenewalEnded); err != nil {
			return err
		}
	}
	// Of a contract that is given up, too, the successor stays known: should both fundings come yet, that one spends the escrow.
	if _, err := a.tx.Exec(a.ctx, `UPDATE contracts SET renewed_by = NULL WHERE id = $1 AND state <> $2`, old.terms.ID[:], string(escrow.Abandoned)); err != nil {
		return err
	}
	zero := protocol.Msat(0)
	if r.finalOwed == nil {
		return a.m.setFinal(a.ctx, a.tx, r, &zero)
	}
	return nil
}

// giveBack returns the account to the contract that this one was to renew, if it had it.
func (a *advancing) giveBack(old *record) error {
	r := a.r
	if has, err := a.hasAccount(r); !has || err != nil {
		return err
	}
	taken, err := ledger.MsatOf(*r.renewsPaid - old.terms.OpeningPrice)
	if err != nil {
		return err
	}
	if err := a.m.takeOver(a.ctx, a.tx, r, old, -taken); err != nil {
		return err
	}
	if old.settle || old.terms.SettlementDue(a.f.tip) || old.state == escrow.Abandoned {
		return a.m.stop(a.ctx, a.tx, old) // it is settled by itself, or there is nothing to settle
	}
	if old.state == escrow.Settling {
		return a.m.move(a.ctx, a.tx, old, escrow.RenewalReorged)
	}
	return nil
}

// lapse ends the account of a contract whose funding is in no block when it would have to be settled: a funding that left its
// block and does not come back. What it owes by then is final.
func (a *advancing) lapse() error {
	if a.r.state != escrow.FundingSent || !a.r.terms.SettlementDue(a.f.tip) {
		return nil
	}
	if has, err := a.hasAccount(a.r); !has || err != nil {
		return err // a renewal that was never in a block: the account is the old contract's
	}
	return a.m.stop(a.ctx, a.tx, a.r)
}

// hasAccount tells whether the payer's account is under this contract.
func (a *advancing) hasAccount(r *record) (bool, error) {
	_, err := a.m.books.Owed(a.ctx, a.tx, r.terms.User, r.terms.ID)
	if errors.Is(err, books.ErrNotInForce) {
		return false, nil
	}
	return err == nil, err
}

func (a *advancing) touch(id escrow.ID) error {
	_, err := a.tx.Exec(a.ctx, `UPDATE contracts SET look_at = 0 WHERE id = $1 AND look_at IS NOT NULL`, id[:])
	return err
}
