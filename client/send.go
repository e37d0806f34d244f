package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Defaults of [SendOptions].
const (
	DefaultTTL         = 30 * 24 * time.Hour
	DefaultMaxPulls    = 8
	DefaultCopies      = 1
	DefaultContentType = "text/plain; charset=utf-8"
)

// lateGrace is how long relays that are still at it may take once enough others have the message.
const lateGrace = 3 * time.Second

// SendOptions say how a message is sent; the zero value is the defaults.
type SendOptions struct {
	TTL         time.Duration // how long relays keep it, 30 days
	Tag         protocol.Tag  // a word that relays can see
	MaxPulls    int64         // how often each relay serves it at most, 8
	Copies      int           // how many relays must confirm it, 1
	ContentType string        // text/plain; charset=utf-8
	Name        string        // a file's name
	// Plain: the message is not sealed. Every relay that has it can read it; it is for those that take nothing else.
	Plain bool
}

// Outgoing is a message of the user, with where each copy stands.
type Outgoing = state.Outgoing

// Copy is one relay's copy of a message.
type Copy = state.Copy

// CopyStored is the state of a copy that its relay has on disk.
const CopyStored = state.CopyStored

// Send seals a message to a friend and leaves it on all of the user's relays, each of which is
// repeated while ctx lasts and it may still succeed. It returns when enough relays
// (SendOptions.Copies) have it on disk and the others answered or had a little more time.
//
// The message is on this disk, and numbered, before it is sent. If fewer relays than asked for
// confirmed it, the error is an ErrNotStored and the message is returned as well: it stays queued, and goes out
// with the next Send, Sync or Flush. Do not send it again. When no relay may take it any more, the error is an
// ErrRefused instead; one that is too large for them all is found before it is queued, ErrTooLarge.
func (c *Client) Send(ctx context.Context, friend protocol.PublicKey, body []byte, o SendOptions) (*Outgoing, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	if err := o.complete(body); err != nil {
		return nil, err
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, ErrNoRelays
	}
	able, err := c.taking(ctx, relays, o.Tag, o.Plain)
	if err != nil {
		return nil, err
	}
	if len(able) > 0 {
		relays = able // else they may have been given something else since, and if not, say so
	}
	if o.Copies > len(relays) {
		return nil, fmt.Errorf("%d copies are asked for and you have %d relays that take this: add relays or ask for fewer copies", o.Copies, len(relays))
	}
	f, err := c.Friend(ctx, friend)
	if err != nil {
		return nil, err
	}
	to, ok := f.Card.SealingKey()
	if !ok {
		return nil, ErrNoSealing
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	m := Outgoing{ID: protocol.RecordID(id.String()), Tag: o.Tag, ContentType: o.ContentType, Name: o.Name, Body: body,
		Expires: c.now().Add(o.TTL), MaxPulls: o.MaxPulls}
	if o.Plain {
		to = nil
	}
	message, err := c.state.Enqueue(ctx, friend, relays, c.sealer(m, friend, to, relays, o.Copies))
	if err != nil {
		return nil, err
	}
	sent, err := c.deliverNow(ctx, message.N, relays, o.Copies)
	c.tellSoon(ctx)
	return sent, err
}

// sealer seals a message, or packs it open if to is nil, once its number is known, and finds it too large before it is stored.
func (c *Client) sealer(m Outgoing, friend protocol.PublicKey, to *protocol.SealingPublicKey, relays []Relay, copies int) func(string, int64) (*Outgoing, error) {
	return func(device string, seq int64) (_ *Outgoing, err error) {
		sealContext := protocol.SealContext{From: c.Key(), To: friend, RecordID: m.ID, Tag: optionalTag(m.Tag)}
		header := protocol.SealedHeader{ContentType: m.ContentType, Device: device, Seq: seq, Name: m.Name}
		if to == nil {
			m.Sealed, err = protocol.Plain(header, m.Body)
		} else {
			m.Sealed, err = protocol.Seal(to, sealContext, header, m.Body)
		}
		if err != nil {
			return nil, err
		}
		return &m, c.checkSize(&m, friend, relays, copies)
	}
}

// complete fills in defaults and checks what a person may get wrong.
func (o *SendOptions) complete(body []byte) error {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.MaxPulls == 0 {
		o.MaxPulls = DefaultMaxPulls
	}
	if o.Copies == 0 {
		o.Copies = DefaultCopies
	}
	if o.ContentType == "" {
		o.ContentType = DefaultContentType
	}
	switch {
	case o.TTL < time.Second:
		return errors.New("a message has to live for a second at least")
	case o.MaxPulls < 1 || o.MaxPulls > protocol.MaxPullsLimit:
		return fmt.Errorf("max-pulls is 1 to %d", protocol.MaxPullsLimit)
	case o.Copies < 1:
		return errors.New("copies is 1 or more")
	case strings.HasPrefix(o.ContentType, "text/") && !utf8.Valid(body):
		return ErrNotText
	case o.Tag == protocol.ReceiptTag:
		return fmt.Errorf("the tag %s is for receipts, which are written by themselves: choose another", protocol.ReceiptTag)
	case o.Tag != "":
		return o.Tag.Validate()
	}
	return nil
}

func optionalTag(tag protocol.Tag) *protocol.Tag {
	if tag == "" {
		return nil
	}
	return &tag
}

// deliverNow has all relays work on a message until enough of them have it.
func (c *Client) deliverNow(ctx context.Context, n int64, relays []Relay, copies int) (*Outgoing, error) {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	enough := make(chan struct{})
	results := make(chan error, len(relays))
	for _, r := range relays {
		go func() { results <- c.deliverUntil(work, r, n, enough) }()
	}
	stored := 0
	var failures []error
	var late <-chan time.Time
	for range relays {
		select {
		case err := <-results:
			if err != nil {
				failures = append(failures, err)
			} else if stored++; stored == copies {
				close(enough)
				late = time.After(lateGrace)
			}
		case <-late:
			cancel()
			late = nil
			if err := <-results; err != nil {
				failures = append(failures, err)
			}
		}
	}
	// The outcome is read with a context of its own: the message is on disk whatever became of the caller's.
	read, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	message, err := c.state.Outgoing(read, n)
	if err != nil {
		return nil, err
	}
	if stored < copies && !waits(message) {
		return message, fmt.Errorf("%w by %d of %d relays: %w", ErrRefused, len(relays)-stored, len(relays), errors.Join(failures...))
	}
	if stored < copies {
		return message, fmt.Errorf("%w (%d of %d): %w", ErrNotStored, stored, copies, errors.Join(failures...))
	}
	return message, nil
}

// waits tells whether a copy may still be stored.
func waits(m *Outgoing) bool {
	return slices.ContainsFunc(m.Copies, func(c Copy) bool { return c.State == state.CopyQueued })
}

// checkSize finds a message that is too large before it is numbered: the receiver would see its
// number missing.
func (c *Client) checkSize(m *Outgoing, to protocol.PublicKey, relays []Relay, copies int) error {
	sized := *m
	sized.To = to
	e, err := c.build(&sized, relays[0].Key)(c.now())
	if err != nil {
		return err
	}
	fits, most := 0, int64(0)
	for _, r := range relays {
		most = max(most, r.Bytes)
		if e.Size() <= r.Bytes {
			fits++
		}
	}
	if fits < copies {
		return fmt.Errorf("%w: sealed it has %d bytes, and %d of your %d relays take that many (the largest record is %d)",
			ErrTooLarge, e.Size(), fits, len(relays), most)
	}
	return nil
}

// build makes the envelope of one copy. It is the same request each time, so that repeating it is
// harmless, under a new time when the old one grows stale.
func (c *Client) build(m *Outgoing, relay protocol.PublicKey) func(protocol.Timestamp) (*protocol.Envelope, error) {
	return func(at protocol.Timestamp) (*protocol.Envelope, error) {
		signer, err := c.signerOf(m)
		if err != nil {
			return nil, err
		}
		return protocol.Sign(signer, m.To, at, &protocol.Write{
			Relay: relay, RecordID: m.ID, Expires: m.Expires, MaxPulls: m.MaxPulls, Tag: optionalTag(m.Tag),
			Content: base64.StdEncoding.EncodeToString(m.Sealed),
		})
	}
}

// signerOf is whose record a message is: the user's, or that of an invitation which he uses.
func (c *Client) signerOf(m *Outgoing) (*protocol.PrivateKey, error) {
	if m.Signer == nil {
		return c.identity, nil
	}
	if len(m.Signer) != 32 {
		return nil, errors.New("the kept secret of an invitation is damaged")
	}
	return protocol.NewPrivateKey([32]byte(m.Signer))
}
