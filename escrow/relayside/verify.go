package relayside

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
)

// Verify sees whether every live contract could be settled with what is in the database: the key of it is the relay's, and the
// signature that is held is its user's, over the highest state. It returns how many there are.
func (m *Manager) Verify(ctx context.Context) (contracts int, err error) {
	err = m.db.Snapshot(ctx, func(tx pgx.Tx) error {
		contracts = 0
		rows, err := tx.Query(ctx, `SELECT `+recordColumns+` FROM contracts WHERE look_at IS NOT NULL`)
		if err != nil {
			return err
		}
		records, err := pgx.CollectRows(rows, scanRecord)
		if err != nil {
			return err
		}
		for _, r := range records {
			key, err := m.cfg.Key(r.terms.ID)
			if err != nil {
				return err
			}
			own := escrow.KeyOf(key)
			key.Zero()
			if own != r.terms.RelayKey {
				return fmt.Errorf("contract %s is on a key that these words do not give", r.terms.ID.Short())
			}
			if err := escrow.VerifyState(&r.terms, r.outpoint(), r.held.Amount, r.held.Signature); err != nil {
				return fmt.Errorf("contract %s: the highest state: %w", r.terms.ID.Short(), err)
			}
		}
		contracts = len(records)
		return nil
	})
	return contracts, wrap(err, "verify contracts")
}
