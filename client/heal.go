package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/rest"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// HealOptions say how to heal; the zero value is the usual.
type HealOptions struct {
	// Delivered also puts back what its reader has confirmed, for other devices of his.
	Delivered bool
	Files     FileOptions // Patience, Progress and Due are used
}

// Healed is what was found and done on one of the user's relays.
type Healed struct {
	Relay   protocol.PublicKey
	Address string
	Listed  int   // records of the user that are there
	Lost    int64 // that should be there and were not
	Added   int64 // that were never sent there before
	Put     int64 // that were sent there now
	Failed  int64 // that cannot be put back: the file they were made of is gone
	Err     error
}

// Heal asks each of the user's relays what it has, and puts back what it lost and what it never had, until it expires: the
// same records, so that nobody gets anything twice. What the reader has confirmed is left alone unless asked for, and pieces
// of a file need the file.
//
// It is safe to repeat, and to interrupt. A relay that fails is reported and holds up no other.
func (c *Client) Heal(ctx context.Context, o HealOptions) ([]Healed, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	if err := o.Files.complete(); err != nil {
		return nil, err
	}
	healed, err := c.inspect(ctx, o.Delivered)
	if err != nil {
		return nil, err
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	if relays, err = c.taking(ctx, relays, "", false); err != nil {
		return nil, err
	}
	for i := range healed {
		h := &healed[i]
		at := slices.IndexFunc(relays, func(r Relay) bool { return r.Key == h.Relay })
		if at < 0 {
			continue // it takes messages on a topic only, or was removed meanwhile
		}
		if h.Added, err = c.state.Spread(ctx, relays[at], o.Delivered, c.sourceThere); err != nil {
			return nil, err
		}
	}
	before, err := c.waiting(ctx, healed)
	if err != nil {
		return nil, err
	}
	sent, err := c.Flush(ctx)
	if err != nil {
		return nil, err
	}
	_, fileErr := c.ResumeFiles(ctx, "", o.Files)
	after, err := c.waiting(context.WithoutCancel(ctx), healed)
	if err != nil {
		return nil, err
	}
	for i := range healed {
		h := &healed[i]
		h.Put = max(0, before[i]-after[i])
		for _, r := range sent {
			if r.Relay == h.Relay && h.Err == nil {
				h.Err = r.Err
			}
		}
	}
	if ctx.Err() != nil {
		return healed, ctx.Err()
	}
	return healed, fileErr
}

// waiting is how much is to be sent to each.
func (c *Client) waiting(ctx context.Context, healed []Healed) ([]int64, error) {
	all := make([]int64, len(healed))
	for i := range healed {
		var err error
		if all[i], err = c.state.WaitingOn(ctx, healed[i].Relay); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// inspect asks each relay what it has of us. What is not there is queued again.
func (c *Client) inspect(ctx context.Context, delivered bool) ([]Healed, error) {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, ErrNoRelays
	}
	healed := make([]Healed, len(relays))
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, r := range relays {
		group.Go(func() error {
			h := &healed[i]
			h.Relay, h.Address = r.Key, r.Address
			started := c.now()
			h.Listed, h.Err = c.listOn(work, r, started)
			var refusal *RelayError
			switch {
			case h.Err != nil && !errors.As(h.Err, &refusal):
				return h.Err
			case h.Err != nil:
				return work.Err() // what it did not list may be there
			}
			var err error
			h.Lost, h.Failed, err = c.state.Lose(work, r.Key, started, delivered, c.sourceThere)
			return err
		})
	}
	return healed, group.Wait()
}

// sourceThere tells whether a file can be read again as it was.
func (c *Client) sourceThere(path string, size, modified int64) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == size && info.ModTime().UnixNano() == modified
}

// maxInventory bounds what one relay, which may be a liar that always has more, can list.
const maxInventory = 100_000

// listOn asks one relay for all that we have there, and notes it.
func (c *Client) listOn(ctx context.Context, relay Relay, at protocol.Timestamp) (listed int, _ error) {
	p, err := c.peer(relay.Key, relay.Address)
	if err != nil {
		return 0, err
	}
	var after *string
	for range maxInventory {
		page, err := p.inventory(ctx, after)
		if err != nil {
			return listed, err
		}
		seen := make([]state.SeenRecord, 0, len(page.Records))
		for _, r := range page.Records {
			if err := checkCursor(r.Cursor); err != nil {
				return listed, p.tampered("of a record in its inventory, %v", err)
			}
			seen = append(seen, state.SeenRecord{To: r.To, ID: protocol.RecordID(r.RecordId), Hash: r.Hash, Pulls: r.Pulls, Cursor: r.Cursor})
		}
		if err := c.state.See(ctx, relay.Key, seen, at); err != nil {
			return listed, err
		}
		listed += len(seen)
		if !page.More {
			return listed, nil
		}
		if err := checkCursor(page.Cursor); err != nil || after != nil && *after == page.Cursor {
			return listed, p.tampered("its inventory does not go on")
		}
		after = &page.Cursor
	}
	return listed, p.fail(errors.New("it always says that there is more"))
}

// inventory asks for a page of what we have stored.
func (p *peer) inventory(ctx context.Context, after *string) (*rest.Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	params := &rest.ListOutboxesParams{After: after}
	blank, err := rest.NewListOutboxesRequest(p.address, p.c.Key(), params)
	if err != nil {
		return nil, fmt.Errorf("list what is there: %w", err)
	}
	var page rest.Inventory
	err = p.do(ctx, exchange{
		build: p.signed(&protocol.Targeted{Type: protocol.TypeInventory, Target: protocol.Target(http.MethodGet, blank.URL.RequestURI())}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.ListOutboxes(ctx, p.c.Key(), params, authorize(e))
		},
		read: p.readJSONUpTo(maxInventoryReply, &page),
	})
	return &page, err
}

// maxInventoryReply bounds a page of an inventory: 1,000 records of some 500 bytes.
const maxInventoryReply = 2 << 20

// Expiring lists what is about to expire and was not fetched, as far as receipts and relays tell: a fifth of its life is left,
// and three days at most.
func (c *Client) Expiring(ctx context.Context) ([]Outgoing, error) {
	return c.state.Expiring(ctx, false)
}

// warn finds the messages of which the user is to be told that they expire, once. The relays are asked first whether they were
// fetched: not every reader leaves receipts.
func (c *Client) warn(ctx context.Context) ([]Outgoing, error) {
	near, err := c.nearExpiry(ctx, nil)
	if err != nil {
		return nil, err
	}
	for i := range near {
		if err := c.state.Warned(ctx, near[i].N); err != nil {
			return nil, err
		}
	}
	return near, nil
}

// NearExpiry finds what Sync is about to warn of, and leaves that to Sync: for a program that has nobody at hand to tell. known are
// the numbers of messages that it needs not look into again.
func (c *Client) NearExpiry(ctx context.Context, known map[int64]bool) ([]Outgoing, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	return c.nearExpiry(ctx, known)
}

func (c *Client) nearExpiry(ctx context.Context, known map[int64]bool) ([]Outgoing, error) {
	near, err := c.state.Expiring(ctx, true)
	if err != nil || !slices.ContainsFunc(near, func(m Outgoing) bool { return !known[m.N] }) {
		return nil, err
	}
	if _, err := c.inspect(ctx, false); err != nil && !errors.Is(err, ErrNoRelays) {
		return nil, err
	}
	near, err = c.state.Expiring(ctx, true)
	return slices.DeleteFunc(near, func(m Outgoing) bool { return known[m.N] }), err
}
