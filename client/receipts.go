package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	receiptEvery    = time.Minute // while listening: what was pulled meanwhile goes into one record
	receiptTTL      = 30 * 24 * time.Hour
	receiptMaxPulls = 3
	// foreignReceipts is how many go into one record on a relay that is not ours: what it takes from an admitted
	// key is small.
	foreignReceipts = 100
)

// LeaveReceipts writes the receipts that are due, as records to the senders of what was pulled: to each a few records, on
// our own relays, or, without any, on those of the sender, who may admit us. Those who pay for what this key writes
// are told what it wrote in the same way, and the user's other devices what happened here. [Client.Sync] and [Client.Listen] do
// so by themselves. They are queued on disk first, as messages are.
func (c *Client) LeaveReceipts(ctx context.Context) ([]RelayReport, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	senders, err := c.state.ReceiptsDue(ctx)
	if err != nil {
		return nil, err
	}
	own, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	queued, err := c.tellPayers(ctx, own)
	if err != nil {
		return nil, err
	}
	told, err := c.tellDevices(ctx, own)
	if err != nil {
		return nil, err
	}
	queued = queued || told
	for _, sender := range senders {
		f, err := c.Friend(ctx, sender)
		if errors.Is(err, ErrNoFriend) {
			continue // nobody to write to any more
		}
		if err != nil {
			return nil, err
		}
		some, err := c.queueReceipts(ctx, f, own)
		if err != nil {
			return nil, err
		}
		queued = queued || some
	}
	if !queued {
		return nil, nil
	}
	return c.Flush(ctx)
}

// queueReceipts seals what is due to one friend and queues it.
func (c *Client) queueReceipts(ctx context.Context, f *Friend, own []Relay) (queued bool, err error) {
	to, ok := f.Card.SealingKey()
	if !ok {
		return false, nil
	}
	relays, most := own, protocol.MaxReceipts
	if len(own) == 0 {
		most = foreignReceipts
		for _, r := range f.Card.Relays {
			relays = append(relays, Relay{Key: r.PubKey, Address: r.Address})
		}
	}
	if len(relays) == 0 {
		return false, nil
	}
	for {
		some, err := c.state.EnqueueReceipts(ctx, f.Key, relays, most, func(device string, due []protocol.Receipt) (*Outgoing, error) {
			return c.sealBooks(f.Key, to, device, protocol.ReceiptType, &protocol.Receipts{Receipts: due})
		})
		if err != nil || !some {
			return queued, err
		}
		queued = true
	}
}

// leaveReceipts does so now and then, until ctx ends. What fails is tried again; nobody waits for it.
func (c *Client) leaveReceipts(ctx context.Context) error {
	for wait(ctx, receiptEvery, nil) {
		if _, err := c.LeaveReceipts(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

// receiptsOf is what a record of receipts says; nil for a message, also one that only looks like receipts.
func receiptsOf(m *state.Message) []protocol.Receipt {
	if m.Tag != protocol.ReceiptTag || m.ContentType != protocol.ReceiptType {
		return nil
	}
	r, err := protocol.ParseReceipts(m.Body)
	if err != nil {
		return nil
	}
	return r.Receipts
}

// errUnwanted ends the tries to leave receipts, cards and first words where we are not admitted: nobody waits for them. Cards are tried again
// after a day.
var errUnwanted = errors.New("the relay takes nothing of this kind of ours")

// unlessUnwanted is the error of storing a message, but for receipts and the like that a relay refuses.
func (c *Client) unlessUnwanted(p *peer, m *Outgoing, err error) error {
	var refusal *RelayError
	if m.Tag != protocol.ReceiptTag || !errors.As(err, &refusal) || refusal.Temporary() {
		return err
	}
	c.log.Info("what programs write by themselves is not left", "relay", p.address, "type", m.ContentType, "error", err)
	return fmt.Errorf("%w: %s", errUnwanted, err)
}

// Receipts lists what readers say that they have of our records from a relay, in the order in which they got it.
func (c *Client) Receipts(ctx context.Context, relay protocol.PublicKey) ([]protocol.Receipt, error) {
	return c.state.Receipts(ctx, relay)
}
