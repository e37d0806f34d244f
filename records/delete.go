package records

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
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
		v, state, expires, err := readVictim(ctx, tx, path)
		if err != nil {
			return err
		}
		switch {
		case state == stateDeleted:
			return nil
		case state == stateUsedUp, expires <= s.now():
			return protocol.Errorf(protocol.CodeGone, "%s has ended", path)
		}
		// The account's row is locked before the record's: the order of writes and of the sweeper.
		batch, err := s.books.Lock(ctx, tx, []books.Charge{v.release.Charge})
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE records SET state = $2, envelope = NULL WHERE n = $1 AND state = 0`, v.n, stateDeleted)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM pulls WHERE n = $1`, v.n); err != nil {
			return err
		}
		batch.Release(v.release)
		return batch.Save(ctx, tx)
	}), "delete %s", path)
}

// victim is a record about to end, and what comes back for it.
type victim struct {
	n       int64
	release books.Release
}

const victimColumns = `r.n, r.account, r.sender, r.bytes, coalesce(p.remaining, r.max_pulls), r.written`

type victimRow struct {
	n, written      int64
	account, sender []byte
	bytes, left     int32
}

func (v *victimRow) targets() []any {
	return []any{&v.n, &v.account, &v.sender, &v.bytes, &v.left, &v.written}
}

func (v *victimRow) victim() victim {
	return victim{n: v.n, release: books.Release{
		Charge: books.Charge{Account: protocol.PublicKey(v.account), Writer: protocol.PublicKey(v.sender),
			Bytes: int64(v.bytes), Pulls: int64(v.left)},
		Written: time.UnixMilli(v.written),
	}}
}

func readVictim(ctx context.Context, tx pgx.Tx, path protocol.Path) (victim, int, protocol.Timestamp, error) {
	var row victimRow
	var state int
	var expires int64
	err := tx.QueryRow(ctx, `SELECT `+victimColumns+`, r.state, r.expires FROM records r LEFT JOIN pulls p USING (n)
		WHERE r.sender = $1 AND r.receiver = $2 AND r.id = $3`, path.Sender[:], path.Receiver[:], string(path.ID)).
		Scan(append(row.targets(), &state, &expires)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return victim{}, 0, 0, protocol.Errorf(protocol.CodeNotFound, "there is no record %s", path)
	}
	if err != nil {
		return victim{}, 0, 0, err
	}
	return row.victim(), state, protocol.Timestamp(expires), nil
}
