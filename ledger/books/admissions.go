package books

import (
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// SetAdmitted replaces the keys that may leave records for owner on his cost. The error has code
// [protocol.CodeNoAccount] when owner has no account.
func (s *Store) SetAdmitted(ctx context.Context, owner protocol.PublicKey, keys []protocol.Admitted) error {
	return wrap(s.db.Tx(ctx, func(tx pgx.Tx) error {
		// The account's row orders this against writes that count on the old list.
		batch, err := s.LockAccount(ctx, tx, owner)
		if err != nil {
			return err
		}
		if batch.payer(owner) == nil {
			return NoAccount(owner)
		}
		_, err = tx.Exec(ctx, `UPDATE admissions SET max_bytes = 0, max_records = 0 WHERE owner = $1`, owner[:])
		if err != nil {
			return err
		}
		names, most, records := make([][]byte, len(keys)), make([]int64, len(keys)), make([]int64, len(keys))
		for i := range keys {
			names[i], most[i], records[i] = keys[i].Key[:], keys[i].Bytes, keys[i].Records
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO admissions (owner, key, max_bytes, max_records)
			SELECT $1, k, b, r FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS t (k, b, r)
			ON CONFLICT (owner, key) DO UPDATE SET max_bytes = excluded.max_bytes, max_records = excluded.max_records`,
			owner[:], names, most, records)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM admissions WHERE owner = $1 AND max_records = 0 AND used_records = 0`, owner[:])
		return err
	}), "admit keys for %s", owner)
}

func (s *Store) admitted(ctx context.Context, owner protocol.PublicKey) ([]AdmittedUse, error) {
	rows, err := s.db.Pool().Query(ctx, `
		SELECT key, max_bytes, max_records, used_bytes, used_records FROM admissions
		WHERE owner = $1 AND max_records > 0 ORDER BY key`, owner[:])
	if err != nil {
		return nil, wrap(err, "read admitted keys of %s", owner)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (AdmittedUse, error) {
		var u AdmittedUse
		var key []byte
		err := row.Scan(&key, &u.Bytes, &u.Records, &u.UsedBytes, &u.UsedRecords)
		copy(u.Key[:], key)
		return u, err
	})
	return list, wrap(err, "read admitted keys of %s", owner)
}

// Admits tells of each charge whether its owner admits its writer, without locking anything: a first look, before
// [Store.Lock] decides.
func (s *Store) Admits(ctx context.Context, q Querier, charges []Charge) ([]bool, error) {
	owners, writers := make([][]byte, len(charges)), make([][]byte, len(charges))
	for i := range charges {
		owners[i], writers[i] = charges[i].Owner[:], charges[i].Writer[:]
	}
	rows, err := q.Query(ctx, `
		SELECT t.i FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS t (owner, key, i) CROSS JOIN LATERAL (
		  SELECT 1 FROM admissions a WHERE a.owner = t.owner AND a.key = t.key AND a.max_records > 0 OFFSET 0) a`, owners, writers)
	if err != nil {
		return nil, err
	}
	admits := make([]bool, len(charges))
	var i int
	_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
		admits[i-1] = true
		return nil
	})
	return admits, err
}
