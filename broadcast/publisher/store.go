package publisher

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/protocol"
)

// Memory keeps the newest announcement through restarts. Several publishers of one relay may share it.
type Memory interface {
	// Last is the newest that was saved, nil if there is none.
	Last(ctx context.Context) ([]byte, error)
	// Save keeps an announcement durably, unless one with its seq or a higher one is kept already: then saved is false.
	Save(ctx context.Context, seq int64, envelope []byte) (saved bool, err error)
}

// Store is the memory in the relay's database.
type Store struct{ DB *db.DB }

var _ Memory = Store{}

// Last implements [Memory].
func (s Store) Last(ctx context.Context) ([]byte, error) {
	var envelope []byte
	err := s.DB.Pool().QueryRow(ctx, `SELECT envelope FROM market_announcement`).Scan(&envelope)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return envelope, db.Refusal(err)
}

// Save implements [Memory].
func (s Store) Save(ctx context.Context, seq int64, envelope []byte) (saved bool, err error) {
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO market_announcement (seq, envelope) VALUES ($1, $2)
			ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, envelope = excluded.envelope
			WHERE market_announcement.seq < excluded.seq`, seq, envelope)
		saved = err == nil && tag.RowsAffected() == 1
		return err
	})
	return saved, err
}

// current is an announcement that was signed, proved and saved.
type current struct {
	envelope *protocol.Envelope
	said     *protocol.Announcement
}
