//go:build !linux && !darwin

package localsock

import "net"

// Path fails with ErrUnsupported on this system.
func Path(stateFolder, runtimeFolder, name string) (string, error) { return "", ErrUnsupported }

// EnsureFolder fails with ErrUnsupported on this system.
func EnsureFolder(folder string) error { return ErrUnsupported }

// CheckPeer fails with ErrUnsupported on this system.
func CheckPeer(*net.UnixConn) error { return ErrUnsupported }
