//go:build unix && !linux

package regtest

import (
	"syscall"
	"time"
)

// dieWithOwner does nothing: only Linux ties a child's life to its parent's.
func dieWithOwner(*syscall.SysProcAttr) {}

// isHalted cannot look, and waits for as long as it should take.
func isHalted(int) bool {
	time.Sleep(200 * time.Millisecond)
	return true
}

// claim is for Linux, where a name ends with the process.
func claim(int) bool { return true }
