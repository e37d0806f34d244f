package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/go-json-experiment/json"

	"relaymarket/client/state"
	"relaymarket/escrow/userside"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

const (
	// workFactor of age's scrypt: its passphrase has 256 bits already.
	workFactor = 10
	// header is how an age file begins.
	header = "age-encryption.org/v1\n"
)

// Is tells whether a file begins like a backup.
func Is(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	begin := make([]byte, len(header))
	_, err = io.ReadFull(f, begin)
	return err == nil && string(begin) == header
}

func (c *Config) passphrase() string { return hex.EncodeToString(c.Secret[:]) }

// take copies what a backup has to a folder.
func (c *Config) take(ctx context.Context, to string) (*Manifest, error) {
	if sqlite.Interrupted(c.Dir) { // it would be a backup of half of one
		return nil, sqlite.ErrRestoring
	}
	m := &Manifest{Format: format, Owner: c.Owner, Taken: protocol.TimestampOf(c.Clock()), Program: c.Program}
	need := int64(0)
	for _, name := range order {
		for _, each := range []string{name, name + "-wal"} {
			if info, err := os.Stat(filepath.Join(c.Dir, each)); err == nil {
				need += info.Size()
			}
		}
	}
	if err := enough(to, need+need/4); err != nil {
		return nil, err
	}
	for _, name := range order {
		from, path := filepath.Join(c.Dir, name), filepath.Join(to, name)
		f := File{Name: name}
		err := f.copy(ctx, from, path)
		if errors.Is(err, fs.ErrNotExist) {
			if name == StateFile {
				return nil, ErrNothing
			}
			continue
		}
		if err == nil {
			f.SHA256, f.Bytes, err = sum(path)
		}
		if err != nil {
			return nil, fmt.Errorf("copy %s: %w", name, err)
		}
		m.Files = append(m.Files, f)
	}
	return m, nil
}

// copy copies a database as it is at one moment, or an ordinary file.
func (f *File) copy(ctx context.Context, from, to string) error {
	if !isDatabase(f.Name) {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	}
	db, err := sqlite.OpenAsIs(ctx, from)
	if err != nil {
		return err
	}
	if err := errors.Join(db.CopyTo(ctx, to), db.Close()); err != nil {
		return err
	}
	if f.Name == StateFile {
		if err := state.Strip(ctx, to); err != nil {
			return err
		}
	}
	return f.count(ctx, to)
}

// count notes what is in the copy of a database.
func (f *File) count(ctx context.Context, path string) error {
	db, err := sqlite.OpenAsIs(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	if f.Schema, err = db.Version(ctx); err != nil {
		return err
	}
	f.Rows, err = db.Rows(ctx)
	return err
}

func sum(path string) (h protocol.Hash, n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, 0, err
	}
	defer f.Close()
	digest := sha256.New()
	n, err = io.Copy(digest, f)
	digest.Sum(h[:0])
	return h, n, err
}

// pack writes a backup of the files in a folder.
func (c *Config) pack(ctx context.Context, w io.Writer, m *Manifest, from string) error {
	recipient, err := age.NewScryptRecipient(c.passphrase())
	if err != nil {
		return err
	}
	recipient.SetWorkFactor(workFactor)
	sealed, err := age.Encrypt(w, recipient)
	if err != nil {
		return err
	}
	packed := gzip.NewWriter(sealed)
	archive := tar.NewWriter(packed)
	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	add := func(name string, size int64, r io.Reader) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: time.UnixMilli(int64(m.Taken)).Truncate(time.Second), Format: tar.FormatPAX}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(archive, interruptible{ctx, r})
		return err
	}
	if err := add(manifestName, int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := withFile(filepath.Join(from, f.Name), func(r io.Reader) error { return add(f.Name, f.Bytes, r) }); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), packed.Close(), sealed.Close())
}

func withFile(path string, do func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// interruptible ends a long copy when ctx does.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// unsealed is the archive in a backup, decrypted as it is read.
type unsealed struct {
	*tar.Reader
	packed *gzip.Reader
	plain  io.Reader
}

// unseal opens a backup. ErrNotBackup, ErrOtherKeys, ErrDamaged.
func (c *Config) unseal(r io.Reader) (*unsealed, error) {
	begin := make([]byte, len(header))
	switch n, err := io.ReadFull(r, begin); {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case n > 0 && n < len(header) && header[:n] == string(begin[:n]):
		return nil, ErrDamaged
	case string(begin) != header:
		return nil, ErrNotBackup
	}
	identity, err := age.NewScryptIdentity(c.passphrase())
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(workFactor) // no file makes this program work
	plain, err := age.Decrypt(io.MultiReader(bytes.NewReader(begin), r), identity)
	switch {
	case errors.Is(err, age.ErrIncorrectIdentity):
		return nil, ErrOtherKeys
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	packed, err := gzip.NewReader(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &unsealed{tar.NewReader(packed), packed, plain}, nil
}

// manifest reads a backup's manifest. ErrNewer and ErrOtherKeys, too.
func (u *unsealed) manifest(c *Config) (*Manifest, error) {
	if err := u.expect(manifestName, -1); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(u, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(data) > maxManifest {
		return nil, ErrDamaged
	}
	m, err := readManifest(data)
	if err != nil {
		return nil, err
	}
	if m.Owner != c.Owner {
		return nil, fmt.Errorf("%w: it is of %s", ErrOtherKeys, m.Owner.Bech32())
	}
	newest := map[string]int{StateFile: state.Version(), ContractsFile: userside.Version()}
	for _, f := range m.Files {
		if known, ours := newest[f.Name]; ours && f.Schema > known {
			return nil, fmt.Errorf("%w (%s has schema %d, this program knows %d)", ErrNewer, f.Name, f.Schema, known)
		}
	}
	return m, nil
}

// manifest reads the manifest of a backup alone.
func (c *Config) manifest(r io.Reader) (*Manifest, error) {
	u, err := c.unseal(r)
	if err != nil {
		return nil, err
	}
	return u.manifest(c)
}

// expect reads on to the next file, which has to be this one; a size of -1 is any.
func (u *unsealed) expect(name string, size int64) error {
	h, err := u.Next()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if h.Typeflag != tar.TypeReg || h.Name != name || size >= 0 && h.Size != size {
		return fmt.Errorf("%w: its parts are not those that it names", ErrDamaged)
	}
	return nil
}

// unpack reads a backup to its last byte and writes its files to a folder, synced. Nothing else than those of the manifest is written, nor more of them.
func (c *Config) unpack(ctx context.Context, r io.Reader, to string) (*Manifest, error) {
	u, err := c.unseal(interruptible{ctx, r})
	if err != nil {
		return nil, err
	}
	m, err := u.manifest(c)
	if err != nil {
		return nil, err
	}
	if err := enough(to, m.bytes()+m.bytes()/8); err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if err := u.expect(f.Name, f.Bytes); err != nil {
			return nil, err
		}
		if err := u.write(filepath.Join(to, f.Name), f); err != nil {
			return nil, err
		}
	}
	if _, err := u.Next(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more in it than it names", ErrDamaged)
	}
	// The end of each layer is what proves that nothing was cut off.
	for _, layer := range []io.Reader{u.packed, u.plain} {
		if _, err := io.Copy(io.Discard, layer); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return m, nil
}

func (u *unsealed) write(path string, f File) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	digest := sha256.New()
	wrote := &writer{w: io.MultiWriter(out, digest)}
	n, err := io.Copy(wrote, u)
	switch {
	case wrote.err != nil:
		return fmt.Errorf("unpack %s: %w", f.Name, wrote.err) // the disk
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrDamaged, f.Name, err)
	case n != f.Bytes || protocol.Hash(digest.Sum(nil)) != f.SHA256:
		return fmt.Errorf("%w: %s is not what was backed up", ErrDamaged, f.Name)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// writer tells an error of writing from one of reading.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.err = err
	return n, err
}
