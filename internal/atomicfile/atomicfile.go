// Package atomicfile puts a secret or precious file in its place in one step: a crash leaves what was there before,
// or all of the new one. Files have mode 0600 and are on the disk when a call returns.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// Mode is the mode of every file made here: its owner's alone.
const Mode fs.FileMode = 0o600

// Replace puts data at path, over whatever file is there.
func Replace(path string, data []byte) error {
	return write(path, data, os.Rename)
}

// Create puts data at path, and fails with fs.ErrExist if anything is there, also when two processes create one
// at the same time.
func Create(path string, data []byte) error { return write(path, data, placeNew) }

func write(path string, data []byte, place func(from, to string) error) error {
	folder := filepath.Dir(path)
	temporary, err := writeTemporary(folder, filepath.Base(path), data)
	if err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	// After a rename there is nothing left to remove.
	defer func() { _ = os.Remove(temporary) }()
	if err := place(temporary, path); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	if err := syncFolder(folder); err != nil {
		return fmt.Errorf("the file is written, but a power cut now may lose it: %w", err)
	}
	return nil
}

// writeTemporary writes and syncs a file in the folder: in another one a rename
// would not be one step.
func writeTemporary(folder, base string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(folder, "."+base+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if runtime.GOOS != "windows" {
		if err := f.Chmod(Mode); err != nil {
			return "", err
		}
	}
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// placeNew gives the temporary file its name unless the name is taken, which a
// check followed by a rename could not promise.
func placeNew(temporary, path string) error {
	err := os.Link(temporary, path)
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return placeWithoutLinks(temporary, path)
}

// placeWithoutLinks is placeNew where the file system has no hard links: it
// takes the name with an empty file first.
func placeWithoutLinks(temporary, path string) error {
	placeholder, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, Mode)
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	if err != nil {
		return err
	}
	if err := errors.Join(placeholder.Close(), os.Rename(temporary, path)); err != nil {
		_ = os.Remove(path)
		return err
	}
	return nil
}

// syncFolder makes a rename in the folder durable.
func syncFolder(folder string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	// Some network and FUSE file systems cannot sync a folder; there is nothing
	// that the user could do about it.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}
