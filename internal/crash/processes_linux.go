package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// dieWithParent makes the kernel kill a child when the thread that starts it ends.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// killAllIn ends the processes that work in a folder, which those of a Postgres cluster do. All are halted before the
// first is killed, so that none acts on the end of another.
func killAllIn(dir string) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		pids, err := processesIn(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v in %s do not end", pids, dir)
		}
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range pids {
				if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill process %d: %w", pid, err)
				}
			}
		}
		time.Sleep(2 * time.Millisecond) // until the kernel has buried them, and another look for those just forked
	}
}

func processesIn(dir string) ([]int, error) {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, link := range links {
		// A process that has ended meanwhile has no folder.
		if target, err := os.Readlink(link); err == nil && target == dir {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				return nil, err
			}
			found = append(found, pid)
		}
	}
	return found, nil
}
