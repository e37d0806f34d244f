package relayside

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// Status is where a contract stands. The error has code [protocol.CodeNotFound] when the payer has no such contract.
func (m *Manager) Status(ctx context.Context, payer protocol.PublicKey, id escrow.ID) (status *protocol.ContractStatus, err error) {
	err = m.db.Snapshot(ctx, func(tx pgx.Tx) error {
		r, err := read(ctx, tx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			status, err = openingStatus(ctx, tx, payer, id)
			return err
		}
		if r, err = ofPayer(r, err, payer, id); err != nil {
			return err
		}
		status, err = m.statusOf(ctx, tx, r)
		return err
	})
	return status, wrap(err, "read contract %s", id.Short())
}

// maxListed bounds the contracts of a list, each of which takes several queries; [protocol.MaxContractList] is what a reply may have.
const maxListed = 100

// List is the status of the contracts of a payer that were signed, newest first: at most a hundred, the live ones before those
// that are over.
func (m *Manager) List(ctx context.Context, payer protocol.PublicKey) (*protocol.ContractList, error) {
	list := &protocol.ContractList{Type: protocol.TypeContractList}
	err := m.db.Snapshot(ctx, func(tx pgx.Tx) error {
		list.Contracts = []protocol.ContractStatus{}
		rows, err := tx.Query(ctx, `SELECT `+recordColumns+` FROM (
			SELECT * FROM contracts WHERE payer = $1 ORDER BY look_at IS NULL, opened DESC LIMIT $2) listed ORDER BY opened DESC`, payer[:], maxListed)
		if err != nil {
			return err
		}
		all, err := pgx.CollectRows(rows, scanRecord)
		if err != nil {
			return err
		}
		for _, r := range all {
			status, err := m.statusOf(ctx, tx, r)
			if err != nil {
				return err
			}
			list.Contracts = append(list.Contracts, *status)
		}
		return nil
	})
	return list, wrap(err, "list contracts of %s", payer)
}

func openingStatus(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id escrow.ID) (*protocol.ContractStatus, error) {
	var raw []byte
	err := tx.QueryRow(ctx, `SELECT terms FROM contract_openings WHERE id = $1 AND payer = $2`, id[:], payer[:]).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(id)
	}
	if err != nil {
		return nil, err
	}
	var c escrow.Contract
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	height, err := tip(ctx, tx)
	status := termsStatus(&c, height)
	status.State, status.Seq = escrow.Opening, -1
	return status, err
}

// termsStatus is what of a status never changes, and the height.
func termsStatus(c *escrow.Contract, height uint32) *protocol.ContractStatus {
	return &protocol.ContractStatus{
		Type: protocol.TypeContractStatus, Contract: c.ID, Deposit: c.Deposit, Bond: c.Bond, OpeningPrice: c.OpeningPrice, CreditLimit: c.CreditLimit,
		Expiry: int64(c.Expiry), LastUsage: int64(c.LastUsage()), Height: int64(height), Renews: c.Renews, Transactions: []protocol.ContractTx{},
	}
}

func (m *Manager) statusOf(ctx context.Context, q querier, r *record) (*protocol.ContractStatus, error) {
	f, err := readFacts(ctx, q, r)
	if err != nil {
		return nil, err
	}
	s := termsStatus(&r.terms, f.tip)
	s.State, s.Seq, s.Amount, s.RenewedBy = r.state, r.held.Seq, r.held.Amount, r.renewedBy
	if s.Owed, err = m.amountOwed(ctx, q, r); err != nil {
		return nil, err
	}
	if r.closing != nil && r.state == escrow.PaymentRequested {
		s.Closing = &protocol.RequestPayment{Amount: r.closing.amount, Fee: r.closing.fee, Signature: r.closing.sig}
	}
	if escrow.TakesPayments(r.state) && s.Owed-r.held.Amount > r.terms.CreditLimit/2 {
		s.Due = &protocol.PaymentDue{Amount: s.Owed}
	}
	return s, m.addTransactions(ctx, q, r, f, s)
}

// addTransactions names what the relay made and what it saw.
func (m *Manager) addTransactions(ctx context.Context, q querier, r *record, f facts, s *protocol.ContractStatus) error {
	rows, err := q.Query(ctx, `SELECT kind, txid, height, CASE WHEN kind = $2 THEN tx END FROM contract_transactions WHERE contract = $1
		AND (kind <> $4 OR sent > 0 OR height IS NOT NULL) -- a cancellation in stock is nobody's business
		ORDER BY height IS NULL, made DESC LIMIT $3`, r.terms.ID[:], protocol.TxFunding, protocol.MaxContractTxs-2, protocol.TxCancel)
	if err != nil {
		return err
	}
	var kind string
	var txid, raw []byte
	var height *int32
	seen := make(map[chainhash.Hash]bool)
	_, err = pgx.ForEachRow(rows, []any{&kind, &txid, &height, &raw}, func() error {
		id := chainhash.Hash(txid)
		seen[id] = true
		t := protocol.ContractTx{Kind: kind, TxID: escrow.WireTxID(id), Confirmations: f.confirmations(height)}
		s.Transactions = append(s.Transactions, t)
		if kind == protocol.TxFunding {
			s.Funding = &protocol.FundingStatus{TxID: t.TxID, Tx: append(protocol.RawTx(nil), raw...), Confirmations: t.Confirmations}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, seenSpend := range []*spend{f.spent, f.cancelled} {
		if seenSpend != nil && !seen[seenSpend.txid] {
			s.Transactions = append(s.Transactions, protocol.ContractTx{Kind: seenSpend.kind, TxID: escrow.WireTxID(seenSpend.txid),
				Confirmations: f.confirmations(&seenSpend.height)})
		}
	}
	return nil
}
