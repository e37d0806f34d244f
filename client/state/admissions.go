package state

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Admission is whom the owner lets leave records for him on his account, otherwise than any friend.
type Admission struct {
	protocol.Admitted        // with 0 bytes: the owner said no
	Invitation        bool   // the key is that of an invitation, and nobody's
	Note              string // what the owner calls the invitation
	Created           protocol.Timestamp
	Until             protocol.Timestamp // 0: without end
	Used              int64              // first words that came by the invitation
}

// Admissions lists them, the oldest first.
func (s *Store) Admissions(ctx context.Context) ([]Admission, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (Admission, error) {
		var a Admission
		var key []byte
		err := scan(&key, &a.Bytes, &a.Records, &a.Invitation, &a.Note, &a.Created, &a.Until, &a.Used)
		a.Key = publicKey(key)
		return a, err
	}, `SELECT key, bytes, records, invitation, note, created, until, used FROM admissions ORDER BY created, key`)
}

// Admit keeps an admission, in place of one of the same key.
func (s *Store) Admit(ctx context.Context, a Admission) error {
	return s.exec(ctx, `INSERT INTO admissions VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (key) DO UPDATE SET
		bytes = excluded.bytes, records = excluded.records, note = excluded.note, until = excluded.until`,
		a.Key[:], a.Bytes, a.Records, a.Invitation, a.Note, s.now(), a.Until)
}

// DeleteAdmission forgets one: a friend is admitted like any again, an invitation no more. It tells whether there was one.
func (s *Store) DeleteAdmission(ctx context.Context, key protocol.PublicKey) (bool, error) {
	return s.changed(ctx, `DELETE FROM admissions WHERE key = ?`, key[:])
}

// FriendAdmission is what any friend is admitted with; false: the owner never said.
func (s *Store) FriendAdmission(ctx context.Context) (bytes, records int64, said bool, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT bytes, records FROM admission_default`).Scan(&bytes, &records)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, false, nil
	}
	return bytes, records, err == nil, err
}

// SetFriendAdmission says what any friend is admitted with; 0 bytes: nobody is.
func (s *Store) SetFriendAdmission(ctx context.Context, bytes, records int64) error {
	return s.exec(ctx, `INSERT INTO admission_default VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET bytes = excluded.bytes, records = excluded.records`,
		bytes, records)
}

// AdmissionsTold is the mark of what the owner wished when a relay was told last, and when that was; 0: never.
func (s *Store) AdmissionsTold(ctx context.Context, relay protocol.PublicKey) (mark protocol.Hash, at protocol.Timestamp, err error) {
	var wished []byte
	err = s.sql.QueryRowContext(ctx, `SELECT at, wished FROM admitted_looked WHERE relay = ?`, relay[:]).Scan(&at, &wished)
	if errors.Is(err, sql.ErrNoRows) {
		return mark, 0, nil
	}
	return hash(wished), at, err
}

// AdmittedOn is what this device put on a relay's list.
func (s *Store) AdmittedOn(ctx context.Context, relay protocol.PublicKey) ([]protocol.Admitted, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (a protocol.Admitted, err error) {
		var key []byte
		err = scan(&key, &a.Bytes, &a.Records)
		a.Key = publicKey(key)
		return a, err
	}, `SELECT key, bytes, records FROM admitted WHERE relay = ? ORDER BY key`, relay[:])
}

// NoteAdmitted keeps what this device put on a relay's list, with the mark of what the owner wished.
func (s *Store) NoteAdmitted(ctx context.Context, relay protocol.PublicKey, list []protocol.Admitted, mark protocol.Hash) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM admitted WHERE relay = ?`, relay[:]); err != nil {
			return err
		}
		for _, a := range list {
			if _, err := tx.ExecContext(ctx, `INSERT INTO admitted VALUES (?, ?, ?, ?)`, relay[:], a.Key[:], a.Bytes, a.Records); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO admitted_looked VALUES (?, ?, ?) ON CONFLICT (relay) DO UPDATE SET at = excluded.at, wished = excluded.wished`,
			relay[:], s.now(), mark[:])
		return err
	})
}
