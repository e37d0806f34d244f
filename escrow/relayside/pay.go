package relayside

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// keptPayments is how many of a contract's latest payments are remembered for their repetition: a client sends one
// after the other.
const keptPayments = 32

// Pay takes a higher state. It is durable, in the same transaction as the credit that it gives, when Pay returns; the same
// request again has the same answer. Sequence numbers may jump, so that a relay which was set back to an older copy takes
// what its users still have. Codes are those of package escrow, and
//
//   - not_found: no such contract of the signer
//   - conflict: another payment has this seq
//   - contract_state: it takes no payments now, or is being renewed and the state of the pending escrow is missing
//   - wrong_amount: while it is renewed also a state of the pending escrow that pays less than this one
func (m *Manager) Pay(ctx context.Context, e *protocol.Envelope, r *protocol.ContractPayment) (_ *protocol.ContractStatus, err error) {
	defer func() { m.metrics.refuse(stepPay, err) }()
	err = m.db.Tx(ctx, func(tx pgx.Tx) error { return m.pay(ctx, tx, e, r) })
	if err != nil {
		return nil, wrap(err, "pay contract %s", r.Contract.Short())
	}
	if err := m.reached("paid"); err != nil {
		return nil, err
	}
	return m.Status(ctx, e.From, r.Contract)
}

func (m *Manager) pay(ctx context.Context, tx pgx.Tx, e *protocol.Envelope, r *protocol.ContractPayment) error {
	c, err := lockOf(ctx, tx, e.From, r.Contract)
	if err != nil {
		return err
	}
	if known, err := paidBefore(ctx, tx, e, r); known || err != nil {
		return err
	}
	if !escrow.TakesPayments(c.state) {
		return protocol.Errorf(protocol.CodeContractState, "a contract that is %s takes no payments", c.state)
	}
	if err := m.raise(ctx, tx, c, escrow.Payment{Seq: r.Seq, Amount: r.Amount, Signature: r.Signature}); err != nil {
		return err
	}
	hash := e.RequestHash()
	_, err = tx.Exec(ctx, `INSERT INTO contract_payments (contract, seq, amount, request_hash, usage, received) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.Contract[:], r.Seq, int64(r.Amount), hash[:], (*int64)(r.Usage), m.now())
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM contract_payments WHERE contract = $1 AND seq < (
		SELECT min(seq) FROM (SELECT seq FROM contract_payments WHERE contract = $1 ORDER BY seq DESC LIMIT $2) newest)`, r.Contract[:], keptPayments)
	if err != nil {
		return err
	}
	if r.Usage != nil { // what it says, and no more than it pays
		covered := min(*r.Usage, protocol.Msat(max(r.Amount-c.terms.OpeningPrice, 0))*1000)
		if err := m.books.Paid(ctx, tx, r.Contract, covered); err != nil {
			return err
		}
	}
	if err := m.payPending(ctx, tx, c, r.Pending); err != nil {
		return err
	}
	return m.grantCredit(ctx, tx, c)
}

// paidBefore tells whether this very payment was taken.
func paidBefore(ctx context.Context, tx pgx.Tx, e *protocol.Envelope, r *protocol.ContractPayment) (bool, error) {
	var hash []byte
	err := tx.QueryRow(ctx, `SELECT request_hash FROM contract_payments WHERE contract = $1 AND seq = $2`, r.Contract[:], r.Seq).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil && protocol.Hash(hash) != e.RequestHash() {
		return false, protocol.Errorf(protocol.CodeConflict, "another payment of contract %s has seq %d: ask for its status", r.Contract.Short(), r.Seq)
	}
	return err == nil, err
}

// raise verifies and stores a higher state.
func (m *Manager) raise(ctx context.Context, tx pgx.Tx, c *record, p escrow.Payment) error {
	if err := escrow.VerifyPayment(&c.terms, c.outpoint(), c.held, p); err != nil {
		return err
	}
	c.held = p
	return m.saveHeld(ctx, tx, c)
}

// saveHeld stores the highest state, and in the account what it pays.
func (m *Manager) saveHeld(ctx context.Context, tx pgx.Tx, c *record) error {
	paid, err := ledger.MsatOf(c.held.Amount - c.terms.OpeningPrice)
	if err != nil {
		return err
	}
	if err := m.books.Received(ctx, tx, c.terms.ID, paid); err != nil {
		return err
	}
	return c.saveHeld(ctx, tx)
}

// payPending stores the state of the escrow that is to take this one's place: whichever of the two there will be, the relay
// has been paid.
func (m *Manager) payPending(ctx context.Context, tx pgx.Tx, c *record, p *protocol.PendingState) error {
	if c.state != escrow.Renewing {
		if p != nil {
			return protocol.Errorf(protocol.CodeContractState, "contract %s is not being renewed: pay it alone", c.terms.ID.Short())
		}
		return nil
	}
	if p == nil || c.renewedBy == nil || p.Contract != *c.renewedBy {
		return protocol.Errorf(protocol.CodeContractState, "contract %s is being renewed: sign the state of the pending contract as well", c.terms.ID.Short())
	}
	pending, err := lockOf(ctx, tx, c.terms.User, p.Contract)
	if err != nil {
		return err
	}
	if !escrow.TakesPayments(pending.state) {
		return protocol.Errorf(protocol.CodeContractState, "the pending contract %s is %s and takes no payments: ask for its status", p.Contract.Short(), pending.state)
	}
	// The renewal pays out renewsPaid of the old A; what the old escrow is worth beyond that, the new one must be worth too.
	if least := pending.terms.OpeningPrice + max(c.held.Amount-*pending.renewsPaid, 0); p.Amount < least {
		return protocol.Errorf(protocol.CodeWrongAmount, "the pending contract pays %d satoshi: with %d in the contract that it renews it is at least %d",
			int64(p.Amount), int64(c.held.Amount), int64(least))
	}
	next := escrow.Payment{Seq: p.Seq, Amount: p.Amount, Signature: p.Signature}
	if next.Seq == pending.held.Seq && next.Amount == pending.held.Amount {
		return nil // it was paid alone before
	}
	if err := m.raise(ctx, tx, pending, next); err != nil {
		return err
	}
	return m.grantCredit(ctx, tx, pending)
}
