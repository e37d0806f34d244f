package relaybackup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/internal/localpg"
	"relaymarket/protocol"
)

// Source is a file that a backup takes.
type Source struct {
	Name    string // see [InFolder] and [Elsewhere]
	Setting string // that names it, if one does
	From    string // its path
	// Write writes its content; nil: it is read from From. It is called after the database's snapshot was taken.
	Write func(context.Context, io.Writer) error
}

// InFolder is the name of a file of the relay's folder, by its path there.
func InFolder(path string) string { return folderPart + filepath.ToSlash(path) }

// Elsewhere is the name of a file that a setting names and that stands elsewhere.
func Elsewhere(setting, path string) string { return otherPart + setting + "/" + filepath.Base(path) }

// Progress tells how far something is.
type Progress struct {
	Step  string // what is done, for people
	Done  int64  // bytes
	Total int64  // about; 0: nobody knows
}

// Config says what to take, and where to. Reports may be nil.
type Config struct {
	Database string // URL
	BinDir   string // of pg_dump; empty: look for it
	Relay    protocol.PublicKey
	Program  string
	Files    []Source
	To       string // the folder that is made
	// RehearseIn is where the backup will be rehearsed, which needs room too; empty: it will not be.
	RehearseIn string

	Clock  func() time.Time
	Report func(Progress)
}

func (c *Config) report(p Progress) {
	if c.Report != nil {
		c.Report(p)
	}
}

// Draft is a backup that is whole and has not got its name yet. Keep or Drop ends it.
type Draft struct {
	Folder   string // where it is now
	Manifest *Manifest
	to       string
}

// compression is gzip's lowest. A dump shows bytes as hex digits, which takes twice their room; this takes that back at a cost that a disk
// hides, and a higher one gains next to nothing from ciphertext.
const compression = 1

// Take makes a backup under a name that nobody takes for one. It works while relays serve from the database.
func Take(ctx context.Context, cfg Config) (draft *Draft, err error) {
	if err := free(cfg.To); err != nil {
		return nil, err
	}
	conn, err := connect(ctx, cfg.Database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	major, version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	tools, err := localpg.FindTools(cfg.BinDir, major)
	if err != nil {
		return nil, err
	}
	folder, err := makePartial(cfg.To)
	if err != nil {
		return nil, err
	}
	made := &Draft{Folder: folder, to: cfg.To}
	defer func() {
		if err != nil {
			err = errors.Join(err, made.Drop())
		}
	}()
	t := &taking{cfg: cfg, folder: folder, tools: tools}
	began := cfg.Clock()
	s, err := begin(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot of the database: %w", err)
	}
	defer func() { _ = s.end(ctx) }()
	m := &Manifest{Format: formatVersion, Relay: cfg.Relay, Taken: protocol.TimestampOf(began), Program: cfg.Program}
	relay := (*protocol.PublicKey)(nil)
	if m.Database, relay, err = s.database(ctx); err != nil {
		return nil, err
	}
	if relay != nil && *relay != cfg.Relay {
		return nil, fmt.Errorf("the database is of the relay %s, and the key in the folder is of %s: name the folder of this database with --dir", relay.Bech32(), cfg.Relay.Bech32())
	}
	m.Database.Postgres, m.Database.Tools = version, tools.Major
	if err := t.dump(ctx, s, &m.Database); err != nil {
		return nil, err
	}
	if err := t.files(ctx); err != nil {
		return nil, err
	}
	m.Files, m.TookMs = t.taken, cfg.Clock().Sub(began).Milliseconds()
	made.Manifest = m
	return made, made.write()
}

// taking is a backup under way.
type taking struct {
	cfg    Config
	folder string
	tools  localpg.Tools
	taken  []File
}

// dump writes the database of the snapshot and counts its rows meanwhile.
func (t *taking) dump(ctx context.Context, s *snapshot, d *Database) error {
	all, rows, err := s.sizes(ctx)
	if err != nil {
		return err
	}
	if err := t.room(rows+rows/8, all); err != nil {
		return err
	}
	at := filepath.Join(t.folder, dumpName)
	if err := touch(at); err != nil {
		return err
	}
	group, dumping := errgroup.WithContext(ctx)
	dumped := make(chan struct{})
	group.Go(func() error {
		defer close(dumped)
		return run(dumping, t.tools, "pg_dump", t.cfg.Database, []string{
			"--format=custom", "--compress=" + strconv.Itoa(compression), "--snapshot=" + s.name, "--schema=" + schema,
			"--exclude-table-data=" + schema + ".relay_cursor", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s", "--file=" + at,
		})
	})
	group.Go(func() (err error) {
		d.Rows, err = countRows(dumping, s.tx)
		return err
	})
	watch(dumped, func() { t.cfg.report(Progress{Step: "database", Done: sizeOf(at), Total: rows}) })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("dump the database: %w", err)
	}
	delete(d.Rows, "relay_cursor")
	file, err := t.sum(ctx, dumpName)
	t.taken = append(t.taken, file)
	return err
}

// room looks whether there is enough for the backup, and for its rehearsal with the whole database.
func (t *taking) room(backup, database int64) error {
	in := t.cfg.RehearseIn
	if in == "" {
		return needRoom(t.folder, backup, "the backup")
	}
	if sameDisk(t.folder, in) {
		return needRoom(t.folder, backup+rehearsalRoom(database), "the backup with its rehearsal")
	}
	if err := needRoom(t.folder, backup, "the backup"); err != nil {
		return err
	}
	return needRoom(in, rehearsalRoom(database), "the rehearsal")
}

// watch calls show now and then until done is closed, and once more.
func watch(done <-chan struct{}, show func()) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		show()
		select {
		case <-done:
			show()
			return
		case <-ticker.C:
		}
	}
}

// sum reads a file back from the disk and syncs it.
func (t *taking) sum(ctx context.Context, name string) (File, error) {
	at := filepath.Join(t.folder, filepath.FromSlash(name))
	f, err := os.OpenFile(at, os.O_RDWR, 0)
	if err != nil {
		return File{}, err
	}
	total := sizeOf(at)
	read := &meter{ctx: ctx, hash: sha256.New(), report: func(n int64) { t.cfg.report(Progress{Step: "checksum", Done: n, Total: total}) }}
	n, err := io.Copy(read, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return File{}, fmt.Errorf("read %s back: %w", at, err)
	}
	return File{Name: name, Bytes: n, SHA256: hex.EncodeToString(read.hash.Sum(nil))}, nil
}

// meter sums what is written to it, and ends with its context.
type meter struct {
	ctx    context.Context
	hash   hash.Hash
	out    io.Writer // also written to; may be nil
	n      int64
	shown  time.Time
	report func(int64)
}

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	if m.out != nil {
		if n, err := m.out.Write(p); err != nil {
			return n, err
		}
	}
	_, _ = m.hash.Write(p)
	if m.n += int64(len(p)); m.report != nil && time.Since(m.shown) > 500*time.Millisecond {
		m.shown = time.Now()
		m.report(m.n)
	}
	return len(p), nil
}

// files copies the files. The wallet is among them: it is younger than the database, so no coin that the database has in a funding
// is free in it.
func (t *taking) files(ctx context.Context) error {
	for _, s := range t.cfg.Files {
		file, err := t.file(ctx, s)
		if err != nil {
			return fmt.Errorf("copy %s: %w", s.From, err)
		}
		t.taken = append(t.taken, file)
	}
	return nil
}

func (t *taking) file(ctx context.Context, s Source) (File, error) {
	if !validName(s.Name) {
		return File{}, fmt.Errorf("%q cannot be the name of a file in a backup", s.Name)
	}
	at := filepath.Join(t.folder, filepath.FromSlash(s.Name))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return File{}, err
	}
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return File{}, err
	}
	to := &meter{ctx: ctx, hash: sha256.New(), out: f}
	write := s.Write
	if write == nil {
		write = func(_ context.Context, w io.Writer) error { return copyFrom(s.From, w) }
	}
	err = write(ctx, to)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return File{}, err
	}
	return File{Name: s.Name, Bytes: to.n, SHA256: hex.EncodeToString(to.hash.Sum(nil)), Setting: s.Setting, From: s.From}, nil
}

func copyFrom(path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close())
}

// write puts the manifest in its place, over an older one.
func (d *Draft) write() error {
	text, err := d.Manifest.encode()
	if err != nil {
		return err
	}
	next := filepath.Join(d.Folder, manifestName+".new")
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(d.Folder, manifestName))
}

// Proved notes that the backup was restored.
func (d *Draft) Proved(at time.Time) error {
	d.Manifest.Rehearsed = protocol.TimestampOf(at)
	return d.write()
}

// Keep gives the backup its name, durably.
func (d *Draft) Keep() error { return d.keep(d.to) }

// KeepAs gives it another one beside its own, because something is wrong with it, and returns it.
func (d *Draft) KeepAs(suffix string) (string, error) { return d.to + suffix, d.keep(d.to + suffix) }

func (d *Draft) keep(as string) error {
	if err := syncTree(d.Folder); err != nil {
		return err
	}
	if err := free(as); err != nil { // it took a while
		return err
	}
	if err := os.Rename(d.Folder, as); err != nil {
		return fmt.Errorf("give the backup its name: %w", err)
	}
	d.Folder = as
	return syncFolder(filepath.Dir(as))
}

// Drop deletes it.
func (d *Draft) Drop() error { return os.RemoveAll(d.Folder) }

// free refuses a name that is taken.
func free(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists already: a backup is never written over anything; choose another name", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// makePartial makes the folder in which a backup or a relay comes into being, beside where it will be.
func makePartial(to string) (string, error) {
	parent := filepath.Dir(to)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, "."+strings.TrimPrefix(filepath.Base(to), ".")+".partial-*")
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// syncTree makes all names below a folder durable; the files are already.
func syncTree(folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return syncFolder(path)
	})
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
