package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

// begin makes the stream if there is none, and the index of what is in it.
func (h *Hub) begin(ctx context.Context) error {
	n := h.cfg.Rules.Network
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	stream, err := h.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: broadcast.StreamName(n), Description: "the last announcement of each relay", Subjects: []string{broadcast.AnnounceWildcard(n)},
		MaxMsgsPerSubject: 1, MaxAge: broadcast.Memory, MaxMsgSize: protocol.MaxAnnouncementSize, AllowDirect: true, Storage: jetstream.FileStorage,
		// The index keeps within half of it. This is the last line, for what the index does not know of.
		MaxBytes: 2 * h.cfg.Bounds.Bytes, Discard: jetstream.DiscardOld,
	})
	if err != nil {
		return fmt.Errorf("its stream: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index, h.stream = broadcast.NewIndex(h.cfg.Bounds), stream
	now := h.now()
	_, err = feed.FetchAll(ctx, h.cfg.Conn, n, 0, 2*h.cfg.Bounds.Relays+feed.PageRelays, func(m feed.Message) error {
		if err := h.recall(ctx, m, now); err != nil {
			h.metrics.count(broadcast.ReasonOf(err))
			h.cfg.Logger.Debug("dropped from the stream", "subject", m.Subject, "err", err)
			h.forget(ctx, m.Place)
		}
		return nil
	})
	h.ready = err == nil
	return err
}

// recall takes into the index what is in the stream. It may have expired: then its seq is remembered.
func (h *Hub) recall(ctx context.Context, m feed.Message, now protocol.Timestamp) error {
	e, err := protocol.ParseEnvelope(m.Data)
	if err != nil {
		return err
	}
	o, err := h.cfg.Rules.CheckOn(m.Subject, m.Data, min(e.Timestamp, now), nil)
	if err != nil {
		return err
	}
	entry := broadcast.EntryOf(o, m.Place, protocol.TimestampOf(m.Stored))
	displaced, err := h.index.Room(entry, now)
	if err != nil {
		return err
	}
	h.displace(ctx, displaced)
	h.index.Put(entry, now)
	return nil
}

// store publishes an offer and takes it into the index when the server has it.
func (h *Hub) store(ctx context.Context, o *broadcast.Offer, now protocol.Timestamp) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ready {
		return ErrNotReady
	}
	// Another may have come while this one was checked.
	if err := h.index.Known(o.Relay).Beats(o); err != nil {
		return err
	}
	entry := broadcast.EntryOf(o, 0, now)
	displaced, err := h.index.Room(entry, now)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	ack, err := h.js.Publish(ctx, broadcast.AnnounceSubject(h.cfg.Rules.Network, o.Relay), o.Envelope.Bytes())
	if err != nil {
		h.seldom.Do(func() {
			h.cfg.Logger.Warn("the hub cannot store an announcement", "relay", o.Relay.Short(), "err", err)
		})
		return &broadcast.Refusal{Reason: broadcast.ReasonStore, Detail: "the hub cannot store it now: try again"}
	}
	entry.Place = ack.Sequence
	h.displace(ctx, displaced)
	h.index.Put(entry, now)
	return nil
}

// displace takes relays out of index and stream.
func (h *Hub) displace(ctx context.Context, relays []protocol.PublicKey) {
	for _, relay := range relays {
		place := h.index.Entry(relay).Place
		h.index.Remove(relay)
		h.metrics.count(broadcast.ReasonDisplaced)
		h.forget(ctx, place)
	}
}

// forget deletes from the stream. What stays there by a failure is bounded by the stream, and gone at the next start.
func (h *Hub) forget(ctx context.Context, place uint64) {
	if err := h.stream.DeleteMsg(ctx, place); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		h.seldom.Do(func() { h.cfg.Logger.Warn("the hub cannot delete an announcement", "err", err) })
	}
}

// ingest answers who asks for a receipt.
func (h *Hub) ingest(ctx context.Context, m *nats.Msg) {
	receipt, err := h.Announce(ctx, m.Data)
	if err != nil || m.Reply == "" {
		return
	}
	text, err := json.Marshal(receipt)
	if err == nil {
		err = m.Respond(text)
	}
	if err != nil {
		h.cfg.Logger.Debug("a receipt is not sent", "err", err)
	}
}

// receipt says what became of an announcement.
func (h *Hub) receipt(data []byte, err error) broadcast.Receipt {
	var refusal *broadcast.Refusal
	if err == nil || !errors.As(err, &refusal) {
		return broadcast.Receipt{Taken: err == nil}
	}
	r := broadcast.Receipt{Taken: refusal.Reason == broadcast.ReasonDuplicate, Reason: refusal.Reason, Detail: refusal.Detail}
	switch refusal.Reason {
	case broadcast.ReasonLittle:
		r.Bits = int64(h.cfg.Rules.Bits)
	case broadcast.ReasonBookFull:
		h.mu.Lock()
		r.Bits = int64(h.index.LeastWork())
		h.mu.Unlock()
	case broadcast.ReasonOld:
		if e, err := protocol.ParseEnvelope(data); err == nil {
			r.Seq = h.known(e.From).Seq
		}
	}
	return r
}
