package regtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// readyPatience is how long a start may take until btcd answers.
	readyPatience = 2 * time.Minute
	// stopPatience is how long a shutdown may take until btcd is killed.
	stopPatience = time.Minute
)

// process is one run of btcd.
type process struct {
	process *os.Process
	done    chan struct{} // it has ended
	err     error         // how; read it after done
}

// spawn starts a command and waits for it in one goroutine that keeps its thread, since the kernel ties the signal of
// dieWithOwner to the thread that started the child, and Go would end an idle one.
func spawn(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithOwner(cmd.SysProcAttr)
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stop asks the process to end, kills it when it does not within stopPatience or ctx, and waits until it is gone.
func (p *process) stop(ctx context.Context, signal os.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if err := p.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	_ = p.process.Kill()
	<-p.done
	return fmt.Errorf("btcd (process %d) did not end when asked to and was killed: %w", p.process.Pid, ctx.Err())
}

// awaitReady returns when something accepts connections at address, or why not.
func (p *process) awaitReady(ctx context.Context, address, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("btcd ended while starting: %v: %s", p.err, lastLines(filepath.Join(dir, outputName)))
		default:
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("btcd does not answer at %s: %w", address, err)
		}
	}
}

// lastLines is the end of a log, for an error.
func lastLines(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most = 1000
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// FreeAddress is host:port of loopback where nothing listens, for a server that is ended and started again. Its port is below
// those that the system gives to connections: one of those may be taken while nobody listens there, or, when it is connected
// to, by the connection itself. As long as this process runs no other one is given the same: else the two servers would be
// taken for each other.
func FreeAddress() (string, error) {
	const first, last = 15_000, 32_000
	for range 100 {
		port := first + rand.IntN(last-first)
		if !claim(port) {
			continue
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address, nil
		}
	}
	return "", fmt.Errorf("no free port from %d to %d", first, last)
}
