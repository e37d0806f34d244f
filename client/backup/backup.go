package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relaymarket/client/files"
	"relaymarket/client/keyfile"
	"relaymarket/client/state"
	"relaymarket/escrow/userside"
	"relaymarket/internal/atomicfile"
	"relaymarket/protocol"
)

// The files of a folder that a backup has. The key file is not among them: the words are its backup. Nor is the wallet, which the words and
// the chain give back.
const (
	StateFile     = "state.db"
	ContractsFile = "contracts.db"
	DocumentsFile = "contracts.backup"
	MarketFile    = "market.db"
)

// What can be wrong with a backup, or with where it is to go.
var (
	ErrNotBackup = errors.New("not a backup")
	// ErrOtherKeys: it was made with another seed. Damage to its first bytes looks the same.
	ErrOtherKeys = errors.New("the backup belongs to other keys, or its beginning is damaged")
	ErrDamaged   = errors.New("the backup is damaged or cut short")
	ErrNewer     = errors.New("the backup is from a newer version of this program: install that version")
	// ErrInUse: the folder has a state or contracts already.
	ErrInUse = errors.New("there are messages or contracts in this folder already")
	// ErrOpen: another program has the folder's state open.
	ErrOpen = errors.New("another relay program has this folder open")
	// ErrNoRoom: the disk cannot hold what has to be unpacked to prove the backup.
	ErrNoRoom = errors.New("the disk has no room for the backup")
	// ErrNothing: there is nothing to back up.
	ErrNothing = errors.New("there is nothing to back up here yet")
)

// Config says whose folder it is.
type Config struct {
	Dir    string
	Secret keyfile.BackupSecret
	Owner  protocol.PublicKey
	Keys   userside.Keys // derive the keys of contracts, to compare them
	// Program is this program's version, for whoever reads the manifest.
	Program  string
	Clock    func() time.Time // nil: time.Now
	Progress func(step string)
}

func (c *Config) complete() {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
}

// Report is what is in a backup, and what was proven of it.
type Report struct {
	Path     string
	Bytes    int64 // of the encrypted file
	SHA256   protocol.Hash
	Manifest *Manifest
	Checks   []string // what was done to prove it, in words
	// Contracts are those with a document that was read and whose key these words make; Faults says what is wrong with others.
	Contracts int
	Faults    []string
}

// Count is how many rows a table of the state has; 0 for one that is not there.
func (r *Report) Count(table string) int64 {
	for _, f := range r.Manifest.Files {
		if f.Name == StateFile {
			return f.Rows[table]
		}
	}
	return 0
}

// Write backs the folder up to a file, and rehearses its restore. What was at path stays unless that succeeds; a file there that is no
// backup of this owner is left alone.
func Write(ctx context.Context, c Config, path string) (*Report, error) {
	c.complete()
	if err := replaceable(&c, path); err != nil {
		return nil, err
	}
	report, err := write(ctx, &c, path)
	if err != nil {
		return nil, err
	}
	return report, c.note(ctx, report)
}

func write(ctx context.Context, c *Config, path string) (*Report, error) {
	work, end, err := c.workspace()
	if err != nil {
		return nil, err
	}
	defer end()
	c.Progress("copying")
	m, err := c.take(ctx, work)
	if err != nil {
		return nil, full(err)
	}
	var report *Report
	c.Progress("writing")
	err = atomicfile.ReplaceChecked(path, func(w io.Writer) error { return c.pack(ctx, w, m, work) }, func(temporary string) error {
		// What was copied must not take room while the copy of the copy is made.
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		if err := os.Mkdir(work, 0o700); err != nil {
			return err
		}
		c.Progress("rehearsing the restore")
		if report, err = c.rehearse(ctx, temporary, work); err != nil {
			return fmt.Errorf("the backup could not be restored, so it was not kept: %w", err)
		}
		if !m.same(report.Manifest) {
			return fmt.Errorf("the backup could not be restored, so it was not kept: %w: it holds something else than was copied", ErrDamaged)
		}
		return nil
	})
	if err != nil {
		return nil, full(err)
	}
	report.Path = path
	return report, nil
}

// Check rehearses the restore of a backup that is there, and changes nothing.
func Check(ctx context.Context, c Config, path string) (*Report, error) {
	c.complete()
	work, end, err := c.workspace()
	if err != nil {
		return nil, err
	}
	defer end()
	c.Progress("rehearsing the restore")
	report, err := c.rehearse(ctx, path, work)
	return report, full(err)
}

// note remembers the backup in the state, for doctor.
func (c *Config) note(ctx context.Context, r *Report) error {
	s, err := state.Open(ctx, state.Config{Path: filepath.Join(c.Dir, StateFile), Owner: &c.Owner, Clock: c.Clock})
	if err == nil {
		place := r.Path
		if place != "" {
			place, err = filepath.Abs(place)
		}
		err = errors.Join(err, s.NoteBackup(ctx, state.Backup{At: r.Manifest.Taken, Place: place, Bytes: r.Bytes, SHA256: r.SHA256}), s.Close())
	}
	if err != nil {
		return fmt.Errorf("the backup is good, but that it was made could not be noted: %w", err)
	}
	return nil
}

// replaceable refuses to write over what is none of this owner's backups.
func replaceable(c *Config, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no ordinary file: name another", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := c.manifest(f); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
		return fmt.Errorf("%s would be overwritten, and is no backup of yours: move it away, or name another file (%w)", path, err)
	}
	return nil
}

const (
	workPrefix = ".backup-"
	// workAge is when a work folder is somebody's who died.
	workAge = 24 * time.Hour
)

// workspace is a folder for what is not encrypted: in the user's own, from where it came.
func (c *Config) workspace() (dir string, end func(), err error) {
	old, err := filepath.Glob(filepath.Join(c.Dir, workPrefix+"*"))
	if err != nil {
		return "", nil, err
	}
	for _, left := range old {
		if info, err := os.Lstat(left); err == nil && info.IsDir() && time.Since(info.ModTime()) > workAge {
			_ = os.RemoveAll(left)
		}
	}
	dir, err = os.MkdirTemp(c.Dir, workPrefix) // mode 0700
	if err != nil {
		return "", nil, full(fmt.Errorf("make a folder to work in: %w", err))
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// enough tells early what would end in the middle.
func enough(dir string, need int64) error {
	if free, known := files.Room(dir); known && free < need {
		return fmt.Errorf("%w: %d MB are needed in %s for a while, %d MB are free", ErrNoRoom, need/1e6+1, dir, free/1e6)
	}
	return nil
}

// full says of an error that the disk is full, if it is that.
func full(err error) error {
	if err != nil && !errors.Is(err, ErrNoRoom) && files.IsFull(err) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

// megabytes is a size for people.
func megabytes(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
	return fmt.Sprintf("%d.%d MB", n/1e6, n%1e6/1e5)
}

func list(names []string) string { return strings.Join(names, ", ") }
