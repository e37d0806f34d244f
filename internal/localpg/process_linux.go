package localpg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// dieWithOwner makes the kernel tell the child to shut down when the thread that starts it ends, which spawn
// makes the same as: when this process ends, even by SIGKILL.
func dieWithOwner(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGINT
}

// isPostmaster tells whether a process runs the cluster's data folder: every process of PostgreSQL
// has it as its working directory. Numbers are reused, so one from a file proves nothing.
func isPostmaster(pid int, p place) (bool, error) {
	proc := fmt.Sprintf("/proc/%d", pid)
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	if errors.Is(err, os.ErrPermission) {
		// Another user's: not ours, for ours runs as the account, and this process is it or root.
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return cwd == p.dataDir(), nil
}
