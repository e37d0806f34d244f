package client

import (
	"context"
	"slices"
	"time"

	"relaymarket/protocol"
)

// Usage is what one relay with a copy of everything would have had to do.
type Usage struct {
	Since    protocol.Timestamp // of the first message that counts
	Messages int
	Kept     int64 // bytes that would be stored at a time, if every month were like this one
	Moved    int64 // bytes written, and pulled once each
}

// usageWindow is the month that [Client.Usage] looks back.
const usageWindow = 30 * 24 * time.Hour

// What a record is beside its body, see docs/protocol.md: suite, key and tag around the sealed text, a header in it, and the
// envelope around base64 of all that.
const (
	sealedOverhead   = 1121 + 16
	headerSize       = 128
	envelopeOverhead = 600
)

// Usage is what was sent in the last thirty days, as sizes and lifetimes of envelopes: within some percent, because the
// envelopes themselves are not kept. It needs no keys.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Since: c.now().Add(-usageWindow)}
	sent, err := c.state.SentSince(ctx, u.Since)
	if err != nil {
		return Usage{}, err
	}
	window := usageWindow.Milliseconds()
	for _, s := range sent {
		size := int64(sealedOverhead+protocol.PaddedSize(headerSize+int(s.Body)))*4/3 + envelopeOverhead
		life := max(int64(s.Expires-s.Created), 0)
		u.Messages++
		u.Kept += size * (life / time.Second.Milliseconds()) / (window / time.Second.Milliseconds()) // size is below 2^24
		u.Moved += 2 * size
	}
	return u, nil
}

// FriendsHubs are the hubs that friends name in their cards, each once. It needs no keys.
func (c *Client) FriendsHubs(ctx context.Context) ([]string, error) {
	friends, err := c.state.Friends(ctx)
	if err != nil {
		return nil, err
	}
	var hubs []string
	for _, f := range friends {
		e, err := protocol.ParseEnvelope(f.Card)
		if err != nil {
			continue
		}
		var card protocol.Identity
		if e.Decode(&card) != nil {
			continue
		}
		for _, hub := range card.Hubs {
			if !slices.Contains(hubs, hub) {
				hubs = append(hubs, hub)
			}
		}
	}
	return hubs, nil
}
