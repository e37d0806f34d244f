package client

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"relaymarket/client/rest"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Relay is one of the user's own relays.
type Relay = state.Relay

// Account is what an account on a relay may use and has used.
type Account = rest.Account

// parallel is how many relays are talked to at once.
const parallel = 16

// ParseAddress makes an address of what people type: without a scheme it is https://, on loopback http://, and a slash at the end is
// dropped. In front of the host may stand the key of the relay that is to be there, as in relay1…@203.0.113.5:7447; a relay
// that has only a certificate of its own is reached no other way by somebody who knows nothing of it.
func ParseAddress(typed string) (address string, key *protocol.PublicKey, err error) {
	address = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(typed)), "/")
	scheme, rest, named := strings.Cut(address, "://")
	if !named {
		rest = address
	}
	if text, host, found := strings.Cut(rest, "@"); found {
		k, err := protocol.ParsePublicKey(text)
		if err != nil {
			return "", nil, err
		}
		key, rest = &k, host
	}
	if !named {
		scheme = "https"
		host, _, _ := strings.Cut(rest, ":")
		ip, err := netip.ParseAddr(host)
		if host == "localhost" || err == nil && ip.IsLoopback() || strings.HasPrefix(rest, "[::1]") {
			scheme = "http"
		}
	}
	address = scheme + "://" + rest
	return address, key, protocol.ValidateAddress(address)
}

// NormalizeAddress is the address of [ParseAddress] alone.
func NormalizeAddress(typed string) (string, error) {
	address, _, err := ParseAddress(typed)
	return address, err
}

// AddRelay makes a relay one of the user's own: it asks who the relay is, leaves the card there and,
// when that succeeded, tells the other relays of the new card. A relay that does not
// know the user's key refuses with protocol.CodeNoAccount, and is not added. It is safe to repeat.
func (c *Client) AddRelay(ctx context.Context, typed string) (*Relay, *protocol.Announcement, error) {
	if err := c.unlocked(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, _, offer, err := c.meet(ctx, typed)
	if err != nil {
		return nil, nil, err
	}
	relay := Relay{Key: p.key, Address: p.address, Added: c.now(), Bytes: offer.Limits.RecordBytes}
	if err := c.introduce(ctx, p, relay); err != nil {
		return nil, nil, err
	}
	if _, err := c.PublishCard(ctx); err != nil {
		return nil, nil, err
	}
	c.tellSoon(ctx) // before the user leaves the relays where his other devices look
	return &relay, offer, nil
}

// meet asks at an address as people type it which relay is there, and what it announces.
func (c *Client) meet(ctx context.Context, typed string) (*peer, *protocol.Envelope, *protocol.Announcement, error) {
	address, expected, err := ParseAddress(typed)
	if err != nil {
		return nil, nil, nil, err
	}
	var key protocol.PublicKey
	if expected != nil {
		key = *expected
	}
	p, err := c.peer(key, address)
	if err != nil {
		return nil, nil, nil, err
	}
	data, err := p.announcement(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	e, offer, err := protocol.ParseAnnouncement(data, c.now())
	if err != nil {
		return nil, nil, nil, p.fail(fmt.Errorf("its announcement is not valid: %w", err))
	}
	if expected != nil && e.From != key {
		return nil, nil, nil, p.fail(fmt.Errorf("another relay answers there: %s", e.From.Bech32()))
	}
	p, err = c.peer(e.From, address)
	return p, e, offer, err
}

// introduce leaves a card that names the new relay on it, and stores both only when it took it: a
// relay that refuses must not stand in the card.
func (c *Client) introduce(ctx context.Context, p *peer, relay Relay) error {
	sign := func() (*protocol.Envelope, error) {
		label, last, err := c.state.Profile(ctx)
		if err != nil {
			return nil, err
		}
		relays, err := c.state.Relays(ctx)
		if err != nil {
			return nil, err
		}
		known := false
		for i := range relays {
			if relays[i].Key == relay.Key {
				relays[i].Address, known = relay.Address, true
			}
		}
		if !known {
			relays = append(relays, relay)
		}
		return c.signCard(label, relays, last)
	}
	if err := c.followCard(ctx); err != nil {
		return err
	}
	card, err := sign()
	if err != nil {
		return err
	}
	if card, err = c.putNewest(ctx, p, card, sign); err != nil {
		return err
	}
	if err := c.state.PutRelay(ctx, relay.Key, relay.Address, relay.Bytes); err != nil {
		return err
	}
	if err := c.state.SetCard(ctx, card.Bytes()); err != nil {
		return err
	}
	return c.state.SetPublished(ctx, relay.Key, card.Hash())
}

// Relays lists the user's own relays.
func (c *Client) Relays(ctx context.Context) ([]Relay, error) { return c.state.Relays(ctx) }

// FindRelay finds one of the user's relays by its address or key. ErrNoRelay.
func (c *Client) FindRelay(ctx context.Context, typed string) (*Relay, error) {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	address, _ := NormalizeAddress(typed)
	key, keyErr := protocol.ParsePublicKey(typed)
	for _, r := range relays {
		if r.Address == address || keyErr == nil && r.Key == key {
			return &r, nil
		}
	}
	return nil, ErrNoRelay
}

// Stranded counts messages of the last week that lie on no relay and wait for none, because those that they waited for were removed
// or refused them. Heal sends them to the relays in use.
func (c *Client) Stranded(ctx context.Context) (int64, error) {
	h, err := c.state.Health(ctx)
	return h.Failed, err
}

// RemoveRelay takes a relay out of the user's list and card. The relay itself gets the new card too,
// as far as it answers, because friends may know no other place to find it. What is stored there stays until it expires. For 30 days the user's other
// devices are told there too, which may know no other place either.
func (c *Client) RemoveRelay(ctx context.Context, key protocol.PublicKey) ([]RelayReport, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.followCard(ctx); err != nil {
		return nil, err
	}
	if err := c.state.DeleteRelay(ctx, key); err != nil {
		return nil, err
	}
	reports, err := c.PublishCard(ctx)
	if err != nil {
		return nil, err
	}
	card, err := c.Card(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range relays {
		if r.Key == key {
			if err := c.publishOn(ctx, r, card); err != nil {
				c.log.Info("the removed relay did not take the new card", "relay", r.Address, "error", err)
			}
		}
	}
	c.tellSoon(ctx)
	return reports, nil
}

// Account asks one of the user's relays what he may use there and has used.
func (c *Client) Account(ctx context.Context, relay Relay) (*Account, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, err := c.peer(relay.Key, relay.Address)
	if err != nil {
		return nil, err
	}
	return p.account(ctx)
}
