package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Card is the user's identity card: what friends need to write to him and to find what he writes.
// It is signed anew only when it changed. Without keys it is the one that was signed last.
func (c *Client) Card(ctx context.Context) (*protocol.Envelope, error) {
	label, last, err := c.state.Profile(ctx)
	if err != nil {
		return nil, err
	}
	if c.identity == nil {
		if last == nil {
			return nil, ErrLocked
		}
		return protocol.ParseEnvelope(last)
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	return c.signCard(label, relays, last)
}

// Link is the short form of the card, for a text or a QR code.
func (c *Client) Link(ctx context.Context) (protocol.Link, error) {
	relays, err := c.state.Relays(ctx)
	link := protocol.Link{Key: c.Key()}
	for _, r := range relays {
		link.Relays = append(link.Relays, r.Address)
		if host, isHTTPS := strings.CutPrefix(r.Address, "https://"); isHTTPS && onIP(host) {
			link.Pins = append(link.Pins, protocol.RelayRef{Address: r.Address, PubKey: r.Key})
		}
	}
	return link, err
}

// onIP tells whether a host, perhaps with a port, is an IP address: authorities seldom certify those, so the relay does it itself.
func onIP(host string) bool {
	if _, err := netip.ParseAddrPort(host); err == nil {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// Label is the name that the card gives the user, a hint for people and no identity.
func (c *Client) Label(ctx context.Context) (string, error) {
	label, _, err := c.state.Profile(ctx)
	return label, err
}

// SetLabel changes the label. PublishCard then tells the relays.
func (c *Client) SetLabel(ctx context.Context, label string) error {
	if err := checkText(label, 0, protocol.MaxLabel); err != nil {
		return err
	}
	return c.state.SetLabel(ctx, label)
}

// PublishCard brings the card to each of the user's relays that does not have it yet, and queues it for the friends who know
// another one: Flush, Sync and TellFriends bring it to them. The reports are about the relays that were asked.
func (c *Client) PublishCard(ctx context.Context) ([]RelayReport, error) {
	if err := c.followWhenDue(ctx); err != nil {
		return nil, err
	}
	card, err := c.Card(ctx)
	if err != nil {
		return nil, err
	}
	// Stored before any relay sees it, so that this device never signs two cards of one time.
	if err := c.state.SetCard(ctx, card.Bytes()); err != nil {
		return nil, err
	}
	if err := c.queueCards(ctx); err != nil {
		return nil, err
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	relays = slices.DeleteFunc(relays, func(r state.Relay) bool { return r.Published != nil && *r.Published == card.Hash() })
	reports := make([]RelayReport, len(relays))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, r := range relays {
		group.Go(func() error {
			reports[i] = RelayReport{Relay: r.Key, Address: r.Address, Err: c.publishOn(ctx, r, card)}
			return nil
		})
	}
	return reports, group.Wait()
}

// signCard makes the card of these relays, or gives the last one if it says the same.
func (c *Client) signCard(label string, relays []state.Relay, last []byte) (*protocol.Envelope, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	id := &protocol.Identity{Label: label, Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{c.sealing.Public().Item()}, Hubs: c.hubs}
	for _, r := range relays {
		id.Relays = append(id.Relays, protocol.RelayRef{Address: r.Address, PubKey: r.Key})
	}
	at := c.now()
	var before *protocol.Envelope
	if last != nil {
		var err error
		if before, err = protocol.ParseEnvelope(last); err != nil {
			return nil, fmt.Errorf("the kept card: %w", err)
		}
		at = max(at, before.Timestamp+1) // of two cards the newer wins, also after the clock was set back
	}
	next, err := protocol.Sign(c.identity, c.Key(), at, id)
	if err != nil {
		return nil, err
	}
	if before != nil && bytes.Equal(before.Request, next.Request) {
		return before, nil
	}
	return next, nil
}

func (c *Client) publishOn(ctx context.Context, r state.Relay, card *protocol.Envelope) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, err := c.peer(r.Key, r.Address)
	if err != nil {
		return err
	}
	sent, err := c.putNewest(ctx, p, card, func() (*protocol.Envelope, error) { return c.Card(ctx) })
	if err != nil {
		return err
	}
	if sent != card { // the other relays are told next time: their card differs from this one
		if err := c.state.SetCard(ctx, sent.Bytes()); err != nil {
			return err
		}
	}
	return c.state.SetPublished(ctx, r.Key, sent.Hash())
}

// putNewest brings a card to a relay. One that has a newer card of ours got it from another device, or from this one before it
// lost its state: that is followed, and what is signed then is sent.
func (c *Client) putNewest(ctx context.Context, p *peer, card *protocol.Envelope, sign func() (*protocol.Envelope, error)) (*protocol.Envelope, error) {
	err := p.putCard(ctx, card)
	if !errors.Is(err, protocol.CodeCardOlder) || c.identity == nil {
		return card, err
	}
	newer, id, err := c.cardOn(ctx, p, c.Key())
	if err != nil {
		if errors.Is(err, errBadCard) {
			return nil, p.tampered("it refuses the card for one that is not valid")
		}
		return nil, err
	}
	if err := c.follow(ctx, newer, id); err != nil {
		return nil, err
	}
	if card, err = sign(); err != nil {
		return nil, err
	}
	if card.Hash() == newer.Hash() {
		return card, nil
	}
	return card, p.putCard(ctx, card)
}

// cardHubs are those that may stand in a card.
func cardHubs(hubs []string) []string {
	var fit []string
	for _, hub := range hubs {
		if protocol.ValidateAddress(hub) == nil && len(fit) < protocol.MaxCardHubs {
			fit = append(fit, hub)
		}
	}
	return fit
}
