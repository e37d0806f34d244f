package testnode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relaymarket/internal/killpoint"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testlog"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// built is the program under test. Tests hand nothing to each other, and linking it takes seconds: hence a
// variable of the package.
var built struct {
	once   sync.Once
	folder string
	err    error
}

// Binary builds relayd, once a test binary, and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() { built.folder, built.err = build("", "relayd") })
	if built.err != nil {
		t.Fatalf("testnode: build relayd: %v", built.err)
	}
	return filepath.Join(built.folder, "relayd")
}

// users is the user's program.
var users struct {
	once   sync.Once
	folder string
	err    error
}

// Relay builds relay, once a test binary, and returns its path.
func Relay(t testing.TB) string {
	t.Helper()
	users.once.Do(func() { users.folder, users.err = build("", "relay") })
	if users.err != nil {
		t.Fatalf("testnode: build relay: %v", users.err)
	}
	return filepath.Join(users.folder, "relay")
}

// mortal are the programs that die on purpose.
var mortal struct {
	once   sync.Once
	folder string
	err    error
}

// Mortal builds relayd and relay with the tag killpoints, once a test binary, and returns the folder that they are in. See
// package killpoint.
func Mortal(t testing.TB) string {
	t.Helper()
	mortal.once.Do(func() {
		mortal.folder, mortal.err = build("killpoints", "relayd", "relay")
	})
	if mortal.err != nil {
		t.Fatalf("testnode: build with killpoints: %v", mortal.err)
	}
	return mortal.folder
}

// build builds some of cmd into a folder of their own.
func build(tag string, programs ...string) (folder string, err error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	// Kept between runs, and renamed into place: another test binary may be running the one before.
	folder = filepath.Join(root, ".cache", "test", tag)
	next := filepath.Join(folder, fmt.Sprintf("next.%d", os.Getpid()))
	if err := os.MkdirAll(next, 0o755); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(next)) }()
	cmd := exec.Command("go", "build", "-tags", tag, "-o", next+string(filepath.Separator))
	for _, program := range programs {
		cmd.Args = append(cmd.Args, "./cmd/"+program)
	}
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	for _, program := range programs {
		if err := os.Rename(filepath.Join(next, program), filepath.Join(folder, program)); err != nil {
			return "", err
		}
	}
	return folder, nil
}

// Command is relayd with arguments and nothing of the test's environment that would configure it.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return command(Binary(t), args...)
}

func command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "RELAYD_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	return cmd
}

// ProcessOptions say what relayd runs with; the zero value is fine.
type ProcessOptions struct {
	Dir  string   // the relay's folder, set up if it is not; empty: a new one
	DSN  string   // empty: a private cluster in the folder
	Args []string // more for serve
	// Environ is added to its environment.
	Environ []string
	// Mortal runs the program that dies at the step named by KillAt.
	Mortal bool
}

// Process is relayd in a process of its own.
type Process struct {
	URL         string
	OperatorURL string
	Key         protocol.PublicKey
	Dir         string
	DSN         string
	// KillAt is the durable step of contracts at which the next process that is started kills itself; 0: none. It is for
	// [ProcessOptions].Mortal.
	KillAt int

	t      testing.TB
	mortal bool
	args   []string
	more   []string // of the environment
	cmd    *exec.Cmd
	log    *testlog.Log
	exited chan struct{}
}

// StartProcess runs relayd init, if the folder needs it, and relayd serve, and returns when that is ready. It
// is ended with the test.
func StartProcess(t testing.TB, o ProcessOptions) *Process {
	t.Helper()
	if o.Dir == "" {
		o.Dir = Folder(t)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "relay.key")); errors.Is(err, os.ErrNotExist) {
		if out, err := Command(t, "init", "--dir", o.Dir).CombinedOutput(); err != nil {
			t.Fatalf("testnode: relayd init: %v\n%s", err, out)
		}
	}
	p := &Process{t: t, Dir: o.Dir, DSN: o.DSN, mortal: o.Mortal, more: o.Environ, log: &testlog.Log{},
		URL: "http://" + FreeAddress(t), OperatorURL: "http://" + FreeAddress(t)} // nobody else's while it is stopped
	p.args = append([]string{"--rate-address", "0", "--rate-key", "0"}, o.Args...)
	if o.DSN != "" {
		p.args = append(p.args, "--database-url", o.DSN)
	}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.Kill()
		}
	})
	p.Start()
	return p
}

// Folder is a new folder for a relay, removed with its cluster when the test ends. The user that a private
// cluster runs as can get there.
func Folder(t testing.TB) string {
	t.Helper()
	top, err := os.MkdirTemp("", "relaymarket-relayd-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// A cluster whose relay was killed is still ending: Remove waits for it.
		err := localpg.Remove(ctx, localpg.Config{Dir: filepath.Join(top, "relay", "db")})
		if err := errors.Join(err, os.RemoveAll(top)); err != nil {
			t.Errorf("testnode: %v", err)
		}
	})
	if err := os.Chmod(top, 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(top, "relay")
}

// Start runs serve again after Kill or Terminate, on the same addresses, and returns when it is ready, or dead at the step KillAt.
func (p *Process) Start() {
	p.t.Helper()
	args := append([]string{"serve", "--json", "--dir", p.Dir, "--listen", strings.TrimPrefix(p.URL, "http://"),
		"--operator-listen", strings.TrimPrefix(p.OperatorURL, "http://")}, p.args...)
	if p.mortal {
		p.cmd = command(filepath.Join(Mortal(p.t), "relayd"), args...)
		p.cmd.Env = append(p.cmd.Env, fmt.Sprintf("%s=%d", killpoint.Variable, p.KillAt))
	} else {
		p.cmd = Command(p.t, args...)
	}
	p.cmd.Env = append(p.cmd.Env, p.more...)
	p.exited = make(chan struct{})
	p.log.Clear()
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("testnode: %v", err)
	}
	ready := make(chan []byte, 1)
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		reader := bufio.NewReader(out)
		if line, err := reader.ReadBytes('\n'); err == nil {
			ready <- line
		}
		_, _ = io.Copy(io.Discard, reader)
		_ = cmd.Wait() // the state tells more than this error
	}(p.cmd, p.exited)
	select {
	case line := <-ready:
		p.readReady(line)
	case <-p.exited:
		if p.KillAt > 0 && p.cmd.ProcessState.ExitCode() == -1 {
			return // it came to its step before it was ready: the work begins while the listeners are opened
		}
		p.t.Fatalf("testnode: relayd serve ended: %s\n%s", p.cmd.ProcessState, p.log)
	case <-time.After(patience):
		p.t.Fatalf("testnode: relayd was not ready within %s\n%s", patience, p.log)
	}
}

func (p *Process) readReady(line []byte) {
	p.t.Helper()
	var ready struct {
		URL      string             `json:"url"`
		Operator string             `json:"operator"`
		Key      protocol.PublicKey `json:"key"`
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		p.t.Fatalf("testnode: relayd says %q: %v", line, err)
	}
	p.URL, p.OperatorURL, p.Key = ready.URL, ready.Operator, ready.Key
}

// Kill ends it with SIGKILL.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	p.Wait()
}

// Terminate ends it with SIGTERM and returns its exit code.
func (p *Process) Terminate() int {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("testnode: %v", err)
	}
}

// Wait waits for its end and returns the exit code, −1 if a signal ended it.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		p.t.Fatalf("testnode: relayd did not end within %s\n%s", patience, p.log)
		return -1
	}
}

// Ended tells whether it is dead.
func (p *Process) Ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// PID is the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is what it wrote on standard error since it was started. Any goroutine may call it, also while it is started.
func (p *Process) Log() string { return p.log.String() }

// Grant gives keys more space than a test uses.
func (p *Process) Grant(t testing.TB, keys ...protocol.PublicKey) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := relaynode.WithBooks(ctx, p.database(), func(ctx context.Context, b *books.Store) error {
		for _, key := range keys {
			if err := b.Put(ctx, ample(key)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("testnode: %v", err)
	}
}

// Account is what a key has and has used.
func (p *Process) Account(t testing.TB, key protocol.PublicKey) books.Account {
	t.Helper()
	return account(t, p.database(), key)
}

func (p *Process) database() relaynode.Database {
	return relaynode.Database{URL: p.DSN, Connections: 4, Cluster: localpg.Config{Dir: filepath.Join(p.Dir, "db")}}
}
