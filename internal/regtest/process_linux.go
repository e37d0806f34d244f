package regtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dieWithOwner makes the kernel end the child when the thread that starts it ends, which spawn makes the same as: when
// this process ends, even by SIGKILL.
func dieWithOwner(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// isHalted tells whether all threads of a process have stopped: those that run do so a moment after the signal.
func isHalted(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		if _, state, found := strings.Cut(string(stat), ") "); !found || !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}
