//go:build unix && !linux

package localpg

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithOwner does nothing: only Linux ties a child's life to its parent's. The next start ends what was
// left behind.
func dieWithOwner(*syscall.SysProcAttr) {}

// isPostmaster tells whether a process may run the cluster's data folder: whether it is a PostgreSQL.
func isPostmaster(pid int, _ place) (bool, error) {
	out, err := exec.Command("ps", "-p", strconv.Itoa(pid), "-o", "comm=").Output()
	if err != nil {
		return false, nil // ps fails when there is no such process
	}
	return filepath.Base(strings.TrimSpace(string(out))) == "postgres", nil
}
