// Package state is the user's memory on disk: his relays, friends, messages, outbox and how far each
// relay was pulled, in one SQLite file. Package client is its caller and owns the rules; this
// package owns the tables and what must change in one step.
//
// # Guarantees
//
//   - What a call reported as done survives a crash of the program and of the machine
//     (write-ahead log, synchronous=FULL).
//   - Several processes may use one file. Each change is one transaction that takes the write lock
//     first; the others wait up to ten seconds for it.
//   - A file written by a newer version is refused (ErrNewer), one of another key too (ErrOwner).
//
// A Store is safe for concurrent use. It never touches the network and never sees a secret key of the owner's.
package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

//go:embed migrations/*.sql
var migrations embed.FS

// What can be wrong with a state file.
var (
	ErrNewer = sqlite.ErrNewer
	ErrOwner = errors.New("the state belongs to another key")
	// ErrNone: there is no state yet, and no key was given to make one for.
	ErrNone = sqlite.ErrNone
)

// Config says which file, and whose.
type Config struct {
	Path string
	// Owner is the key that the state belongs to. Nil opens what is there, whosever it is.
	Owner *protocol.PublicKey
	// Clock is time.Now outside of tests.
	Clock func() time.Time
	// Log takes what goes wrong without harm. Nil drops it.
	Log *slog.Logger
}

// Store is an open state file.
type Store struct {
	sql    *sqlite.DB
	clock  func() time.Time
	log    *slog.Logger
	owner  protocol.PublicKey
	device string
}

// Open opens the state, makes it if there is none, and brings its tables up to date. The folder must exist.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	file, err := sqlite.Open(ctx, c.Path, c.Owner != nil, migrations)
	if err != nil {
		return nil, err
	}
	s := &Store{sql: file, clock: c.Clock, log: c.Log}
	if err := s.start(ctx, c.Owner); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("state %s: %w", c.Path, err)
	}
	return s, nil
}

func (s *Store) start(ctx context.Context, owner *protocol.PublicKey) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var key []byte
		err := tx.QueryRowContext(ctx, `SELECT key, device FROM owner`).Scan(&key, &s.device)
		switch {
		case errors.Is(err, sql.ErrNoRows) && owner == nil:
			return ErrNone
		case errors.Is(err, sql.ErrNoRows):
			var device [8]byte
			if _, err := rand.Read(device[:]); err != nil {
				return err
			}
			s.owner, s.device = *owner, hex.EncodeToString(device[:])
			_, err := tx.ExecContext(ctx, `INSERT INTO owner VALUES (1, ?, ?, '', NULL)`, owner[:], s.device)
			return err
		case err != nil:
			return err
		}
		s.owner = publicKey(key)
		if owner != nil && *owner != s.owner {
			return fmt.Errorf("%w, %s", ErrOwner, s.owner.Bech32())
		}
		return nil
	})
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.sql.Close() }

// Owner is the key whose state this is.
func (s *Store) Owner() protocol.PublicKey { return s.owner }

// Device is this state's word for itself in sealed headers, 16 hex digits.
func (s *Store) Device() string { return s.device }

func (s *Store) now() protocol.Timestamp { return protocol.TimestampOf(s.clock()) }

// tx runs do in one transaction. What it changed and other devices are to be told gets the time in the same.
func (s *Store) tx(ctx context.Context, do func(*sql.Tx) error) error {
	return s.sql.Tx(ctx, func(tx *sql.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE changes SET `+stamped+` WHERE at = 0`, s.now(), cardPause.Milliseconds())
		return err
	})
}

// exec runs one statement.
func (s *Store) exec(ctx context.Context, statement string, args ...any) error {
	_, err := s.changed(ctx, statement, args...)
	return err
}

// changed runs one statement and tells whether it changed a row.
func (s *Store) changed(ctx context.Context, statement string, args ...any) (changed bool, _ error) {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		changed = n > 0
		return err
	})
	return changed, err
}

func publicKey(b []byte) (k protocol.PublicKey) {
	copy(k[:], b)
	return k
}

func hash(b []byte) (h protocol.Hash) {
	copy(h[:], b)
	return h
}

// optionalKey is the column value of a key that may be absent.
func optionalKey(k *protocol.PublicKey) any {
	if k == nil {
		return nil
	}
	return k[:]
}

func optionalText(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

func textPointer(s sql.NullString) *string {
	if !s.Valid {
		return nil
	}
	return &s.String
}
