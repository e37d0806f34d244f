package daemon

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"relaymarket/client"
	"relaymarket/protocol"
)

// events is what the listener told, for whoever follows it. Of relays it keeps the last word; messages are in the state.
type events struct {
	mu      sync.Mutex
	relays  map[protocol.PublicKey]relayState
	changed chan struct{} // closed and replaced with each event
}

type relayState struct {
	report client.RelayReport
	since  time.Time
	count  int // of its reports
}

func newEvents() *events {
	return &events{relays: map[protocol.PublicKey]relayState{}, changed: make(chan struct{})}
}

func (e *events) tell(event client.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := event.Relay; r != nil {
		before := e.relays[r.Relay]
		e.relays[r.Relay] = relayState{report: *r, since: time.Now(), count: before.count + 1}
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// now is the last word on each relay, the oldest first, and what is closed when there is a newer one.
func (e *events) now() ([]relayState, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := slices.SortedFunc(maps.Values(e.relays), func(a, b relayState) int { return a.since.Compare(b.since) })
	return all, e.changed
}

// Follow tells of each message that arrives and of each relay's state, as [client.Client.Listen] does, from the streams that the daemon
// has open: until ctx ends or handle returns an error. One who is slow misses no message, and of a relay's states the last.
func (d *Daemon) Follow(ctx context.Context, handle func(client.Event) error) error {
	last, err := d.lastMessage(ctx)
	if err != nil {
		return err
	}
	noticed, err := d.c.Client.LastNotice(ctx)
	if err != nil {
		return err
	}
	told := map[protocol.PublicKey]int{}
	for {
		wanted, err := d.c.Client.Listened(ctx)
		if err != nil {
			return err
		}
		relays, changed := d.events.now()
		for _, s := range relays {
			key := s.report.Relay
			if told[key] == s.count || wanted[key] == "" {
				continue
			}
			told[key] = s.count
			if err := handle(client.Event{Relay: &s.report}); err != nil {
				return err
			}
		}
		notices, err := d.c.Client.NoticesAfter(ctx, noticed)
		if err != nil {
			return err
		}
		for i := range notices {
			noticed = notices[i].N
			if err := handle(client.Event{Notice: &notices[i]}); err != nil {
				return err
			}
		}
		messages, err := d.c.Client.Messages(ctx, client.Filter{After: last})
		if err != nil {
			return err
		}
		for i := range messages {
			last = messages[i].N
			if err := handle(client.Event{Message: &messages[i]}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (d *Daemon) lastMessage(ctx context.Context) (int64, error) {
	newest, err := d.c.Client.Messages(ctx, client.Filter{Limit: 1})
	if err != nil || len(newest) == 0 {
		return 0, err
	}
	return newest[0].N, nil
}
