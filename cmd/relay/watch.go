package main

import (
	"context"
	"errors"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/client/keyfile"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

const (
	// glanceEvery is how often a command that has other things to do looks after the contracts, at most.
	glanceEvery = time.Minute
	// glanceTime is how long it may take for that.
	glanceTime = 10 * time.Second
)

func (p *program) contractWatchCommand() *cobra.Command {
	once := false
	cmd := &cobra.Command{
		Use: "watch", Short: "Look after your contracts until you end it", Args: cobra.NoArgs,
		Long: `Follows the chain, refunds what is due, sends again what is not confirmed, pays what is due and allowed, and says what it did.
If you stored a policy of payment (relay contract policy) it audits the bills as well, every six hours and when a relay asks to
be paid: what it accepts is paid as the policy says, and what it refuses is named to the relay, but for what this folder only does not
know (relay audit --help).

relay listen does the same on the side; inbox and send look once a minute at most, and audit nothing. With --once it looks once
and ends, for a timer of the system's.`,
		Example: "  relay contract policy --pay auto --limit 20000\n  relay contract watch\n  relay contract watch --once",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return p.withMoney(ctx, func(m *money) error {
				if once {
					err := errors.Join(m.manager.Step(ctx), p.watcher(m).audit(ctx))
					p.tell(ctx, m.store)
					return err
				}
				return p.watch(ctx, m)
			})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "look once and end")
	return cmd
}

// watch looks after contracts and tells what was done, until ctx ends.
func (p *program) watch(ctx context.Context, m *money) error {
	fault, watcher := "", p.watcher(m)
	for {
		err := errors.Join(m.manager.Step(ctx), watcher.audit(ctx))
		if ctx.Err() != nil {
			return nil // ended by the user
		}
		p.tell(ctx, m.store)
		switch {
		case err == nil:
			fault = ""
		case err.Error() != fault: // the same thing is said once
			fault = err.Error()
			p.complain("relay: %s (it is tried again)\n", escape(fault))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.manager.Poll):
		}
	}
}

// openWatching opens the state with the keys, like openKeys, and the contracts beside it if there are any and a node to ask
// about them. The contracts are a matter on the side: what is wrong with them is said, and no more.
func (p *program) openWatching(ctx context.Context) (*client.Client, *money, error) {
	if p.host != nil {
		c := p.host.client.Lend()
		return c, p.host.lendMoney(p, c), nil
	}
	dir, err := p.folder()
	if err != nil {
		return nil, nil, err
	}
	seed, err := p.seed(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	defer seed.Wipe()
	c, err := p.openWith(ctx, dir, seed)
	if err != nil {
		return nil, nil, err
	}
	m, err := p.moneyIfAny(ctx, dir, seed, c)
	if err != nil {
		p.complain("relay: contracts: %s\n", escape(err.Error()))
	}
	return c, m, nil
}

// moneyIfAny is nil if there are no contracts, or no node to ask about them.
func (p *program) moneyIfAny(ctx context.Context, dir string, seed *keyfile.Seed, c *client.Client) (*money, error) {
	store, err := p.contractStore(ctx, nil)
	if errors.Is(err, userside.ErrNone) {
		return nil, nil
	}
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		return nil, err
	}
	m, err := p.moneyOf(ctx, dir, seed, c, true)
	if errors.Is(err, userside.ErrNoNode) {
		return nil, nil
	}
	return m, err
}

// endWatching closes what openWatching opened.
func endWatching(c *client.Client, m *money) error {
	if m != nil {
		return m.close()
	}
	return c.Close()
}

// glance looks after the contracts, if there are any and nobody did in the last minute, and tells what was done.
func (p *program) glance(ctx context.Context, m *money) {
	if m == nil {
		return
	}
	open, err := m.store.Unfinished(ctx)
	due := false
	if err == nil && open > 0 {
		due, err = m.store.Glance(ctx, glanceEvery)
	}
	if due {
		limited, cancel := context.WithTimeout(ctx, glanceTime)
		defer cancel()
		err = m.manager.Step(limited)
	}
	if err != nil {
		p.complain("relay: contracts: %s\n", escape(err.Error()))
	}
	p.tell(ctx, m.store)
}

// settleUp pays what relays say is due, as far as it is allowed, and tells whether any of them was paid more.
func (p *program) settleUp(ctx context.Context, m *money) bool {
	if m == nil {
		return false
	}
	before, err := m.paid(ctx)
	if err == nil {
		err = m.manager.Step(ctx)
	}
	after, readErr := m.paid(ctx)
	if err = errors.Join(err, readErr); err != nil {
		p.complain("relay: contracts: %s\n", escape(err.Error()))
	}
	return readErr == nil && after > before
}

// paid is what all contracts have paid, together. No contract's part of it ever falls.
func (m *money) paid(ctx context.Context) (sum btcutil.Amount, err error) {
	all, err := m.store.Contracts(ctx)
	for i := range all {
		last, _ := all[i].Last()
		sum += last.Amount
	}
	return sum, err
}

// paysDue has a relay paid that wants it before it takes a piece of a file. It tells whether it is worth trying again at once.
func (p *program) paysDue(m *money) func(context.Context, *client.RelayError) bool {
	return func(ctx context.Context, refusal *client.RelayError) bool {
		return errors.Is(refusal, protocol.CodePaymentDue) && p.settleUp(ctx, m)
	}
}

// sendAgain has what waits go out once more, and answers how the message stands then.
func sendAgain(ctx context.Context, c *client.Client, m *client.Outgoing, before error) (*client.Outgoing, error) {
	if _, err := c.Flush(ctx); err != nil {
		return m, err
	}
	found, err := c.FindOutgoing(ctx, string(m.ID))
	if err != nil || len(found) != 1 {
		return m, errors.Join(before, err)
	}
	for _, copied := range found[0].Copies {
		if copied.State == "queued" {
			return &found[0], before
		}
	}
	return &found[0], nil
}
