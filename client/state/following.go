package state

import (
	"context"
	"database/sql"
	"time"

	"github.com/go-json-experiment/json"

	"relaymarket/client/devices"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

const (
	// goneFor is how long a relay that was removed is still used to tell other devices: as long as what is told there is kept.
	goneFor = 30 * 24 * time.Hour
	// maxGone bounds how many of them are: the last ones.
	maxGone = 8
)

// GoneRelays are those that were removed from the owner's list a short while ago, the last first. Another device that does not know of that looks for
// word of this one there, and leaves its own.
func (s *Store) GoneRelays(ctx context.Context) ([]Relay, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (Relay, error) {
		var entry string
		var r devices.Relay
		if err := scan(&entry); err != nil {
			return Relay{}, err
		}
		err := json.Unmarshal([]byte(entry), &r)
		return Relay{Key: r.Key, Address: r.Address, Added: r.Added, Bytes: r.Bytes}, err
	}, `SELECT entry FROM registers WHERE kind = 'relay' AND entry ->> '$.removed' = 1 AND entry ->> '$.stamp.at' > ?
		AND key NOT IN (SELECT key FROM relays) ORDER BY entry ->> '$.stamp.at' DESC, key LIMIT ?`, s.now().Add(-goneFor), maxGone)
}

// FollowCard keeps a card of the owner's that another device signed, if it is newer than the one that is kept, and makes those of these relays, which it
// names, the owner's of which nothing was heard: whatever was said of one is later than that. It tells whether the card was news.
func (s *Store) FollowCard(ctx context.Context, card *protocol.Envelope, relays []Relay) (news bool, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		var kept []byte
		if err := tx.QueryRowContext(ctx, `SELECT card FROM owner`).Scan(&kept); err != nil {
			return err
		}
		if kept != nil {
			last, err := protocol.ParseEnvelope(kept)
			if err != nil {
				return err
			}
			if !protocol.SupersedesCard(card, last) {
				return nil
			}
		}
		if err := s.fold(ctx, tx); err != nil {
			return err
		}
		named := &devices.Batch{}
		for _, r := range relays {
			named.Relays = append(named.Relays, devices.Relay{Key: r.Key, Stamp: devices.Stamp{At: 1, By: s.id()}, Address: r.Address, Added: card.Timestamp, Bytes: r.Bytes})
		}
		if _, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = 1`); err != nil {
			return err
		}
		if err := s.takeAll(ctx, tx, named); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = 0`); err != nil {
			return err
		}
		news = true
		_, err := tx.ExecContext(ctx, `UPDATE owner SET card = ?`, card.Bytes())
		return err
	})
	return news, err
}

// HasHeardOf tells whether a relay is, or ever was, one of the owner's, as far as any device said.
func (s *Store) HasHeardOf(ctx context.Context, relay protocol.PublicKey) (heard bool, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM relays WHERE key = ?1) OR EXISTS (SELECT 1 FROM registers WHERE kind = 'relay' AND key = ?1)`,
		relay[:]).Scan(&heard)
	return heard, err
}
