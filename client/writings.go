package client

import (
	"context"
	"errors"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// tellPayers tells those whose contracts pay for what this key writes what was written, so that they can audit their bills:
// in records to them, as receipts are. A payer who is no friend cannot be told. It tells whether something was queued.
func (c *Client) tellPayers(ctx context.Context, own []Relay) (queued bool, err error) {
	payers, err := c.state.Payers(ctx)
	if err != nil {
		return false, err
	}
	for _, payer := range payers {
		to, err := c.payerKey(ctx, payer)
		if err != nil {
			return queued, err
		}
		if to == nil || len(own) == 0 {
			continue
		}
		for more := true; more; {
			more, err = c.state.EnqueueWritings(ctx, payer, own, protocol.MaxWritings, func(device string, due []protocol.Writing) (*Outgoing, error) {
				return c.sealBooks(payer, to, device, protocol.WritingsType, &protocol.Writings{Writings: due})
			})
			if err != nil {
				return queued, err
			}
			queued = queued || more
		}
	}
	return queued, nil
}

// payerKey is the key to seal to for a payer; nil if there is none. The user himself needs no card of his.
func (c *Client) payerKey(ctx context.Context, payer protocol.PublicKey) (*protocol.SealingPublicKey, error) {
	if payer == c.Key() {
		return c.sealing.Public(), nil
	}
	f, err := c.Friend(ctx, payer)
	if errors.Is(err, ErrNoFriend) {
		c.log.Info("who pays for what is written here cannot be told what it is: add him as a friend", "payer", payer.Bech32())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	to, _ := f.Card.SealingKey()
	return to, nil
}

// sealBooks seals a record that programs write by themselves: receipts, or writings.
func (c *Client) sealBooks(friend protocol.PublicKey, to *protocol.SealingPublicKey, device, contentType string, what any) (*Outgoing, error) {
	body, err := protocol.Canonicalize(what)
	if err != nil {
		return nil, err
	}
	return c.sealBy(nil, friend, to, device, contentType, body, receiptTTL, receiptMaxPulls)
}

// writingsOf is what a record of writings says; nil for any other message.
func writingsOf(m *state.Message) []protocol.Writing {
	if m.Tag != protocol.ReceiptTag || m.ContentType != protocol.WritingsType {
		return nil
	}
	w, err := protocol.ParseWritings(m.Body)
	if err != nil {
		return nil
	}
	return w.Writings
}
