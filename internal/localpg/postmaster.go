package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// crashPatience is how long a start waits for the processes of a killed postmaster: they notice
	// when they next look up from their work.
	crashPatience = 30 * time.Second
	// leftoverPatience is how long the postmaster of a killed owner may take for the shutdown it was told to do.
	leftoverPatience = 10 * time.Second
	// quitPatience is how long an immediate shutdown may take before the postmaster is killed. It
	// kills its own children after five seconds.
	quitPatience = 10 * time.Second
	// readyPatience is how long a postmaster that says it is ready may not answer.
	readyPatience = 15 * time.Second
	// progressEvery is how often a long recovery is mentioned in the log.
	progressEvery = 10 * time.Second
)

// errLeftBehind says that processes of a killed postmaster still hold the shared memory.
var errLeftBehind = errors.New("processes of an earlier run are still there")

// postmaster is the server's first process.
type postmaster struct {
	process *os.Process
	pid     int
	done    chan struct{} // the postmaster has ended
	err     error         // how it ended; read it after done
	gone    chan struct{} // all its children have ended too
}

// spawn starts the postmaster and waits for it in one goroutine that keeps its thread. The signal that it gets
// when this process dies (see dieWithOwner) is tied by the kernel to the thread that started it, and Go
// would end an idle one.
func spawn(cmd *exec.Cmd) (*postmaster, error) {
	// Every process of the cluster inherits the writing end and none knows of it: end of file on the other one means
	// that the last is gone. The collector of the log outlives the postmaster, and so do, for a
	// moment, the backends of one that was killed.
	lifeline, inherited, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = inherited.Close() }()
	cmd.ExtraFiles = []*os.File{inherited}
	p := &postmaster{done: make(chan struct{}), gone: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.process, p.pid = cmd.Process, cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		_ = lifeline.Close()
		return nil, err
	}
	go func() {
		defer close(p.gone)
		_, _ = io.Copy(io.Discard, lifeline)
		_ = lifeline.Close()
	}()
	return p, nil
}

// launch starts the postmaster and returns when it answers.
func launch(ctx context.Context, cfg Config, bin binaries, c *Cluster) (*postmaster, error) {
	deadline := time.Now().Add(crashPatience)
	for {
		pm, err := launchOnce(ctx, cfg, bin, c)
		if !errors.Is(err, errLeftBehind) || time.Now().After(deadline) {
			return pm, err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func launchOnce(ctx context.Context, cfg Config, bin binaries, c *Cluster) (*postmaster, error) {
	// Removed first: it may be another user's from an earlier run.
	if err := os.Remove(c.place.startLog()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out, err := os.OpenFile(c.place.startLog(), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(bin.postgres(), arguments(c.place, c.socketDir, cfg.Settings)...)
	cmd.Dir = c.place.base
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = c.place.account.attributes()
	dieWithOwner(cmd.SysProcAttr)
	pm, err := spawn(cmd)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := awaitReady(ctx, pm, c); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quitPatience)
		defer cancel()
		return nil, errors.Join(err, pm.stop(stopCtx))
	}
	return pm, nil
}

// awaitReady waits until the database answers, for as long as the postmaster is at it: recovery
// after a crash takes its time, and cutting it short would only begin it anew.
func awaitReady(ctx context.Context, pm *postmaster, c *Cluster) error {
	mentioned, unready := time.Now(), time.Now()
	for {
		pingErr := ping(ctx, c.AdminURL())
		if pingErr == nil {
			return nil
		}
		select {
		case <-pm.done:
			return startFailure(pm, c)
		case <-ctx.Done():
			return fmt.Errorf("start PostgreSQL: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
		if file, err := readPIDFile(c.place.dataDir()); err != nil || !file.ready {
			unready = time.Now()
		}
		if time.Since(unready) >= readyPatience {
			return fmt.Errorf("PostgreSQL in %s says that it is ready, but does not answer: %w", c.place.base, pingErr)
		}
		if time.Since(mentioned) >= progressEvery {
			mentioned = time.Now()
			c.log.Info("the database is not ready yet; after a crash it has to recover", "folder", c.place.base, "answer", pingErr)
		}
	}
}

func startFailure(pm *postmaster, c *Cluster) error {
	said := tailOf(c.place.startLog(), 5)
	if strings.Contains(said, "pre-existing shared memory block") {
		return fmt.Errorf("start PostgreSQL in %s: %w: %s", c.place.base, errLeftBehind, said)
	}
	if newest := newestLog(c.place.logDir()); newest != "" {
		said += " | " + tailOf(newest, 5)
	}
	return fmt.Errorf("PostgreSQL in %s did not start (%w): %s", c.place.base, exitError(pm.err), said)
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// stop ends the postmaster and waits for it and its children: fast shutdown, when the context ends immediate
// shutdown, and at last SIGKILL. All three keep what was committed.
func (p *postmaster) stop(ctx context.Context) error {
	err := p.end(ctx)
	select {
	case <-p.gone:
		return err
	case <-time.After(quitPatience):
		return errors.Join(err, errLeftBehind)
	}
}

func (p *postmaster) end(ctx context.Context) error {
	if !p.signal(syscall.SIGINT) {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	err := fmt.Errorf("the database did not shut down in time and was cut off; it recovers at the next start: %w", ctx.Err())
	if p.signal(syscall.SIGQUIT) {
		select {
		case <-p.done:
		case <-time.After(quitPatience):
			p.signal(syscall.SIGKILL)
			<-p.done
		}
	}
	return err
}

// signal sends a signal, if there still is a postmaster. One that was halted (by a debugger or a fault test) could
// not act on it, so it is woken.
func (p *postmaster) signal(sig syscall.Signal) bool {
	select {
	case <-p.done:
		return false
	default:
	}
	// A failure can only mean that it has just ended.
	_ = p.process.Signal(sig)
	_ = p.process.Signal(syscall.SIGCONT)
	return true
}

// endLeftover waits for the postmaster of a killed owner, which has been told to shut down, and ends one that was
// not (started by hand, or where the system does not tell it).
func endLeftover(ctx context.Context, p place, log *slog.Logger, patience time.Duration) error {
	file, err := readPIDFile(p.dataDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, errDamaged) {
		// What a power cut leaves of a file that was just being written. PostgreSQL would wait for a person.
		log.Info("removing a damaged lock of the database", "err", err)
		return os.Remove(file.path)
	}
	if err != nil {
		return err
	}
	ours, err := isPostmaster(file.pid, p)
	if err != nil {
		return err
	}
	if !ours {
		return removeStale(file, log)
	}
	log.Info("waiting for the database of an earlier run to end", "folder", p.base, "pid", file.pid)
	for _, step := range []struct {
		signal   syscall.Signal
		patience time.Duration
	}{{0, patience}, {syscall.SIGINT, time.Minute}, {syscall.SIGQUIT, quitPatience}} {
		if step.signal != 0 {
			log.Warn("stopping the database of an earlier run", "folder", p.base, "pid", file.pid, "signal", step.signal.String())
			if err := syscall.Kill(file.pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop process %d, which runs the database in %s: %w", file.pid, p.dir, err)
			}
		}
		gone, err := awaitGone(ctx, file.pid, p, step.patience)
		if gone || err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d still runs the database in %s and does not stop: end it, then try again", file.pid, p.dir)
}

func awaitGone(ctx context.Context, pid int, p place, patience time.Duration) (bool, error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		ours, err := isPostmaster(pid, p)
		if err != nil || !ours {
			return !ours, err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return false, err
		}
	}
	return false, nil
}

// removeStale removes a pid file whose number belongs to a stranger by now: PostgreSQL would believe him to be
// its postmaster and refuse to start for ever, in a container at every start. Numbers of nobody
// PostgreSQL handles itself, and survivors it finds by their shared memory.
func removeStale(file pidFile, log *slog.Logger) error {
	if errors.Is(syscall.Kill(file.pid, 0), syscall.ESRCH) {
		return nil
	}
	log.Info("removing a stale lock of the database", "file", file.path, "pid", file.pid)
	return os.Remove(file.path)
}
