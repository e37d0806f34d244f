package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

// maxReceipt is the longest answer that is read.
const maxReceipt = 4 << 10

// Remote is a hub at a NATS server elsewhere.
type Remote struct {
	name    string
	network protocol.Network
	conn    *nats.Conn
}

var _ Hub = (*Remote)(nil)

// Dial begins to connect to a hub. The connection is tried until ctx is done, which closes it.
func Dial(ctx context.Context, network protocol.Network, hub string, access feed.Access) (*Remote, error) {
	conn, err := feed.Connect(ctx, hub, access)
	if err != nil {
		return nil, err
	}
	name := hub
	if u, err := url.Parse(hub); err == nil {
		name = u.Redacted()
	}
	return &Remote{name: name, network: network, conn: conn}, nil
}

// Name implements [Hub].
func (r *Remote) Name() string { return r.name }

// Announce implements [Hub].
func (r *Remote) Announce(ctx context.Context, envelope []byte) (broadcast.Receipt, error) {
	if !r.conn.IsConnected() {
		return broadcast.Receipt{}, errors.New("there is no connection")
	}
	m, err := r.conn.RequestWithContext(ctx, broadcast.IngestSubject(r.network), envelope)
	if errors.Is(err, nats.ErrNoResponders) {
		return broadcast.Receipt{}, feed.ErrNoHub
	}
	if err != nil {
		return broadcast.Receipt{}, err
	}
	var receipt broadcast.Receipt
	if len(m.Data) > maxReceipt || json.Unmarshal(m.Data, &receipt) != nil {
		return broadcast.Receipt{}, fmt.Errorf("its answer is no receipt")
	}
	return receipt, nil
}
