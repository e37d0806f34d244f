package relayside

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Signed takes the user's signatures of the funding and of state 0, and makes the contract: from here on it is on disk, its
// coin is its own, and the relay signs and broadcasts the funding. The same request again has the same effect. Codes are
// those of package escrow, and
//
//   - not_found: no such offer, or it was swept: open again
//   - funding_ended: the relay's coin went to another contract, or the renewed contract was paid meanwhile: open again
//   - conflict: signed before with other content, or the payer has another contract by now
//   - contract_expiry, input_spent: judged again, now
//   - chain_stale: nothing is signed while the chain cannot be seen
func (m *Manager) Signed(ctx context.Context, e *protocol.Envelope, r *protocol.ContractClientSigned) (_ *protocol.ContractStatus, err error) {
	defer func() { m.metrics.refuse(stepSigned, err) }()
	done, err := m.signedBefore(ctx, e, r.Contract)
	if err != nil {
		return nil, err
	}
	if !done {
		if err := m.sign(ctx, e, r); err != nil && !m.signedMeanwhile(ctx, e, r.Contract, err) {
			return nil, err
		}
		m.nudge()
	}
	return m.Status(ctx, e.From, r.Contract)
}

// signedBefore tells whether this very request made its contract.
func (m *Manager) signedBefore(ctx context.Context, e *protocol.Envelope, id escrow.ID) (bool, error) {
	var payer, hash []byte
	err := m.db.Pool().QueryRow(ctx, `SELECT payer, signed_hash FROM contracts WHERE id = $1`, id[:]).Scan(&payer, &hash)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, wrap(err, "look for contract %s", id.Short())
	case protocol.PublicKey(payer) != e.From:
		return false, notFound(id)
	case protocol.Hash(hash) != e.RequestHash():
		return false, protocol.Errorf(protocol.CodeConflict, "contract %s was signed before, with other content: ask for its status", id.Short())
	}
	return true, nil
}

// signedMeanwhile tells whether this very request has made its contract by now, so that it failed because it is done: whoever was cut off asks
// again while the first one is still at work, and finds neither the offer nor his coins.
func (m *Manager) signedMeanwhile(ctx context.Context, e *protocol.Envelope, id escrow.ID, failed error) bool {
	if errors.Is(failed, errCrash) {
		return false
	}
	done, err := m.signedBefore(ctx, e, id)
	return err == nil && done
}

func (m *Manager) sign(ctx context.Context, e *protocol.Envelope, r *protocol.ContractClientSigned) error {
	height, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	o, err := m.readOpening(ctx, e.From, r.Contract)
	if err != nil {
		return err
	}
	// T may have come near since the offer.
	if err := escrow.CheckExpiry(o.terms.Expiry, height); err != nil {
		return err
	}
	packet, err := o.funding.MergeUser(r.PSBT)
	if err != nil {
		return err
	}
	at, err := o.funding.Outpoint()
	if err != nil {
		return err
	}
	state0 := escrow.Payment{Seq: r.Seq, Amount: r.Amount, Signature: r.Signature}
	if err := escrow.VerifyOpening(&o.terms, at, state0); err != nil {
		return err
	}
	n := &newContract{opening: o, signedHash: e.RequestHash(), packet: packet, height: height,
		record: &record{terms: o.terms, state: escrow.FundingSent, opened: m.now(), funding: at.Hash, held: state0, renewsPaid: o.renewsPaid}}
	err = m.db.Tx(ctx, func(tx pgx.Tx) error { return m.insertContract(ctx, tx, n) })
	if err != nil {
		return wrap(err, "sign contract %s", r.Contract.Short())
	}
	if err := m.reached("signed"); err != nil {
		return err
	}
	return m.sendStored(ctx, r.Contract)
}

// readOpening reads what was offered.
func (m *Manager) readOpening(ctx context.Context, payer protocol.PublicKey, id escrow.ID) (*opening, error) {
	var terms, request []byte
	var psbt string
	var paid *int64
	err := m.db.Pool().QueryRow(ctx, `SELECT terms, request, psbt, renews_amount, reserved_until FROM contract_openings WHERE id = $1 AND payer = $2`, id[:], payer[:]).
		Scan(&terms, &request, &psbt, &paid, new(protocol.Timestamp))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, protocol.Errorf(protocol.CodeNotFound, "there is no offer for contract %s, or it is over: open it again", id.Short())
	}
	if err != nil {
		return nil, wrap(err, "read the offer of contract %s", id.Short())
	}
	o := &opening{psbt: protocol.PSBT(psbt), renewsPaid: (*btcutil.Amount)(paid)}
	if err := json.Unmarshal(terms, &o.terms); err != nil {
		return nil, err
	}
	return o, m.rebuild(ctx, m.db.Pool(), o, request)
}

// rebuild makes the funding again out of what is stored of an opening or a contract: terms, psbt, renewsPaid, and the request.
func (m *Manager) rebuild(ctx context.Context, q querier, o *opening, request []byte) (err error) {
	if o.request, err = protocol.ParseEnvelope(request); err != nil {
		return err
	}
	o.asked = new(protocol.ContractOpen)
	if err := o.request.Decode(o.asked); err != nil {
		return err
	}
	part, err := escrow.ParseOffer(o.asked.PSBT)
	if err != nil {
		return err
	}
	var renewal *escrow.Renewal
	if o.terms.Renews != nil {
		old, err := read(ctx, q, *o.terms.Renews)
		if err != nil {
			return wrap(err, "read the contract that %s renews", o.terms.ID.Short())
		}
		renewal = &escrow.Renewal{Contract: &old.terms, Funding: old.outpoint(), Amount: *o.renewsPaid}
	}
	o.funding, err = escrow.VerifyFunding(o.psbt, &o.terms, escrow.Feerate(o.asked.Feerate), part, renewal)
	return err
}

// newContract is what one transaction makes of an opening.
type newContract struct {
	*opening
	record     *record
	signedHash protocol.Hash
	packet     *psbt.Packet // with the user's witnesses
	height     uint32
}

// signingLock makes contracts that are signed at the same time see one another's coins: a constant for pg_advisory_xact_lock.
const signingLock = 0x7369676e

// insertContract makes the contract. Whoever signs the same opening, or with the same coins, at the same time waits and is told.
func (m *Manager) insertContract(ctx context.Context, tx pgx.Tx, n *newContract) error {
	// Until the coins are watched no block is stored: one that spends a coin is either seen here or by the watch.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock_shared($1)`, blockLock); err != nil {
		return err
	}
	if err := m.checkCoins(ctx, n.funding.User.Coins); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, signingLock); err != nil {
		return err
	}
	if err := untaken(ctx, tx, n.opening); err != nil {
		return err
	}
	if err := alone(ctx, tx, n.opening); err != nil {
		return err
	}
	if err := m.insertRow(ctx, tx, n); err != nil {
		return err
	}
	if err := takeCoins(ctx, tx, n.terms.ID, n.funding.Relay.Coins); err != nil {
		return err
	}
	if err := n.watch(ctx, tx); err != nil {
		return err
	}
	if n.terms.Renews != nil {
		if err := m.startRenewal(ctx, tx, n); err != nil {
			return err
		}
	} else if err := m.books.OpenContract(ctx, tx, n.pendingAccount()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM contract_openings WHERE id = $1`, n.terms.ID[:]); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE contract_payout SET used = true WHERE script = $1`, []byte(n.terms.RelayScript)); err != nil {
		return err
	}
	if len(n.funding.Relay.Coins) > 0 {
		return nil // the wallet signs, in the process that has it
	}
	return m.finishFunding(ctx, tx, n.record, n.funding, n.packet)
}

func (m *Manager) insertRow(ctx context.Context, tx pgx.Tx, n *newContract) error {
	terms, err := json.Marshal(n.terms)
	if err != nil {
		return err
	}
	offer, err := json.Marshal(n.answer())
	if err != nil {
		return err
	}
	merged, err := escrow.EncodePSBT(n.packet)
	if err != nil {
		return err
	}
	asked := n.request.RequestHash()
	var renews []byte
	if n.terms.Renews != nil {
		renews = n.terms.Renews[:]
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO contracts (id, payer, state, terms, expiry, opened, request_hash, request, offer, signed_hash, psbt, funding,
		  seq, amount, signature, renews, renews_amount, look_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 0) ON CONFLICT (id) DO NOTHING`,
		n.terms.ID[:], n.terms.User[:], string(n.record.state), terms, int32(n.terms.Expiry), n.record.opened, asked[:], n.request.Bytes(), offer,
		n.signedHash[:], string(merged), n.record.funding[:], n.record.held.Seq, int64(n.record.held.Amount), []byte(n.record.held.Signature),
		renews, (*int64)(n.renewsPaid))
	if err == nil && tag.RowsAffected() == 0 {
		return protocol.Errorf(protocol.CodeConflict, "contract %s was signed a moment ago: ask for its status", n.terms.ID.Short())
	}
	return err
}

// watch has the follower look for what spends the escrow or an input of the funding.
func (n *newContract) watch(ctx context.Context, tx pgx.Tx) error {
	inputs := n.userInputs()
	for _, coin := range n.funding.Relay.Coins {
		inputs = append(inputs, outpointKey(coin.OutPoint))
	}
	if r := n.funding.Renewal; r != nil {
		inputs = append(inputs, outpointKey(r.Funding))
	}
	_, err := tx.Exec(ctx, `INSERT INTO contract_watches (outpoint, contract, escrow)
		SELECT o, $2::bytea, false FROM unnest($1::bytea[]) AS t (o) UNION ALL SELECT $3::bytea, $2::bytea, true`,
		inputs, n.terms.ID[:], outpointKey(n.record.outpoint()))
	return err
}

// startRenewal binds the old contract to its successor. The amount that the funding takes from it must still be the highest.
func (m *Manager) startRenewal(ctx context.Context, tx pgx.Tx, n *newContract) error {
	old, err := lockOf(ctx, tx, n.terms.User, *n.terms.Renews)
	if err != nil {
		return err
	}
	if err := m.renewable(ctx, tx, old, n.height); err != nil {
		return err
	}
	if old.held.Amount != *n.renewsPaid {
		return protocol.Errorf(protocol.CodeFundingEnded, "the contract was paid since the offer to renew it, %d satoshi instead of %d: open again",
			int64(old.held.Amount), int64(*n.renewsPaid))
	}
	if err := m.move(ctx, tx, old, escrow.RenewalSigned); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE contracts SET renewed_by = $2 WHERE id = $1`, old.terms.ID[:], n.terms.ID[:])
	return err
}

// finishFunding signs what the relay has to sign beside its wallet's coins, and stores the whole.
func (m *Manager) finishFunding(ctx context.Context, tx pgx.Tx, r *record, f *escrow.Funding, packet *psbt.Packet) error {
	key, err := m.renewalKey(f)
	if err != nil {
		return err
	}
	whole, err := f.Finish(packet, key)
	if err != nil {
		return err
	}
	return m.store(ctx, tx, r.terms.ID, transaction{kind: protocol.TxFunding, tx: whole, feerate: f.Feerate})
}

// pendingAccount has no credit and takes nothing away: a grant serves on until the funding is in a block.
func (n *newContract) pendingAccount() books.Opening {
	a := account(&n.terms)
	a.Pending = true
	return a
}

// account is the contract as the books take it.
func account(c *escrow.Contract) books.Opening {
	return books.Opening{ID: c.ID, Payer: c.User, Writers: slices.Clone(c.Writers), Renews: c.Renews,
		Prices: ledger.Prices{Storage: protocol.Msat(c.Prices.StorageMsatPerGBDay), Bandwidth: protocol.Msat(c.Prices.BandwidthMsatPerGB)}}
}
