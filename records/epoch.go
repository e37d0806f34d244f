package records

import (
	"context"

	"relaymarket/internal/db"
)

// NewEpoch begins another life of a database that was put back from a backup. Its counter is behind cursors that
// readers hold, and would reach them again with other records: under a new epoch those cursors are answered
// "start over" ([protocol.CodeCursorEpoch]). Stores made before must be made anew; their Ready says so.
func NewEpoch(ctx context.Context, d *db.DB) error {
	_, err := d.Pool().Exec(ctx, `UPDATE relay_cursor SET epoch = substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)`)
	return wrap(err, "begin a new epoch")
}
