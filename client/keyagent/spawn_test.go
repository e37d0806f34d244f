//go:build linux || darwin

package keyagent_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"relaymarket/client/keyagent"
)

func spawnConfig(socket string, secret []byte, extra ...string) keyagent.SpawnConfig {
	return keyagent.SpawnConfig{
		Argv:   append([]string{"relay", "agent", "--socket", socket, "--for", "1h"}, extra...),
		Socket: socket,
		Secret: secret,
	}
}

// spawn starts a real agent process, which the test waits for at its end.
func spawn(t *testing.T, c keyagent.SpawnConfig) keyagent.State {
	t.Helper()
	state, err := keyagent.Spawn(t.Context(), c)
	must(t, err)
	t.Cleanup(func() {
		_ = syscall.Kill(state.PID, syscall.SIGKILL)
		_, _ = syscall.Wait4(state.PID, nil, 0, nil)
	})
	return state
}

// exited waits for a spawned process and gives how it ended.
func exited(t *testing.T, pid int) syscall.WaitStatus {
	t.Helper()
	var status syscall.WaitStatus
	for start := time.Now(); time.Since(start) < patience; time.Sleep(5 * time.Millisecond) {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		must(t, err)
		if got == pid {
			return status
		}
	}
	t.Fatal("the process goes on")
	return status
}

func TestSpawn(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	state := spawn(t, spawnConfig(socket, secret))
	if state.PID == os.Getpid() || state.Remaining > time.Hour || state.Remaining < 59*time.Minute {
		t.Errorf("%+v", state)
	}
	expectSecret(t, socket, secret)
	must(t, keyagent.Lock(t.Context(), socket))
	if status := exited(t, state.PID); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("it ended with %v", status)
	}
	expectNotRunning(t, socket)
	expectNoFile(t, socket)
}

func TestSpawnReplaces(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	first := spawn(t, spawnConfig(socket, newSecret(t)))
	spawn(t, spawnConfig(socket, secret))
	expectSecret(t, socket, secret)
	if status := exited(t, first.PID); status.ExitStatus() != 0 {
		t.Errorf("the first ended with %v", status)
	}
	expectSecret(t, socket, secret)
}

func TestSpawnAfterKill(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	first := spawn(t, spawnConfig(socket, newSecret(t)))
	must(t, syscall.Kill(first.PID, syscall.SIGKILL))
	exited(t, first.PID)
	expectNotRunning(t, socket)
	spawn(t, spawnConfig(socket, secret))
	expectSecret(t, socket, secret)
}

func TestSpawnedSignals(t *testing.T) {
	socket := newSocket(t)
	state := spawn(t, spawnConfig(socket, newSecret(t)))
	must(t, syscall.Kill(state.PID, syscall.SIGHUP)) // the terminal was closed
	time.Sleep(50 * time.Millisecond)
	if _, err := keyagent.Status(t.Context(), socket); err != nil {
		t.Fatalf("after SIGHUP: %v", err)
	}
	must(t, syscall.Kill(state.PID, syscall.SIGTERM))
	if status := exited(t, state.PID); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("after SIGTERM: %v", status)
	}
	expectNoFile(t, socket)
}

func TestSpawnedDeadline(t *testing.T) {
	socket := newSocket(t)
	state := spawn(t, spawnConfig(socket, newSecret(t), "--for", "2s"))
	exited(t, state.PID)
	expectNotRunning(t, socket)
	expectNoFile(t, socket)
}

func TestSpawnFails(t *testing.T) {
	socket := newSocket(t)
	for name, c := range map[string]struct {
		change func(*keyagent.SpawnConfig)
		want   error
		text   string
	}{
		"no command line": {func(c *keyagent.SpawnConfig) { c.Argv = nil }, keyagent.ErrSpawn, "no command line"},
		"no secret":       {func(c *keyagent.SpawnConfig) { c.Secret = nil }, keyagent.ErrSecret, ""},
		"no program":      {func(c *keyagent.SpawnConfig) { c.Executable = "/no/such" }, keyagent.ErrSpawn, "no such file"},
		"ends at once":    {func(c *keyagent.SpawnConfig) { c.Argv = []string{"relay", "exit"} }, keyagent.ErrSpawn, "ended at once"},
		"other program":   {func(c *keyagent.SpawnConfig) { c.Argv = []string{"relay", "babble"} }, keyagent.ErrSpawn, "Usage"},
		"hangs":           {func(c *keyagent.SpawnConfig) { c.Argv = []string{"relay", "hang"} }, context.DeadlineExceeded, ""},
		"bad time":        {func(c *keyagent.SpawnConfig) { c.Argv[5] = "1000h" }, keyagent.ErrSpawn, "at most 168h"},
		"other socket":    {func(c *keyagent.SpawnConfig) { c.Argv[3] += "2" }, keyagent.ErrNotRunning, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := spawnConfig(socket, newSecret(t))
			c.change(&config)
			within := patience
			if c.want == context.DeadlineExceeded {
				within = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			state, err := keyagent.Spawn(ctx, config)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %+v, %v", state, err)
			}
			// It left no process: this one has no child.
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
				t.Errorf("a process is left: %d, %v", pid, err)
			}
		})
	}
}

// The agent that answers must be the one that was started: another unlock may
// have put another seed there.
func TestSpawnKnowsItsOwn(t *testing.T) {
	socket := newSocket(t)
	serve(t, keyagent.Config{Socket: socket, Secret: newSecret(t)})
	c := spawnConfig(socket, newSecret(t))
	c.Argv = []string{"relay", "lie"}
	if state, err := keyagent.Spawn(t.Context(), c); !errors.Is(err, keyagent.ErrSpawn) {
		t.Errorf("got %+v, %v", state, err)
	}
}

func TestSpawnUnsafeFolder(t *testing.T) {
	socket := newSocket(t)
	folder := strings.TrimSuffix(socket, "/socket")
	must(t, os.Mkdir(folder, 0o755))
	if _, err := keyagent.Spawn(t.Context(), spawnConfig(socket, newSecret(t))); !errors.Is(err, keyagent.ErrFolder) {
		t.Errorf("got %v", err)
	}
}
