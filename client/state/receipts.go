package state

import (
	"context"
	"database/sql"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// keepReceived is how long what was received is remembered after it expired: bills come weeks later.
const keepReceived = 100 * 24 * 60 * 60 * 1000 // ms

// noteReceived remembers the records of a page, or of a part of one (page is empty). Receipts are owed for all but our
// own records and receipts.
func (s *Store) noteReceived(ctx context.Context, tx *sql.Tx, messages []Message, page protocol.PageID) error {
	var brought any
	if page != "" {
		brought = page
	}
	for i := range messages {
		m := &messages[i]
		if m.Bytes == 0 {
			continue
		}
		var settled any
		if m.From == s.owner || m.Tag == protocol.ReceiptTag {
			settled = 0
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO received (relay, hash, sender, record_id, bytes, signed, expires, max_pulls, page, receipt)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (relay, hash) DO UPDATE SET page = coalesce(excluded.page, page) WHERE got IS NULL`,
			m.Relay[:], m.Envelope[:], m.From[:], m.ID, m.Bytes, m.Sent, m.Expires, m.MaxPulls, brought, settled); err != nil {
			return err
		}
	}
	return nil
}

// acknowledged notes that a relay has our acknowledgement of a page: receipts are due for its records.
func (s *Store) acknowledged(ctx context.Context, tx *sql.Tx, relay protocol.PublicKey, page string) error {
	_, err := tx.ExecContext(ctx, `UPDATE received SET got = ? WHERE relay = ? AND page = ? AND got IS NULL`, s.now(), relay[:], page)
	return err
}

// ReceiptsDue lists the senders to whom receipts are due.
func (s *Store) ReceiptsDue(ctx context.Context) ([]protocol.PublicKey, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (protocol.PublicKey, error) {
		var key []byte
		err := scan(&key)
		return publicKey(key), err
	}, `SELECT DISTINCT sender FROM received WHERE got IS NOT NULL AND receipt IS NULL ORDER BY sender`)
}

// EnqueueReceipts takes receipts that are due to a sender, at most so many, has them sealed into one record for him, and
// stores it with a queued copy for each relay, all in one step. It is false if none is due. The record is not
// numbered among the messages to him: nothing is missed if it never arrives.
func (s *Store) EnqueueReceipts(ctx context.Context, to protocol.PublicKey, relays []Relay, most int,
	seal func(device string, due []protocol.Receipt) (*Outgoing, error)) (bool, error) {
	queued := false
	err := s.tx(ctx, func(tx *sql.Tx) error {
		due, err := sqlite.Collect(ctx, tx, scanReceipt, `SELECT relay, record_id, hash, bytes, got FROM received
			WHERE sender = ? AND got IS NOT NULL AND receipt IS NULL ORDER BY got LIMIT ?`, to[:], most)
		if err != nil || len(due) == 0 {
			return err
		}
		m, err := seal(s.device, due)
		if err != nil {
			return err
		}
		m.To, m.Device, m.Created = to, s.device, s.now()
		if err := s.insertOutgoing(ctx, tx, m, relays); err != nil {
			return err
		}
		for i := range due {
			if _, err := tx.ExecContext(ctx, `UPDATE received SET receipt = ? WHERE relay = ? AND hash = ?`, m.N, due[i].Relay[:], due[i].Hash[:]); err != nil {
				return err
			}
		}
		queued = true
		return s.forgetReceived(ctx, tx)
	})
	return queued, err
}

func scanReceipt(scan func(...any) error) (protocol.Receipt, error) {
	var r protocol.Receipt
	var relay, envelope []byte
	err := scan(&relay, &r.RecordID, &envelope, &r.Bytes, &r.Got)
	r.Relay, r.Hash = publicKey(relay), hash(envelope)
	return r, err
}

// forgetReceived drops what expired long ago, and our receipts that did.
func (s *Store) forgetReceived(ctx context.Context, tx *sql.Tx) error {
	before := s.now() - keepReceived
	if _, err := tx.ExecContext(ctx, `DELETE FROM received WHERE expires < ?`, before); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE tag = ? AND expires < ?`, protocol.ReceiptTag, before)
	return err
}

// fileReceipts keeps what a reader says he has of our records. What is not about an envelope that we signed for him, on
// that relay (a piece of a file: for the key of that piece), is dropped: a friend cannot fill our disk, nor say that he read what he was never sent.
// Of an envelope that another device signed only the hash is known.
func (s *Store) fileReceipts(ctx context.Context, tx *sql.Tx, reader protocol.PublicKey, list []protocol.Receipt) error {
	for i := range list {
		r := &list[i]
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO receipts (relay, hash, reader, bytes, got, filed)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM attempts a JOIN outbox o USING (n)
			  LEFT JOIN uploads u ON u.n = o.upload
			  WHERE a.hash = ?2 AND a.relay = ?1 AND (a.bytes = ?4 OR a.bytes = 0) AND coalesce(u.receiver, o.receiver) = ?3 AND o.record_id = ?7)`,
			r.Relay[:], r.Hash[:], reader[:], r.Bytes, r.Got, s.now(), r.RecordID); err != nil {
			return err
		}
	}
	return nil
}

// Receipts lists what readers say they have from a relay.
func (s *Store) Receipts(ctx context.Context, relay protocol.PublicKey) ([]protocol.Receipt, error) {
	return sqlite.Collect(ctx, s.sql, scanReceipt, `SELECT r.relay, o.record_id, r.hash, r.bytes, r.got FROM receipts r
		JOIN attempts a ON a.hash = r.hash AND a.relay = r.relay JOIN outbox o ON o.n = a.n WHERE r.relay = ? ORDER BY r.got, o.n`, relay[:])
}
