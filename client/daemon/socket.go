//go:build linux || darwin

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"relaymarket/internal/localsock"
)

const (
	socketName = "daemon"
	lockName   = "lock"
)

// lock makes a process the one daemon of a folder. The kernel frees it when the process ends, however that is.
type lock struct{ file *os.File }

// takeLock fails with a RunningError if another process has it.
func takeLock(folder string) (*lock, error) {
	if err := localsock.EnsureFolder(filepath.Join(folder, socketName)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockPath(folder), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the folder: %w", err)
	}
	// Not in one step with the lock: for a moment the number is that of the process before.
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n"))
	}
	switch {
	case err == nil:
		return &lock{f}, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = &RunningError{Folder: folder, PID: readPID(f)}
	default:
		err = fmt.Errorf("lock the folder: %w", err)
	}
	_ = f.Close()
	return nil, err
}

func lockPath(folder string) string { return filepath.Join(folder, socketName, lockName) }

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func readPID(f io.ReaderAt) int {
	buffer := make([]byte, 32)
	n, _ := f.ReadAt(buffer, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(buffer[:n])))
	return pid
}

// release frees the lock. Its file stays: removing it would let a third process lock another file of the same name.
func (l *lock) release() { _ = l.file.Close() }

// Running tells whether the folder has a daemon, which is what its lock says, and the number of its process.
func Running(folder string) (pid int, running bool, err error) {
	f, err := os.Open(lockPath(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return readPID(f), true, nil
	}
	return 0, false, err
}

// socketPath is where the daemon of a folder listens.
func socketPath(folder, runtimeFolder string) (string, error) {
	return localsock.Path(folder, runtimeFolder, socketName)
}

// ownListener hands over the connections of one user.
type ownListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
}

// listen binds the socket, in the place of what a dead daemon left behind. The caller has the folder's lock.
func listen(folder, runtimeFolder string) (_ *ownListener, err error) {
	path, err := socketPath(folder, runtimeFolder)
	if err != nil {
		return nil, err
	}
	if err := localsock.EnsureFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there and is not a socket: remove it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("bind the daemon's socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it may be another daemon's by then
	info, err := os.Lstat(path)
	if err == nil {
		err = os.Chmod(path, 0o600) // nobody else gets into its folder meanwhile
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &ownListener{l, path, info}, nil
}

// Accept returns connections of this user's processes, and closes others at once.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if localsock.CheckPeer(conn) == nil {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// Close takes the socket away, and then ends it: while it is open no other file can have its inode number.
func (l *ownListener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// dial connects to the daemon at a socket. ErrNotRunning.
func dial(ctx context.Context, path string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("the daemon's socket is a %T", conn)
	}
	if err := localsock.CheckPeer(u); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
