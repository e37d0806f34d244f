//go:build linux || darwin

package keyagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"relaymarket/internal/localsock"
)

const (
	// newSocketName is where a socket is bound before it is renamed over the
	// old one; folderLockName is the file whose lock guards it.
	newSocketName  = ".new"
	folderLockName = ".lock"

	lockRetry = 10 * time.Millisecond
)

// SocketPath is where the agent of the user whose state is in stateFolder
// listens: agent/socket in that folder or, where this is too long for a Unix
// socket, a name made from its hash in runtimeFolder (the value of
// XDG_RUNTIME_DIR; empty if there is none) or in /tmp/relay-<uid>. The same
// arguments give the same path.
func SocketPath(stateFolder, runtimeFolder string) (string, error) {
	path, err := localsock.Path(stateFolder, runtimeFolder, "agent")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPath, err)
	}
	return path, checkPath(path)
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("%w: %q is not absolute and clean", ErrPath, path)
	}
	if base := filepath.Base(path); base == newSocketName || base == folderLockName {
		return fmt.Errorf("%w: the name %q is taken", ErrPath, base)
	}
	longest := filepath.Join(filepath.Dir(path), newSocketName)
	if n := max(len(path), len(longest)); n > localsock.MaxPath {
		return fmt.Errorf("%w: %q is longer than %d bytes", ErrPath, path, localsock.MaxPath)
	}
	return nil
}

// ensureFolder makes the folder, or checks that nobody else can get into it.
func ensureFolder(folder string) error {
	err := localsock.EnsureFolder(folder)
	if errors.Is(err, localsock.ErrFolder) {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	return err
}

// lockFolder keeps two agents from binding or removing a socket in the folder at
// the same time. The lock's file stays: removing it would let a third one lock
// another file of the same name.
func lockFolder(ctx context.Context, folder string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(folder, folderLockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the folder of the key agent's socket: %w", err)
	}
	// Whoever holds it waits for one exchange at most.
	ctx, cancel := context.WithTimeout(ctx, 2*exchangeTime)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock the folder of the key agent's socket: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("another key agent is starting or ending in %s: %w", folder, ctx.Err())
		case <-time.After(lockRetry):
		}
	}
}
