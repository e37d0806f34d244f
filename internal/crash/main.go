// Command crash breaks relays on purpose and checks that they keep what they promised.
//
// It runs real relayd processes on a real Postgres, lets several people write, read, delete and forge at once, and in
// the middle of it kills relayd, kills Postgres, cuts connections, or cuts the power: the database's folder is then on an
// ext4 of its own, which is shut down in an instant, so that all that was not flushed is lost. Everything is started again, the
// people repeat what they got no answer to, and then their histories are held against what the relay answers and
// against what is in its database.
//
// When the moments of faults, and what people do, come from the seed, which is printed. Timing is the machine's,
// so the same seed gives a like run, not the same one.
//
// Progress is on standard error, a summary on standard output. The exit code is 0 when every promise was kept, 1 when
// one was not, 2 for a mistake on the command line. docs/promises.md says what is promised.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if err == nil {
		err = command(ctx, o)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; everything that was started has been ended")
	}
	stop()
	os.Exit(exitCode(err))
}

func command(ctx context.Context, o options) error {
	p := newProgress(os.Stderr)
	s, err := run(ctx, o, p)
	p.clear()
	if s == nil {
		return err
	}
	if o.json {
		return errors.Join(err, s.writeJSON(os.Stdout))
	}
	return errors.Join(err, s.writeText(os.Stdout))
}

// exitCode says on standard error what was wrong.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, errHelp):
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "crash: %v\nRun: crash -help\n", err)
		return 2
	}
	fmt.Fprintln(os.Stderr, "crash:", err)
	return 1
}
