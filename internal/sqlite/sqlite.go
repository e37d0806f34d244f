// Package sqlite opens the files that a user's programs keep on disk, and brings their tables up to date. Packages
// client/state and escrow/userside own the tables; this package owns how a file is opened and a transaction is run.
//
// # Guarantees
//
//   - What a transaction committed survives a crash of the program and of the machine (write-ahead log,
//     synchronous=FULL).
//   - Several processes may use one file. Each transaction takes the write lock first; the others wait up to ten
//     seconds for it.
//   - A file is made with mode 0600. One written by a newer version is refused (ErrNewer).
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // registers the driver
)

// What can be wrong with a file.
var (
	ErrNewer = errors.New("the state is from a newer version of this program: install that version, or use another folder")
	// ErrNone: there is no file, and none was to be made.
	ErrNone = errors.New("there is no state here yet")
	// ErrRestoring: what is in the folder is half of what a restore was to put there.
	ErrRestoring = errors.New("a restore was interrupted: run relay restore again")
)

// Restoring is a file that is in a folder while a restore puts its databases there. The next restore takes all that it finds beside it for
// its own and removes it. So nobody else may begin to use the folder: what he wrote would be lost.
const Restoring = ".restoring"

// DB is an open file. It is safe for concurrent use.
type DB struct{ *sql.DB }

// Open opens the file at path and runs the migrations that it has not seen: those of the folder "migrations" in
// files, in the order of their names. If create is false and there is no file the error is ErrNone. The folder must exist. ErrRestoring.
func Open(ctx context.Context, path string, create bool, files fs.ReadDirFS) (*DB, error) {
	if Interrupted(filepath.Dir(path)) {
		return nil, ErrRestoring
	}
	if err := prepare(path, create); err != nil {
		return nil, err
	}
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)", "foreign_keys(1)",
	}}
	handle, err := sql.Open("sqlite", source(path, query))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// One connection: SQLite has one writer anyway, and a second would only wait for the first.
	handle.SetMaxOpenConns(1)
	db := &DB{handle}
	if err := db.migrate(ctx, files); err != nil {
		_ = handle.Close()
		return nil, fmt.Errorf("state %s: %w", path, named(err))
	}
	return db, nil
}

// Interrupted tells whether a restore to a folder was begun and not ended.
func Interrupted(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, Restoring))
	return err == nil
}

// prepare makes the file with mode 0600 before SQLite would with the umask's.
func prepare(path string, create bool) error {
	if !create {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return ErrNone
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the state file: %w", err)
	}
	return f.Close()
}

// migrate runs the migrations that the file has not seen. Two processes that start at once are
// kept apart by the write lock.
func (db *DB) migrate(ctx context.Context, files fs.ReadDirFS) error {
	entries, err := files.ReadDir("migrations")
	if err != nil {
		return err
	}
	for i, entry := range entries {
		script, err := fs.ReadFile(files, "migrations/"+entry.Name())
		if err != nil {
			return err
		}
		err = db.Tx(ctx, func(tx *sql.Tx) error {
			var version int
			if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
				return err
			}
			if version > len(entries) {
				return ErrNewer
			}
			if version != i {
				return nil
			}
			_, err := tx.ExecContext(ctx, string(script)+fmt.Sprintf("\nPRAGMA user_version = %d;", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSuffix(entry.Name(), ".sql"), err)
		}
	}
	return nil
}

// Tx runs do in one transaction. _txlock=immediate takes the write lock at its start, so that no
// transaction finds at its end that another one was faster.
func (db *DB) Tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// Exec runs one statement.
func (db *DB) Exec(ctx context.Context, statement string, args ...any) error {
	_, err := db.ExecContext(ctx, statement, args...)
	return err
}

// Changed runs one statement and tells whether it changed a row.
func (db *DB) Changed(ctx context.Context, statement string, args ...any) (bool, error) {
	result, err := db.ExecContext(ctx, statement, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// Querier is a file or a transaction on it.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

var (
	_ Querier = (*DB)(nil)
	_ Querier = (*sql.Tx)(nil)
)

// Collect reads all rows of a query. Rows are never left open: with one connection, the next
// query would wait for them for ever.
func Collect[T any](ctx context.Context, q Querier, scan func(func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		item, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, item)
	}
	return all, rows.Err()
}
