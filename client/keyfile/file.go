package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// MaxFileSize is the most that is read of a key file, in bytes.
const MaxFileSize = 64 << 10

// Options say how a key file is made.
type Options struct {
	// Replace lets Create overwrite what is there. The key in it is gone then,
	// unless its words are kept: ask the user first.
	Replace bool
	// WorkFactor is scrypt's, MinWorkFactor … MaxWorkFactor. 0 is
	// DefaultWorkFactor.
	WorkFactor int
}

func (o Options) workFactor() (int, error) {
	if o.WorkFactor == 0 {
		return DefaultWorkFactor, nil
	}
	if o.WorkFactor < MinWorkFactor || o.WorkFactor > MaxWorkFactor {
		return 0, fmt.Errorf("%w: %d is not in %d … %d", ErrWorkFactor, o.WorkFactor, MinWorkFactor, MaxWorkFactor)
	}
	return o.WorkFactor, nil
}

// Create writes a new key file for seed, made at the time created, into a
// folder that exists. Unless o.Replace is set it fails with ErrExists rather
// than touch what is there. It is safe to retry. When it returns nil the file
// is on the disk.
func Create(path string, seed *Seed, created time.Time, p Passphrase, o Options) error {
	workFactor, err := o.workFactor()
	if err != nil {
		return err
	}
	if err := checkPassphrase(p); err != nil {
		return err
	}
	if !o.Replace {
		// Only to spare a second of scrypt: writeFile decides.
		if _, err := os.Lstat(path); err == nil {
			return existsError(path)
		}
	}
	document, err := encodeDocument(seed, created)
	if err != nil {
		return err
	}
	defer clear(document)
	data, err := encrypt(document, p, workFactor)
	if err != nil {
		return fmt.Errorf("encrypt the key file: %w", err)
	}
	return writeFile(path, data, o.Replace)
}

// Open reads a key file. It fails with ErrNotFound, ErrPermissions,
// ErrNotRegular, ErrTooLarge, ErrNotKeyFile, ErrTruncated, ErrDamaged,
// ErrWorkFactor, ErrPassphraseLength, ErrPassphrase, ErrVersion or ErrDocument.
// The caller wipes the document.
func Open(path string, p Passphrase) (*Document, error) {
	document, err := openPlaintext(path, p)
	if err != nil {
		return nil, err
	}
	defer clear(document)
	d, err := parseDocument(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// Info is what a key file tells without its passphrase.
type Info struct {
	WorkFactor int
}

// Inspect makes every check of Open that needs no passphrase, so that nobody is
// asked for one in vain.
func Inspect(path string) (Info, error) {
	data, err := readFile(path)
	if err != nil {
		return Info{}, err
	}
	workFactor, err := inspect(data)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", path, err)
	}
	return Info{WorkFactor: workFactor}, nil
}

// ChangePassphrase encrypts the same content anew, fields that this version
// does not know included, and replaces the file. The old passphrase stays good
// for old copies of the file. o.Replace has no meaning here. It fails as Open
// does, and then the file is as it was. Two changes at once both succeed, and
// the later one counts.
func ChangePassphrase(path string, old, new Passphrase, o Options) error {
	workFactor, err := o.workFactor()
	if err != nil {
		return err
	}
	if err := checkPassphrase(new); err != nil {
		return err
	}
	// Through a symbolic link the file it points to is replaced, not the link.
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return openError(path, err)
	}
	document, err := openPlaintext(target, old)
	if err != nil {
		return err
	}
	defer clear(document)
	d, err := parseDocument(document)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d.Wipe()
	data, err := encrypt(document, new, workFactor)
	if err != nil {
		return fmt.Errorf("encrypt the key file: %w", err)
	}
	if len(data) > MaxFileSize {
		return fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	return writeFile(target, data, true)
}

func openPlaintext(path string, p Passphrase) ([]byte, error) {
	if err := checkPassphrase(p); err != nil {
		return nil, err
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	document, err := decrypt(data, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return document, nil
}

// readFile reads a key file and refuses what cannot be one, or is not safe.
func readFile(path string) ([]byte, error) {
	// Without O_NONBLOCK, opening a pipe would wait for somebody to write it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	// Windows has no such bits; Go makes them up there.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w (mode %04o): close it with chmod 600, and change the passphrase if somebody may have copied it",
			path, ErrPermissions, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, ErrTooLarge, MaxFileSize)
	}
	return data, nil
}

func openError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %s: make one, or restore it from your words: %w", ErrNotFound, path, fs.ErrNotExist)
	}
	return fmt.Errorf("read the key file: %w", err)
}

func existsError(path string) error {
	return fmt.Errorf("%w: %s is left as it is; choose another place, or say that it may be replaced", ErrExists, path)
}
