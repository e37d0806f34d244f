package main

import (
	"context"
	"fmt"
	"time"
)

const localBlock = 5 * time.Second // how soon a block comes on a net that is kept up

// keepUp sets up a market and lets blocks come until it is told to end.
func keepUp(ctx context.Context, s *stage) error {
	c := &cast{}
	if err := perform(ctx, s, c, append(aNet, theySwapCards)); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		s.showLogs()
		return err
	}
	fmt.Printf(`
The market stays up until you press Ctrl-C. A block comes every %d seconds.
`, int(localBlock.Seconds()))
	s.invite()
	fmt.Printf(`Alice has a wallet and no contract yet. She rents a relay, or the two that are best for her:

  relay market
  relay contract open %s --deposit 100000 --days 7
  relay send bob 'paid for'
  relay audit

An operator looks at his side of it:

  relayd contracts --dir %s --operator-listen %s
`, c.south.url, c.south.dir, c.south.operator)
	tick := time.NewTicker(localBlock)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nStopping the relays.")
			return s.stopRelays()
		case <-tick.C:
			if _, err := s.node.Mine(1); err != nil {
				return err
			}
		}
	}
}

// invite prints what to type while the relays stay up.
func (s *stage) invite() {
	fmt.Printf(`
In another terminal:

  export PATH=%s:$PATH
  export RELAY_DIR=%s RELAY_PASSPHRASE='a passphrase for alice'
  relay friend list
  relay send bob 'hello from me'

and as Bob, in a third:

  export PATH=%s:$PATH
  export RELAY_DIR=%s RELAY_PASSPHRASE='a passphrase for bob'
  relay inbox
  relay listen

`, s.bin, s.people[0].dir, s.bin, s.people[1].dir)
}
