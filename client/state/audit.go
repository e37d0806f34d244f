package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Bill is how far the reports on a contract were audited.
type Bill struct {
	Contract protocol.ContractID
	Relay    protocol.PublicKey
	Place    ledger.Place  // after the last report; its totals are what the relay claims
	Accepted ledger.Totals // what of them was accepted
	Audited  protocol.Timestamp
}

// Bill reads it; the zero bill of a contract that was never audited.
func (s *Store) Bill(ctx context.Context, contract protocol.ContractID) (Bill, error) {
	b := Bill{Contract: contract}
	var relay, report []byte
	var claimed, accepted string
	err := s.sql.QueryRowContext(ctx, `SELECT relay, last, report, claimed, accepted, audited FROM bills WHERE contract = ?`, contract[:]).
		Scan(&relay, &b.Place.Last, &report, &claimed, &accepted, &b.Audited)
	if errors.Is(err, sql.ErrNoRows) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	b.Relay, b.Place.Report = publicKey(relay), hash(report)
	if b.Place.Totals, err = readTotals(claimed); err == nil {
		b.Accepted, err = readTotals(accepted)
	}
	return b, err
}

func readTotals(text string) (ledger.Totals, error) {
	var w protocol.UsageTotals
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return ledger.Totals{}, err
	}
	return ledger.TotalsOf(w)
}

func totalsText(t ledger.Totals) (string, error) {
	data, err := json.Marshal(t.Wire())
	return string(data), err
}

// Report is the report that begins with a line, as the relay signed it; nil if there is none.
func (s *Store) Report(ctx context.Context, contract protocol.ContractID, last int64) (first int64, envelope []byte, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT first, envelope FROM reports WHERE contract = ? AND last = ?`, contract[:], last).Scan(&first, &envelope)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return first, envelope, err
}

// Audited is a record that a bill is about, as far as it was accepted.
type Audited struct {
	Path protocol.Path
	Hash protocol.Hash
	ledger.Standing
	Receipts int64 // that its reader left, from this relay
}

// Audited visits the accepted records of a contract, by receiver and in the order of their writes. Nothing else can use
// the store meanwhile.
func (s *Store) Audited(ctx context.Context, contract protocol.ContractID, visit func(*Audited) error) error {
	return s.audited(ctx, `ORDER BY receiver, line`, visit, contract[:])
}

// Part is a part of an audit: at most Limit records or lines after line After.
type Part struct {
	Friend *protocol.PublicKey // only what was written to him
	Record string              // only records of this id, or whose ids end so
	After  int64
	Limit  int // 0: all
}

// where is the condition for parameters ?2 … ?5, which args are, and the end of the query.
const partWhere = `AND (?2 IS NULL OR receiver = ?2) AND (?3 = '' OR record_id LIKE '%' || ?3 ESCAPE '\') AND line > ?4 ORDER BY line LIMIT ?5`

func (p Part) args(contract protocol.ContractID) []any {
	limit := p.Limit
	if limit <= 0 {
		limit = -1
	}
	return []any{contract[:], optionalKey(p.Friend), likeText(p.Record), p.After, limit}
}

// RecordOfLine is the record that a line of a contract's ledger is about: one that writes, pulls or ends it, or that was
// refused. It is empty for others: lines that give back pulls, drop what was refused, or are not audited yet.
func (s *Store) RecordOfLine(ctx context.Context, contract protocol.ContractID, line int64) (id protocol.RecordID, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT record_id FROM refused WHERE contract = ?1 AND line = ?2
		UNION ALL SELECT record_id FROM standings WHERE contract = ?1 AND (line = ?2 OR end_line = ?2)
		UNION ALL SELECT record_id FROM claims c JOIN standings s USING (contract, hash) WHERE c.contract = ?1 AND c.line = ?2 LIMIT 1`,
		contract[:], line).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return id, err
}

// AuditedPart visits accepted records of a contract in the order of their writes.
func (s *Store) AuditedPart(ctx context.Context, contract protocol.ContractID, p Part, visit func(*Audited) error) error {
	return s.audited(ctx, partWhere, visit, p.args(contract)...)
}

// AuditedUnordered visits them as they lie on disk, which takes a third of the time and nothing to sort in.
func (s *Store) AuditedUnordered(ctx context.Context, contract protocol.ContractID, visit func(*Audited) error) error {
	return s.audited(ctx, ``, visit, contract[:])
}

func (s *Store) audited(ctx context.Context, more string, visit func(*Audited) error, args ...any) error {
	rows, err := s.sql.QueryContext(ctx, `SELECT `+standingColumns+`, s.hash, sender, receiver, record_id,
		(SELECT count(*) FROM receipts r WHERE r.relay = b.relay AND r.hash = s.hash)
		FROM standings s JOIN bills b ON b.contract = s.contract WHERE s.contract = ?1 `+more, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var a Audited
		var envelope, sender, receiver []byte
		if a.Standing, err = scanStanding(rows.Scan, &envelope, &sender, &receiver, &a.Path.ID, &a.Receipts); err != nil {
			return err
		}
		a.Hash, a.Path.Sender, a.Path.Receiver = hash(envelope), publicKey(sender), publicKey(receiver)
		if err := visit(&a); err != nil {
			return err
		}
	}
	return rows.Err()
}
