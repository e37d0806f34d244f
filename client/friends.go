package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Friend is somebody whose messages are pulled and to whom messages can be sent.
type Friend struct {
	Key   protocol.PublicKey
	Name  string // local, unique whatever its case
	Card  protocol.Identity
	Dated protocol.Timestamp // of the card
	Added protocol.Timestamp
	// Refused is the date of the card with which he was added again, if a newer one was known already.
	Refused protocol.Timestamp
}

// AddFriend adds somebody by his card, the bytes of a *.relayid file. The name may be empty: then
// the card's label is taken or, if that cannot be a name or is taken, the key. Of a friend who is
// there already, the newer card counts, and a name that is given is the new one. The user's own card makes himself his
// friend, to whom he can send.
func (c *Client) AddFriend(ctx context.Context, card []byte, name string) (*Friend, error) {
	e, id, err := protocol.ParseCard(card, c.now())
	if err != nil {
		return nil, fmt.Errorf("the card is not valid: %w", err)
	}
	return c.addFriend(ctx, e, id, name)
}

// AddFriendByLink adds somebody by his link, relaymarket:relay1…: the card is fetched from the
// relays in it, and the newest valid one counts. ErrNoCard says why there is none.
func (c *Client) AddFriendByLink(ctx context.Context, text, name string) (*Friend, error) {
	link, err := protocol.ParseLink(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	if len(link.Relays) == 0 {
		return nil, fmt.Errorf("%w: the link names no relay, ask for the card as a file", ErrNoCard)
	}
	for _, pin := range link.Pins { // whose own certificates are taken
		if _, err := c.peer(pin.PubKey, pin.Address); err != nil {
			return nil, err
		}
	}
	e, id, err := c.fetchCard(ctx, link.Key, link.Relays)
	if err != nil {
		return nil, err
	}
	return c.addFriend(ctx, e, id, name)
}

func (c *Client) addFriend(ctx context.Context, e *protocol.Envelope, id *protocol.Identity, name string) (*Friend, error) {
	old, err := c.state.Friend(ctx, e.From)
	known := err == nil
	if err != nil && !errors.Is(err, state.ErrNoFriend) {
		return nil, err
	}
	given, kept := e.Timestamp, e.Bytes()
	if known {
		if err := c.state.TakeCard(ctx, e, state.Brought{}); err != nil {
			return nil, err
		}
		if old, err = c.state.Friend(ctx, e.From); err != nil {
			return nil, err
		}
		kept = old.Card
		if name == "" {
			name = old.Name
		}
	}
	if name == "" {
		if name, err = c.freeName(ctx, nameFrom(id.Label), e.From); err != nil {
			return nil, err
		}
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := c.state.AddFriend(ctx, e.From, name, kept); err != nil {
		return nil, err
	}
	f, err := c.Friend(ctx, e.From)
	if err == nil && f.Dated > given {
		f.Refused = given
	}
	return f, err
}

// freeName is the wish, or a name made of the key.
func (c *Client) freeName(ctx context.Context, wish string, key protocol.PublicKey) (string, error) {
	fallback := key.Bech32()[len("relay1"):][:8]
	if wish == "" {
		return fallback, nil
	}
	_, err := c.state.FriendNamed(ctx, wish)
	if errors.Is(err, state.ErrNoFriend) {
		return wish, nil
	}
	return fallback, err
}

// cardAnswer is what one relay answered when it was asked for a card.
type cardAnswer struct {
	card *protocol.Envelope
	id   *protocol.Identity
	err  error
}

// askForCard asks relays for somebody's card, each at once.
func (c *Client) askForCard(ctx context.Context, owner protocol.PublicKey, addresses []string) []cardAnswer {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers := make([]cardAnswer, len(addresses))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, address := range addresses {
		group.Go(func() error {
			a := &answers[i]
			a.card, a.id, a.err = c.cardFrom(ctx, address, owner)
			return nil
		})
	}
	_ = group.Wait() // the functions return nil
	return answers
}

// fetchCard asks relays for somebody's card. The newest valid one counts.
func (c *Client) fetchCard(ctx context.Context, owner protocol.PublicKey, addresses []string) (*protocol.Envelope, *protocol.Identity, error) {
	var best *cardAnswer
	reasons := []error{ErrNoCard}
	answers := c.askForCard(ctx, owner, addresses)
	for i := range answers {
		a := &answers[i]
		switch {
		case a.err != nil:
			reasons = append(reasons, a.err)
		case best == nil || protocol.SupersedesCard(a.card, best.card):
			best = a
		}
	}
	if best == nil {
		return nil, nil, errors.Join(reasons...)
	}
	return best.card, best.id, nil
}

// errBadCard says that a relay serves what is no card, or one that cannot count yet.
var errBadCard = errors.New("its card is not valid")

func (c *Client) cardFrom(ctx context.Context, address string, owner protocol.PublicKey) (*protocol.Envelope, *protocol.Identity, error) {
	p, err := c.peer(protocol.PublicKey{}, address)
	if err != nil {
		return nil, nil, err
	}
	return c.cardOn(ctx, p, owner)
}

func (c *Client) cardOn(ctx context.Context, p *peer, owner protocol.PublicKey) (*protocol.Envelope, *protocol.Identity, error) {
	data, err := p.card(ctx, owner)
	if err != nil {
		return nil, nil, err
	}
	e, id, err := protocol.ParseCard(data, c.now())
	if err != nil {
		return nil, nil, p.fail(fmt.Errorf("%w: %w", errBadCard, err))
	}
	if e.From != owner {
		return nil, nil, p.tampered("it serves the card of %s for that of %s", e.From.Short(), owner.Short())
	}
	return e, id, nil
}

// RemoveFriend forgets a friend: he is not pulled any more. His messages stay.
func (c *Client) RemoveFriend(ctx context.Context, key protocol.PublicKey) error {
	return c.state.DeleteFriend(ctx, key)
}

// Friends lists all friends by name.
func (c *Client) Friends(ctx context.Context) ([]Friend, error) {
	stored, err := c.state.Friends(ctx)
	if err != nil {
		return nil, err
	}
	friends := make([]Friend, 0, len(stored))
	for _, s := range stored {
		f, err := openFriend(s)
		if err != nil {
			return nil, err
		}
		friends = append(friends, *f)
	}
	return friends, nil
}

// Friend finds a friend by key. ErrNoFriend.
func (c *Client) Friend(ctx context.Context, key protocol.PublicKey) (*Friend, error) {
	s, err := c.state.Friend(ctx, key)
	if err != nil {
		return nil, err
	}
	return openFriend(s)
}

// FindFriend finds a friend by what a person types: his name, whatever its case, or his key. The error,
// an ErrNoFriend, names those that are spelled almost the same.
func (c *Client) FindFriend(ctx context.Context, typed string) (*Friend, error) {
	s, err := c.state.FriendNamed(ctx, typed)
	if err == nil {
		return openFriend(s)
	}
	if !errors.Is(err, state.ErrNoFriend) {
		return nil, err
	}
	if key, err := protocol.ParsePublicKey(typed); err == nil {
		if f, err := c.Friend(ctx, key); err == nil || !errors.Is(err, ErrNoFriend) {
			return f, err
		}
	}
	friends, err := c.state.Friends(ctx)
	if err != nil {
		return nil, err
	}
	return nil, &UnknownFriendError{Typed: typed, Similar: similar(typed, friends), Any: len(friends) > 0}
}

func openFriend(s state.Friend) (*Friend, error) {
	e, err := protocol.ParseEnvelope(s.Card)
	if err != nil {
		return nil, fmt.Errorf("the kept card of %s: %w", s.Name, err)
	}
	f := &Friend{Key: s.Key, Name: s.Name, Dated: e.Timestamp, Added: s.Added}
	if err := e.Decode(&f.Card); err != nil {
		return nil, fmt.Errorf("the kept card of %s: %w", s.Name, err)
	}
	return f, nil
}

// UnknownFriendError says that nobody has the name that was typed.
type UnknownFriendError struct {
	Typed   string
	Similar []string // names spelled almost so
	Any     bool     // there are friends at all
}

// Error names those who may be meant.
func (e *UnknownFriendError) Error() string {
	switch {
	case !e.Any:
		return fmt.Sprintf("no friend is named %q: you have none yet, add one by card or link", e.Typed)
	case len(e.Similar) == 0:
		return fmt.Sprintf("no friend is named %q", e.Typed)
	}
	return fmt.Sprintf("no friend is named %q, did you mean %s?", e.Typed, strings.Join(e.Similar, " or "))
}

// Is makes it an ErrNoFriend.
func (e *UnknownFriendError) Is(target error) bool { return target == ErrNoFriend }

func similar(typed string, friends []state.Friend) []string {
	var names []string
	typed = strings.ToLower(typed)
	for _, f := range friends {
		name := strings.ToLower(f.Name)
		if distance(typed, name) <= max(1, (len([]rune(name))+1)/3) || typed != "" && strings.HasPrefix(name, typed) {
			names = append(names, f.Name)
		}
	}
	return names[:min(len(names), 5)]
}

// distance is Levenshtein's: the letters to insert, drop or replace.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	if len(s) > 64 || len(t) > 64 {
		return len(s) + len(t)
	}
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i := range s {
		next := slices.Clone(row)
		next[0] = i + 1
		for j := range t {
			cost := 1
			if s[i] == t[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
		}
		row = next
	}
	return row[len(t)]
}
