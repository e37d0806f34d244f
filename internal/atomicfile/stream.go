package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// ReplaceChecked puts what write writes at path, over whatever file is there, once check has approved of it: check is given the name
// of a file that is whole and on the disk. If it, or anything before it, fails, what was at path stays.
func ReplaceChecked(path string, write func(io.Writer) error, check func(temporary string) error) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // after a rename there is nothing left to remove
	if err := writeAll(f, write); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	if err := check(f.Name()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	if err := syncFolder(folder); err != nil {
		return fmt.Errorf("the file is written, but a power cut now may lose it: %w", err)
	}
	return nil
}

func writeAll(f *os.File, write func(io.Writer) error) error {
	if runtime.GOOS != "windows" {
		if err := f.Chmod(Mode); err != nil {
			return fmt.Errorf("write the file: %w", err)
		}
	}
	buffered := bufio.NewWriterSize(f, 1<<16)
	if err := write(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	return nil
}

// SyncFolder makes what was renamed into a folder, or out of it, last.
func SyncFolder(folder string) error { return syncFolder(folder) }
