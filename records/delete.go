package records

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// States of a record's row.
const (
	stateLive    = 0
	stateDeleted = 1 // by its sender
	stateUsedUp  = 2 // its last pull is made and its bytes are freed
)

// Delete ends a record at once and gives its space back. Deleting again is fine. Errors have code
// [protocol.CodeNotFound], or [protocol.CodeGone] for a record that ended otherwise.
func (s *Store) Delete(ctx context.Context, path protocol.Path) error {
	return wrap(s.db.Tx(ctx, func(tx pgx.Tx) error {
		// After this no pull of the record is under way: what is left of its pulls is final.
		if err := lockReader(ctx, tx, path.Receiver); err != nil {
			return err
		}
		now := s.now()
		var n, expires int64
		var account []byte
		var admitted bool
		var state int
		err := tx.QueryRow(ctx, `SELECT n, account, admitted, state, expires FROM records WHERE sender = $1 AND receiver = $2 AND id = $3`,
			path.Sender[:], path.Receiver[:], string(path.ID)).Scan(&n, &account, &admitted, &state, &expires)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return protocol.Errorf(protocol.CodeNotFound, "there is no record %s", path)
		case err != nil:
			return err
		case state == stateDeleted:
			return nil
		case state == stateUsedUp, protocol.Timestamp(expires) <= now:
			return protocol.Errorf(protocol.CodeGone, "%s has ended", path)
		}
		v := newVictim(n, account, path.Sender[:], path.Receiver[:], admitted, 0)
		_, err = s.endRecords(ctx, tx, []victim{v}, endDeleted, int64(now))
		return err
	}), "delete %s", path)
}

// endDeleted makes tombstones of the records $1 that have not expired at $2.
const endDeleted = `UPDATE records SET state = 1, envelope = NULL WHERE n = ANY($1) AND state = 0 AND expires > $2
	RETURNING n, true, bytes, max_pulls, written, expires, bill, receiver, id, hash`
