// Command demo tells the main story of the relay market with the real programs, in a temporary folder, and fails if a step does
// not end as it tells: operators who know nobody, a sender who finds them on a hub and rents two of them by escrow, messages to one
// who is away, relays that die, lie, cheat and vanish, and books that balance. Its last line is a summary in JSON.
//
// With KEEP=1 what still runs at the end stays up, and it prints what to type next. With -localnet it sets up the
// same relays, people and chain, lets nothing happen to them, and keeps them up.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// patience bounds the whole demo; it takes about a minute, besides building btcd.
const patience = 10 * time.Minute

func main() {
	localnet := flag.Bool("localnet", false, "set up a market and keep it up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	do := func(s *stage) error { return tellAll(ctx, s, os.Getenv("KEEP") != "") }
	if *localnet {
		do = func(s *stage) error { return keepUp(ctx, s) }
	}
	if err := run(do); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

// run does something on a stage, and clears it.
func run(do func(*stage) error) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	s, err := newStage(bin)
	if err != nil {
		return err
	}
	defer s.close()
	return do(s)
}

// tellAll tells the story.
func tellAll(ctx context.Context, s *stage, keep bool) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	c := &cast{}
	if err := perform(limited, s, c, slices.Concat(aNet, theStory)); err != nil {
		s.showLogs()
		return err
	}
	c.sum.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	if keep {
		c.invite()
		<-ctx.Done()
		fmt.Println("\nStopping the relays.")
	}
	if err := s.stopRelays(); err != nil {
		return err
	}
	fmt.Printf("\nEvery step ended as told, in %.1f s.\n", c.sum.Seconds)
	return json.NewEncoder(os.Stdout).Encode(c.sum)
}
