package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// makeFolder makes the folder of a run, and removes what killed runs have left. The function gives it back.
func makeFolder(ctx context.Context, o options) (dir string, release func(keep bool) error, err error) {
	sweep(ctx, o.temp)
	if dir, err = os.MkdirTemp(o.temp, folderPattern); err != nil {
		return "", nil, err
	}
	// The user that Postgres runs as has to get to its database.
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", nil, err
	}
	held, locked, err := lockFolder(dir)
	if err != nil || !locked {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func(keep bool) error {
		defer func() { _ = held.Close() }()
		if keep {
			return nil
		}
		return os.RemoveAll(dir)
	}, nil
}

// lockFolder takes the lock of a run's folder, which nobody has when its process is gone.
func lockFolder(dir string) (held *os.File, locked bool, err error) {
	held, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, false, held.Close()
	}
	return held, err == nil, err
}

// sweepAge keeps sweep from a folder that is just being made, and from what -keep left a person to look at.
const sweepAge = 24 * time.Hour

// sweep removes folders whose runs were killed; their filesystems may still be mounted. It is a courtesy, so it is
// silent about what it cannot remove.
func sweep(ctx context.Context, temp string) {
	left, err := filepath.Glob(filepath.Join(temp, folderPattern))
	if err != nil {
		return
	}
	for _, dir := range left {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < sweepAge {
			continue
		}
		held, locked, err := lockFolder(dir)
		if err != nil || !locked {
			continue
		}
		disks, _ := filepath.Glob(filepath.Join(dir, "*", "disk"))
		for _, mount := range disks {
			if mounted, err := isMounted(mount); mounted && err == nil {
				_ = (&disk{mount: mount}).detach(ctx)
			}
		}
		_ = os.RemoveAll(dir)
		_ = held.Close()
	}
}
