package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Wishes are what the owner would take of a relay, what he likes best first; none if he never said.
func (s *Store) Wishes(ctx context.Context) ([]protocol.Wish, error) { return wishes(ctx, s.sql) }

func wishes(ctx context.Context, q sqlite.Querier) ([]protocol.Wish, error) {
	return sqlite.Collect(ctx, q, func(scan func(...any) error) (w protocol.Wish, err error) {
		err = scan(&w.Type, &w.Topic, &w.Plaintext, &w.Ads)
		w.Payment = w.Type == protocol.TermsContract
		return w, err
	}, `SELECT type, topic, plaintext, ads FROM wishes ORDER BY place`)
}

// SetWishes replaces them all, unless they are not what they were before any more: then changed is false.
func (s *Store) SetWishes(ctx context.Context, before, after []protocol.Wish) (changed bool, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		now, err := wishes(ctx, tx)
		if err != nil || !slices.Equal(now, before) {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM wishes`); err != nil {
			return err
		}
		for i, w := range after {
			if _, err := tx.ExecContext(ctx, `INSERT INTO wishes VALUES (?, ?, ?, ?, ?)`, i, w.Type, string(w.Topic), w.Plaintext, w.Ads); err != nil {
				return err
			}
		}
		changed = true
		return nil
	})
	return changed && err == nil, err
}

// Offer is what a relay announced when it was asked last, or when it refused.
type Offer struct {
	Relay        protocol.PublicKey
	Address      string
	At           protocol.Timestamp
	Announcement []byte // the envelope
}

// PutOffer keeps a relay's newest offer. Its signature was checked.
func (s *Store) PutOffer(ctx context.Context, o Offer) error {
	return s.exec(ctx, `INSERT INTO offers (relay, address, at, announcement) VALUES (?, ?, ?, ?)
		ON CONFLICT (relay) DO UPDATE SET address = excluded.address, at = excluded.at, announcement = excluded.announcement`,
		o.Relay[:], o.Address, s.now(), o.Announcement)
}

const offerColumns = `SELECT relay, address, at, announcement FROM offers`

func scanOffer(scan func(...any) error) (o Offer, err error) {
	var relay []byte
	err = scan(&relay, &o.Address, &o.At, &o.Announcement)
	o.Relay = publicKey(relay)
	return o, err
}

// OfferAt is the offer of the relay that was last at an address; nil if there is none.
func (s *Store) OfferAt(ctx context.Context, address string) (*Offer, error) {
	all, err := sqlite.Collect(ctx, s.sql, scanOffer, offerColumns+` WHERE address = ? ORDER BY at DESC LIMIT 1`, address)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// Answer is what a relay said to the wishes that it was asked last.
type Answer struct {
	Offer
	At        protocol.Timestamp
	Asked     []protocol.Wish
	Refused   []protocol.Refused
	Accepted  *int64       // index of what was asked
	Ads       bool         // the owner is to be shown the relay's notice
	Topic     protocol.Tag // the one tag that the account takes; empty: any
	Plaintext bool         // it takes nothing sealed
}

// PutAnswer keeps a relay's answer, and what it announced with it.
func (s *Store) PutAnswer(ctx context.Context, a Answer) error {
	asked, err := json.Marshal(a.Asked)
	if err != nil {
		return err
	}
	refused, err := json.Marshal(a.Refused)
	if err != nil {
		return err
	}
	if err := s.PutOffer(ctx, a.Offer); err != nil {
		return err
	}
	return s.exec(ctx, `INSERT INTO answers (relay, at, asked, refused, accepted, ads, topic, plaintext) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (relay) DO UPDATE SET at = excluded.at, asked = excluded.asked, refused = excluded.refused, accepted = excluded.accepted, ads = excluded.ads,
		topic = excluded.topic, plaintext = excluded.plaintext`,
		a.Relay[:], s.now(), string(asked), string(refused), a.Accepted, a.Ads, string(a.Topic), a.Plaintext)
}

// Answers are the last of each relay that was asked, the newest first.
func (s *Store) Answers(ctx context.Context) ([]Answer, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (a Answer, err error) {
		var relay []byte
		var asked, refused string
		if err := scan(&relay, &a.Address, &a.Offer.At, &a.Announcement, &a.At, &asked, &refused, &a.Accepted, &a.Ads, &a.Topic, &a.Plaintext); err != nil {
			return a, err
		}
		a.Relay = publicKey(relay)
		if err := errors.Join(json.Unmarshal([]byte(asked), &a.Asked), json.Unmarshal([]byte(refused), &a.Refused)); err != nil {
			return a, fmt.Errorf("the answer of %s: %w", a.Address, err)
		}
		return a, nil
	}, `SELECT o.relay, o.address, o.at, o.announcement, a.at, a.asked, a.refused, a.accepted, a.ads, a.topic, a.plaintext
		FROM answers a JOIN offers o USING (relay) ORDER BY a.at DESC, o.relay`)
}
