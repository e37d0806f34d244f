// Package hub keeps the public book of a network: it takes announcements from whoever sends them, checks them, and publishes each
// one that is better than what it had in a JetStream stream that keeps the last message of each relay. It runs on any
// NATS server whose policy is hubserver's; it is the only one to write to the stream there.
//
// # Guarantees
//
//   - What a reader finds in the stream was true when it came; he checks it again.
//   - Memory and disk are bounded by [broadcast.Bounds], whatever is sent. What is dropped is counted by reason.
//   - What is in the book stays there when others are sent in any number: only more work displaces it.
//   - It is at home in several books: hubs take from each other, and what one has already goes no further, so loops end.
//
// # Loss
//
// The server writes the stream to disk within two minutes, so a power cut may lose what came last. Nothing is lost for good by
// that: relays announce again, and other hubs have it.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

const (
	// What may wait to be looked at. More is dropped and counted; who asks for a receipt sends it again.
	maxWaiting      = 8192
	maxWaitingBytes = 8 << 20
	// storePatience is for the server to store one announcement.
	storePatience = 5 * time.Second
	// sweepPause is how often it is looked for what has expired.
	sweepPause = 5 * time.Second
	// startPatience is for the whole stream to be read.
	startPatience = 5 * time.Minute
	// startPause is between attempts to begin, while NATS is away.
	startPause = time.Second
)

// ErrNotReady: the hub has not read its stream yet.
var ErrNotReady = errors.New("the hub is starting")

// Peer is another hub to take from.
type Peer struct {
	URL    string
	Access feed.Access
}

// Config is what a hub needs; Peers and Registerer may be left out.
type Config struct {
	Conn       *nats.Conn // as hubserver.HubUser, or any user who may publish to announce.* and use JetStream. The caller closes it
	Rules      broadcast.Rules
	Bounds     broadcast.Bounds
	Peers      []Peer
	Clock      func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Hub is one. It is safe for concurrent use.
type Hub struct {
	cfg     Config
	js      jetstream.JetStream
	metrics *metrics

	mu     sync.Mutex // held while something is stored: there is one order
	index  *broadcast.Index
	stream jetstream.Stream
	ready  bool // the index is whole

	serving atomic.Bool

	seldom rate.Sometimes // for the log: a server that is away fails all alike
}

// New makes a hub and starts nothing.
func New(cfg Config) (*Hub, error) {
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	h := &Hub{cfg: cfg, js: js, index: broadcast.NewIndex(cfg.Bounds), seldom: rate.Sometimes{First: 1, Interval: time.Minute}}
	h.metrics = newMetrics(cfg.Registerer, h)
	return h, nil
}

// Run reads the stream and serves until ctx is done, which is no error. While NATS is away it waits.
func (h *Hub) Run(ctx context.Context) error {
	for {
		err := h.begin(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		h.cfg.Logger.Warn("the hub cannot begin: trying again", "err", err)
		if !pause(ctx, startPause) {
			return nil
		}
	}
	sub, err := h.cfg.Conn.Subscribe(broadcast.IngestSubject(h.cfg.Rules.Network), func(m *nats.Msg) { h.ingest(ctx, m) })
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(maxWaiting, maxWaitingBytes); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	h.flush(ctx)
	h.serving.Store(true)
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return h.sweep(running, sub) })
	for _, peer := range h.cfg.Peers {
		group.Go(func() error { return h.follow(running, peer) })
	}
	return group.Wait()
}

// flush returns when the server has the subscription, so that whoever announces now is heard.
func (h *Hub) flush(ctx context.Context) {
	patience, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := h.cfg.Conn.FlushWithContext(patience); err != nil && ctx.Err() == nil {
		h.cfg.Logger.Warn("the hub's NATS server went away while it began", "err", err)
	}
}

// Announce offers an announcement to the hub, as the ingest subject does. The error is [ErrNotReady].
func (h *Hub) Announce(ctx context.Context, data []byte) (broadcast.Receipt, error) {
	err := h.take(ctx, func(now protocol.Timestamp) (*broadcast.Offer, error) {
		return h.cfg.Rules.Check(data, now, h.known)
	})
	if errors.Is(err, ErrNotReady) {
		return broadcast.Receipt{}, err
	}
	return h.receipt(data, err), nil
}

// take checks, stores and counts.
func (h *Hub) take(ctx context.Context, check func(protocol.Timestamp) (*broadcast.Offer, error)) error {
	now := h.now()
	o, err := check(now)
	if err == nil {
		err = h.store(ctx, o, now)
	}
	if err != nil {
		h.metrics.count(broadcast.ReasonOf(err))
		return err
	}
	h.metrics.taken.Inc()
	return nil
}

func (h *Hub) now() protocol.Timestamp { return protocol.TimestampOf(h.cfg.Clock()) }

func (h *Hub) known(relay protocol.PublicKey) broadcast.Known {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index.Known(relay)
}

// follow takes from another hub, until ctx is done.
func (h *Hub) follow(ctx context.Context, peer Peer) error {
	conn, err := feed.Connect(ctx, peer.URL, peer.Access)
	if err != nil {
		return err
	}
	defer conn.Close()
	f := feed.Follower{Conn: conn, Network: h.cfg.Rules.Network, Most: 2 * h.cfg.Bounds.Relays, Logger: h.cfg.Logger,
		Take: func(m feed.Message) error {
			_ = h.take(ctx, func(now protocol.Timestamp) (*broadcast.Offer, error) { // counted
				return h.cfg.Rules.CheckOn(m.Subject, m.Data, now, h.known)
			})
			return nil
		}}
	return unlessDone(ctx, f.Run(ctx))
}

// sweep expires what is no longer valid, and counts what was dropped unseen.
func (h *Hub) sweep(ctx context.Context, sub *nats.Subscription) error {
	flooded := 0
	for pause(ctx, sweepPause) {
		if dropped, err := sub.Dropped(); err == nil && dropped > flooded {
			h.metrics.dropped.WithLabelValues(string(broadcast.ReasonFlood)).Add(float64(dropped - flooded))
			flooded = dropped
		}
		h.mu.Lock()
		h.index.Expire(h.now())
		h.mu.Unlock()
	}
	return nil
}

// Page is a part of the book as it is in the stream, see [feed.Fetch]; what has expired, and is only remembered, is in it too.
func (h *Hub) Page(ctx context.Context, from uint64, limit int) (*feed.Page, error) {
	return feed.Fetch(ctx, h.cfg.Conn, h.cfg.Rules.Network, from, limit)
}

// Size is how many relays the hub remembers, and the bytes of their announcements.
func (h *Hub) Size() (relays int, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index.Len(), h.index.Bytes()
}

// Ready tells whether the hub serves.
func (h *Hub) Ready() bool { return h.serving.Load() }

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// unlessDone is err, unless that is the end of what was told to end.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
