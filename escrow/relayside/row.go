package relayside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// queryRower is a transaction, or a pool.
type queryRower interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// record is one contract from the user's signature on: a row of contracts.
type record struct {
	terms      escrow.Contract
	state      escrow.State
	opened     protocol.Timestamp
	funding    chainhash.Hash
	held       escrow.Payment // the highest state
	closing    *released
	renewedBy  *escrow.ID
	renewsPaid *btcutil.Amount // A that the funding takes from the contract it renews
	carried    protocol.Msat   // usage that is owed beside the account's own, from contracts before
	finalOwed  *protocol.Msat  // usage when it stopped, carried included; nil: the account tells
	settle     bool
}

// released is the closing signature that the relay let out of its hands.
type released struct {
	amount, fee btcutil.Amount
	sig         protocol.ContractSignature
	since       uint32 // height
}

// outpoint is the escrow.
func (r *record) outpoint() wire.OutPoint { return wire.OutPoint{Hash: r.funding, Index: 0} }

func (r *record) unsettled() escrow.Unsettled {
	return escrow.Unsettled{Contract: &r.terms, Funding: r.outpoint(), Payment: r.held}
}

const recordColumns = `state, terms, opened, funding, seq, amount, signature, closing_amount, closing_fee, closing_sig, closing_since,
	renewed_by, renews_amount, carried, final_owed, settle`

func scanRecord(row pgx.CollectableRow) (*record, error) {
	var r record
	var terms, funding, signature, closingSig, renewedBy []byte
	var closingAmount, closingFee, renewsAmount, finalOwed *int64
	var since *int32
	err := row.Scan(&r.state, &terms, &r.opened, &funding, &r.held.Seq, &r.held.Amount, &signature, &closingAmount, &closingFee, &closingSig,
		&since, &renewedBy, &renewsAmount, &r.carried, &finalOwed, &r.settle)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(terms, &r.terms); err != nil {
		return nil, fmt.Errorf("the terms of a contract: %w", err)
	}
	r.funding, r.held.Signature = chainhash.Hash(funding), signature
	if closingAmount != nil {
		r.closing = &released{amount: btcutil.Amount(*closingAmount), fee: btcutil.Amount(*closingFee), sig: closingSig, since: uint32(*since)}
	}
	if renewedBy != nil {
		r.renewedBy = (*escrow.ID)(renewedBy)
	}
	r.renewsPaid, r.finalOwed = (*btcutil.Amount)(renewsAmount), (*protocol.Msat)(finalOwed)
	return &r, nil
}

// querier is a transaction, or a pool.
type querier interface {
	queryRower
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// read reads one contract. The error is pgx.ErrNoRows when there is none.
func read(ctx context.Context, q querier, id escrow.ID) (*record, error) {
	return readWith(ctx, q, `SELECT `+recordColumns+` FROM contracts WHERE id = $1`, id[:])
}

// lock reads one contract and keeps it from others until the transaction ends.
func lock(ctx context.Context, tx pgx.Tx, id escrow.ID) (*record, error) {
	return readWith(ctx, tx, `SELECT `+recordColumns+` FROM contracts WHERE id = $1 FOR UPDATE`, id[:])
}

func readWith(ctx context.Context, q querier, sql string, args ...any) (*record, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectExactlyOneRow(rows, scanRecord)
}

// lockOf is [lock] for a request of a payer. Who is not the contract's payer learns no more than a stranger.
func lockOf(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id escrow.ID) (*record, error) {
	r, err := lock(ctx, tx, id)
	return ofPayer(r, err, payer, id)
}

func ofPayer(r *record, err error, payer protocol.PublicKey, id escrow.ID) (*record, error) {
	if errors.Is(err, pgx.ErrNoRows) || err == nil && r.terms.User != payer {
		return nil, notFound(id)
	}
	return r, err
}

func notFound(id escrow.ID) error {
	return protocol.Errorf(protocol.CodeNotFound, "there is no contract %s of yours", id.Short())
}

// move takes the contract through events of the table, and stores where it gets to.
func (m *Manager) move(ctx context.Context, tx pgx.Tx, r *record, events ...escrow.Event) error {
	before := r.state
	for _, e := range events {
		next, err := escrow.Next(r.state, e)
		if err != nil {
			return err
		}
		r.state = next
	}
	if r.state == before {
		return nil
	}
	m.log.Info("contract", "contract", r.terms.ID.Short(), "from", before, "to", r.state)
	_, err := tx.Exec(ctx, `UPDATE contracts SET state = $2, look_at = 0 WHERE id = $1`, r.terms.ID[:], string(r.state))
	return err
}

// saveHeld stores the highest state.
func (r *record) saveHeld(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `UPDATE contracts SET seq = $2, amount = $3, signature = $4 WHERE id = $1`,
		r.terms.ID[:], r.held.Seq, int64(r.held.Amount), []byte(r.held.Signature))
	return err
}

// saveClosing stores the closing signature that is about to be released.
func (r *record) saveClosing(ctx context.Context, tx pgx.Tx, c released) error {
	r.closing = &c
	_, err := tx.Exec(ctx, `UPDATE contracts SET closing_amount = $2, closing_fee = $3, closing_sig = $4, closing_since = $5 WHERE id = $1`,
		r.terms.ID[:], int64(c.amount), int64(c.fee), []byte(c.sig), int32(c.since))
	return err
}

// transaction is one of the relay's making.
type transaction struct {
	kind    string
	tx      *escrow.Tx
	feerate escrow.Feerate
	bidAt   uint32
	later   bool // it is not to be sent yet
}

// store makes a transaction durable; from then on it is sent until it, or another one in its place, is in a block.
func (m *Manager) store(ctx context.Context, tx pgx.Tx, id escrow.ID, t transaction) error {
	hash := t.tx.TxHash()
	rate := t.feerate
	if rate == 0 {
		rate = escrow.Feerate(int64(t.tx.Fee()) * 1000 / t.tx.VSize())
	}
	_, err := tx.Exec(ctx, `INSERT INTO contract_transactions (txid, contract, kind, tx, fee, feerate, made, bid_at, wanted)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (txid) DO UPDATE SET wanted = $9`,
		hash[:], id[:], t.kind, t.tx.Bytes(), int64(t.tx.Fee()), int64(rate), m.now(), int32(t.bidAt), !t.later)
	return err
}
