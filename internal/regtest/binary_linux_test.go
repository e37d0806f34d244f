package regtest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relaymarket/internal/regtest"
)

// Several packages ask for btcd at the same time: it is built once, at the version of tools/go.mod.
func TestBinaryIsBuiltOnce(t *testing.T) {
	t.Setenv("GOCACHE", goCache(t)) // which is else below the next one
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	var wait sync.WaitGroup
	var paths [3]string
	for i := range paths {
		wait.Go(func() {
			var err error
			if paths[i], err = regtest.Binary(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	files, err := os.ReadDir(filepath.Dir(paths[0]))
	if err != nil || len(files) != 2 { // and the lock
		t.Fatalf("%v, %v", files, err)
	}
	info, err := os.Stat(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	again, err := regtest.Binary(t.Context())
	if err != nil || again != paths[0] || paths[1] != paths[0] || paths[2] != paths[0] {
		t.Errorf("%s, %v, %v", again, paths, err)
	}
	if after, err := os.Stat(again); err != nil || !os.SameFile(info, after) {
		t.Errorf("it was built again: %v", err)
	}
	out, err := exec.Command(again, "--version").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "tools", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSuffix(strings.Fields(string(out))[2], "-beta")
	if !strings.Contains(string(text), "github.com/btcsuite/btcd v"+version+" ") {
		t.Errorf("%s is not what tools/go.mod pins", out)
	}
}

func goCache(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// A program that is killed leaves no node behind.
func TestNodeEndsWithItsOwner(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, launcher, t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(bufio.NewReader(out), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("no node is running: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(time.Minute); running(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// running tells whether a process is there; one that has ended and that nobody waits for is not.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
