package state

import (
	"context"
	"database/sql"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// AddPayer notes that a contract of payer's pays for what the owner writes on a relay: he is told what, from now on.
func (s *Store) AddPayer(ctx context.Context, relay, payer protocol.PublicKey) error {
	return s.exec(ctx, `INSERT OR IGNORE INTO payers VALUES (?, ?, ?)`, relay[:], payer[:], s.now())
}

// Payers lists those who are to be told of something.
func (s *Store) Payers(ctx context.Context) ([]protocol.PublicKey, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (protocol.PublicKey, error) {
		var key []byte
		err := scan(&key)
		return publicKey(key), err
	}, `SELECT DISTINCT payer FROM untold ORDER BY payer`)
}

// tell notes that payers are to be told of a copy. Records that tell are not told themselves: who reads one knows it. The
// owner's other devices tell him themselves.
func (s *Store) tell(ctx context.Context, tx *sql.Tx, n int64, relay protocol.PublicKey) error {
	_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO untold SELECT p.payer, p.relay, o.n FROM payers p JOIN outbox o ON o.n = ?
		WHERE p.relay = ? AND o.content_type <> ? AND o.signer IS NULL AND (p.payer <> ? OR o.device = ?)`, n, relay[:], protocol.WritingsType, s.owner[:], s.device)
	return err
}

// met notes that the owner has another device: each tells the others what it wrote, so that any of them can audit. What
// was written before is told, too.
func (s *Store) met(ctx context.Context, tx *sql.Tx) error {
	fresh, err := sqlite.Collect(ctx, tx, func(scan func(...any) error) (relay []byte, err error) {
		return relay, scan(&relay)
	}, `INSERT OR IGNORE INTO payers SELECT key, ?, ? FROM relays RETURNING relay`, s.owner[:], s.now())
	if err != nil {
		return err
	}
	for _, relay := range fresh {
		if _, err = tx.ExecContext(ctx, `INSERT OR IGNORE INTO untold SELECT ?1, c.relay, c.n FROM copies c JOIN outbox o ON o.n = c.n
			WHERE c.relay = ?4 AND c.hash IS NOT NULL AND o.content_type <> ?2 AND o.signer IS NULL AND o.expires > ?3 AND o.device = ?5`, s.owner[:], protocol.WritingsType,
			s.now()-keepReceived, relay, s.device); err != nil {
			return err
		}
	}
	return nil
}

// heard notes that the owner has another device, if a message is from one.
func (s *Store) heard(ctx context.Context, tx *sql.Tx, m *Message) error {
	if m.From != s.owner || m.Device == s.device {
		return nil
	}
	return s.met(ctx, tx)
}

// otherDevices tells whether anything of the owner's came from another device of his.
func (s *Store) otherDevices(ctx context.Context, tx *sql.Tx) (others bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sequences WHERE sender = ?1 AND device <> ?2) OR EXISTS (SELECT 1 FROM payers WHERE payer = ?1)
		OR EXISTS (SELECT 1 FROM writings WHERE sender = ?1) OR (SELECT company FROM sharing)`, s.owner[:], s.device).Scan(&others)
	return others, err
}

// EnqueueWritings takes records that a payer is to be told of, at most so many, has that sealed into one record for him, and
// stores it with a queued copy for each relay, all in one step. It is false if there are none.
func (s *Store) EnqueueWritings(ctx context.Context, payer protocol.PublicKey, relays []Relay, most int,
	seal func(device string, due []protocol.Writing) (*Outgoing, error)) (bool, error) {
	queued := false
	err := s.tx(ctx, func(tx *sql.Tx) error {
		type told struct {
			protocol.Writing
			n int64
		}
		due, err := sqlite.Collect(ctx, tx, func(scan func(...any) error) (t told, err error) {
			var relay, to, envelope []byte
			err = scan(&t.n, &relay, &to, &t.RecordID, &envelope, &t.Bytes, &t.Signed, &t.Expires, &t.MaxPulls, &t.Deleted)
			t.Relay, t.To, t.Hash = publicKey(relay), publicKey(to), hash(envelope)
			return t, err
		}, `SELECT u.n, u.relay, o.receiver, o.record_id, c.hash, a.bytes, a.signed, o.expires, o.max_pulls,
			CASE WHEN c.state = 'gone' AND o.removed IS NOT NULL THEN c.changed ELSE 0 END
			FROM untold u JOIN outbox o ON o.n = u.n JOIN copies c ON c.n = u.n AND c.relay = u.relay
			JOIN attempts a ON a.n = u.n AND a.relay = u.relay AND a.hash = c.hash AND a.bytes > 0
			WHERE u.payer = ? ORDER BY u.relay, u.n LIMIT ?`, payer[:], most)
		if err != nil {
			return err
		}
		if len(due) == 0 {
			_, err := tx.ExecContext(ctx, `DELETE FROM untold WHERE payer = ?`, payer[:]) // never stored after all
			return err
		}
		list := make([]protocol.Writing, len(due))
		for i := range due {
			list[i] = due[i].Writing
		}
		m, err := seal(s.device, list)
		if err != nil {
			return err
		}
		m.To, m.Device, m.Created = payer, s.device, s.now()
		if err := s.insertOutgoing(ctx, tx, m, relays); err != nil {
			return err
		}
		for i := range due {
			if _, err := tx.ExecContext(ctx, `DELETE FROM untold WHERE payer = ? AND relay = ? AND n = ?`, payer[:], due[i].Relay[:], due[i].n); err != nil {
				return err
			}
		}
		queued = true
		return nil
	})
	return queued, err
}

// fileWritings keeps what somebody says he wrote. What it is worth is for the audit to say: only the word of a contract's
// writers counts, each for himself.
func (s *Store) fileWritings(ctx context.Context, tx *sql.Tx, writer protocol.PublicKey, list []protocol.Writing) error {
	for i := range list {
		w := &list[i]
		if _, err := tx.ExecContext(ctx, `INSERT INTO writings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (relay, hash, sender) DO UPDATE SET deleted = max(deleted, excluded.deleted)`, w.Relay[:], w.Hash[:], writer[:], w.To[:],
			w.RecordID, w.Bytes, w.Signed, w.Expires, w.MaxPulls, w.Deleted); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM writings WHERE expires < ?`, s.now()-keepReceived)
	return err
}
