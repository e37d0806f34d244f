package client

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/protocol"
)

// refreshEvery is how often a friend's relays are asked for a newer card at most.
const refreshEvery = time.Hour

// CardChange is what a friend's newer card changed. It is told to the user: a new sealing key decides
// who can read what he sends from now on.
type CardChange struct {
	Friend         protocol.PublicKey
	Name           string
	Label          string // the new one
	LabelChanged   bool
	SealingChanged bool
	RelaysAdded    []protocol.RelayRef
	RelaysRemoved  []protocol.RelayRef
}

// refreshCards looks for newer cards of the friends who were not asked about for an hour.
func (c *Client) refreshCards(ctx context.Context) ([]CardChange, error) {
	stored, err := c.state.Friends(ctx)
	if err != nil {
		return nil, err
	}
	due := c.now().Add(-refreshEvery)
	found := make([]*CardChange, len(stored))
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, s := range stored {
		// A time ahead of the clock is not waited for: the clock was set back.
		if s.Refreshed > due && s.Refreshed <= c.now() || s.Key == c.Key() {
			continue
		}
		group.Go(func() error {
			f, err := openFriend(s)
			if err != nil {
				return err
			}
			found[i], err = c.refreshCard(work, f)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var changes []CardChange
	for _, change := range found {
		if change != nil {
			changes = append(changes, *change)
		}
	}
	return changes, nil
}

func (c *Client) refreshCard(ctx context.Context, f *Friend) (*CardChange, error) {
	addresses := make([]string, 0, len(f.Card.Relays))
	for _, r := range f.Card.Relays {
		addresses = append(addresses, r.Address)
	}
	e, id, err := c.fetchCard(ctx, f.Key, addresses)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		// Not an error of Sync: the card at hand is good. The next try is in an hour.
		c.log.Info("no newer card could be looked for", "friend", f.Name, "error", err)
		return nil, c.state.UpdateCard(ctx, f.Key, nil)
	}
	s, err := c.state.Friend(ctx, f.Key)
	if err != nil {
		return nil, err
	}
	current, err := protocol.ParseEnvelope(s.Card)
	if err != nil {
		return nil, err
	}
	if !protocol.SupersedesCard(e, current) {
		return nil, c.state.UpdateCard(ctx, f.Key, nil)
	}
	if err := c.state.UpdateCard(ctx, f.Key, e.Bytes()); err != nil {
		return nil, err
	}
	return compareCards(f, id), nil
}

// compareCards tells what changed, nil for nothing that matters to people.
func compareCards(f *Friend, id *protocol.Identity) *CardChange {
	change := &CardChange{
		Friend: f.Key, Name: f.Name, Label: id.Label,
		LabelChanged:   f.Card.Label != id.Label,
		SealingChanged: !slices.Equal(f.Card.Sealing, id.Sealing),
		RelaysAdded:    missing(id.Relays, f.Card.Relays),
		RelaysRemoved:  missing(f.Card.Relays, id.Relays),
	}
	if !change.LabelChanged && !change.SealingChanged && len(change.RelaysAdded)+len(change.RelaysRemoved) == 0 {
		return nil
	}
	return change
}

func missing(from, in []protocol.RelayRef) []protocol.RelayRef {
	return slices.DeleteFunc(slices.Clone(from), func(r protocol.RelayRef) bool { return slices.Contains(in, r) })
}
