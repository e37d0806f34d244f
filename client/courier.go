package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// waitingForSomebody is how long what waits for somebody to do something, an account or space, is left alone.
const waitingForSomebody = 10 * time.Minute

// Deliver works off the queue until ctx ends, whoever fills it, this program or another: each relay for which
// something waits is tried again and again, after pauses with chance in them that grow to minutes, and holds up no other. tell gets
// the outcome of each try; it is called by one goroutine at a time. The error is that of the local state.
func (c *Client) Deliver(ctx context.Context, tell func(RelayReport)) error {
	if err := c.unlocked(); err != nil {
		return err
	}
	k := &courier{c: c, tell: tell, errands: map[protocol.PublicKey]*errand{}, finished: make(chan struct{}, 1)}
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(parallel + 1)
	group.Go(func() error {
		for {
			relays, err := c.state.WaitingRelays(work)
			if err != nil {
				return err
			}
			next := k.start(work, group, relays)
			if wait(work, max(time.Until(next), 10*time.Millisecond), k.finished); work.Err() != nil {
				return nil
			}
		}
	})
	err := group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// courier goes to the relays that something waits for.
type courier struct {
	c        *Client
	tell     func(RelayReport)
	finished chan struct{} // holds one: an errand is over, look

	mu      sync.Mutex
	errands map[protocol.PublicKey]*errand
}

// errand is what is known of one of them.
type errand struct {
	pauses  backoff
	next    time.Time
	running bool
}

// start begins the errands that are due, forgets those that are done, and returns when to look again.
func (k *courier) start(ctx context.Context, group *errgroup.Group, relays []state.WaitingRelay) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	soonest := now.Add(lookAgain)
	waiting := map[protocol.PublicKey]bool{}
	for _, r := range relays {
		waiting[r.Key] = true
		e := k.errands[r.Key]
		if e == nil {
			e = &errand{pauses: backoff{first: 2 * time.Second, most: 5 * time.Minute}}
			e.next = now.Add(e.pauses.next(nil)) // not at once: who has just queued it is likely to be sending it
			k.errands[r.Key] = e
		}
		switch {
		case e.running:
		case e.next.After(now):
			if e.next.Before(soonest) {
				soonest = e.next
			}
		default: // false when enough are under way: one that ends wakes this up
			e.running = group.TryGo(func() error { return k.run(ctx, r.Relay, e) })
		}
	}
	for key, e := range k.errands {
		if !waiting[key] && !e.running {
			delete(k.errands, key)
		}
	}
	return soonest
}

func (k *courier) run(ctx context.Context, r Relay, e *errand) error {
	report := RelayReport{Relay: r.Key, Address: r.Address}
	report.Delivered, report.Err = k.c.deliverQueue(ctx, r, 0)
	k.mu.Lock()
	defer k.mu.Unlock()
	e.running = false
	e.next = time.Now().Add(e.pauses.after(report.Err))
	select {
	case k.finished <- struct{}{}:
	default: // a look is due already
	}
	if ctx.Err() != nil {
		return nil
	}
	k.tell(report)
	var refusal *RelayError
	if report.Err != nil && !errors.As(report.Err, &refusal) {
		return report.Err
	}
	return nil
}

// after is the pause after a try: a longer one for what does not pass by itself.
func (b *backoff) after(err error) time.Duration {
	var refusal *RelayError
	if errors.As(err, &refusal) && !refusal.Temporary() {
		return max(b.next(err), waitingForSomebody)
	}
	return b.next(err)
}

// Waiting counts what is queued, each message once for each relay that it is to go to or to be deleted from; without files and receipts.
func (c *Client) Waiting(ctx context.Context) (n int, err error) { return c.state.WaitingMessages(ctx) }
