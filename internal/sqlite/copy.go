package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// What a file or the disk under it may have come to.
var (
	// ErrDamaged: the file is not what SQLite wrote.
	ErrDamaged = errors.New("the state file is damaged")
	// ErrFull: the disk has no room for what was to be written. What was committed before stays.
	ErrFull = errors.New("the disk is full")
)

// Cause tells whether an error of a file comes from damage (ErrDamaged) or from a full disk (ErrFull); nil: from something else.
func Cause(err error) error {
	var failure *driver.Error
	if !errors.As(err, &failure) {
		return nil
	}
	switch failure.Code() & 0xff { // the rest of the code tells where
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return ErrDamaged
	case lib.SQLITE_FULL:
		return ErrFull
	}
	if failure.Code() == lib.SQLITE_IOERR_SHMSIZE { // the index of the log, beside the file
		return ErrFull
	}
	return nil
}

// named joins the cause to an error, if it has one.
func named(err error) error {
	if cause := Cause(err); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// OpenAsIs opens a file that has to be there, without looking at its schema or changing how it is kept.
func OpenAsIs(ctx context.Context, path string) (*DB, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no ordinary file", path)
	}
	handle, err := sql.Open("sqlite", source(path, url.Values{"_pragma": {"busy_timeout(10000)", "foreign_keys(1)"}}))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	handle.SetMaxOpenConns(1)
	if err := handle.PingContext(ctx); err != nil {
		_ = handle.Close()
		return nil, fmt.Errorf("open %s: %w", path, named(err))
	}
	return &DB{handle}, nil
}

// source is the name by which the driver opens a file.
func source(path string, query url.Values) string {
	slashed := filepath.ToSlash(path)
	if runtime.GOOS == "windows" {
		slashed = "/" + slashed // file:///C:/…
	}
	return "file://" + (&url.URL{Path: slashed}).EscapedPath() + "?" + query.Encode()
}

// CopyTo writes what the file holds at this moment to another, which must not be there. Other processes go on reading and writing
// meanwhile. The copy has mode 0600, no log beside it, and is not synced.
func (db *DB) CopyTo(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, path)
	return named(err)
}

// Check has SQLite look through the whole file. ErrDamaged.
func (db *DB) Check(ctx context.Context) error {
	faults, err := Collect(ctx, db, func(scan func(...any) error) (s string, err error) { return s, scan(&s) }, `PRAGMA integrity_check(5)`)
	if err != nil {
		return named(err)
	}
	if len(faults) != 1 || faults[0] != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, strings.Join(faults, "; "))
	}
	rows, err := db.QueryContext(ctx, `PRAGMA foreign_key_check`)
	if err != nil {
		return named(err)
	}
	defer rows.Close()
	if rows.Next() {
		return fmt.Errorf("%w: a row belongs to one that is not there", ErrDamaged)
	}
	return named(rows.Err())
}

// Version is how many schema steps the file has seen.
func (db *DB) Version(ctx context.Context) (n int, err error) {
	err = db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&n)
	return n, named(err)
}

// Rows counts what is in each table.
func (db *DB) Rows(ctx context.Context) (map[string]int64, error) {
	tables, err := Collect(ctx, db, func(scan func(...any) error) (s string, err error) { return s, scan(&s) },
		`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`)
	if err != nil {
		return nil, named(err)
	}
	counts := make(map[string]int64, len(tables))
	for _, table := range tables {
		var n int64
		// The name is the schema's own.
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM "`+strings.ReplaceAll(table, `"`, `""`)+`"`).Scan(&n); err != nil {
			return nil, named(err)
		}
		counts[table] = n
	}
	return counts, nil
}
