//go:build linux || darwin

package keyagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// listener is a bound socket that knows whether its path is still its own.
type listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	old  *net.UnixConn // to the agent that this one replaces, or nil
}

// listen binds the socket in the place of whatever agent was there, dead or
// alive. The path is never without a socket in between: a command that asks at
// that moment would trouble its user for the passphrase.
func listen(ctx context.Context, path string) (*listener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	folder := filepath.Dir(path)
	if err := ensureFolder(folder); err != nil {
		return nil, err
	}
	unlock, err := lockFolder(ctx, folder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look at the key agent's socket: %w", err)
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%w: %s is there and is not a socket", ErrPath, path)
	}
	// Connected before the rename: afterwards the path leads to ourselves.
	old, _ := dial(ctx, path)
	l, err := bind(path)
	if err != nil {
		if old != nil {
			_ = old.Close()
		}
		return nil, fmt.Errorf("bind the key agent's socket: %w", err)
	}
	l.old = old
	return l, nil
}

// lockOld makes the replaced agent wipe its secret and end. If it is stuck it
// stays out of reach and ends at its own deadline.
func (l *listener) lockOld(ctx context.Context) {
	if l.old != nil {
		_, _, _ = exchange(ctx, l.old, opLock)
	}
}

// bind makes the socket under another name first, so that the rename replaces
// an old one in one step. The caller holds the folder's lock.
func bind(path string) (l *listener, err error) {
	temporary := filepath.Join(filepath.Dir(path), newSocketName)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	u.SetUnlinkOnClose(false) // its name is another one soon
	defer func() {
		if err != nil {
			_ = u.Close()
			_ = os.Remove(temporary)
		}
	}()
	if err := os.Chmod(temporary, 0o600); err != nil {
		return nil, err
	}
	info, err := os.Lstat(temporary)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, err
	}
	return &listener{UnixListener: u, path: path, info: info}, nil
}

// remove takes the socket's file away, unless another agent's has taken its
// place, and then closes the socket: while it is open, no other file can have
// its inode number. A file that stays because the folder's lock cannot be had is
// replaced by the next agent.
func (l *listener) remove() {
	defer l.Close()
	unlock, err := lockFolder(context.Background(), filepath.Dir(l.path))
	if err != nil {
		return
	}
	defer unlock()
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		_ = os.Remove(l.path)
	}
}
