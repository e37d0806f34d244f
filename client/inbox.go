package client

import (
	"context"

	"relaymarket/client/state"
)

// Filter chooses messages.
type Filter = state.Filter

// Messages lists messages in the order they arrived here.
func (c *Client) Messages(ctx context.Context, f Filter) ([]Message, error) {
	return c.state.Messages(ctx, f)
}

// FindMessages finds messages by record id, or its beginning or end. Two senders may use one id.
func (c *Client) FindMessages(ctx context.Context, id string) ([]Message, error) {
	return c.state.MessagesNamed(ctx, id)
}

// MarkRead notes that the user has read a message. The relay and the sender do not learn of it.
func (c *Client) MarkRead(ctx context.Context, m Message) error { return c.state.MarkRead(ctx, m.N) }

// Forget removes a received message from this device. It does not come back from any relay.
func (c *Client) Forget(ctx context.Context, m Message) error { return c.state.Forget(ctx, m.N) }

// Gaps lists all that friends sent and that is missing here.
func (c *Client) Gaps(ctx context.Context) ([]Gap, error) { return c.state.Gaps(ctx, 0) }
