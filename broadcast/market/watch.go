package market

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/broadcast/feed"
)

const (
	// pollPause is between looks at a hub over HTTP, which does not tell by itself.
	pollPause = 30 * time.Second
	// gather is how long announcements wait for others, to be kept in one transaction.
	gather = 50 * time.Millisecond
	// maxGather are kept in one transaction.
	maxGather = feed.PageRelays
)

// Watch follows all hubs until ctx is done, which is no error, and tells of each change when it is kept, from one goroutine at a
// time. Hubs that are away are tried again. ErrNoHubs.
func (b *Book) Watch(ctx context.Context, tell func(Change) error) error {
	hubs, err := b.Hubs(ctx)
	if err != nil {
		return err
	}
	if len(hubs) == 0 {
		return ErrNoHubs
	}
	came := make(chan heard, maxGather)
	group, watching := errgroup.WithContext(ctx)
	for _, h := range hubs {
		group.Go(func() error {
			return b.follow(watching, h, func(m feed.Message) error {
				select {
				case came <- heard{h.Address, m}:
					return nil
				case <-watching.Done():
					return watching.Err()
				}
			})
		})
	}
	group.Go(func() error {
		for {
			batch := gatherAll(watching, came)
			if len(batch) == 0 {
				return nil
			}
			if err := b.keep(watching, batch, tell); err != nil {
				return err
			}
		}
	})
	return ignoreDone(ctx, group.Wait())
}

// heard is what a hub told.
type heard struct {
	hub     string
	message feed.Message
}

// gatherAll waits for one, and a moment for others. There are none when ctx is done.
func gatherAll(ctx context.Context, came <-chan heard) (batch []heard) {
	select {
	case <-ctx.Done():
		return nil
	case first := <-came:
		batch = append(batch, first)
	}
	timer := time.NewTimer(gather)
	defer timer.Stop()
	for len(batch) < maxGather {
		select {
		case next := <-came:
			batch = append(batch, next)
		case <-timer.C:
			return batch
		case <-ctx.Done():
			return nil
		}
	}
	return batch
}

// keep merges what was heard, and tells of what changed by it.
func (b *Book) keep(ctx context.Context, batch []heard, tell func(Change) error) error {
	first := map[string]string{} // who told these bytes first
	messages := make([]feed.Message, len(batch))
	for i, h := range batch {
		messages[i] = h.message
		if _, known := first[string(h.message.Data)]; !known {
			first[string(h.message.Data)] = h.hub
		}
	}
	changed, _, err := b.merge(ctx, messages)
	if err != nil {
		return err
	}
	for _, o := range changed {
		if err := tell(Change{Offer: o, Hub: first[string(o.Envelope.Bytes())]}); err != nil {
			return err
		}
	}
	return nil
}

// follow hands on what one hub tells.
func (b *Book) follow(ctx context.Context, h Hub, take func(feed.Message) error) error {
	if isHTTP(h.Address) {
		return b.poll(ctx, h, take)
	}
	conn, err := feed.Connect(ctx, h.Address, feed.Access{Name: "relay"})
	if err != nil {
		return err
	}
	defer conn.Close()
	f := feed.Follower{Conn: conn, Network: b.cfg.Network, Most: 2 * b.cfg.Bounds.Relays, Logger: b.cfg.Logger, Take: take}
	if err := f.Run(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// poll asks a hub over HTTP from time to time.
func (b *Book) poll(ctx context.Context, h Hub, take func(feed.Message) error) error {
	next, whole := uint64(0), time.Now()
	for {
		page, err := b.fetchHTTP(ctx, h.Address, next)
		if err != nil {
			b.cfg.Logger.Info("a hub cannot be read: trying again", "hub", h.Address, "err", err)
			page = &feed.Page{Next: next}
		}
		for _, m := range page.Messages {
			if err := take(m); err != nil {
				return ignoreDone(ctx, err)
			}
		}
		progress := page.More && page.Next > next
		next = page.Next
		if time.Since(whole) > wholeAfter {
			next, whole = 0, time.Now()
		}
		if progress {
			continue
		}
		timer := time.NewTimer(pollPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func ignoreDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
