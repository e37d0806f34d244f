package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"relaymarket/client/devices"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// What can be wrong with names.
var (
	// ErrNameTaken: another friend has this name.
	ErrNameTaken = errors.New("another friend has this name")
	ErrNoFriend  = errors.New("no such friend")
	ErrNoRelay   = errors.New("no such relay")
)

// Relay is a relay that the owner uses.
type Relay struct {
	Key       protocol.PublicKey
	Address   string
	Added     protocol.Timestamp
	Bytes     int64          // the largest record it takes, as it announced when it was added
	Published *protocol.Hash // hash of the card it took last
}

// PutRelay adds a relay or changes its address and how large a record it takes. Other devices of the owner are told what is
// written there, from now on.
func (s *Store) PutRelay(ctx context.Context, key protocol.PublicKey, address string, recordBytes int64) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO relays (key, address, added, bytes) VALUES (?, ?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET address = excluded.address, bytes = excluded.bytes`, key[:], address, s.now(), recordBytes); err != nil {
			return err
		}
		others, err := s.otherDevices(ctx, tx)
		if err != nil || !others {
			return err
		}
		return s.met(ctx, tx)
	})
}

// SetPublished notes which card a relay took.
func (s *Store) SetPublished(ctx context.Context, key protocol.PublicKey, card protocol.Hash) error {
	return s.exec(ctx, `UPDATE relays SET published = ? WHERE key = ?`, card[:], key[:])
}

// DeleteRelay forgets a relay, but for [Store.GoneRelays]. What still waits for it fails, because nothing will send it; only what other
// devices are to be told goes there still.
func (s *Store) DeleteRelay(ctx context.Context, key protocol.PublicKey) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if err := s.fold(ctx, tx); err != nil { // so that it has a register, however short it was there
			return err
		}
		result, err := tx.ExecContext(ctx, `DELETE FROM relays WHERE key = ?`, key[:])
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoRelay)
		}
		for _, table := range []string{"admitted", "admitted_looked"} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE relay = ?`, key[:]); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'failed', error = 'the relay was removed from the list; relay heal sends it to your others', changed = ?
			WHERE relay = ? AND state IN ('queued', 'removing') AND n NOT IN (SELECT n FROM outbox WHERE content_type = ?)`, s.now(), key[:], devices.LogType); err != nil {
			return err
		}
		return s.fold(ctx, tx)
	})
}

// Relays lists the owner's relays, the oldest first.
func (s *Store) Relays(ctx context.Context) ([]Relay, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (Relay, error) {
		var r Relay
		var key, published []byte
		err := scan(&key, &r.Address, &r.Added, &r.Bytes, &published)
		r.Key = publicKey(key)
		if published != nil {
			h := hash(published)
			r.Published = &h
		}
		return r, err
	}, `SELECT key, address, added, bytes, published FROM relays ORDER BY added, key`)
}

// Profile is what the owner's card says beside relays and keys.
func (s *Store) Profile(ctx context.Context) (label string, card []byte, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT label, card FROM owner`).Scan(&label, &card)
	return label, card, err
}

// SetLabel changes the label of cards to come.
func (s *Store) SetLabel(ctx context.Context, label string) error {
	return s.exec(ctx, `UPDATE owner SET label = ?`, label)
}

// SetCard keeps the newest card that was signed.
func (s *Store) SetCard(ctx context.Context, card []byte) error {
	return s.exec(ctx, `UPDATE owner SET card = ?`, card)
}

// Friend is somebody whose records are pulled.
type Friend struct {
	Key       protocol.PublicKey
	Name      string
	Card      []byte // envelope, verified when it was stored
	Added     protocol.Timestamp
	Refreshed protocol.Timestamp
}

// AddFriend stores a new friend, or changes name and card of one who is there. ErrNameTaken.
func (s *Store) AddFriend(ctx context.Context, key protocol.PublicKey, name string, card []byte) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var other []byte
		err := tx.QueryRowContext(ctx, `SELECT key FROM friends WHERE name = ? AND key <> ?`, name, key[:]).Scan(&other)
		if err == nil {
			return fmt.Errorf("%w: %s is %s", ErrNameTaken, name, publicKey(other).Short())
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		now := s.now()
		// Who is made a friend has the owner's card: he is told when it changes.
		if _, err = tx.ExecContext(ctx, `INSERT INTO told SELECT ?, card, NULL, NULL, ? FROM owner WHERE true ON CONFLICT (friend) DO NOTHING`, key[:], now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO friends (key, name, card, added, refreshed) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET name = excluded.name, card = excluded.card`, key[:], name, card, now, now)
		return err
	})
}

// Refreshed notes that a friend's newer card was looked for.
func (s *Store) Refreshed(ctx context.Context, key protocol.PublicKey) error {
	return s.exec(ctx, `UPDATE friends SET refreshed = ? WHERE key = ?`, s.now(), key[:])
}

// DeleteFriend forgets a friend. His messages stay.
func (s *Store) DeleteFriend(ctx context.Context, key protocol.PublicKey) error {
	return s.tx(ctx, func(tx *sql.Tx) error { return s.deleteFriend(ctx, tx, key) })
}

func (s *Store) deleteFriend(ctx context.Context, tx *sql.Tx, key protocol.PublicKey) error {
	result, err := tx.ExecContext(ctx, `DELETE FROM friends WHERE key = ?`, key[:])
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNoFriend)
	}
	var told sql.NullInt64
	err = tx.QueryRowContext(ctx, `DELETE FROM told WHERE friend = ? RETURNING n`, key[:]).Scan(&told)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if told.Valid {
		if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'failed', error = 'he is no friend any more', changed = ? WHERE n = ? AND state = 'queued'`,
			s.now(), told.Int64); err != nil {
			return err
		}
	}
	for _, statement := range []string{`DELETE FROM memberships WHERE friend = ?`, `DELETE FROM notices WHERE friend = ?`,
		`DELETE FROM admissions WHERE key = ? AND invitation = 0`} {
		if _, err := tx.ExecContext(ctx, statement, key[:]); err != nil {
			return err
		}
	}
	return nil
}

func scanFriend(scan func(...any) error) (Friend, error) {
	var f Friend
	var key []byte
	err := scan(&key, &f.Name, &f.Card, &f.Added, &f.Refreshed)
	f.Key = publicKey(key)
	return f, err
}

const friendColumns = `SELECT key, name, card, added, refreshed FROM friends `

// Friends lists all friends by name.
func (s *Store) Friends(ctx context.Context) ([]Friend, error) {
	return sqlite.Collect(ctx, s.sql, scanFriend, friendColumns+`ORDER BY name`)
}

// Friend finds one by key. ErrNoFriend.
func (s *Store) Friend(ctx context.Context, key protocol.PublicKey) (Friend, error) {
	return s.oneFriend(ctx, `WHERE key = ?`, key[:])
}

// FriendNamed finds one by name, whatever the case. ErrNoFriend.
func (s *Store) FriendNamed(ctx context.Context, name string) (Friend, error) {
	return s.oneFriend(ctx, `WHERE name = ?`, strings.TrimSpace(name))
}

func (s *Store) oneFriend(ctx context.Context, where string, arg any) (Friend, error) {
	found, err := sqlite.Collect(ctx, s.sql, scanFriend, friendColumns+where, arg)
	if err != nil {
		return Friend{}, err
	}
	if len(found) == 0 {
		return Friend{}, ErrNoFriend
	}
	return found[0], nil
}
