package relayside

import (
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// Refuse hears which lines of a bill its payer does not pay for: the contract ends with the highest state held. Repeated,
// it changes nothing. The error has code [protocol.CodeNotFound].
func (m *Manager) Refuse(ctx context.Context, payer protocol.PublicKey, r *protocol.UsageRefusal) (*protocol.UsageRefused, error) {
	answer := &protocol.UsageRefused{Contract: r.Contract, Report: r.Report, Outcome: protocol.RefusalClosed}
	err := m.db.Tx(ctx, func(tx pgx.Tx) error {
		if _, err := lockOf(ctx, tx, payer, r.Contract); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE contracts SET settle = true, look_at = 0 WHERE id = $1 AND look_at IS NOT NULL`, r.Contract[:])
		return err
	})
	m.nudge()
	return answer, wrap(err, "refuse usage of contract %s", r.Contract.Short())
}
