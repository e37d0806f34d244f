package records

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// PutCard stores the identity card of an account holder, if it is newer than the stored one. The
// stored one again is fine. Errors have code [protocol.CodeNoAccount], [protocol.CodeContractEnded] or [protocol.CodeCardOlder].
func (s *Store) PutCard(ctx context.Context, card *protocol.Envelope) error {
	return wrap(s.db.Tx(ctx, func(tx pgx.Tx) error {
		batch, err := s.books.LockAccount(ctx, tx, card.From)
		if err != nil {
			return err
		}
		if !batch.Active(card.From) {
			return batch.Refusal(card.From)
		}
		var stored []byte
		err = tx.QueryRow(ctx, `SELECT envelope FROM cards WHERE owner = $1`, card.From[:]).Scan(&stored)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if stored != nil {
			current, err := protocol.ParseEnvelope(stored)
			if err != nil {
				return err
			}
			if current.Hash() == card.Hash() {
				return nil
			}
			if !protocol.SupersedesCard(card, current) {
				return protocol.Errorf(protocol.CodeCardOlder, "a card of %s is stored", current.Timestamp.Time().Format("2006-01-02 15:04:05Z"))
			}
		}
		_, err = tx.Exec(ctx, `INSERT INTO cards (owner, envelope) VALUES ($1, $2)
			ON CONFLICT (owner) DO UPDATE SET envelope = excluded.envelope`, card.From[:], card.Bytes())
		return err
	}), "store card of %s", card.From)
}

// Card is the newest card of an account holder. The error has code [protocol.CodeNotFound] when
// there is none.
func (s *Store) Card(ctx context.Context, owner protocol.PublicKey) ([]byte, error) {
	var envelope []byte
	err := s.db.Pool().QueryRow(ctx, `SELECT envelope FROM cards WHERE owner = $1`, owner[:]).Scan(&envelope)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, protocol.Errorf(protocol.CodeNotFound, "no card of %s is stored here", owner.Bech32())
	}
	return envelope, wrap(err, "read card of %s", owner)
}
