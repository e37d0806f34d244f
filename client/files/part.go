package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"relaymarket/protocol"
)

// What can go wrong with a file that is fetched.
var (
	// ErrExists: there is a file of that name already.
	ErrExists = errors.New("there is a file of that name already")
	// ErrNoRoom: the disk cannot hold the file.
	ErrNoRoom = errors.New("the disk has no room for the file")
)

// Part is a file that is not whole yet. WriteAt may be called concurrently, for different places.
type Part struct {
	root *os.Root
	file *os.File
	name string
	size int64
}

// PartName is what the file name is called until it is whole; mark keeps two of one name apart.
func PartName(name, mark string) string { return "." + name + "." + mark + ".part" }

// OpenPart opens the part file of that name in a folder, or makes it. fresh tells that there was none, or one that is none of
// ours: nothing of the file is here. The file has mode 0600.
func OpenPart(dir, name string, size int64) (p *Part, fresh bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, false, fmt.Errorf("open the folder: %w", err)
	}
	p = &Part{root: root, name: name, size: size}
	if fresh, err = p.open(); err != nil {
		return nil, false, errors.Join(err, root.Close())
	}
	return p, fresh, nil
}

func (p *Part) open() (fresh bool, err error) {
	info, err := p.root.Lstat(p.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fresh = true
	case err != nil:
		return false, fmt.Errorf("look for what is here of the file: %w", err)
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%s is no ordinary file: remove it", filepath.Join(p.root.Name(), p.name))
	default:
		fresh = info.Size() != p.size
	}
	if fresh {
		if err := p.enough(); err != nil {
			return false, err
		}
	}
	if p.file, err = p.root.OpenFile(p.name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return false, fmt.Errorf("make the file: %w", err)
	}
	if err := p.file.Truncate(p.size); err != nil {
		return false, errors.Join(writeError(err), p.file.Close())
	}
	return fresh, nil
}

// enough tells early what would end in the middle of it. Whatever else writes to the disk may still fill it.
func (p *Part) enough() error {
	free, known := freeBytes(p.root.Name())
	if known && free < p.size {
		return fmt.Errorf("%w: it has %d bytes, %d are free in %s", ErrNoRoom, p.size, free, p.root.Name())
	}
	return nil
}

// Room is how much the file system of a folder has for its user; false where that is not known.
func Room(dir string) (int64, bool) { return freeBytes(dir) }

// IsFull tells whether an error is the disk's having no room.
func IsFull(err error) bool { return isFull(err) }

// WriteAt writes a chunk, and returns when it is on disk.
func (p *Part) WriteAt(data []byte, at int64) error {
	if _, err := p.file.WriteAt(data, at); err != nil {
		return writeError(err)
	}
	if err := p.file.Sync(); err != nil {
		return writeError(err)
	}
	return nil
}

func writeError(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return fmt.Errorf("write the file: %w", err)
}

// ReadAt reads a chunk back.
func (p *Part) ReadAt(data []byte, at int64) error {
	_, err := p.file.ReadAt(data, at)
	return err
}

// Sum is the SHA-256 of the whole file. passed is told of every so many bytes.
func (p *Part) Sum(ctx context.Context, passed func(int64)) (protocol.Hash, error) {
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return protocol.Hash{}, err
	}
	return Sum(ctx, p.file, passed)
}

// Sum is the SHA-256 of what r has.
func Sum(ctx context.Context, r io.Reader, passed func(int64)) (sum protocol.Hash, err error) {
	digest, buffer := sha256.New(), make([]byte, 1<<18)
	for {
		n, err := r.Read(buffer)
		digest.Write(buffer[:n])
		passed(int64(n))
		if errors.Is(err, io.EOF) {
			digest.Sum(sum[:0])
			return sum, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return sum, err
		}
	}
}

// Finish gives the whole file its name, unless there is one of that name: ErrExists, and the part stays. It returns the
// path. The part is closed in any case.
func (p *Part) Finish(name string) (string, error) {
	defer p.Close()
	if err := p.file.Sync(); err != nil {
		return "", writeError(err)
	}
	path := filepath.Join(p.root.Name(), name)
	err := p.root.Link(p.name, name)
	switch {
	case err == nil:
		err = p.root.Remove(p.name)
	case errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("%w: %s", ErrExists, path)
	default: // a file system without hard links
		err = p.takePlace(name)
	}
	if err != nil {
		return "", fmt.Errorf("give the file its name: %w", err)
	}
	return path, p.syncFolder()
}

// takePlace makes sure of the name by an empty file, which is then replaced.
func (p *Part) takePlace(name string) error {
	place, err := p.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, filepath.Join(p.root.Name(), name))
	}
	if err != nil {
		return err
	}
	if err := place.Close(); err != nil {
		return err
	}
	return p.root.Rename(p.name, name)
}

// syncFolder makes the name last. Some systems cannot, and need not.
func (p *Part) syncFolder() error {
	folder, err := p.root.Open(".")
	if err != nil {
		return err
	}
	_ = folder.Sync()
	return folder.Close()
}

// Close ends the use of the part, which stays as it is.
func (p *Part) Close() error { return errors.Join(p.file.Close(), p.root.Close()) }

// Free tells whether a folder has no file of that name.
func Free(dir, name string) error {
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return fmt.Errorf("%w: %s", ErrExists, filepath.Join(dir, name))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
