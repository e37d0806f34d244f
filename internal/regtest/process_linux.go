package regtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// claims are this process's for as long as it runs, whoever made them, and would be given back if nothing held them: hence a
// variable of the package.
var claims struct {
	mu   sync.Mutex
	held []*net.UnixListener
}

// claim tells whether a port is this process's now: it has a name that only one process can listen on.
func claim(port int) bool {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprint("@relaymarket-port-", port), Net: "unix"})
	if err != nil {
		return false
	}
	claims.mu.Lock()
	defer claims.mu.Unlock()
	claims.held = append(claims.held, l)
	return true
}

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
