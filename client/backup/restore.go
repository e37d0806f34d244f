package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relaymarket/client/state"
	"relaymarket/escrow/userside"
	"relaymarket/internal/atomicfile"
	"relaymarket/internal/sqlite"
)

// marker is in a folder while a restore puts its files there. What it finds then is its own: nobody else opens them, see [sqlite.Restoring].
const marker = sqlite.Restoring

// Fresh tells whether a backup may be restored to a folder: there is none, or nothing was done in it but making or restoring the keys.
func Fresh(ctx context.Context, dir string) (bool, error) {
	if sqlite.Interrupted(dir) {
		return true, nil
	}
	for _, name := range []string{ContractsFile, DocumentsFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return false, nil
		}
	}
	path := filepath.Join(dir, StateFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	s, err := state.Open(ctx, state.Config{Path: path})
	if errors.Is(err, state.ErrNone) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	untouched, err := s.Untouched(ctx)
	return untouched, errors.Join(err, s.Close())
}

// Restore puts a backup into a folder, which is made if it is not there. before is called when all is proven and nothing was changed yet: the key
// file may be made in it; nil for nothing. If Restore fails before that the folder is as it was. ErrInUse.
func Restore(ctx context.Context, c Config, path string, before func() error) (*Report, error) {
	c.complete()
	fresh, err := Fresh(ctx, c.Dir)
	if err != nil {
		return nil, err
	}
	if !fresh {
		return nil, ErrInUse
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, err
		}
		defer func() { _ = os.Remove(c.Dir) }() // only if it stayed empty
	}
	work, end, err := c.workspace()
	if err != nil {
		return nil, err
	}
	defer end()
	c.Progress("unpacking and checking")
	report, err := c.rehearse(ctx, path, work)
	if err != nil {
		return nil, full(err)
	}
	if err := c.adapt(ctx, report, work); err != nil {
		return nil, full(err)
	}
	if err := unused(ctx, filepath.Join(c.Dir, StateFile)); err != nil {
		return nil, err
	}
	if before != nil {
		if err := before(); err != nil {
			return nil, err
		}
	}
	return report, full(c.place(report, work))
}

// unused fails if another program, a daemon or a listener, has the state open that is to be replaced: it would go on writing to what is
// removed. While one does, SQLite cannot leave the log of a database. ErrOpen.
func unused(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := sqlite.OpenAsIs(ctx, path)
	if err != nil {
		return nil // half of an earlier restore: nobody can have it open
	}
	defer db.Close()
	if err := db.Exec(ctx, `PRAGMA busy_timeout = 500`); err != nil {
		return err
	}
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = delete`).Scan(&mode); err != nil || mode != "delete" {
		return ErrOpen
	}
	return nil
}

// adapt makes what was unpacked fit to go on with, as if it had stood still since.
func (c *Config) adapt(ctx context.Context, r *Report, work string) error {
	s, err := state.Open(ctx, state.Config{Path: filepath.Join(work, StateFile), Owner: &c.Owner, Clock: c.Clock})
	if err != nil {
		return err
	}
	if err := errors.Join(s.PutBack(ctx, r.Manifest.Taken), s.Close()); err != nil {
		return err
	}
	path := filepath.Join(work, ContractsFile)
	if _, err := os.Stat(path); err == nil {
		contracts, err := userside.OpenStore(ctx, path, &c.Owner, c.Clock)
		if err != nil {
			return err
		}
		if err := errors.Join(contracts.PutBack(ctx), contracts.Close()); err != nil {
			return err
		}
	}
	for _, f := range r.Manifest.Files {
		if err := settled(ctx, filepath.Join(work, f.Name), isDatabase(f.Name)); err != nil {
			return err
		}
	}
	return nil
}

// settled has a database whole in its one file, and the file on the disk.
func settled(ctx context.Context, path string, database bool) error {
	if database {
		db, err := sqlite.OpenAsIs(ctx, path)
		if err != nil {
			return err
		}
		if err := errors.Join(db.Exec(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`), db.Close()); err != nil {
			return err
		}
		for _, beside := range []string{"-wal", "-shm"} {
			if _, err := os.Lstat(path + beside); err == nil {
				return fmt.Errorf("%s%s stays: another program has the file open", path, beside)
			}
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// place renames what is ready into the folder, the state last. Until that is done there is the marker, so that whoever is interrupted can
// begin again. A log that is left of another state would be taken for the new one's: it goes first.
func (c *Config) place(r *Report, work string) error {
	if err := atomicfile.Replace(filepath.Join(c.Dir, marker), []byte("A restore was interrupted. Run it again.\n")); err != nil {
		return err
	}
	names := make([]string, 0, len(r.Manifest.Files))
	for _, f := range r.Manifest.Files {
		names = append(names, f.Name)
	}
	slices.SortFunc(names, func(a, b string) int { // the state last
		if a == StateFile {
			return 1
		}
		if b == StateFile {
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, name := range []string{StateFile, ContractsFile, MarketFile} {
		for _, each := range []string{name, name + "-wal", name + "-shm", name + "-journal"} {
			if err := os.Remove(filepath.Join(c.Dir, each)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := atomicfile.SyncFolder(c.Dir); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(work, name), filepath.Join(c.Dir, name)); err != nil {
			return err
		}
	}
	if err := atomicfile.SyncFolder(c.Dir); err != nil {
		return err
	}
	return errors.Join(os.Remove(filepath.Join(c.Dir, marker)), atomicfile.SyncFolder(c.Dir))
}
