//go:build linux || darwin

package keyagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ServeSpawned is the other half of [Spawn]: the hidden subcommand calls it, in
// a process that does nothing else, with c.Secret empty. It hardens the process,
// reads the secret from standard input and runs [Serve] until that ends or SIGTERM
// or SIGINT comes. It takes over standard input and output, and closes every file
// that the process inherited: a lock or pipe of the shell that unlocked must not
// stay open for hours.
func ServeSpawned(ctx context.Context, c Config) error {
	report, err := takeStdout()
	if err != nil {
		return fmt.Errorf("this command is started by another one: %w", err)
	}
	defer report.Close()
	err = serveSpawned(ctx, c, report)
	if err != nil {
		// Once the agent has been ready, nobody reads this.
		_, _ = fmt.Fprintf(report, "%s%s\n", reportFailed, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return err
}

func serveSpawned(ctx context.Context, c Config, report io.WriteCloser) error {
	signal.Ignore(unix.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := errors.Join(closeInherited(), harden()); err != nil {
		return fmt.Errorf("close the process of the key agent to others: %w", err)
	}
	var buffer [MaxSecret + 1]byte
	defer clear(buffer[:])
	n, err := io.ReadFull(os.Stdin, buffer[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the secret: %w", err)
	}
	if err := leaveStdio(); err != nil {
		return fmt.Errorf("let go of standard input and output: %w", err)
	}
	c.Secret = buffer[:n]
	ready := c.Ready
	c.Ready = func() {
		if ready != nil {
			ready()
		}
		// If the caller has given up, his user was told that there is no agent.
		if _, err := fmt.Fprintln(report, reportReady); err != nil {
			stop()
		}
		_ = report.Close()
	}
	return Serve(ctx, c)
}

// takeStdout gives the pipe to the caller under another number, so that standard
// output can be let go of before the agent says that it is ready.
func takeStdout() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(unix.Stdout), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("standard output: %w", err)
	}
	return os.NewFile(uintptr(fd), "report"), nil
}

// harden keeps the memory of this process to itself.
func harden() error {
	unix.Umask(0o077)
	return errors.Join(
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		refuseDebuggers(),
	)
}

// closeInherited closes what came through exec beside standard input and output.
// Everything that Go opens by itself is marked close-on-exec, so what is not
// marked was inherited.
func closeInherited() error {
	entries, err := os.ReadDir(descriptorFolder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// leaveStdio lets go of the pipes to the process that spawned this one.
func leaveStdio() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	return nil
}
