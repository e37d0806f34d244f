package keyagent_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"relaymarket/client/keyagent"
)

func readProc(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	must(t, err)
	return string(data)
}

// What the process looks like from outside is what the package promises.
func TestSpawnedProcess(t *testing.T) {
	needRoot(t) // the process is closed to its own user
	socket, secret := newSocket(t), newSecret(t)
	// The shell that unlocks may have files open that it gives to its children.
	var inherited [2]int
	must(t, syscall.Pipe(inherited[:]))
	defer func() { _, _ = syscall.Close(inherited[0]), syscall.Close(inherited[1]) }()
	t.Setenv("RELAY_PASSPHRASE", "not for the agent")
	report := filepath.Join(t.TempDir(), "report")
	pid := spawn(t, spawnConfig(socket, secret, "--report", report)).PID

	for _, name := range []string{"cmdline", "environ"} {
		text := readProc(t, pid, name)
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), "PASSPHRASE"} {
			if strings.Contains(text, form) {
				t.Errorf("%s: %q", name, text)
			}
		}
	}
	if environ := readProc(t, pid, "environ"); environ != "" {
		t.Errorf("environment %q", environ)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Errorf("folder %q, %v", cwd, err)
	}
	// pid (name) state parent group session terminal
	stat := strings.Fields(readProc(t, pid, "stat"))
	if stat[5] != strconv.Itoa(pid) || stat[6] != "0" {
		t.Errorf("session %s of process %d, terminal %s", stat[5], pid, stat[6])
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	for _, d := range descriptors {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, d.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the connection on which it has just answered
		}
		must(t, err)
		if n, _ := strconv.Atoi(d.Name()); n <= 2 && target != "/dev/null" || strings.HasPrefix(target, "pipe:") {
			t.Errorf("descriptor %s is %s", d.Name(), target)
		}
	}
	if text := readProc(t, pid, "status"); strings.Contains(text, "VmLck:\t       0 kB") {
		t.Error("nothing is locked into memory")
	}
	data, err := os.ReadFile(report)
	must(t, err)
	if string(data) != "dumpable 0 <nil>, core 0 <nil>, umask 077" {
		t.Errorf("it says %q", data)
	}
}

// The agent has the secret in one place, also after it has given it out.
func TestSpawnedMemory(t *testing.T) {
	needRoot(t)
	socket, secret := newSocket(t), newSecret(t)
	pid := spawn(t, spawnConfig(socket, secret)).PID
	for range 50 {
		expectSecret(t, socket, secret)
		_, err := keyagent.Status(t.Context(), socket)
		must(t, err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	must(t, err)
	defer memory.Close()
	found := 0
	for line := range strings.Lines(readProc(t, pid, "maps")) {
		var from, to uint64
		var mode string
		_, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode)
		must(t, err)
		if !strings.HasPrefix(mode, "rw") {
			continue
		}
		const step = 1 << 20
		for at := from; at < to; at += step {
			// Some more, for what stands across two steps.
			page := make([]byte, min(step+uint64(len(secret))-1, to-at))
			if _, err := memory.ReadAt(page, int64(at)); err != nil {
				continue // reserved, never used
			}
			found += bytes.Count(page, secret)
		}
	}
	if found != 1 {
		t.Errorf("the secret is in memory %d times", found)
	}
}
