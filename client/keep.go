package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// keptPulls is how often a relay serves a kept document: once for each time the user restores. Each is reserved in the
// credit of whoever pays for it.
const keptPulls = 50

// ErrNoOtherRelay: a document is to be kept on another relay, and the user has no other.
var ErrNoOtherRelay = errors.New("you have no other relay to keep it on: add one with its address")

// Keep seals a document to the user himself and leaves it on his relays other than except, for ttl: what the
// seed words cannot give back survives the disk there. It returns when one of them has it on disk. The rest waits
// like a message that was sent, and goes out with the next Send, Sync or Flush. Without another relay the
// error is ErrNoOtherRelay; repeating it keeps a second copy, which harms nothing.
func (c *Client) Keep(ctx context.Context, contentType string, body []byte, ttl time.Duration, except protocol.PublicKey) (*Outgoing, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	relays = slices.DeleteFunc(relays, func(r Relay) bool { return r.Key == except })
	if len(relays) == 0 {
		return nil, ErrNoOtherRelay
	}
	if relays, err = c.taking(ctx, relays, "", false); err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, ErrNoOtherRelay
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	message, err := c.state.Enqueue(ctx, c.Key(), relays, func(device string, seq int64) (*Outgoing, error) {
		m := &Outgoing{ID: protocol.RecordID(id.String()), ContentType: contentType, Body: body,
			Expires: c.now().Add(ttl), MaxPulls: keptPulls}
		header := protocol.SealedHeader{ContentType: contentType, Device: device, Seq: seq}
		m.Sealed, err = protocol.Seal(c.sealing.Public(), protocol.SealContext{From: c.Key(), To: c.Key(), RecordID: m.ID}, header, body)
		if err != nil {
			return nil, err
		}
		return m, c.checkSize(m, c.Key(), relays, 1)
	})
	if err != nil {
		return nil, err
	}
	return c.deliverNow(ctx, message.N, relays, 1)
}

// KeptAt pulls what the user keeps on a relay and returns all documents of a content type that are here, oldest
// first. The relay needs to be none of his own in this folder: the folder may be new, and of the relay only the
// address known. The documents count as read. Parts of a backup that came here with an ordinary pull have no body.
func (c *Client) KeptAt(ctx context.Context, typed, contentType string) ([]Message, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	p, _, _, err := c.meet(ctx, typed)
	if err != nil {
		return nil, err
	}
	if err := c.pullKept(ctx, p.key, p.address); err != nil {
		return nil, err
	}
	self := c.Key()
	messages, err := c.state.Messages(ctx, state.Filter{From: &self, Kept: true})
	if err != nil {
		return nil, err
	}
	messages = slices.DeleteFunc(messages, func(m Message) bool { return m.Fault != "" || m.ContentType != contentType })
	for _, m := range messages {
		if err := c.state.MarkRead(ctx, m.N); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// ForgetKept deletes from the relays what the user kept of a content type before message n, and drops from this disk the bodies of all
// that he keeps of it. What a relay does not do now waits, like what is to be sent.
func (c *Client) ForgetKept(ctx context.Context, contentType string, before int64) error {
	if err := c.unlocked(); err != nil {
		return err
	}
	numbers, err := c.state.Kept(ctx, contentType, before)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := c.state.Remove(ctx, n); err != nil {
			return err
		}
	}
	_, err = c.Flush(ctx)
	return err
}

// pullKept pulls one relay with the user himself among the senders.
func (c *Client) pullKept(ctx context.Context, relay protocol.PublicKey, address string) error {
	at, err := c.postWithSelf(ctx, relay, address)
	if err != nil {
		return err
	}
	at.backups = true
	report, err := c.pullPost(ctx, at)
	return errors.Join(err, report.Err)
}

// postWithSelf is the relay with the friends who are pulled there anyway, so that how far they were pulled is
// not forgotten, and the user himself.
func (c *Client) postWithSelf(ctx context.Context, relay protocol.PublicKey, address string) (post, error) {
	posts, err := c.posts(ctx)
	if err != nil {
		return post{}, err
	}
	at := post{key: relay}
	for _, p := range posts {
		if p.key == relay {
			at.friends, at.invitations = p.friends, p.invitations
		}
	}
	at.addresses = []string{address}
	if !slices.Contains(at.friends, c.Key()) {
		at.friends = append(at.friends, c.Key())
	}
	return at, nil
}
