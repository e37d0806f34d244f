package client

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"relaymarket/protocol"
)

// unknownBytes is how large a record is taken to be that a relay takes, until it or another device says.
const unknownBytes = 64 << 10

// followWhenDue has [Client.followCard] done before this device signs another card, and, if there are other devices, once an hour.
func (c *Client) followWhenDue(ctx context.Context) error {
	if c.identity == nil {
		return nil
	}
	_, last, err := c.state.Profile(ctx)
	if err != nil {
		return err
	}
	next, err := c.Card(ctx)
	if err != nil {
		return err
	}
	if bytes.Equal(next.Bytes(), last) {
		company, err := c.state.HasCompany(ctx)
		if err != nil || !company {
			return err
		}
		c.mu.Lock()
		recent := c.looked > c.now().Add(-refreshEvery) && c.looked <= c.now()
		c.mu.Unlock()
		if recent {
			return nil
		}
	}
	return c.followCard(ctx)
}

// followCard looks on the user's relays, also those that he left, for a newer card of his, which another device signed. A device that signs its own
// without having looked would take back what the other did: every friend believes the newer card. Relays that do not answer are passed over.
func (c *Client) followCard(ctx context.Context) error {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return err
	}
	gone, err := c.state.GoneRelays(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	var newest cardAnswer
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, r := range append(relays, gone...) {
		group.Go(func() {
			p, err := c.peer(r.Key, r.Address)
			var a cardAnswer
			if err == nil {
				a.card, a.id, err = c.cardOn(limited, p, c.Key())
			}
			if err != nil {
				if !errors.Is(err, protocol.CodeNotFound) {
					c.log.Info("no newer card of the user could be looked for", "relay", r.Address, "error", err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if newest.card == nil || protocol.SupersedesCard(a.card, newest.card) {
				newest = a
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	c.looked = c.now()
	c.mu.Unlock()
	if newest.card == nil {
		return nil
	}
	return c.follow(ctx, newest.card, newest.id)
}

// follow takes in a card of the user that a relay serves, if it is newer than the one that is kept: the relays that it names are his, unless it is known
// that he removed them, and what his other devices tell there is looked for at once.
func (c *Client) follow(ctx context.Context, card *protocol.Envelope, id *protocol.Identity) error {
	var fresh []Relay
	only := map[protocol.PublicKey]bool{}
	for _, r := range id.Relays {
		heard, err := c.state.HasHeardOf(ctx, r.PubKey)
		if err != nil {
			return err
		}
		if !heard {
			fresh = append(fresh, Relay{Key: r.PubKey, Address: r.Address, Bytes: c.recordBytes(ctx, r)})
			only[r.PubKey] = true
		}
	}
	news, err := c.state.FollowCard(ctx, card, fresh)
	if err != nil || !news || len(fresh) == 0 {
		return err
	}
	c.log.Info("another device of yours signed a newer card", "relays", len(fresh))
	reports, err := c.pullAll(ctx, only)
	for _, r := range reports {
		if r.Err != nil {
			c.log.Info("what another device tells could not be looked for", "relay", r.Address, "error", r.Err)
		}
	}
	return err
}

// recordBytes is the largest record that a relay announces to take.
func (c *Client) recordBytes(ctx context.Context, r protocol.RelayRef) int64 {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	p, err := c.peer(r.PubKey, r.Address)
	if err != nil {
		return unknownBytes
	}
	data, err := p.announcement(ctx)
	if err != nil {
		return unknownBytes
	}
	e, offer, err := protocol.ParseAnnouncement(data, c.now())
	if err != nil || e.From != r.PubKey {
		return unknownBytes
	}
	return offer.Limits.RecordBytes
}
