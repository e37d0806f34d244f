package state

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// batchRows is how many rows one statement asks for, or brings.
const batchRows = 128

// lookup is a prepared query for many keys at once. It selects from the table "wanted", whose columns column1, column2 …
// are the keys.
type lookup struct {
	stmt  *sql.Stmt
	width int   // columns of a key
	first []any // parameters ?1 … of the query
}

func newLookup(ctx context.Context, tx *sql.Tx, width int, query string, first ...any) (*lookup, error) {
	named := make([]string, len(first))
	for i := range named {
		named[i] = "?" + strconv.Itoa(i+1)
	}
	// The numbered parameters come first, so that those of the keys are counted on from them: a number for each of these would
	// have SQLite search for its name at every bind.
	stmt, err := tx.PrepareContext(ctx, "WITH given AS (SELECT "+strings.Join(named, ",")+"), wanted AS (VALUES "+values(width, batchRows)+") "+query)
	return &lookup{stmt, width, first}, err
}

// values are "(?,?),(?,?)".
func values(width, rows int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", width), ",") + "),"
	return strings.TrimSuffix(strings.Repeat(row, rows), ",")
}

// each visits the rows that there are for any of the keys, which must be distinct.
func (l *lookup) each(ctx context.Context, keys [][]any, visit func(*sql.Rows) error) error {
	args := make([]any, len(l.first)+batchRows*l.width)
	copy(args, l.first)
	for some := range slices.Chunk(keys, batchRows) {
		rest := args[len(l.first):]
		for _, key := range some {
			rest = rest[copy(rest, key):]
		}
		clear(rest) // NULL is equal to nothing
		rows, err := l.stmt.QueryContext(ctx, args...)
		if err != nil {
			return err
		}
		for err == nil && rows.Next() {
			err = visit(rows)
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return err
		}
	}
	return nil
}

// insertAll inserts rows of one width: before is the statement up to VALUES, after what follows the rows.
func insertAll(ctx context.Context, tx *sql.Tx, before, after string, rows [][]any) error {
	var stmt *sql.Stmt
	of := 0 // rows of stmt
	defer func() {
		if stmt != nil {
			_ = stmt.Close()
		}
	}()
	for some := range slices.Chunk(rows, batchRows) {
		if len(some) != of { // the first batch, and the last, which is smaller
			if stmt != nil {
				_ = stmt.Close()
			}
			var err error
			if stmt, err = tx.PrepareContext(ctx, before+values(len(some[0]), len(some))+after); err != nil {
				return err
			}
			of = len(some)
		}
		if _, err := stmt.ExecContext(ctx, slices.Concat(some...)...); err != nil {
			return err
		}
	}
	return nil
}
