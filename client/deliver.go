package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Flush sends what is still queued and deletes what is to be removed, one try each. The reports
// are about the relays that had something to do, but for those that failed at receipts alone: they wait for the next time.
func (c *Client) Flush(ctx context.Context) ([]RelayReport, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	relays, err := c.state.WaitingRelays(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := c.state.GoneRelays(ctx)
	if err != nil {
		return nil, err
	}
	reports := make([]RelayReport, len(relays))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, r := range relays {
		group.Go(func() error {
			limited := ctx
			if r.OnlyReceipts && slices.ContainsFunc(gone, func(g Relay) bool { return g.Key == r.Key }) {
				var cancel context.CancelFunc
				limited, cancel = context.WithTimeout(ctx, tellTime) // a relay that the user removed may be dead
				defer cancel()
			}
			done, err := c.deliverQueue(limited, r.Relay, 0)
			reports[i] = RelayReport{Relay: r.Key, Address: r.Address, Delivered: done, Err: err}
			return nil
		})
	}
	err = group.Wait()
	told := reports[:0]
	for i, r := range reports {
		if r.Err != nil && relays[i].OnlyReceipts {
			c.log.Info("receipts wait", "relay", r.Address, "error", r.Err)
			continue
		}
		told = append(told, r)
	}
	return told, err
}

// deliverUntil works off a relay's queue until message n is settled there. It goes on after what
// may pass by itself, while ctx lasts and enough other relays do not have it yet.
func (c *Client) deliverUntil(ctx context.Context, relay Relay, n int64, enough <-chan struct{}) error {
	pauses := backoff{first: 250 * time.Millisecond, most: 15 * time.Second}
	for {
		_, err := c.deliverQueue(ctx, relay, n)
		settled, reason := c.settled(ctx, n, relay.Key)
		if settled {
			return reason
		}
		var refusal *RelayError
		if !errors.As(err, &refusal) || !refusal.Temporary() || ctx.Err() != nil {
			return errors.Join(err, reason)
		}
		if !wait(ctx, pauses.next(err), enough) {
			return err
		}
	}
}

// settled tells whether a copy waits for nothing more, and the reason if it failed.
func (c *Client) settled(ctx context.Context, n int64, relay protocol.PublicKey) (bool, error) {
	read, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	copied, err := c.state.Copy(read, n, relay)
	switch {
	case err != nil:
		return false, err
	case copied.State == state.CopyFailed:
		return true, errors.New(copied.Error)
	}
	return copied.State != state.CopyQueued, nil
}

// deliverQueue works off what waits for a relay, oldest first, until something does not go through
// now. What is refused for good is noted and passed over. When an older message waits for somebody
// to do something (an account, space), only message last is tried still: it may be for a
// receiver who admits it.
func (c *Client) deliverQueue(ctx context.Context, relay Relay, last int64) (done int, err error) {
	p, err := c.peer(relay.Key, relay.Address)
	if err != nil {
		return 0, err
	}
	numbers, err := c.state.Waiting(ctx, relay.Key)
	if err != nil {
		return 0, err
	}
	var refused error
	for _, n := range numbers {
		if refused != nil && n != last {
			continue
		}
		err := c.deliverOne(ctx, p, n)
		var refusal *RelayError
		switch {
		case err == nil:
			done++
		case errors.As(err, &refusal) && !refusal.Temporary():
			refused = err
		default:
			return done, err
		}
	}
	return done, refused
}

// deliverOne does what one copy waits for. A refusal for good is noted in the copy and is no error here.
func (c *Client) deliverOne(ctx context.Context, p *peer, n int64) error {
	m, err := c.state.Outgoing(ctx, n)
	if err != nil {
		return err
	}
	at, err := c.state.Copy(ctx, n, p.key)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	switch at.State {
	case state.CopyQueued:
		return c.noteCopy(ctx, p, n, state.CopyQueued, c.unlessUnwanted(p, m, c.store(limited, p, m)))
	case state.CopyRemoving:
		if m.Expires <= c.now() { // there is nothing any more
			return c.noteCopy(ctx, p, n, state.CopyRemoving, nil)
		}
		return c.noteCopy(ctx, p, n, state.CopyRemoving, c.erase(limited, p, m))
	}
	return nil // another process was faster
}

// errEnded says that a record is over before it was confirmed.
var errEnded = errors.New("it expired before the relay took it")

func (c *Client) store(ctx context.Context, p *peer, m *Outgoing) error {
	if m.Expires <= c.now() || m.Sealed == nil {
		return errEnded
	}
	signer, err := c.signerOf(m)
	if err != nil {
		return err
	}
	sign := c.build(m, p.key)
	path := protocol.Path{Sender: signer.Public(), Receiver: m.To, ID: m.ID}
	stored, err := p.write(ctx, path, func(at protocol.Timestamp) (*protocol.Envelope, error) {
		e, err := sign(at)
		if err != nil {
			return nil, err
		}
		return e, c.state.Attempt(ctx, m.N, p.key, e)
	})
	if err != nil {
		return err
	}
	ours, err := c.state.Stored(ctx, m.N, p.key, stored.Hash, stored.Cursor)
	if err == nil && !ours {
		return p.tampered("it confirms an envelope that was never signed")
	}
	return err
}

func (c *Client) erase(ctx context.Context, p *peer, m *Outgoing) error {
	err := p.delete(ctx, protocol.Path{Sender: c.Key(), Receiver: m.To, ID: m.ID})
	// Not found: it never arrived there. Gone: it ended by itself.
	if errors.Is(err, protocol.CodeNotFound) || errors.Is(err, protocol.CodeGone) {
		return nil
	}
	return err
}

// noteCopy notes the outcome of a try in the copy. It returns the error if the relay's queue cannot go on now.
func (c *Client) noteCopy(ctx context.Context, p *peer, n int64, was state.CopyState, err error) error {
	next, reason, pass := was, "", error(nil)
	var refusal *RelayError
	switch {
	case err == nil && was == state.CopyQueued:
		return nil // Stored noted it
	case err == nil, errors.Is(err, protocol.CodeGone):
		next = state.CopyGone
	case errors.Is(err, errEnded), errors.Is(err, errUnwanted):
		next, reason = state.CopyFailed, err.Error()
	case !errors.As(err, &refusal):
		return err
	case refusal.later():
		reason, pass = err.Error(), err
	default:
		next, reason = state.CopyFailed, err.Error()
	}
	// Also when the caller gave up meanwhile: the reason is what the user looks for later.
	note, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(pass, c.state.SetCopy(note, n, p.key, next, reason))
}

// FindOutgoing finds own messages by record id, or its beginning or end, newest last.
func (c *Client) FindOutgoing(ctx context.Context, id string) ([]Outgoing, error) {
	return c.state.OutgoingNamed(ctx, id)
}

// Outbox lists the newest own messages, oldest first; limit 0 is all.
func (c *Client) Outbox(ctx context.Context, limit int) ([]Outgoing, error) {
	return c.state.Outbox(ctx, limit)
}

// Remove deletes an own message from all relays, and, if it tells of a file, the pieces of that. What a relay does not do now is tried again by
// Flush, Send and Sync. Whoever has pulled the message keeps it.
func (c *Client) Remove(ctx context.Context, m *Outgoing) (*Outgoing, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	if m.ContentType == protocol.FileType {
		u, err := c.state.UploadOf(ctx, m.N)
		if err == nil {
			err = c.state.RemoveUpload(ctx, u.N)
		}
		if err != nil && !errors.Is(err, state.ErrNoUpload) {
			return nil, err
		}
	}
	if err := c.state.Remove(ctx, m.N); err != nil {
		return nil, err
	}
	if _, err := c.Flush(ctx); err != nil {
		return nil, err
	}
	c.tellSoon(ctx)
	return c.state.Outgoing(ctx, m.N)
}
