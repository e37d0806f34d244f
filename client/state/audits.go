package state

import (
	"context"
	"database/sql"

	"relaymarket/internal/sqlite"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// AuditResult is what audits of a contract found: the same one, or several times the same.
type AuditResult struct {
	Contract protocol.ContractID
	Relay    protocol.PublicKey
	Address  string // of the relay, at the time
	First    protocol.Timestamp
	Last     protocol.Timestamp
	Times    int64
	Lines    int64 // of the ledger, up to which it went
	Bill     ledger.Bill
	Fault    string // why the relay's next report cannot be true; empty: it can
}

// NoteAudit adds the result of an audit at r.Last. If it came no further and found nothing else wrong than the last one
// of the contract, only that one's time, count and what time changes of it are set: the history grows with the bill, not with how often one looks.
func (s *Store) NoteAudit(ctx context.Context, r *AuditResult) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE audits SET address = ?, last = ?, times = times + 1, claimed = ?, accepted = ?, waiting = ?
			WHERE n = (SELECT max(n) FROM audits WHERE contract = ?) AND relay = ? AND lines = ? AND fault = ? AND disputed = ?`, r.Address, r.Last,
			r.Bill.Claimed, r.Bill.Accepted, r.Bill.Waiting, r.Contract[:], r.Relay[:], r.Lines, r.Fault, r.Bill.Disputed)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n > 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO audits (contract, relay, address, first, last, times, lines, claimed, accepted, waiting, disputed, fault)
			VALUES (?1, ?2, ?3, ?4, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10)`, r.Contract[:], r.Relay[:], r.Address, r.Last, r.Lines,
			r.Bill.Claimed, r.Bill.Accepted, r.Bill.Waiting, r.Bill.Disputed, r.Fault)
		return err
	})
}

// AuditResults lists what was found, oldest first.
func (s *Store) AuditResults(ctx context.Context) ([]AuditResult, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (r AuditResult, err error) {
		var contract, relay []byte
		err = scan(&contract, &relay, &r.Address, &r.First, &r.Last, &r.Times, &r.Lines, &r.Bill.Claimed, &r.Bill.Accepted, &r.Bill.Waiting, &r.Bill.Disputed, &r.Fault)
		copy(r.Contract[:], contract)
		r.Relay = publicKey(relay)
		return r, err
	}, `SELECT contract, relay, address, first, last, times, lines, claimed, accepted, waiting, disputed, fault FROM audits ORDER BY n`)
}

// LastAudit is when a contract was audited last; 0: never.
func (s *Store) LastAudit(ctx context.Context, contract protocol.ContractID) (at protocol.Timestamp, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT coalesce(max(last), 0) FROM audits WHERE contract = ?`, contract[:]).Scan(&at)
	return at, err
}
