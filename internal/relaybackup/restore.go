package relaybackup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
	"relaymarket/protocol"
)

// Life is the new life of a database that came back.
type Life struct {
	Epoch string // of its cursor
	Proof Proof
}

// Into says which empty database a dump goes to.
type Into struct {
	Database string
	BinDir   string // of pg_restore; empty: look for it
	// Parallel builds indexes at the same time, and leaves a half-filled database if it is cut off. Otherwise all of it is one
	// transaction: for a database that is not thrown away then.
	Parallel bool
	Report   func(Progress)
}

// Restore fills an empty database from a backup, checks it, and begins its new epoch. Nothing may have been written to it.
func Restore(ctx context.Context, folder string, m *Manifest, into Into, now time.Time) (life Life, err error) {
	conn, err := connect(ctx, into.Database)
	if err != nil {
		return life, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := empty(ctx, conn); err != nil {
		return life, err
	}
	major, _, err := serverVersion(ctx, conn)
	if err != nil {
		return life, err
	}
	tools, err := localpg.FindTools(into.BinDir, max(major, m.Database.Tools))
	if err != nil {
		return life, err
	}
	args := []string{"--schema=" + schema, "--no-owner", "--no-privileges", "--exit-on-error"}
	if into.Parallel {
		args = append(args, "--jobs="+strconv.Itoa(min(runtime.NumCPU(), 4)))
	} else {
		args = append(args, "--single-transaction")
	}
	restored, failed := make(chan struct{}), error(nil)
	go func() {
		defer close(restored)
		failed = run(ctx, tools, "pg_restore", into.Database, append(args, filepath.Join(folder, dumpName)))
	}()
	watch(restored, func() {
		var bytes int64
		if into.Report != nil && conn.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&bytes) == nil {
			into.Report(Progress{Step: "restore", Done: bytes, Total: m.Database.Bytes})
		}
	})
	if failed != nil {
		return life, fmt.Errorf("put the database back: %w", failed)
	}
	if into.Report != nil {
		into.Report(Progress{Step: "check"})
	}
	if life.Proof, err = check(ctx, conn, m); err != nil {
		return life, err
	}
	life.Epoch, err = begins(ctx, conn, m, now)
	return life, err
}

func empty(ctx context.Context, conn *pgx.Conn) error {
	var tables int64
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')`).Scan(&tables); err != nil {
		return err
	}
	if tables > 0 {
		return errors.New("the database is not empty, and nothing is ever restored over something: make a new one (createdb) and name it with --database-url")
	}
	return nil
}

// begins writes the one row that was not dumped. It makes the database a relay's, and is therefore the last thing.
func begins(ctx context.Context, conn *pgx.Conn, m *Manifest, now time.Time) (epoch string, err error) {
	var drawn [6]byte
	for epoch == "" || epoch == m.Database.Epoch {
		_, _ = rand.Read(drawn[:]) // it never fails
		epoch = hex.EncodeToString(drawn[:])
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if m.Database.Schema >= notedSince {
			if err := note(ctx, tx, m, m.Rehearsed > 0); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO relay_cursor (epoch, n, relay) VALUES ($1, $2, $3)`, epoch, m.Database.Cursor, m.Relay[:])
		return err
	})
	if err != nil {
		return "", fmt.Errorf("begin the new epoch: %w", err)
	}
	return epoch, nil
}

// Folder is a relay's folder that is made from a backup, and has not got its name yet.
type Folder struct {
	Path   string // where it is now
	to     string
	inside bool // it is made in to, which is there: it may be a disk of its own, or in a folder where this user makes none
	// Elsewhere are the files that the configuration names at another place than where their copies will be.
	Elsewhere []Copy
}

// Copy is a file that the configuration names where it stood.
type Copy struct {
	Setting string `json:"setting"`
	From    string `json:"from"`
	Now     string `json:"now"`
}

// NewFolder makes a folder with the files of a backup, for to, which must not be there or be empty. Others may pass through it if root makes it, because the private
// database is another user's.
func NewFolder(ctx context.Context, folder string, m *Manifest, to string) (made *Folder, err error) {
	if err := freeOrEmpty(to); err != nil {
		return nil, err
	}
	f := &Folder{to: to}
	if _, err := os.Stat(to); err == nil {
		f.inside = true
		f.Path, err = os.MkdirTemp(to, ".relay.partial-*")
		if err != nil {
			return nil, err
		}
	} else if f.Path, err = makePartial(to); err != nil {
		return nil, err
	}
	partial := f.Path
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Drop())
		}
	}()
	if os.Geteuid() == 0 {
		if err := os.Chmod(partial, 0o711); err != nil {
			return nil, err
		}
	}
	for _, file := range m.Files {
		if file.Name == dumpName {
			continue
		}
		at := filepath.FromSlash(strings.TrimPrefix(file.Name, folderPart))
		if err := f.put(ctx, folder, file, filepath.Join(partial, at)); err != nil {
			return nil, err
		}
		if now := filepath.Join(to, at); file.Setting != "" && file.From != now {
			f.Elsewhere = append(f.Elsewhere, Copy{Setting: file.Setting, From: file.From, Now: now})
		}
	}
	return f, nil
}

func (f *Folder) put(ctx context.Context, folder string, file File, at string) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = verifyFile(ctx, folder, file, out, nil)
	return errors.Join(err, out.Sync(), out.Close())
}

// Keep gives the folder its name, durably.
func (f *Folder) Keep() error {
	if err := syncTreeBeside(f.Path, "db"); err != nil {
		return err
	}
	if f.inside {
		return f.moveUp()
	}
	if err := freeOrEmpty(f.to); err != nil { // it took a while
		return err
	}
	if err := os.Rename(f.Path, f.to); err != nil {
		return fmt.Errorf("give the relay's folder its name: %w", err)
	}
	f.Path = f.to
	return syncFolder(filepath.Dir(f.to))
}

// keyName is the file that a folder is a relay's by: serve does not start without it.
const keyName = "relay.key"

// moveUp moves everything into the folder that is there, the key last.
func (f *Folder) moveUp() error {
	made, err := os.ReadDir(f.Path)
	if err != nil {
		return err
	}
	there, err := os.ReadDir(f.to)
	if err != nil {
		return err
	}
	if len(there) != 1 { // it took a while
		return fmt.Errorf("somebody put something into %s meanwhile: choose a new folder", f.to)
	}
	names := make([]string, 0, len(made))
	for _, entry := range made {
		if entry.Name() != keyName {
			names = append(names, entry.Name())
		}
	}
	for _, name := range append(names, keyName) {
		if name == keyName {
			if err := syncFolder(f.to); err != nil {
				return err
			}
		}
		if err := os.Rename(filepath.Join(f.Path, name), filepath.Join(f.to, name)); err != nil {
			return fmt.Errorf("put %s into the relay's folder: %w", name, err)
		}
	}
	if err := os.Remove(f.Path); err != nil {
		return err
	}
	f.Path = f.to
	return syncFolder(f.to)
}

// Drop deletes it. The database in it has been removed before.
func (f *Folder) Drop() error { return os.RemoveAll(f.Path) }

// syncTreeBeside is syncTree but for one folder, which whoever runs it has synced, and which may not be ours to read.
func syncTreeBeside(folder, beside string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if path == filepath.Join(folder, beside) {
			return fs.SkipDir
		}
		return syncFolder(path)
	})
}

// freeOrEmpty refuses a folder with something in it.
func freeOrEmpty(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s is to be a new folder: %w", path, err)
	case len(entries) > 0:
		return fmt.Errorf("%s has something in it, and nothing is ever restored over something: choose a new folder", path)
	}
	return nil
}

// notedSince is the schema that has the table of [Note].
const notedSince = 14

// Note writes into a relay's database when it was backed up, for doctor and metrics. A database of an older schema has no place
// for it: then noted is false.
func Note(ctx context.Context, database string, m *Manifest) (noted bool, err error) {
	conn, err := connect(ctx, database)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	version, err := schemaVersion(ctx, conn)
	if err != nil || version < notedSince {
		return false, err
	}
	return true, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return note(ctx, tx, m, m.Rehearsed > 0) })
}

func note(ctx context.Context, tx pgx.Tx, m *Manifest, rehearsed bool) error {
	_, err := tx.Exec(ctx, `INSERT INTO relay_backup (taken, bytes, rehearsed) VALUES ($1, $2, $3)
		ON CONFLICT (only_row) DO UPDATE SET taken = excluded.taken, bytes = excluded.bytes, rehearsed = excluded.rehearsed
		WHERE relay_backup.taken <= excluded.taken`, int64(m.Taken), m.Bytes(), rehearsed)
	return err
}

// Noted is the last backup of a database.
type Noted struct {
	Taken     protocol.Timestamp
	Bytes     int64
	Rehearsed bool
}

// LastNoted reads what [Note] wrote; nil: there is none.
func LastNoted(ctx context.Context, q querier) (*Noted, error) {
	var n Noted
	err := q.QueryRow(ctx, `SELECT taken, bytes, rehearsed FROM relay_backup`).Scan(&n.Taken, &n.Bytes, &n.Rehearsed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &n, err
}
