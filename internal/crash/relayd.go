package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"relaymarket/protocol"
)

// relayd is one relayd process, which is started again in the same folder each time that it was killed.
type relayd struct {
	program string
	dir     string
	args    []string
	url     atomic.Pointer[string] // where it is; after a start it may be elsewhere
	key     protocol.PublicKey
	log     *tail

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
}

// initialize makes the relay's folder.
func (r *relayd) initialize(ctx context.Context) error {
	if out, err := relaydCommand(ctx, r.program, "init", "--dir", r.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("relayd init: %w: %s", err, out)
	}
	return nil
}

// relaydCommand has nothing of this environment that would configure a relay.
func relaydCommand(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "RELAYD_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	return cmd
}

// launch starts the process and returns at once; ready tells when it serves.
func (r *relayd) launch() (ready <-chan readyLine, err error) {
	args := append([]string{"serve", "--json", "--dir", r.dir, "--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0",
		"--rate-address", "0", "--rate-key", "0", "--log-level", "warn"}, r.args...)
	cmd := relaydCommand(context.Background(), r.program, args...)
	cmd.Stderr = r.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	dieWithParent(cmd)
	exited, lines, started := make(chan struct{}), make(chan readyLine, 1), make(chan error, 1)
	go func() {
		// The kernel ties the signal of dieWithParent to the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		in := bufio.NewReader(out)
		var line readyLine
		if text, err := in.ReadBytes('\n'); err == nil && json.Unmarshal(text, &line) == nil {
			lines <- line
		}
		_, _ = io.Copy(io.Discard, in)
		_ = cmd.Wait() // the state tells more than this error
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("relayd serve: %w", err)
	}
	r.cmd, r.exited = cmd, exited
	return lines, nil
}

// readyLine is what relayd says when it serves.
type readyLine struct {
	URL string             `json:"url"`
	Key protocol.PublicKey `json:"key"`
}

// start returns when the relay serves.
func (r *relayd) start(ctx context.Context, patience time.Duration) error {
	ready, err := r.launch()
	if err != nil {
		return err
	}
	select {
	case line := <-ready:
		r.key = line.Key
		r.url.Store(&line.URL)
		return nil
	case <-r.exited:
		return &brokenError{promiseBack, fmt.Sprintf("relayd did not start again: %s\n%s", r.cmd.ProcessState, r.log)}
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return &brokenError{promiseBack, fmt.Sprintf("relayd was not ready within %s\n%s", patience, r.log)}
	}
}

// running tells whether the process is there.
func (r *relayd) running() bool {
	if r.cmd == nil {
		return false
	}
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// kill ends the process with SIGKILL and waits for it. It does nothing to one that has ended.
func (r *relayd) kill() error { return r.end(syscall.SIGKILL, time.Minute) }

// end sends a signal and waits.
func (r *relayd) end(sig syscall.Signal, patience time.Duration) error {
	if !r.running() {
		return nil
	}
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return r.wait(patience)
}

func (r *relayd) wait(patience time.Duration) error {
	select {
	case <-r.exited:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("relayd, process %d, did not end within %s\n%s", r.cmd.Process.Pid, patience, r.log)
	}
}

// copyIdentity gives a second relayd the key of the first: a database belongs to one key.
func copyIdentity(from, to string) error {
	if err := os.MkdirAll(to, 0o711); err != nil {
		return err
	}
	for _, name := range []string{"relay.key", "relayd.toml"} {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// tail keeps the end of a log.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// tailBytes is how much of a log is shown with a failure.
const tailBytes = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(p)
	if t.text.Len() > 16*tailBytes {
		t.text.Next(t.text.Len() - tailBytes)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := t.text.Bytes()
	return string(text[max(0, len(text)-tailBytes):])
}
