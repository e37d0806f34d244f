package relaynode

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"relaymarket/api"
	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/broadcast/hubserver"
	"relaymarket/broadcast/publisher"
	"relaymarket/broadcast/reach"
	"relaymarket/protocol"
)

// Market says where the relay announces itself, and whether it is a hub. The zero value is a relay that is in no market.
type Market struct {
	Network     protocol.Network
	Hubs        []string // NATS URLs of hubs to be announced on; user and password may be in them
	Credentials string   // a .creds file for those, may be empty
	Bits        int      // of work; 0 is the network's usual
	Hub         *Hub     // nil: this relay is no hub
}

// Hub says how the relay is a hub: with a NATS server in this process, or on one elsewhere.
type Hub struct {
	Listen      string // host:port for everybody
	Folder      string // of the book
	TLS         *tls.Config
	Connections int // at once; 0 is hubserver's default

	NATS        string // URL of a server elsewhere with hubserver's policy, instead of Listen
	Credentials string // a .creds file for it, may be empty

	Address string   // where strangers reach the NATS server, announced; may be empty
	Peers   []string // hubs to take from
	Relays  int      // in the book at most; 0 is the usual
	Bits    int      // of work at least; 0 is the network's usual
}

// market is what runs of it.
type market struct {
	cfg       Market
	server    *hubserver.Server // nil when it is elsewhere, or there is no hub
	conn      *nats.Conn
	hub       *hub.Hub // nil: no hub
	publisher *publisher.Publisher
	hangUp    context.CancelFunc
}

func (m Market) wanted() bool { return m.Hub != nil || len(m.Hubs) > 0 }

// startMarket starts the hub's server, so that an address in use is found out at once; nobody is served yet.
func (n *node) startMarket() error {
	cfg := n.cfg.Market
	if !cfg.wanted() {
		return nil
	}
	ctx, hangUp := context.WithCancel(context.Background())
	n.market = &market{cfg: cfg, hangUp: hangUp}
	if cfg.Hub == nil {
		return nil
	}
	err := n.market.openHub(ctx, n.cfg, n.registry)
	if err != nil {
		n.market.close()
		n.market = nil
	}
	return err
}

func (m *market) openHub(ctx context.Context, cfg Config, r prometheus.Registerer) error {
	h, bounds := m.cfg.Hub, broadcast.DefaultBounds()
	if h.Relays > 0 {
		bounds.Bytes = bounds.Bytes / int64(bounds.Relays) * int64(h.Relays)
		bounds.Relays = h.Relays
	}
	rules := broadcast.Rules{Network: m.cfg.Network, Bits: orUsual(h.Bits, m.cfg.Network)}
	if err := m.connectHub(ctx, h, cfg, bounds); err != nil {
		return err
	}
	peers := make([]hub.Peer, len(h.Peers))
	for i, peer := range h.Peers {
		peers[i] = hub.Peer{URL: peer, Access: feed.Access{Name: "relayd hub", Credentials: m.cfg.Credentials}}
	}
	var err error
	m.hub, err = hub.New(hub.Config{Conn: m.conn, Rules: rules, Bounds: bounds, Peers: peers, Clock: cfg.Clock, Logger: cfg.Logger, Registerer: r})
	return err
}

func (m *market) connectHub(ctx context.Context, h *Hub, cfg Config, bounds broadcast.Bounds) (err error) {
	if h.NATS != "" {
		m.conn, err = feed.Connect(ctx, h.NATS, feed.Access{Name: "relayd hub", Credentials: h.Credentials})
		return err
	}
	m.server, err = hubserver.Start(hubserver.Config{Network: m.cfg.Network, Listen: h.Listen, Folder: h.Folder, Bytes: 3 * bounds.Bytes,
		Connections: h.Connections, TLS: h.TLS, Logger: cfg.Logger})
	if err != nil {
		return cannotListen("hub-listen", h.Listen, err)
	}
	if m.conn, err = m.server.Connect(); err != nil {
		return fmt.Errorf("connect to the hub in this process: %w", err)
	}
	return nil
}

func orUsual(bits int, n protocol.Network) int {
	if bits > 0 {
		return bits
	}
	return broadcast.DefaultBits(n)
}

// announced adds to what the api publishes where the relay is announced.
func (m *market) announced(public *api.Config, own string) {
	if m == nil {
		return
	}
	public.Network = m.cfg.Network
	local := m.cfg.Network == protocol.Regtest // a market on one machine
	public.Prober = reach.New(reach.Config{Rules: broadcast.Rules{Network: m.cfg.Network, Bits: broadcast.DefaultBits(m.cfg.Network)}, Clock: public.Clock, Local: local})
	if len(public.Addresses) == 0 && local {
		public.Addresses = []string{own} // where ports are not known before
	}
	var hubs []string
	if m.hub != nil {
		public.Market = m.hub
		hubs = append(hubs, public.Addresses...) // which serve GET /market
		if m.cfg.Hub.Address != "" {
			hubs = append(hubs, m.cfg.Hub.Address)
		}
	}
	for _, text := range m.cfg.Hubs {
		// What is secret of it is not announced.
		if u, err := url.Parse(text); err == nil {
			u.User = nil
			hubs = append(hubs, u.String())
		}
	}
	for _, h := range hubs {
		if protocol.ValidateHub(h) == nil && !slices.Contains(public.Hubs, h) && len(public.Hubs) < protocol.MaxCardHubs {
			public.Hubs = append(public.Hubs, h)
		}
	}
}

// publish makes the publisher.
func (m *market) publish(n *node, store publisher.Memory, addresses []string) error {
	if m == nil {
		return nil
	}
	if len(addresses) == 0 {
		n.cfg.Logger.Warn("this relay announces itself nowhere: nobody knows its public address, which is to be set")
		return nil
	}
	ctx, hangUp := context.WithCancel(context.Background())
	before := m.hangUp
	m.hangUp = func() { hangUp(); before() }
	var hubs []publisher.Hub
	if m.hub != nil {
		hubs = append(hubs, ownHub{m.hub})
	}
	for _, address := range m.cfg.Hubs {
		remote, err := publisher.Dial(ctx, m.cfg.Network, address, feed.Access{Name: "relayd", Credentials: m.cfg.Credentials})
		if err != nil {
			return err
		}
		hubs = append(hubs, remote)
	}
	m.publisher = publisher.New(publisher.Config{Key: n.cfg.Key, Words: n.api.Words, Adopt: n.api.Show, Bits: orUsual(m.cfg.Bits, m.cfg.Network),
		Hubs: hubs, Memory: store, Clock: n.cfg.Clock, Logger: n.cfg.Logger})
	return nil
}

// run runs hub and publisher until ctx is done.
func (m *market) run(ctx context.Context, group *errgroup.Group) {
	if m == nil {
		return
	}
	if m.hub != nil {
		group.Go(func() error { return m.hub.Run(ctx) })
	}
	if m.publisher != nil {
		group.Go(func() error { return m.publisher.Run(ctx) })
	}
}

// url is where strangers reach the hub in this process; empty if there is none.
func (m *market) url() string {
	if m == nil || m.server == nil {
		return ""
	}
	return m.server.URL()
}

func (m *market) close() {
	if m == nil {
		return
	}
	m.hangUp()
	if m.conn != nil {
		m.conn.Close()
	}
	if m.server != nil {
		m.server.Close()
	}
}

// ownHub is the hub in this process.
type ownHub struct{ *hub.Hub }

var _ publisher.Hub = ownHub{}

// Name implements [publisher.Hub].
func (ownHub) Name() string { return "this relay" }
