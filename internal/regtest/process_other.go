//go:build unix && !linux

package regtest

import "syscall"

// dieWithOwner does nothing: only Linux ties a child's life to its parent's.
func dieWithOwner(*syscall.SysProcAttr) {}
