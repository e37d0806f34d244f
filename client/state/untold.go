package state

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// maxUntold bounds what is kept for a user who never looks: of more, the newest.
const maxUntold = 1000

// KeepUntold keeps a change of a friend's card that was noticed when nobody looked.
func (s *Store) KeepUntold(ctx context.Context, change []byte) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO untold_changes (change) VALUES (?)`, change); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM untold_changes WHERE n <= (SELECT max(n) FROM untold_changes) - ?`, maxUntold)
		return err
	})
}

// TakeUntold returns what was kept, the oldest first, and drops it.
func (s *Store) TakeUntold(ctx context.Context) (changes [][]byte, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) (err error) {
		changes, err = sqlite.Collect(ctx, tx, func(scan func(...any) error) (change []byte, err error) { return change, scan(&change) },
			`SELECT change FROM untold_changes ORDER BY n`)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM untold_changes`)
		return err
	})
	return changes, err
}

// TellGaps notes that the user is told now of the gaps that were noticed before, and returns since when he was not. At the
// first time that is now.
func (s *Store) TellGaps(ctx context.Context, now protocol.Timestamp) (since protocol.Timestamp, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT till FROM gaps_told`).Scan(&since)
		if errors.Is(err, sql.ErrNoRows) {
			since, err = now, nil
		}
		if err != nil {
			return err
		}
		since = min(since, now) // the clock may have been set back
		_, err = tx.ExecContext(ctx, `INSERT INTO gaps_told VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET till = ?1`, s.now())
		return err
	})
	return since, err
}
