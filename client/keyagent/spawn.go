//go:build linux || darwin

package keyagent

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// spawnTime is how long a new agent may take to answer.
	spawnTime = 10 * time.Second
	// maxReport bounds what a new agent says about its start.
	maxReport = 4096

	reportReady  = "ready"
	reportFailed = "failed: "
)

// Spawn starts this program again as an agent in the background: in a session of
// its own, in the folder /, without the terminal, other open files or the
// environment of the caller, who may end or log out. The process gets c.Secret
// through a pipe. Spawn returns when the agent answers at c.Socket; an agent that
// was there before is then replaced. It fails with ErrSpawn, ErrSecret, ErrPath
// or ErrFolder, or because ctx ended, and then there is no new process.
//
// c.Secret is the caller's to wipe. A caller that outlives the agent waits for the
// process (State.PID), as for any child.
func Spawn(ctx context.Context, c SpawnConfig) (State, error) {
	if err := c.check(); err != nil {
		return State{}, err
	}
	// The new process would find the same; here the error keeps its type.
	if err := checkPath(c.Socket); err != nil {
		return State{}, err
	}
	if err := ensureFolder(filepath.Dir(c.Socket)); err != nil {
		return State{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, spawnTime)
	defer cancel()
	cmd, err := c.command()
	if err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	state, err := start(ctx, cmd, c)
	if err != nil {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		return State{}, err
	}
	return state, cmd.Process.Release()
}

func (c *SpawnConfig) command() (*exec.Cmd, error) {
	executable := c.Executable
	if executable == "" {
		var err error
		if executable, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	return &exec.Cmd{
		Path: executable,
		Args: c.Argv,
		// Not nil, which would be the caller's: it may hold the passphrase.
		Env:         append([]string{}, c.Env...),
		Dir:         "/",
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}, nil
}

// start runs the process, gives it the secret, and waits until it answers.
func start(ctx context.Context, cmd *exec.Cmd, c SpawnConfig) (State, error) {
	stdin, secret, err := os.Pipe()
	if err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	defer secret.Close()
	report, stdout, err := os.Pipe()
	if err != nil {
		_ = stdin.Close()
		return State{}, fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	defer report.Close()
	cmd.Stdin, cmd.Stdout = stdin, stdout // and no stderr: that is /dev/null
	err = cmd.Start()
	// Ours must be closed, or the end of the process would not end the pipes.
	_, _ = stdin.Close(), stdout.Close()
	if err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	defer context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(time.Unix(1, 0)) })()
	// It fits into the pipe. If the process is gone already, the report says it.
	_, _ = secret.Write(c.Secret)
	_ = secret.Close()
	if err := readReport(ctx, report); err != nil {
		return State{}, err
	}
	state, err := Status(ctx, c.Socket)
	if err != nil {
		return State{}, fmt.Errorf("%w: it does not answer at %s: %w", ErrSpawn, c.Socket, err)
	}
	if state.PID != cmd.Process.Pid {
		return State{}, fmt.Errorf("%w: another one was started at the same time", ErrSpawn)
	}
	return state, nil
}

// readReport reads the one line that ServeSpawned writes, and waits until it has
// let go of the pipe.
func readReport(ctx context.Context, report io.Reader) error {
	said, err := io.ReadAll(io.LimitReader(report, maxReport))
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrSpawn, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSpawn, err)
	}
	if len(said) == 0 {
		return fmt.Errorf("%w: its process ended at once", ErrSpawn)
	}
	line := strings.TrimSuffix(string(said), "\n")
	if reason, ok := strings.CutPrefix(line, reportFailed); ok {
		return fmt.Errorf("%w: %s", ErrSpawn, reason)
	}
	if line != reportReady {
		return fmt.Errorf("%w: its process says %.80q", ErrSpawn, line)
	}
	return nil
}

func (c *SpawnConfig) check() error {
	if len(c.Argv) == 0 {
		return fmt.Errorf("%w: it has no command line", ErrSpawn)
	}
	return checkSecret(c.Secret)
}
