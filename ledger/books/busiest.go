package books

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Busiest are the accounts that moved most bytes this month, most first. It reads all accounts once, which takes some milliseconds for
// each ten thousand: whoever shows them keeps them for a while.
func (s *Store) Busiest(ctx context.Context, most int) ([]Account, error) {
	rows, err := s.db.Pool().Query(ctx, `SELECT `+accountColumns+` FROM accounts WHERE month >= $1 AND moved > 0
		ORDER BY moved DESC, key LIMIT $2`, int32(monthOf(s.clock())), int32(most))
	if err != nil {
		return nil, wrap(err, "list the busiest accounts")
	}
	all, err := pgx.CollectRows(rows, s.scan)
	return all, wrap(err, "list the busiest accounts")
}
