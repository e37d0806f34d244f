package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Version is how many schema steps this program knows: a state of a higher one is from a newer program.
func Version() int {
	entries, err := migrations.ReadDir("migrations")
	if err != nil {
		panic(err) // they are part of the program
	}
	return len(entries)
}

// Backup is a backup that was written and rehearsed.
type Backup struct {
	At     protocol.Timestamp // of the snapshot
	Place  string             // path of the file; empty: sealed on the owner's relays
	Bytes  int64
	SHA256 protocol.Hash
}

// keptBackups is how many backups are remembered.
const keptBackups = 100

// NoteBackup remembers a backup.
func (s *Store) NoteBackup(ctx context.Context, b Backup) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `INSERT INTO backups (at, place, bytes, sha256) VALUES (?, ?, ?, ?)`, b.At, b.Place, b.Bytes, b.SHA256[:])
		if err != nil {
			return err
		}
		n, err := result.LastInsertId()
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM backups WHERE n <= ?`, n-keptBackups)
		return err
	})
}

// LastBackup is the newest backup of this state, and false if there is none.
func (s *Store) LastBackup(ctx context.Context) (Backup, bool, error) {
	var b Backup
	var sum []byte
	err := s.sql.QueryRowContext(ctx, `SELECT at, place, bytes, sha256 FROM backups ORDER BY at DESC, n DESC LIMIT 1`).Scan(&b.At, &b.Place, &b.Bytes, &sum)
	if errors.Is(err, sql.ErrNoRows) {
		return b, false, nil
	}
	b.SHA256 = hash(sum)
	return b, err == nil, err
}

// Untouched tells whether nothing was done with this state since its keys were made: it may be replaced by a backup.
func (s *Store) Untouched(ctx context.Context) (bool, error) {
	var n int64
	err := s.sql.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM relays) + (SELECT count(*) FROM friends) + (SELECT count(*) FROM messages)
		+ (SELECT count(*) FROM outbox) + (SELECT count(*) FROM backups) + (SELECT count(*) FROM restores)`).Scan(&n)
	return n == 0, err
}

// PutBack makes a state that came out of a backup fit to be used. It is another device from now on: the one of which the backup was made
// may have gone on counting, and two messages with one seq would look like a contradiction. What was at work then is at work no more.
func (s *Store) PutBack(ctx context.Context, taken protocol.Timestamp) error {
	var device [8]byte
	if _, err := rand.Read(device[:]); err != nil {
		return err
	}
	name := hex.EncodeToString(device[:])
	err := s.tx(ctx, func(tx *sql.Tx) error {
		for _, step := range []struct {
			statement string
			args      []any
		}{
			{`INSERT INTO heard SELECT device, 0, ?1 FROM owner WHERE true ON CONFLICT (device) DO UPDATE SET at = 0, since = ?1`, []any{s.now()}},
			{`UPDATE owner SET device = ?`, []any{name}},
			{`DELETE FROM counters`, nil},
			{`UPDATE pulls SET holder = '', held_until = 0`, nil},
			{`UPDATE uploads SET holder = '', held_until = 0`, nil},
			{`DELETE FROM admitted_looked`, nil}, // what relays have of it may be newer
			{`UPDATE fetches SET holder = '', held_until = 0`, nil},
			{`INSERT INTO restores (at, taken, outbox) SELECT ?, ?, coalesce(max(n), 0) FROM outbox`, []any{s.now(), taken}},
		} {
			if _, err := tx.ExecContext(ctx, step.statement, step.args...); err != nil {
				return err
			}
		}
		// What devices of the owner tell each other is counted by device, too; and the others do not know of this one.
		_, err := tx.ExecContext(ctx, `UPDATE sharing SET seq = 0, hello = 1`)
		return err
	})
	if err == nil {
		s.device = name
	}
	return err
}

// Restore is a time that the state was put back from a backup.
type Restore struct {
	At, Taken protocol.Timestamp
}

// Restores lists them, oldest first.
func (s *Store) Restores(ctx context.Context) ([]Restore, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (r Restore, err error) { return r, scan(&r.At, &r.Taken) },
		`SELECT at, taken FROM restores ORDER BY n`)
}

// BackupType is the content type of a part of a backup that the owner keeps on his relays, sealed to himself.
const BackupType = "application/vnd.relaymarket.backup"

// Strip takes out of a copy of a state what other backups left in it: each would hold all before it.
func Strip(ctx context.Context, path string) error {
	db, err := sqlite.OpenAsIs(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	kept, err := db.Changed(ctx, `DELETE FROM outbox WHERE content_type = ?`, BackupType)
	if err != nil {
		return err
	}
	pulled, err := db.Changed(ctx, `UPDATE messages SET body = x'' WHERE content_type = ? AND length(body) > 0`, BackupType)
	if err != nil || !kept && !pulled {
		return err
	}
	return db.Exec(ctx, `VACUUM`)
}

// Kept lists the numbers of the messages of a content type to the owner himself before one, which are not removed. Of all of that type the
// body is dropped: what is kept elsewhere need not be here twice.
func (s *Store) Kept(ctx context.Context, contentType string, before int64) (numbers []int64, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE outbox SET body = x'' WHERE receiver = ? AND content_type = ? AND length(body) > 0`, s.owner[:], contentType); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE messages SET body = x'' WHERE sender = ? AND content_type = ? AND length(body) > 0`, s.owner[:], contentType); err != nil {
			return err
		}
		numbers, err = sqlite.Collect(ctx, tx, func(scan func(...any) error) (n int64, err error) { return n, scan(&n) },
			`SELECT n FROM outbox WHERE receiver = ? AND content_type = ? AND n < ? AND removed IS NULL ORDER BY n`, s.owner[:], contentType, before)
		return err
	})
	return numbers, err
}
