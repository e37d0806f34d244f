// Command demo tells the main story of the relay market with the real programs: relays,
// people who are never on-line together, a relay that dies, a stranger and a relay that lies; then a contract that is paid, and one that is refunded. It
// runs bin/relayd and bin/relay as anybody would, in a temporary folder, and fails if a step does
// not end as it tells.
//
// With KEEP=1 the relays stay up, and it prints what to type next.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds the whole demo; it takes about a minute, besides building btcd.
const patience = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("KEEP") != ""); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, keep bool) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	s, err := newStage(bin)
	if err != nil {
		return err
	}
	defer s.close()
	began := time.Now()
	if err := story(limited, s); err != nil {
		s.showLogs()
		return err
	}
	fmt.Printf("\nEvery step ended as told, in %.1f s.\n", time.Since(began).Seconds())
	if keep {
		s.invite()
		<-ctx.Done()
		fmt.Println("\nStopping the relays.")
	}
	return s.stopRelays()
}
