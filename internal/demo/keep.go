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
	err := perform(ctx, s, c, append(aNet, theySwapCards))
	if err == nil {
		c.inviteToMarket()
		err = s.mineOn(ctx)
	}
	if ctx.Err() != nil { // which is how it ends
		fmt.Println("\nStopping the relays.")
		return s.stopRelays()
	}
	s.showLogs()
	return err
}

// mineOn mines a block now and then until it is told to end.
func (s *stage) mineOn(ctx context.Context) error {
	tick := time.NewTicker(localBlock)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if _, err := s.node.Mine(1); err != nil {
				return err
			}
		}
	}
}

// inviteToMarket prints what to type while the market stays up.
func (c *cast) inviteToMarket() {
	fmt.Printf(`
The market stays up until you press Ctrl-C, with a block every %d seconds.
In another terminal you are Alice, who has a wallet and a friend, and rents the two relays that are best for her:

%s  relay market
  relay contract open --best 2 --deposit 100000 --days 7
  relay send bob 'hello from me' --copies 2
  relay outbox
  relay audit

In a third you are Bob:

%s  relay inbox
  relay send alice 'hello from me, too'
  relay listen

And this is what the operator of south sees of it:

  export PATH=%s:$PATH
  relayd contracts list --dir %s
`, int(localBlock.Seconds()), c.alice.environment(), c.bob.environment(), c.south.stage.bin, c.south.dir)
}

// invite prints what to type while what is left after the story stays up.
func (c *cast) invite() {
	fmt.Printf(`
The relays that are left stay up until you press Ctrl-C. In another terminal:

%s  relay friend list
  relay send alice 'hello from me'

and as Alice, in a third:

%s  relay inbox
  relay contract list
`, c.bob.environment(), c.alice.environment())
}

// environment is what to type to be a person.
func (p *person) environment() string {
	return fmt.Sprintf("  export PATH=%s:$PATH\n  export RELAY_DIR=%s RELAY_PASSPHRASE='a passphrase for %s'\n", p.stage.bin, p.dir, p.name)
}
