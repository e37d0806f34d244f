package records

import "context"

// rowBytes is what a record's row takes beside its envelope, its share of indexes not counted.
const rowBytes = 350

// Reusable estimates the bytes that the tables of records hold and new records can take without the files growing:
// what was freed by expiry and deletion stays with Postgres, and shows in no figure of the file system. It errs on
// the low side, and knows of what was freed once vacuum has been there.
func (s *Store) Reusable(ctx context.Context) (bytes int64, err error) {
	// reltuples is vacuum's: rows that have died since are still counted.
	err = s.db.Pool().QueryRow(ctx, `
		SELECT greatest(pg_table_size(c.oid) * 9 / 10 - (c.reltuples * $1)::bigint - (SELECT coalesce(sum(stored), 0) * 21 / 20 FROM accounts), 0)::bigint
		FROM pg_class c WHERE c.oid = 'records'::regclass AND c.reltuples >= 0
		UNION ALL SELECT 0 LIMIT 1`, float64(rowBytes)).Scan(&bytes)
	return bytes, wrap(err, "look for reusable space")
}
