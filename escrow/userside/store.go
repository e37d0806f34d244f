package userside

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"relaymarket/internal/killpoint"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

//go:embed migrations/*.sql
var migrations embed.FS

// What can be wrong with a file of contracts, or with what is asked of it.
var (
	ErrNewer      = sqlite.ErrNewer
	ErrNone       = errors.New("you have no contract yet")
	ErrOwner      = errors.New("the contracts belong to another key")
	ErrNoContract = errors.New("there is no such contract")
	// ErrNoNode: no Bitcoin node is named yet.
	ErrNoNode = errors.New("no Bitcoin node is connected")
)

// Store is the file of a user's contracts. It is safe for concurrent use, also by several processes.
type Store struct {
	sql   *sqlite.DB
	clock func() time.Time
	owner protocol.PublicKey
	// reached is told of each step: before it is on disk, when what came before has happened, and after. nil, but in a build
	// that dies on purpose.
	reached func(step string) error
}

// OpenStore opens the file at path, whose folder must exist. With an owner it is made if it is missing, and
// has to be his; without, a missing file is ErrNone.
func OpenStore(ctx context.Context, path string, owner *protocol.PublicKey, clock func() time.Time) (*Store, error) {
	if clock == nil {
		clock = time.Now
	}
	file, err := sqlite.Open(ctx, path, owner != nil, migrations)
	if errors.Is(err, sqlite.ErrNone) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	s := &Store{sql: file, clock: clock, reached: killpoint.At()}
	if err := s.own(ctx, owner); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("contracts %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) own(ctx context.Context, owner *protocol.PublicKey) error {
	return s.sql.Tx(ctx, func(tx *sql.Tx) error {
		var key []byte
		err := tx.QueryRowContext(ctx, `SELECT key FROM owner`).Scan(&key)
		switch {
		case errors.Is(err, sql.ErrNoRows) && owner == nil:
			return ErrNone
		case errors.Is(err, sql.ErrNoRows):
			s.owner = *owner
			_, err := tx.ExecContext(ctx, `INSERT INTO owner VALUES (1, ?)`, owner[:])
			return err
		case err != nil:
			return err
		}
		copy(s.owner[:], key)
		if owner != nil && *owner != s.owner {
			return fmt.Errorf("%w, %s", ErrOwner, s.owner.Bech32())
		}
		return nil
	})
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.sql.Close() }

// Owner is the key whose contracts these are.
func (s *Store) Owner() protocol.PublicKey { return s.owner }

func (s *Store) now() protocol.Timestamp { return protocol.TimestampOf(s.clock()) }

// do runs one transaction: what is done in it is on disk together, or not at all.
func (s *Store) do(ctx context.Context, work func(*unit) error) error {
	err := s.sql.Tx(ctx, func(tx *sql.Tx) error {
		if err := work(&unit{Tx: tx, now: s.now()}); err != nil {
			return err
		}
		return s.pass("writing")
	})
	if err != nil {
		return err
	}
	return s.pass("written")
}

func (s *Store) pass(step string) error {
	if s.reached == nil {
		return nil
	}
	return s.reached(step)
}

// unit is one transaction on the file.
type unit struct {
	*sql.Tx
	now protocol.Timestamp
}

func (u *unit) exec(ctx context.Context, statement string, args ...any) error {
	_, err := u.ExecContext(ctx, statement, args...)
	return err
}

// Node reads the settings of the Bitcoin node, JSON. ErrNoNode.
func (s *Store) Node(ctx context.Context) (settings []byte, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT settings FROM node`).Scan(&settings)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoNode
	}
	return settings, err
}

// SetNode keeps the settings of the Bitcoin node, JSON without secrets.
func (s *Store) SetNode(ctx context.Context, settings []byte) error {
	return s.sql.Exec(ctx, `INSERT INTO node VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET settings = excluded.settings`, settings)
}

// Unfinished counts the contracts that something can still happen to.
func (s *Store) Unfinished(ctx context.Context) (n int, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT count(*) FROM contracts WHERE state <> ? AND step <> ?`, protocol.StateArchived, StepOver).Scan(&n)
	return n, err
}

// Glance tells whether it is time to look after the contracts on the side, which it is once in every, and notes that it
// was done. Of several processes one is told so.
func (s *Store) Glance(ctx context.Context, every time.Duration) (bool, error) {
	now := s.now()
	return s.sql.Changed(ctx, `INSERT INTO glance VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET at = ?1 WHERE at <= ?2 OR at > ?1`, now, now.Add(-every))
}
