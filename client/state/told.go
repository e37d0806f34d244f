package state

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"relaymarket/client/moving"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// tellingTime is how long a friend who was told may not have looked yet, ms.
const tellingTime = 7 * 24 * 60 * 60 * 1000

// refusedAgain is when a relay that refused a card is asked again, ms: its account may have admitted the owner meanwhile.
const refusedAgain = 24 * 60 * 60 * 1000

// Told is what a friend was told of the owner's own card.
type Told struct {
	Friend protocol.PublicKey
	Theirs []byte // the friend's card
	Card   []byte // the one that he knows or was told last; nil: none
	Before []byte // the one that he surely knew before; nil: none
	N      int64  // of the record that says so; 0: none was needed
	Live   bool   // the record can be put on relays
	Copies []Copy // of the record: relay, state and error only
}

// Told lists all friends but the owner himself.
func (s *Store) Told(ctx context.Context) ([]Told, error) {
	all, err := sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (t Told, err error) {
		var friend []byte
		err = scan(&friend, &t.Theirs, &t.Card, &t.Before, &t.N, &t.Live)
		t.Friend = publicKey(friend)
		return t, err
	}, `SELECT f.key, f.card, t.card, t.before, coalesce(t.n, 0), o.sealed IS NOT NULL AND o.removed IS NULL AND o.expires > ?
		FROM friends f LEFT JOIN told t ON t.friend = f.key LEFT JOIN outbox o ON o.n = t.n WHERE f.key <> ? ORDER BY f.key`, s.now(), s.owner[:])
	if err != nil {
		return nil, err
	}
	type placed struct {
		friend protocol.PublicKey
		Copy
	}
	copies, err := sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (p placed, err error) {
		var friend, relay []byte
		err = scan(&friend, &relay, &p.Address, &p.State, &p.Error, &p.Changed)
		p.friend, p.Relay = publicKey(friend), publicKey(relay)
		return p, err
	}, `SELECT t.friend, c.relay, c.address, c.state, c.error, c.changed FROM told t JOIN copies c ON c.n = t.n ORDER BY t.friend, c.relay`)
	if err != nil {
		return nil, err
	}
	of := map[protocol.PublicKey][]Copy{}
	for _, p := range copies {
		of[p.friend] = append(of[p.friend], p.Copy)
	}
	for i := range all {
		all[i].Copies = of[all[i].Friend]
	}
	return all, nil
}

// EnqueueCard has the owner's card sealed for a friend and stores that with a queued copy for each relay, in place of the record
// with an older card, which is taken back. The record is not numbered among the messages to him.
func (s *Store) EnqueueCard(ctx context.Context, friend protocol.PublicKey, card []byte, relays []Relay, seal func(device string) (*Outgoing, error)) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var known, before []byte
		var earlier sql.NullInt64
		var at protocol.Timestamp
		err := tx.QueryRowContext(ctx, `SELECT card, before, n, at FROM told WHERE friend = ?`, friend[:]).Scan(&known, &before, &earlier, &at)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if earlier.Valid {
			if at > s.now()-tellingTime { // he may not know of the one that is taken back
				known = before
			}
			if err := s.takeBack(ctx, tx, earlier.Int64, "a newer card took its place"); err != nil {
				return err
			}
		}
		var n any
		if len(relays) > 0 {
			m, err := seal(s.device)
			if err != nil {
				return err
			}
			m.To, m.Device, m.Created = friend, s.device, s.now()
			if err := s.insertOutgoing(ctx, tx, m, relays); err != nil {
				return err
			}
			n = m.N
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO told VALUES (?, ?, ?, ?, ?) ON CONFLICT (friend) DO UPDATE SET
			card = excluded.card, before = excluded.before, n = excluded.n, at = excluded.at`, friend[:], card, known, n, s.now())
		return err
	})
}

// takeBack has a record deleted wherever it is or may be, and sent nowhere any more.
func (s *Store) takeBack(ctx context.Context, tx *sql.Tx, n int64, why string) error {
	now := s.now()
	if _, err := tx.ExecContext(ctx, `UPDATE outbox SET removed = coalesce(removed, ?) WHERE n = ?`, now, n); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'failed', error = ?, changed = ? WHERE n = ? AND state = 'queued'
		AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.n = copies.n AND a.relay = copies.relay)`, why, now, n); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'removing', error = '', changed = ? WHERE n = ? AND state IN ('queued', 'stored')`, now, n); err != nil {
		return err
	}
	return settle(ctx, tx, n)
}

// PlaceCard queues a record with a card for relays that were not to have it yet, and for those of them that refused it a day ago. In the same
// step it gives up what waits for relays that are not among places. A record never has more than [moving.MaxPlaces] copies: for new ones, those
// elsewhere are forgotten, the ended and oldest first. What of them a relay has ends there by itself.
func (s *Store) PlaceCard(ctx context.Context, n int64, fresh, places []Relay) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		elsewhere, err := copiesElsewhere(ctx, tx, n, places)
		if err != nil {
			return err
		}
		var count int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM copies WHERE n = ?`, n).Scan(&count); err != nil {
			return err
		}
		now := s.now()
		for _, c := range elsewhere {
			switch {
			case c.State == CopyQueued: // another program may be at it: it is forgotten the next time
				_, err = tx.ExecContext(ctx, `UPDATE copies SET state = 'failed', error = 'the friend has left that relay', changed = ? WHERE n = ? AND relay = ?`, now, n, c.Relay[:])
			case c.State != CopyRemoving && count+len(fresh) > moving.MaxPlaces:
				count--
				_, err = tx.ExecContext(ctx, `DELETE FROM copies WHERE n = ? AND relay = ?`, n, c.Relay[:])
			}
			if err != nil {
				return err
			}
		}
		for _, r := range fresh {
			result, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'queued', error = '', changed = ?1 WHERE n = ?2 AND relay = ?3
				AND state = 'failed' AND changed <= ?4`, now, n, r.Key[:], now-refusedAgain)
			if err != nil {
				return err
			}
			if again, err := result.RowsAffected(); err != nil || again > 0 || count >= moving.MaxPlaces {
				if err != nil {
					return err
				}
				continue
			}
			if result, err = tx.ExecContext(ctx, `INSERT INTO copies (n, relay, address, state, error, changed, cursor) VALUES (?, ?, ?, 'queued', '', ?, '')
				ON CONFLICT (n, relay) DO NOTHING`, n, r.Key[:], r.Address, now); err != nil {
				return err
			}
			added, err := result.RowsAffected()
			if err != nil {
				return err
			}
			count += int(added)
		}
		return nil
	})
}

// copiesElsewhere are a record's copies on other relays than these: those that ended first, then the oldest.
func copiesElsewhere(ctx context.Context, tx *sql.Tx, n int64, places []Relay) ([]Copy, error) {
	all, err := sqlite.Collect(ctx, tx, func(scan func(...any) error) (c Copy, err error) {
		var relay []byte
		err = scan(&relay, &c.State)
		c.Relay = publicKey(relay)
		return c, err
	}, `SELECT relay, state FROM copies WHERE n = ? ORDER BY state = 'stored', changed, relay`, n)
	return slices.DeleteFunc(all, func(c Copy) bool {
		return slices.ContainsFunc(places, func(r Relay) bool { return r.Key == c.Relay })
	}), err
}

// CardsTold are the owner's cards that a friend was told in the last months, also those that were taken back: he may know any of them.
func (s *Store) CardsTold(ctx context.Context, friend protocol.PublicKey) ([][]byte, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (card []byte, err error) { return card, scan(&card) },
		`SELECT body FROM outbox WHERE receiver = ? AND content_type = ? AND tag = 'ack' AND expires > ? ORDER BY n DESC LIMIT 16`, friend[:], protocol.CardType, s.now())
}

// RefusedLongAgo tells whether a copy that failed is due to be tried again, see [Store.PlaceCard].
func (s *Store) RefusedLongAgo(c *Copy) bool {
	return c.State == CopyFailed && c.Changed <= s.now()-refusedAgain
}

// EnqueueFor stores a record that was sealed already, with a queued copy for each relay. It is not numbered.
func (s *Store) EnqueueFor(ctx context.Context, to protocol.PublicKey, relays []Relay, m *Outgoing) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		m.To, m.Device, m.Created = to, s.device, s.now()
		return s.insertOutgoing(ctx, tx, m, relays)
	})
}
