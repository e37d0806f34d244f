// Command bench measures a relay beside the limits of the machine that it runs on.
//
// It starts relayd with a private database in a temporary folder, as an operator would, and loads it over HTTP from
// this process. In the same run, between the relay's points, it measures what the relay is compared with: bare Postgres,
// bare signature checks, a bare HTTP echo, a bare NATS fan-out. Points and limits take turns, repeat by repeat, so
// that a machine whose speed drifts slows both.
//
// On standard output it writes a JSON line for each point, then a table for people; progress is on standard error.
// docs/performance.md says what each figure means.
//
// Everything that is sent is signed before the clock starts, with keys and contents from fixed seeds, just before each
// measurement: a relay takes no request older than five minutes.
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
	if isBare(os.Args) {
		exit(serveBare(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	opts, err := parseOptions(os.Args[1:], os.Stderr)
	if err == nil {
		err = run(ctx, opts, os.Stdout, newProgress(os.Stderr))
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; everything that was started has been ended")
	}
	stop()
	exit(err)
}

func exit(err error) {
	var usage *usageError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.Is(err, errHelp):
		os.Exit(0)
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "bench: %v\nRun: bench -help\n", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
