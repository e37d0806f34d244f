// Package state is the user's memory on disk: his relays, friends, messages, outbox and how far each
// relay was pulled, in one SQLite file. Package client is its caller and owns the rules; this
// package owns the tables and what must change in one step.
//
// # Guarantees
//
//   - What a call reported as done survives a crash of the program and of the machine
//     (write-ahead log, synchronous=FULL).
//   - Several processes may use one file. Each change is one transaction that takes the write lock
//     first; the others wait up to ten seconds for it.
//   - A file written by a newer version is refused (ErrNewer), one of another key too (ErrOwner).
//
// A Store is safe for concurrent use. It never touches the network and never sees a secret key.
package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	_ "modernc.org/sqlite" // registers the driver

	"relaymarket/protocol"
)

//go:embed migrations/*.sql
var migrations embed.FS

// What can be wrong with a state file.
var (
	ErrNewer = errors.New("the state is from a newer version of this program: install that version, or use another folder")
	ErrOwner = errors.New("the state belongs to another key")
	// ErrNone: there is no state yet, and no key was given to make one for.
	ErrNone = errors.New("there is no state here yet")
)

// Config says which file, and whose.
type Config struct {
	Path string
	// Owner is the key that the state belongs to. Nil opens what is there, whosever it is.
	Owner *protocol.PublicKey
	// Clock is time.Now outside of tests.
	Clock func() time.Time
}

// Store is an open state file.
type Store struct {
	sql    *sql.DB
	clock  func() time.Time
	owner  protocol.PublicKey
	device string
}

// Open opens the state, makes it if there is none, and brings its tables up to date. The folder must exist.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if err := prepareFile(c); err != nil {
		return nil, err
	}
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)", "foreign_keys(1)",
	}}
	path := filepath.ToSlash(c.Path)
	if runtime.GOOS == "windows" {
		path = "/" + path // file:///C:/…
	}
	handle, err := sql.Open("sqlite", "file://"+(&url.URL{Path: path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Path, err)
	}
	// One connection: SQLite has one writer anyway, and a second would only wait for the first.
	handle.SetMaxOpenConns(1)
	s := &Store{sql: handle, clock: c.Clock}
	if err := s.start(ctx, c.Owner); err != nil {
		_ = handle.Close()
		return nil, fmt.Errorf("state %s: %w", c.Path, err)
	}
	return s, nil
}

// prepareFile makes the file with mode 0600 before SQLite would with the umask's.
func prepareFile(c Config) error {
	if c.Owner == nil {
		if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
			return ErrNone
		}
		return nil
	}
	f, err := os.OpenFile(c.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the state file: %w", err)
	}
	return f.Close()
}

func (s *Store) start(ctx context.Context, owner *protocol.PublicKey) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.tx(ctx, func(tx *sql.Tx) error {
		var key []byte
		err := tx.QueryRowContext(ctx, `SELECT key, device FROM owner`).Scan(&key, &s.device)
		switch {
		case errors.Is(err, sql.ErrNoRows) && owner == nil:
			return ErrNone
		case errors.Is(err, sql.ErrNoRows):
			var device [8]byte
			if _, err := rand.Read(device[:]); err != nil {
				return err
			}
			s.owner, s.device = *owner, hex.EncodeToString(device[:])
			_, err := tx.ExecContext(ctx, `INSERT INTO owner VALUES (1, ?, ?, '', NULL)`, owner[:], s.device)
			return err
		case err != nil:
			return err
		}
		s.owner = publicKey(key)
		if owner != nil && *owner != s.owner {
			return fmt.Errorf("%w, %s", ErrOwner, s.owner.Bech32())
		}
		return nil
	})
}

// migrate runs the migrations that the file has not seen. Two processes that start at once are
// kept apart by the write lock.
func (s *Store) migrate(ctx context.Context) error {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return err
	}
	for i, file := range files {
		script, err := migrations.ReadFile("migrations/" + file.Name())
		if err != nil {
			return err
		}
		err = s.tx(ctx, func(tx *sql.Tx) error {
			var version int
			if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
				return err
			}
			if version > len(files) {
				return ErrNewer
			}
			if version != i {
				return nil
			}
			_, err := tx.ExecContext(ctx, string(script)+fmt.Sprintf("\nPRAGMA user_version = %d;", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSuffix(file.Name(), ".sql"), err)
		}
	}
	return nil
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.sql.Close() }

// Owner is the key whose state this is.
func (s *Store) Owner() protocol.PublicKey { return s.owner }

// Device is this state's word for itself in sealed headers, 16 hex digits.
func (s *Store) Device() string { return s.device }

func (s *Store) now() protocol.Timestamp { return protocol.TimestampOf(s.clock()) }

// tx runs do in one transaction. _txlock=immediate takes the write lock at its start, so that no
// transaction finds at its end that another one was faster.
func (s *Store) tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// exec runs one statement.
func (s *Store) exec(ctx context.Context, statement string, args ...any) error {
	_, err := s.sql.ExecContext(ctx, statement, args...)
	return err
}

// changed runs one statement and tells whether it changed a row.
func (s *Store) changed(ctx context.Context, statement string, args ...any) (bool, error) {
	result, err := s.sql.ExecContext(ctx, statement, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// querier is a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

var (
	_ querier = (*sql.DB)(nil)
	_ querier = (*sql.Tx)(nil)
)

// collect reads all rows of a query. Rows are never left open: with one connection, the next
// query would wait for them for ever.
func collect[T any](ctx context.Context, q querier, scan func(func(...any) error) (T, error), query string, args ...any) ([]T, error) {
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

func publicKey(b []byte) (k protocol.PublicKey) {
	copy(k[:], b)
	return k
}

func hash(b []byte) (h protocol.Hash) {
	copy(h[:], b)
	return h
}

// optionalKey is the column value of a key that may be absent.
func optionalKey(k *protocol.PublicKey) any {
	if k == nil {
		return nil
	}
	return k[:]
}

func optionalText(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

func textPointer(s sql.NullString) *string {
	if !s.Valid {
		return nil
	}
	return &s.String
}
