package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"relaymarket/client/moving"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	// cardTTL is how long a card waits for a friend who is away.
	cardTTL      = 90 * 24 * time.Hour
	cardMaxPulls = 4 // for some devices of his; the account that admits us pays for them
)

// Told says how far friends were told of the user's present card.
type Told struct {
	Friends int // who know another card than this one, as far as is known
	Reached int // of them, those for whom it lies where they look
}

// TellFriends leaves the user's card for the friends who know another one: on his own relays, and on those of the friends, which
// may admit him. Sync and Flush do what is left. It is safe to repeat.
func (c *Client) TellFriends(ctx context.Context) (Told, error) {
	if err := c.unlocked(); err != nil {
		return Told{}, err
	}
	if err := c.queueCards(ctx); err != nil {
		return Told{}, err
	}
	if _, err := c.Flush(ctx); err != nil {
		return Told{}, err
	}
	return c.Told(ctx)
}

// Told says how far friends were told, without telling anybody.
func (c *Client) Told(ctx context.Context) (Told, error) {
	all, err := c.state.Told(ctx)
	if err != nil {
		return Told{}, err
	}
	var told Told
	for i := range all {
		if !all[i].Live {
			continue
		}
		told.Friends++
		looks, err := whereHeLooks(&all[i])
		if err != nil {
			return Told{}, err
		}
		if slices.ContainsFunc(all[i].Copies, func(at Copy) bool { return at.State == state.CopyStored && looks[at.Relay] }) {
			told.Reached++
		}
	}
	return told, nil
}

// whereHeLooks are the relays that a friend asks until he knows of the move: his own, and those of the card that he had.
func whereHeLooks(t *state.Told) (map[protocol.PublicKey]bool, error) {
	looks := map[protocol.PublicKey]bool{}
	for _, card := range [][]byte{t.Theirs, t.Before} {
		relays, err := relaysOf(card)
		if err != nil {
			return nil, err
		}
		for _, r := range relays {
			looks[r.PubKey] = true
		}
	}
	return looks, nil
}

// relaysOf are the relays in a kept card; none in none.
func relaysOf(card []byte) ([]protocol.RelayRef, error) {
	if card == nil {
		return nil, nil
	}
	e, err := protocol.ParseEnvelope(card)
	if err != nil {
		return nil, fmt.Errorf("a kept card: %w", err)
	}
	var id protocol.Identity
	if err := e.Decode(&id); err != nil {
		return nil, fmt.Errorf("a kept card: %w", err)
	}
	return id.Relays, nil
}

// queueCards queues the user's card, sealed, for every friend who knows one that says something else, and for relays of theirs that
// were not to have it yet.
func (c *Client) queueCards(ctx context.Context) error {
	_, raw, err := c.state.Profile(ctx)
	if err != nil || raw == nil {
		return err
	}
	card, err := protocol.ParseEnvelope(raw)
	if err != nil {
		return fmt.Errorf("the kept card: %w", err)
	}
	own, err := relaysOf(raw)
	if err != nil {
		return err
	}
	all, err := c.state.Told(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		if err := c.queueCard(ctx, card, own, &all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) queueCard(ctx context.Context, card *protocol.Envelope, own []protocol.RelayRef, t *state.Told) error {
	e, err := protocol.ParseEnvelope(t.Theirs)
	if err != nil {
		return fmt.Errorf("the kept card of %s: %w", t.Friend.Short(), err)
	}
	var id protocol.Identity
	if err := e.Decode(&id); err != nil {
		return fmt.Errorf("the kept card of %s: %w", t.Friend.Short(), err)
	}
	told := false
	if t.Card != nil {
		known, err := protocol.ParseEnvelope(t.Card)
		if err != nil {
			return fmt.Errorf("the kept card: %w", err)
		}
		told = moving.SaysTheSame(known, card)
	} else if len(own) == 0 {
		return nil // a first card without a relay says nothing
	}
	before, err := relaysOf(t.Before)
	if err != nil {
		return err
	}
	known, err := relaysOf(t.Card)
	if err != nil {
		return err
	}
	var places []Relay
	for _, r := range moving.Places(moving.Cards{Own: own, Theirs: id.Relays, Known: known, Before: before}) {
		places = append(places, Relay{Key: r.PubKey, Address: r.Address})
	}
	if told {
		return c.placeCard(ctx, t, places)
	}
	to, ok := id.SealingKey()
	if !ok {
		places = nil // it cannot be sealed to him; that is not tried with every Sync
	}
	return c.state.EnqueueCard(ctx, t.Friend, card.Bytes(), places, func(device string) (*Outgoing, error) {
		return c.sealBy(nil, t.Friend, to, device, protocol.CardType, card.Bytes(), cardTTL, cardMaxPulls)
	})
}

// placeCard queues a card that waits for a friend on those relays that were not to have it, or that refused it a day ago, and gives up what
// waits for relays that he names no more: he may name others with every card of his.
func (c *Client) placeCard(ctx context.Context, t *state.Told, places []Relay) error {
	if !t.Live {
		return nil
	}
	fresh := slices.DeleteFunc(slices.Clone(places), func(r Relay) bool {
		at := slices.IndexFunc(t.Copies, func(have Copy) bool { return have.Relay == r.Key })
		return at >= 0 && !c.state.RefusedLongAgo(&t.Copies[at])
	})
	idle := func() bool {
		return slices.ContainsFunc(t.Copies, func(have Copy) bool {
			return have.State == state.CopyQueued && !slices.ContainsFunc(places, func(r Relay) bool { return r.Key == have.Relay })
		})
	}
	if idle() {
		// Those of all cards that he was told of late are his places, too: he may know any of them.
		cards, err := c.state.CardsTold(ctx, t.Friend)
		if err != nil {
			return err
		}
		for _, card := range cards {
			relays, err := relaysOf(card)
			if err != nil {
				return err
			}
			for _, r := range relays {
				if !slices.ContainsFunc(places, func(at Relay) bool { return at.Key == r.PubKey }) {
					places = append(places, Relay{Key: r.PubKey, Address: r.Address})
				}
			}
		}
	}
	if len(fresh) == 0 && !idle() {
		return nil
	}
	return c.state.PlaceCard(ctx, t.N, fresh, places)
}

// sealBy seals a record that programs write by themselves, and that is not numbered. It is signed by the key of an
// invitation, or, if that is nil, by the user.
func (c *Client) sealBy(by *protocol.PrivateKey, friend protocol.PublicKey, to *protocol.SealingPublicKey, device, contentType string, body []byte,
	ttl time.Duration, maxPulls int64) (*Outgoing, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	tag := protocol.ReceiptTag
	m := &Outgoing{ID: protocol.RecordID(id.String()), Tag: tag, ContentType: contentType, Body: body, Expires: c.now().Add(ttl), MaxPulls: maxPulls}
	from := c.Key()
	if by != nil {
		secret := by.Secret()
		m.Signer, from = secret[:], by.Public()
	}
	header := protocol.SealedHeader{ContentType: contentType, Device: device, Seq: 1}
	m.Sealed, err = protocol.Seal(to, protocol.SealContext{From: from, To: friend, RecordID: m.ID, Tag: &tag}, header, body)
	return m, err
}

// cardOf is what a record brings as its sender's card; nil for any other message.
func (c *Client) cardOf(m *state.Message) *state.CardRecord {
	if m.Tag != protocol.ReceiptTag || m.ContentType != protocol.CardType {
		return nil
	}
	e, _, err := protocol.ParseCard(m.Body, c.now())
	switch {
	case err != nil:
		return &state.CardRecord{Fault: oneLine(err.Error())}
	case e.From != m.From:
		return &state.CardRecord{Fault: "it is the card of " + e.From.Short()}
	}
	return &state.CardRecord{Card: e}
}

// refreshEvery is how often a friend's relays are asked for a newer card at most.
const refreshEvery = time.Hour

// refreshCards looks for newer cards of the friends who were not asked about for an hour.
func (c *Client) refreshCards(ctx context.Context) error {
	stored, err := c.state.Friends(ctx)
	if err != nil {
		return err
	}
	due := c.now().Add(-refreshEvery)
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, s := range stored {
		// A time ahead of the clock is not waited for: the clock was set back.
		if s.Refreshed > due && s.Refreshed <= c.now() || s.Key == c.Key() {
			continue
		}
		group.Go(func() error {
			f, err := openFriend(s)
			if err != nil {
				return err
			}
			return c.refreshCard(work, f)
		})
	}
	return group.Wait()
}

// refreshCard asks each of a friend's relays for his card: the newest counts, and what else they serve for it is noticed.
func (c *Client) refreshCard(ctx context.Context, f *Friend) error {
	addresses := make([]string, 0, len(f.Card.Relays))
	for _, r := range f.Card.Relays {
		addresses = append(addresses, r.Address)
	}
	answers := c.askForCard(ctx, f.Key, addresses)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for i, a := range answers {
		relay := f.Card.Relays[i].PubKey
		var err error
		switch {
		case a.err == nil:
			err = c.state.TakeCard(ctx, a.card, state.Brought{Relay: &relay})
		case errors.Is(a.err, ErrTampered), errors.Is(a.err, errBadCard):
			err = c.state.NoticeBadCard(ctx, f.Key, relay, oneLine(a.err.Error()))
		default: // not an error of Sync: the card at hand is good. The next try is in an hour.
			c.log.Info("no newer card could be looked for", "friend", f.Name, "error", a.err)
		}
		if err != nil {
			return err
		}
	}
	return c.state.Refreshed(ctx, f.Key)
}
