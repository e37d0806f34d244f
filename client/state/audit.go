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

// Audit is the audit of one report: a transaction, so that what it found is stored with how far it came, or not at all.
// It is a [ledger.Memory].
type Audit struct {
	ctx      context.Context
	tx       *sql.Tx
	contract protocol.ContractID
	relay    protocol.PublicKey
	owner    protocol.PublicKey
	own      *sql.Stmt
	standing *sql.Stmt
	claim    *sql.Stmt
	changed  map[protocol.Hash]*ledger.Standing // not stored yet
	paths    map[protocol.Hash]protocol.Path
}

var _ ledger.Memory = (*Audit)(nil)

// AuditReport runs the audit of one report. An error of do leaves everything as it was.
func (s *Store) AuditReport(ctx context.Context, contract protocol.ContractID, relay protocol.PublicKey, do func(*Audit) error) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		a := &Audit{ctx: ctx, tx: tx, contract: contract, relay: relay, owner: s.owner,
			changed: make(map[protocol.Hash]*ledger.Standing), paths: make(map[protocol.Hash]protocol.Path)}
		for _, one := range []struct {
			to  **sql.Stmt
			sql string
		}{{&a.own, selectOwn}, {&a.standing, standingColumns + `WHERE contract = ? AND hash = ?`}, {&a.claim, `INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?)`}} {
			var err error
			if *one.to, err = tx.PrepareContext(ctx, one.sql); err != nil {
				return err
			}
			defer (*one.to).Close()
		}
		return do(a)
	})
}

// selectOwn is what is known of an envelope on a relay: one that we signed, or one that was left for us there by somebody
// whom we admit. When a message was removed, its copy is gone from when the relay said so.
const selectOwn = `SELECT NULL, o.receiver, o.record_id, a.bytes, a.signed, o.expires, o.max_pulls,
	CASE WHEN c.state = 'gone' AND o.removed IS NOT NULL THEN c.changed ELSE 0 END
	FROM attempts a JOIN outbox o ON o.n = a.n JOIN copies c ON c.n = a.n AND c.relay = a.relay WHERE a.hash = ?1 AND a.relay = ?2 AND a.bytes > 0
	UNION ALL SELECT sender, NULL, record_id, bytes, signed, expires, max_pulls, 0 FROM received WHERE relay = ?2 AND hash = ?1 AND sender <> ?3`

// Own implements [ledger.Memory].
func (a *Audit) Own(h protocol.Hash) (*ledger.Own, error) {
	own := &ledger.Own{}
	var sender, receiver []byte
	err := a.own.QueryRowContext(a.ctx, h[:], a.relay[:], a.owner[:]).
		Scan(&sender, &receiver, &own.Path.ID, &own.Bytes, &own.Signed, &own.Expires, &own.MaxPulls, &own.Deleted)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if own.Path.Sender, own.Path.Receiver = a.owner, a.owner; sender != nil {
		own.Path.Sender = publicKey(sender)
	}
	if receiver != nil {
		own.Path.Receiver = publicKey(receiver)
	}
	a.paths[h] = own.Path
	return own, err
}

const standingColumns = `SELECT line, written, expires, bytes, max_pulls, pulled, returned, end_line, ended FROM standings `

func scanStanding(scan func(...any) error, more ...any) (ledger.Standing, error) {
	var s ledger.Standing
	err := scan(append([]any{&s.Write, &s.Written, &s.Expires, &s.Bytes, &s.MaxPulls, &s.Pulled, &s.Returned, &s.End, &s.Ended}, more...)...)
	return s, err
}

// Standing implements [ledger.Memory].
func (a *Audit) Standing(h protocol.Hash) (ledger.Standing, error) {
	if s := a.changed[h]; s != nil {
		return *s, nil
	}
	s, err := scanStanding(a.standing.QueryRowContext(a.ctx, a.contract[:], h[:]).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Standing{}, nil
	}
	return s, err
}

// SetStanding implements [ledger.Memory].
func (a *Audit) SetStanding(h protocol.Hash, s ledger.Standing) error {
	a.changed[h] = &s
	return nil
}

// Claim implements [ledger.Memory].
func (a *Audit) Claim(h protocol.Hash, page protocol.PageID, seq int64) (bool, error) {
	result, err := a.claim.ExecContext(a.ctx, a.contract[:], h[:], page, seq)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// Refuse notes a line of which something was refused.
func (a *Audit) Refuse(l *ledger.Line, v ledger.Verdict) error {
	_, err := a.tx.ExecContext(a.ctx, `INSERT INTO refused (contract, line, kind, reason, why, sender, receiver, record_id, bytes, stored, moved)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, a.contract[:], l.Seq, l.Kind, v.Reason, v.Why,
		l.From[:], l.To[:], l.RecordID, l.Bytes, v.Refused.Stored.String(), v.Refused.Moved.String())
	return err
}

// Done stores how far the audit came: the report, and what of it was accepted.
func (a *Audit) Done(e *protocol.Envelope, first int64, after ledger.Place, accepted ledger.Totals, now protocol.Timestamp) error {
	put, err := a.tx.PrepareContext(a.ctx, `INSERT INTO standings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (contract, hash) DO UPDATE SET pulled = excluded.pulled, returned = excluded.returned, end_line = excluded.end_line, ended = excluded.ended`)
	if err != nil {
		return err
	}
	defer put.Close()
	for h, s := range a.changed {
		path := a.paths[h]
		if _, err := put.ExecContext(a.ctx, a.contract[:], h[:], path.Sender[:], path.Receiver[:], path.ID, s.Write, s.Written, s.Expires, s.Bytes,
			s.MaxPulls, s.Pulled, s.Returned, s.End, s.Ended); err != nil {
			return err
		}
	}
	claimed, err := totalsText(after.Totals)
	if err != nil {
		return err
	}
	taken, err := totalsText(accepted)
	if err != nil {
		return err
	}
	if _, err := a.tx.ExecContext(a.ctx, `INSERT INTO reports VALUES (?, ?, ?, ?)`, a.contract[:], first, after.Last, e.Bytes()); err != nil {
		return err
	}
	_, err = a.tx.ExecContext(a.ctx, `INSERT INTO bills VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (contract) DO UPDATE SET
		last = excluded.last, report = excluded.report, claimed = excluded.claimed, accepted = excluded.accepted, audited = excluded.audited`,
		a.contract[:], a.relay[:], after.Last, after.Report[:], claimed, taken, now)
	return err
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
	rows, err := s.sql.QueryContext(ctx, `SELECT line, written, expires, bytes, max_pulls, pulled, returned, end_line, ended, s.hash, sender, receiver, record_id,
		(SELECT count(*) FROM receipts r WHERE r.relay = b.relay AND r.hash = s.hash)
		FROM standings s JOIN bills b ON b.contract = s.contract WHERE s.contract = ? ORDER BY receiver, line`, contract[:])
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

// Refusal is a line of which something was refused.
type Refusal struct {
	Line    int64
	Kind    ledger.Kind
	Reason  ledger.Reason
	Why     string
	Path    protocol.Path
	Bytes   int64
	Refused ledger.Usage
}

// Refusals visits the refused lines of a contract in their order. Nothing else can use the store meanwhile.
func (s *Store) Refusals(ctx context.Context, contract protocol.ContractID, visit func(*Refusal) error) error {
	rows, err := s.sql.QueryContext(ctx, `SELECT line, kind, reason, why, sender, receiver, record_id, bytes, stored, moved FROM refused
		WHERE contract = ? ORDER BY line`, contract[:])
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r Refusal
		var sender, receiver []byte
		var stored, moved string
		if err := rows.Scan(&r.Line, &r.Kind, &r.Reason, &r.Why, &sender, &receiver, &r.Path.ID, &r.Bytes, &stored, &moved); err != nil {
			return err
		}
		r.Path.Sender, r.Path.Receiver = publicKey(sender), publicKey(receiver)
		if err := errors.Join(r.Refused.Stored.UnmarshalText([]byte(stored)), r.Refused.Moved.UnmarshalText([]byte(moved)), visit(&r)); err != nil {
			return err
		}
	}
	return rows.Err()
}
