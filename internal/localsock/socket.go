//go:build linux || darwin

package localsock

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Path is where the program of that name listens, for the user whose state is in stateFolder: name/socket in that folder or,
// where this is too long for a Unix socket, a name made from the folder's hash in runtimeFolder (the value of XDG_RUNTIME_DIR;
// empty if there is none) or in /tmp/relay-<uid>. The same arguments give the same path.
func Path(stateFolder, runtimeFolder, name string) (string, error) {
	state, err := filepath.Abs(stateFolder)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPath, err)
	}
	if path := filepath.Join(state, name, "socket"); len(path) <= MaxPath {
		return path, nil
	}
	// Two names of one folder must have one program.
	if real, err := filepath.EvalSymlinks(state); err == nil {
		state = real
	}
	sum := sha256.Sum256([]byte(state))
	base := hex.EncodeToString(sum[:8]) + "-" + name
	if filepath.IsAbs(runtimeFolder) {
		if path := filepath.Join(runtimeFolder, "relay", base); len(path) <= MaxPath {
			return path, nil
		}
	}
	return filepath.Join("/tmp", "relay-"+strconv.Itoa(os.Geteuid()), base), nil
}

// EnsureFolder makes the folder, or checks that nobody else can get into it. ErrFolder.
func EnsureFolder(folder string) error {
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder of the socket: %w", err)
	}
	info, err := os.Lstat(folder) // not Stat: in /tmp somebody may have put a link there
	if err != nil {
		return fmt.Errorf("look at the folder of the socket: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is not a folder", ErrFolder, folder)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%w: %s belongs to another user", ErrFolder, folder)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o, close it with chmod 700", ErrFolder, folder, mode)
	}
	return nil
}

// CheckPeer fails with ErrForeign unless the other end is the same user.
func CheckPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var uid uint32
	var errUID error
	if err := raw.Control(func(fd uintptr) { uid, errUID = peerUID(int(fd)) }); err != nil {
		return err
	}
	if errUID != nil {
		return fmt.Errorf("ask who is at the socket: %w", errUID)
	}
	if uid != uint32(os.Geteuid()) {
		return ErrForeign
	}
	return nil
}
