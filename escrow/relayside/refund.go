package relayside

import (
	"context"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Refund closes the contract together: it takes the user's signature of a closing that pays the relay at least what it is
// owed, stops the account, stores the closing with both signatures, and broadcasts it. The same request again has the same
// answer; another one is signed as well if it takes the place of the last one everywhere. Codes are those of package escrow,
// and
//
//   - feerate: it is below half of the node's estimate, or not enough above the last one
//   - not_found: no such contract of the signer
//   - wrong_amount: it is less than what is owed or held; the status tells
//   - contract_state: not funded yet, being renewed, or settled already
func (m *Manager) Refund(ctx context.Context, e *protocol.Envelope, r *protocol.ContractRefund) (_ *protocol.ContractStatus, err error) {
	defer func() { m.metrics.refuse(stepRefund, err) }()
	feerate, err := m.leastFeerate(ctx)
	if err != nil { // closing goes on without the node, at any fee
		m.seldom.Do(func() { m.log.Warn("the fee of a closing is not judged: the node tells no feerate", "err", err) })
		feerate = protocol.MinContractFeerate
	}
	err = m.db.Tx(ctx, func(tx pgx.Tx) error { return m.refund(ctx, tx, e, r, feerate) })
	if err != nil {
		return nil, wrap(err, "refund contract %s", r.Contract.Short())
	}
	if err := m.reached("closing"); err != nil {
		return nil, err
	}
	if err := m.sendStored(ctx, r.Contract); err != nil {
		return nil, err
	}
	m.nudge()
	return m.Status(ctx, e.From, r.Contract)
}

func (m *Manager) refund(ctx context.Context, tx pgx.Tx, e *protocol.Envelope, r *protocol.ContractRefund, feerate escrow.Feerate) error {
	c, err := lockOf(ctx, tx, e.From, r.Contract)
	if err != nil {
		return err
	}
	closing := escrow.Closing{Amount: r.Amount, Fee: r.Fee, Asked: escrow.User}
	template, err := escrow.ClosingTx(&c.terms, c.outpoint(), closing)
	if err != nil {
		return err
	}
	id := template.TxHash()
	var known bool
	var last btcutil.Amount
	err = tx.QueryRow(ctx, `SELECT coalesce(bool_or(txid = $1), false), coalesce(max(fee), 0) FROM contract_transactions WHERE contract = $2 AND kind = $3`,
		id[:], r.Contract[:], protocol.TxClosing).Scan(&known, &last)
	if err != nil || known {
		return err // signed before
	}
	if err := enoughFee(&c.terms, template.Fee(), last, feerate); err != nil {
		return err
	}
	f, err := readFacts(ctx, tx, c)
	if err != nil {
		return err
	}
	if f.fundingHeight == nil {
		return protocol.Errorf(protocol.CodeContractState, "the funding is in no block: end it by spending one of its inputs, or wait until it is")
	}
	if err := escrow.VerifyClosing(&c.terms, c.outpoint(), closing, escrow.User, r.Signature); err != nil {
		return err
	}
	if err := m.move(ctx, tx, c, escrow.RequestRefund); err != nil {
		return err
	}
	if err := m.enough(ctx, tx, c, r.Amount); err != nil {
		return err
	}
	return m.releaseClosing(ctx, tx, c, closing, r.Signature, f.tip)
}

// enoughFee judges the fee of a closing. One that is in no block stands in the way of the settlement, which has to outbid it. So
// it pays a feerate at least; and after one that paid last (0: the first) a quarter more, and what its own relaying costs, so
// that every node takes it in the other's place (BIP125). As fees end at 1000 sat/vB, a contract has about 25 at most.
func enoughFee(c *escrow.Contract, fee, last btcutil.Amount, feerate escrow.Feerate) error {
	least, err := escrow.EstimateFees(c, feerate)
	if err != nil {
		return err
	}
	if fee < least.Closing {
		return protocol.Errorf(protocol.CodeFeerate, "a closing that pays %d satoshi may stay out of blocks: take %d at least", int64(fee), int64(least.Closing))
	}
	if last == 0 {
		return nil
	}
	relaying, err := escrow.EstimateFees(c, protocol.MinContractFeerate)
	if err != nil {
		return err
	}
	if next := last + last/4 + relaying.Closing; fee < next {
		return protocol.Errorf(protocol.CodeFeerate, "a closing that pays %d satoshi was signed already: another one pays %d at least", int64(last), int64(next))
	}
	return nil
}

// enough stops the account, so that what is owed is final, and refuses less. Refused, the transaction is undone and the
// account goes on.
func (m *Manager) enough(ctx context.Context, tx pgx.Tx, c *record, amount btcutil.Amount) error {
	if err := m.stopTaking(ctx, tx, c); err != nil {
		return err
	}
	owed, err := m.amountOwed(ctx, tx, c)
	if err != nil {
		return err
	}
	if amount < owed {
		return protocol.Errorf(protocol.CodeWrongAmount, "%d satoshi is less than the %d that are owed, what was paid included: sign a closing of that amount",
			int64(amount), int64(owed))
	}
	return nil
}

// amountOwed is the A that pays for everything: c₀ and usage, rounded up once; what was paid already at least, and at most
// what the deposit has.
func (m *Manager) amountOwed(ctx context.Context, q books.Querier, c *record) (btcutil.Amount, error) {
	usage, err := m.usage(ctx, q, c)
	if err != nil {
		return 0, err
	}
	owed := c.terms.OpeningPrice + ledger.Sat(max(usage, 0))
	owed = max(min(owed, c.terms.Deposit-escrow.MinUserRest), c.held.Amount)
	if c.closing != nil {
		owed = max(owed, c.closing.amount)
	}
	return owed, nil
}

// releaseClosing signs a closing. It is stored, and no credit given any more, before anybody sees the signature. With the
// user's signature the transaction is whole and is broadcast; without, it waits for him.
func (m *Manager) releaseClosing(ctx context.Context, tx pgx.Tx, c *record, closing escrow.Closing, user protocol.ContractSignature, height uint32) error {
	key, err := m.cfg.Key(c.terms.ID)
	if err != nil {
		return wrap(err, "derive the key of contract %s", c.terms.ID.Short())
	}
	sig, err := escrow.SignClosing(&c.terms, c.outpoint(), closing, key)
	if err != nil {
		return err
	}
	if user == nil {
		return c.saveClosing(ctx, tx, released{amount: closing.Amount, fee: closing.Fee, sig: sig, since: height})
	}
	whole, err := escrow.FinishClosing(&c.terms, c.outpoint(), closing, user, sig)
	if err != nil {
		return err
	}
	// The new one replaces those before.
	if _, err := tx.Exec(ctx, `UPDATE contract_transactions SET wanted = false WHERE contract = $1 AND kind = $2`, c.terms.ID[:], protocol.TxClosing); err != nil {
		return err
	}
	return m.store(ctx, tx, c.terms.ID, transaction{kind: protocol.TxClosing, tx: whole, bidAt: height})
}
