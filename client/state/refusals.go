package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"relaymarket/internal/sqlite"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Refusal is a line of which something was refused.
type Refusal struct {
	Line    int64
	Kind    ledger.Kind
	Reason  ledger.Reason
	Why     string
	Path    protocol.Path
	Bytes   int64
	Refused ledger.Usage
	Until   protocol.Timestamp      // of an end that is billed too long: storage is accepted up to then; else 0
	Waiting bool                    // for its writer's word: it is not refused for good
	Answer  protocol.RefusalOutcome // of the relay, once the line was named to it; empty: it was not
	Dropped int64                   // the line of the ledger that drops it; 0: none
}

const refusalColumns = `SELECT line, kind, reason, why, sender, receiver, record_id, bytes, stored, moved, until, raw IS NOT NULL, answer, dropped FROM refused `

func scanRefusal(scan func(...any) error) (r Refusal, err error) {
	var sender, receiver []byte
	var stored, moved string
	if err := scan(&r.Line, &r.Kind, &r.Reason, &r.Why, &sender, &receiver, &r.Path.ID, &r.Bytes, &stored, &moved,
		&r.Until, &r.Waiting, &r.Answer, &r.Dropped); err != nil {
		return r, err
	}
	r.Path.Sender, r.Path.Receiver = publicKey(sender), publicKey(receiver)
	return r, errors.Join(r.Refused.Stored.UnmarshalText([]byte(stored)), r.Refused.Moved.UnmarshalText([]byte(moved)))
}

// Refusals visits the refused lines of a contract in their order. Nothing else can use the store meanwhile.
func (s *Store) Refusals(ctx context.Context, contract protocol.ContractID, visit func(*Refusal) error) error {
	return s.RefusedPart(ctx, contract, Part{}, visit)
}

// RefusedPart visits some of them.
func (s *Store) RefusedPart(ctx context.Context, contract protocol.ContractID, p Part, visit func(*Refusal) error) error {
	rows, err := s.sql.QueryContext(ctx, refusalColumns+`WHERE contract = ?1 `+partWhere, p.args(contract)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRefusal(rows.Scan)
		if err == nil {
			err = visit(&r)
		}
		if err != nil {
			return err
		}
	}
	return rows.Err()
}

// onAccount tells whether a record would be on the owner's account: by one of those who write on it, or left for himself.
func onAccount(owner protocol.PublicKey, writers map[protocol.PublicKey]bool, path protocol.Path) bool {
	return writers[path.Sender] || path.Receiver == owner
}

// Untellable tells whether a line was refused only because nothing is known here of the record that it is about, though it may well be right:
// it is written, or was to be read, by somebody who writes on the account, and what he wrote may be known to another folder,
// or was lost with one.
func (s *Store) Untellable(r *Refusal, writers []protocol.PublicKey) bool {
	return (r.Reason == ledger.Unknown || r.Reason == ledger.NotWritten) && onAccount(s.owner, s.writersOf(writers), r.Path)
}

// tellable is the condition for refused lines that are none of those.
func (s *Store) tellable(writers []protocol.PublicKey) string {
	keys := make([]string, 0, len(writers)+1)
	for key := range s.writersOf(writers) {
		keys = append(keys, fmt.Sprintf("x'%x'", key[:]))
	}
	slices.Sort(keys)
	return fmt.Sprintf(` AND NOT (reason IN ('%s', '%s') AND (receiver = x'%x' OR sender IN (%s)))`,
		ledger.Unknown, ledger.NotWritten, s.owner[:], strings.Join(keys, ", "))
}

// Unnamed are the refused lines of one report that the relay was not told, with the report; none: it was told all. Those that
// are [Store.Untellable], on a contract with these writers, are among them only with all.
func (s *Store) Unnamed(ctx context.Context, contract protocol.ContractID, writers []protocol.PublicKey, all bool) (lines []Refusal, report []byte, err error) {
	which := `answer = '' AND raw IS NULL AND dropped = 0`
	if !all {
		which += s.tellable(writers)
	}
	var first, last int64
	err = s.sql.QueryRowContext(ctx, `SELECT first, last, envelope FROM reports WHERE contract = ?1 AND last >=
		(SELECT min(line) FROM refused WHERE contract = ?1 AND `+which+`) ORDER BY first LIMIT 1`, contract[:]).Scan(&first, &last, &report)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, nil
	}
	if err == nil {
		lines, err = sqlite.Collect(ctx, s.sql, scanRefusal, refusalColumns+`WHERE contract = ? AND `+which+` AND line BETWEEN ? AND ?
			ORDER BY line`, contract[:], first, last)
	}
	return lines, report, err
}

// Named notes what the relay said to refused lines.
func (s *Store) Named(ctx context.Context, contract protocol.ContractID, lines []protocol.RefusedLines, answer protocol.RefusalOutcome) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		for _, l := range lines {
			if _, err := tx.ExecContext(ctx, `UPDATE refused SET answer = ? WHERE contract = ? AND answer = '' AND raw IS NULL AND line BETWEEN ? AND ?`,
				answer, contract[:], l.First, l.Last); err != nil {
				return err
			}
		}
		return nil
	})
}

// Refuse notes a line of which something was refused. With raw, its bytes, it waits for its writer's word.
func (a *Audit) Refuse(l *ledger.Line, v ledger.Verdict, raw []byte, now protocol.Timestamp) error {
	var waiting any
	if raw != nil {
		waiting = raw
		if l.Kind == ledger.KindWrite {
			a.waits[l.Hash] = true
		}
	}
	_, err := a.refuse.ExecContext(a.ctx, a.contract[:], l.Seq, l.Kind, v.Reason, v.Why, l.From[:], l.To[:], l.RecordID, l.Bytes,
		v.Refused.Stored.String(), v.Refused.Moved.String(), l.Hash[:], v.Until, now, waiting)
	return err
}

const insertRefusal = `INSERT INTO refused (contract, line, kind, reason, why, sender, receiver, record_id, bytes, stored, moved, hash, until, audited, raw)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// Drop notes that a line drops what was refused: the line that it names and, if that is a write, all of the record.
func (a *Audit) Drop(l *ledger.Line) error {
	_, err := a.tx.ExecContext(a.ctx, `UPDATE refused SET dropped = ?1, raw = NULL WHERE contract = ?2 AND dropped = 0 AND (line = ?3 OR hash = ?4
		AND EXISTS (SELECT 1 FROM refused w WHERE w.contract = ?2 AND w.line = ?3 AND w.kind = 'write' AND w.hash = ?4))`, l.Seq, a.contract[:], l.Of, l.Hash[:])
	return err
}

// Hopeful tells whether a line about a record that is not known may be right for all that: written by somebody who writes on
// this account and has not said so yet, or by the owner from another folder or before this one, or left for the owner and not
// pulled yet. What is not a write needs its write to wait, too.
func (a *Audit) Hopeful(l *ledger.Line) (bool, error) {
	if !onAccount(a.owner, a.writers, l.Record()) {
		return false, nil
	}
	if l.Kind == ledger.KindWrite || a.waits[l.Hash] {
		return true, nil
	}
	var waits bool
	err := a.tx.QueryRowContext(a.ctx, `SELECT EXISTS (SELECT 1 FROM refused WHERE contract = ? AND hash = ? AND kind = 'write' AND raw IS NOT NULL)`,
		a.contract[:], l.Hash[:]).Scan(&waits)
	return waits, err
}

// WaitingLine is a line that waits for its writer's word.
type WaitingLine struct {
	Line    int64
	Audited protocol.Timestamp
	Raw     []byte
}

// LinesWaiting lists lines that wait, in their order, at most limit after a line.
func (s *Store) LinesWaiting(ctx context.Context, contract protocol.ContractID, after int64, limit int) ([]WaitingLine, error) {
	return linesWaiting(ctx, s.sql, contract, after, limit)
}

// LinesWaiting lists lines that wait, in their order, at most limit after a line.
func (a *Audit) LinesWaiting(after int64, limit int) ([]WaitingLine, error) {
	return linesWaiting(a.ctx, a.tx, a.contract, after, limit)
}

func linesWaiting(ctx context.Context, q sqlite.Querier, contract protocol.ContractID, after int64, limit int) ([]WaitingLine, error) {
	return sqlite.Collect(ctx, q, func(scan func(...any) error) (w WaitingLine, err error) {
		return w, scan(&w.Line, &w.Audited, &w.Raw)
	}, `SELECT line, audited, raw FROM refused WHERE contract = ? AND raw IS NOT NULL AND line > ? ORDER BY line LIMIT ?`, contract[:], after, limit)
}

// Settle ends the wait of a line: it is accepted after all, or refused for good as v says.
func (a *Audit) Settle(line int64, v ledger.Verdict) (err error) {
	if v.Reason == "" {
		_, err = a.tx.ExecContext(a.ctx, `DELETE FROM refused WHERE contract = ? AND line = ?`, a.contract[:], line)
	} else {
		_, err = a.tx.ExecContext(a.ctx, `UPDATE refused SET raw = NULL, reason = ?, why = ?, stored = ?, moved = ?, until = ? WHERE contract = ? AND line = ?`,
			v.Reason, v.Why, v.Refused.Stored.String(), v.Refused.Moved.String(), v.Until, a.contract[:], line)
	}
	return err
}

// Judged stores what lines that waited came to.
func (a *Audit) Judged(accepted ledger.Totals) error {
	if err := a.write(); err != nil {
		return err
	}
	taken, err := totalsText(accepted)
	if err != nil {
		return err
	}
	_, err = a.tx.ExecContext(a.ctx, `UPDATE bills SET accepted = ? WHERE contract = ?`, taken, a.contract[:])
	return err
}

// writersOf is the set of those who write on the owner's account beside him.
func (s *Store) writersOf(writers []protocol.PublicKey) map[protocol.PublicKey]bool {
	set := map[protocol.PublicKey]bool{s.owner: true}
	for _, key := range writers {
		set[key] = true
	}
	return set
}
