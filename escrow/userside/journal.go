package userside

import (
	"context"
	"database/sql"
	"strings"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Note is one thing that was done about a contract, in words for the user.
type Note struct {
	N        int64
	Contract protocol.ContractID
	At       protocol.Timestamp
	Text     string
}

func scanNote(scan func(...any) error) (Note, error) {
	var n Note
	var id []byte
	err := scan(&n.N, &id, &n.At, &n.Text)
	copy(n.Contract[:], id)
	return n, err
}

// Journal reads all that was done about a contract, oldest first.
func (s *Store) Journal(ctx context.Context, id protocol.ContractID) ([]Note, error) {
	return sqlite.Collect(ctx, s.sql, scanNote, `SELECT n, contract, at, text FROM journal WHERE contract = ? ORDER BY n`, id[:])
}

// Untold hands over what was not told the user yet, once: the caller shows it.
func (s *Store) Untold(ctx context.Context) (notes []Note, err error) {
	err = s.sql.Tx(ctx, func(tx *sql.Tx) error {
		if notes, err = sqlite.Collect(ctx, tx, scanNote, `SELECT n, contract, at, text FROM journal WHERE told = 0 ORDER BY n`); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE journal SET told = 1 WHERE told = 0`)
		return err
	})
	return notes, err
}

// likeText takes the meaning from what LIKE would read as a pattern.
func likeText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(s))
}
