package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// firstWordPulls is how often a relay serves a first word: its reader may have some devices.
const firstWordPulls = 4

// Stranger is who left a first word by an invitation, and is no friend.
type Stranger struct {
	Key        protocol.PublicKey
	Card       protocol.Identity
	Dated      protocol.Timestamp
	Received   protocol.Timestamp
	Invitation protocol.PublicKey
}

// ErrNoStranger: nobody of this key left a first word, or he is a friend by now.
var ErrNoStranger = state.ErrNoStranger

// AddFriendByInvitation adds who made an invitation, as AddFriendByLink does, and leaves him a first word: the user's card and some text,
// at most [protocol.MaxFirstWordText] characters. The user needs no relay for that. The word is queued on disk first; what does not go
// out now does with the next Sync. It returns where the word stands. If no relay takes it any more the error is ErrUsedUp, and he is a friend all the same.
func (c *Client) AddFriendByInvitation(ctx context.Context, text, name, word string) (*Friend, *Outgoing, error) {
	if err := c.unlocked(); err != nil {
		return nil, nil, err
	}
	if !utf8.ValidString(word) || utf8.RuneCountInString(word) > protocol.MaxFirstWordText {
		return nil, nil, fmt.Errorf("a first word is text of at most %d characters", protocol.MaxFirstWordText)
	}
	invitation, err := protocol.ParseInvitation(strings.TrimSpace(text))
	if err != nil {
		return nil, nil, err
	}
	if invitation.Link.Key == c.Key() {
		return nil, nil, errors.New("this is an invitation of your own: give it to somebody else")
	}
	f, err := c.AddFriendByLink(ctx, invitation.Link.String(), name)
	if err != nil {
		return nil, nil, err
	}
	queued, err := c.queueWord(ctx, f, invitation.Key, word)
	if err != nil {
		return f, nil, err
	}
	if _, err := c.Flush(ctx); err != nil {
		return f, nil, err
	}
	sent, err := c.state.Outgoing(ctx, queued.N)
	if err != nil {
		return f, nil, err
	}
	if !slices.ContainsFunc(sent.Copies, func(at Copy) bool { return at.State != state.CopyFailed }) {
		reason := ""
		if len(sent.Copies) > 0 {
			reason = sent.Copies[0].Error
		}
		return f, sent, fmt.Errorf("%w (%s)", ErrUsedUp, reason)
	}
	return f, sent, nil
}

// queueWord seals a first word for a friend and queues it for his relays.
func (c *Client) queueWord(ctx context.Context, f *Friend, by *protocol.PrivateKey, text string) (*Outgoing, error) {
	to, ok := f.Card.SealingKey()
	if !ok {
		return nil, ErrNoSealing
	}
	var relays []Relay
	for _, r := range f.Card.Relays {
		relays = append(relays, Relay{Key: r.PubKey, Address: r.Address})
	}
	if len(relays) == 0 {
		return nil, fmt.Errorf("%w: the card names no relay any more", ErrUsedUp)
	}
	card, err := c.Card(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.state.SetCard(ctx, card.Bytes()); err != nil { // what was shown to anybody is what the next one follows
		return nil, err
	}
	word, err := protocol.Sign(c.identity, f.Key, c.now(), &protocol.FirstWord{Invitation: by.Public(), Text: text, Card: card.Bytes()})
	if err != nil {
		return nil, err
	}
	m, err := c.sealBy(by, f.Key, to, c.state.Device(), protocol.FirstWordType, word.Bytes(), InvitationTTL, firstWordPulls)
	if err != nil {
		return nil, err
	}
	return m, c.state.EnqueueFor(ctx, f.Key, relays, m)
}

// wordOf is what was left by the key of an invitation: a first word, or what is wrong with it.
func (c *Client) wordOf(m *state.Message) *state.WordRecord {
	if m.Fault != "" {
		return &state.WordRecord{Fault: m.Fault}
	}
	if m.Plain || m.Tag != protocol.ReceiptTag || m.ContentType != protocol.FirstWordType {
		return &state.WordRecord{Fault: "it is no first word"}
	}
	w, card, err := protocol.ParseFirstWord(m.Body, m.From, c.Key(), c.now())
	if err != nil {
		return &state.WordRecord{Fault: oneLine(err.Error())}
	}
	return &state.WordRecord{Text: w.Text, Card: card}
}

// Strangers lists who left a first word and is no friend, the newest last.
func (c *Client) Strangers(ctx context.Context) ([]Stranger, error) {
	stored, err := c.state.Strangers(ctx)
	if err != nil {
		return nil, err
	}
	strangers := make([]Stranger, 0, len(stored))
	for _, s := range stored {
		one := Stranger{Key: s.Key, Received: s.Received, Invitation: s.Invitation}
		if one.Dated, err = readKept(s.Card, &one.Card); err != nil {
			return nil, err
		}
		strangers = append(strangers, one)
	}
	return strangers, nil
}

// AcceptStranger makes a friend of who left a first word. ErrNoStranger.
func (c *Client) AcceptStranger(ctx context.Context, key protocol.PublicKey, name string) (*Friend, error) {
	stored, err := c.state.Strangers(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(stored, func(s state.Stranger) bool { return s.Key == key })
	if at < 0 {
		return nil, ErrNoStranger
	}
	f, err := c.AddFriend(ctx, stored[at].Card, name)
	if err != nil {
		return nil, err
	}
	return f, c.state.DeleteStranger(ctx, key)
}
