package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"relaymarket/client"
)

const (
	// lookEvery is how often the daemon looks whether other programs changed the user's relays.
	lookEvery = 5 * time.Second
	// healSoon is the pause after a healing that a relay failed at; it grows to HealEvery.
	healSoon = time.Minute
	// healFirst is the pause before the first healing: what is queued goes out before.
	healFirst = 5 * time.Second
	// syncTime bounds one look at all relays.
	syncTime = 10 * time.Minute
)

// listen has messages here the moment a relay has them.
func (d *Daemon) listen(ctx context.Context) error {
	return d.c.Client.Listen(ctx, func(e client.Event) error {
		switch {
		case e.Message != nil:
			d.log.Info("a message arrived", "from", e.Message.From.Short(), "id", e.Message.ID)
		case e.Notice != nil:
			d.log.Warn("noticed", "friend", e.Notice.Name, "key", e.Notice.Friend.Short(), "what", e.Notice.Kind)
		case e.Relay.Err != nil:
			d.log.Warn("a relay is not listened to", "relay", e.Relay.Address, "error", e.Relay.Err)
		default:
			d.log.Info("listening", "relay", e.Relay.Address)
		}
		d.events.tell(e)
		return nil
	})
}

// deliver works off what is queued.
func (d *Daemon) deliver(ctx context.Context) error {
	return d.c.Client.Deliver(ctx, func(r client.RelayReport) {
		if r.Err != nil {
			d.log.Warn("not delivered yet", "relay", r.Address, "error", r.Err)
		} else if r.Delivered > 0 {
			d.log.Info("delivered", "relay", r.Address, "messages", r.Delivered)
		}
		d.failed("deliver", r.Err)
	})
}

// poll asks for what listening may have missed, and does what else is done now and then.
func (d *Daemon) poll(ctx context.Context) error {
	for {
		if err := d.pollOnce(ctx); err != nil {
			return err
		}
		if !sleep(ctx, around(d.c.PollEvery)) {
			return nil
		}
	}
}

func (d *Daemon) pollOnce(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	result, err := d.c.Client.SyncUnseen(limited)
	if err != nil {
		return err
	}
	var failures []error
	for _, r := range result.Failed() {
		failures = append(failures, r.Err)
	}
	d.failed("poll", errors.Join(failures...))
	for i := range result.Notices {
		n := &result.Notices[i]
		d.log.Warn("noticed", "friend", n.Name, "key", n.Friend.Short(), "what", n.Kind)
	}
	for _, gap := range result.Gaps {
		d.log.Warn("messages are missing", "from", gap.From.Short(), "first", gap.First, "last", gap.Last)
	}
	return d.warn(limited)
}

// warn logs, once, what expires and was not fetched. The user is told by his next inbox, and sees it in his outbox.
func (d *Daemon) warn(ctx context.Context) error {
	near, err := d.c.Client.NearExpiry(ctx, d.near)
	for i := range near {
		m := &near[i]
		d.near[m.N] = true
		d.log.Warn("a message expires and was not fetched", "id", m.ID, "to", m.To.Short(), "expires", m.Expires.Time())
	}
	return err
}

// heal puts back what relays lost, now and then, when the user's relays are others, and sooner again after one failed.
func (d *Daemon) heal(ctx context.Context) error {
	relays, err := d.relays(ctx)
	if err != nil {
		return err
	}
	again := min(healSoon, d.c.HealEvery)
	next := min(healFirst, d.c.HealEvery)
	for {
		if err := d.awaitHeal(ctx, relays, time.Now().Add(around(next))); err != nil || ctx.Err() != nil {
			return err
		}
		if relays, err = d.relays(ctx); err != nil {
			return err
		}
		whole, err := d.healOnce(ctx)
		switch {
		case err != nil:
			return err
		case whole:
			next, again = d.c.HealEvery, min(healSoon, d.c.HealEvery)
		default:
			next, again = again, min(2*again, d.c.HealEvery)
		}
	}
}

// awaitHeal returns when it is time to heal.
func (d *Daemon) awaitHeal(ctx context.Context, relays []string, at time.Time) error {
	for time.Now().Before(at) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(d.look, time.Until(at))):
		}
		now, err := d.relays(ctx)
		if err != nil || !slices.Equal(now, relays) {
			return err
		}
	}
	return nil
}

// relays are the user's, in a form to compare.
func (d *Daemon) relays(ctx context.Context) ([]string, error) {
	all, err := d.c.Client.Relays(ctx)
	var keys []string
	for _, r := range all {
		keys = append(keys, r.Key.String()+" "+r.Address)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys, err
}

// healOnce heals, and tells whether every relay took part.
func (d *Daemon) healOnce(ctx context.Context) (whole bool, _ error) {
	healed, err := d.c.Client.Heal(ctx, client.HealOptions{})
	if errors.Is(err, client.ErrNoRelays) || ctx.Err() != nil {
		return true, nil
	}
	if healed == nil {
		return false, err
	}
	var failures []error
	if err != nil {
		failures = append(failures, err) // files that wait
	}
	for _, h := range healed {
		switch {
		case h.Err != nil:
			failures = append(failures, h.Err)
			d.log.Warn("a relay cannot be healed now", "relay", h.Address, "error", h.Err)
		case h.Lost+h.Added+h.Failed > 0:
			d.log.Warn("healed", "relay", h.Address, "lost", h.Lost, "new", h.Added, "sent", h.Put, "cannotBe", h.Failed)
		}
	}
	d.failed("heal", errors.Join(failures...))
	return len(failures) == 0, nil
}
