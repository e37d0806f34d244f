package feed

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

const (
	// maxWaiting may wait between the connection and its reader. When more comes it is dropped, and fetched instead.
	maxWaiting = 4096
	// refetch is how often the whole book is read again, in case the hub's places began anew.
	refetch = time.Hour
	// retry is the pause after a fetch that failed.
	retry = 2 * time.Second
	// resume is how often it is looked whether something was dropped or the connection is a new one.
	resume = time.Second
)

// Follower follows the book of one hub.
type Follower struct {
	Conn    *nats.Conn
	Network protocol.Network
	Most    int // announcements that a book may have
	Logger  *slog.Logger
	// Take gets every message, from one goroutine, some of them more than once.
	Take func(Message) error
	// Complete is called when the book has been read to its end, at first and after each gap; it may be nil.
	Complete func()

	next       uint64 // place
	reconnects uint64
	dropped    int
	full       time.Time // when all was read last
}

// Run follows until ctx is done, which is no error, or Take fails, or the connection is closed for good. While the hub is away it
// waits.
func (f *Follower) Run(ctx context.Context) error {
	waiting := make(chan *nats.Msg, maxWaiting)
	sub, err := f.Conn.ChanSubscribe(broadcast.AnnounceWildcard(f.Network), waiting)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	look := time.NewTicker(resume)
	defer look.Stop()
	for complete := false; ; {
		if !complete {
			var failed error
			if failed, err = f.catchUp(ctx); err != nil || ctx.Err() != nil {
				return err
			}
			complete = failed == nil
			if !complete && !wait(ctx, retry) {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case m := <-waiting:
			if err := f.Take(Message{Subject: m.Subject, Data: m.Data}); err != nil {
				return err
			}
		case <-look.C:
			if f.Conn.IsClosed() {
				return nats.ErrConnectionClosed
			}
			complete = !f.missed(sub)
		}
	}
}

// missed tells whether messages may be missing, or all is to be read again.
func (f *Follower) missed(sub *nats.Subscription) bool {
	dropped, _ := sub.Dropped()
	reconnects := f.Conn.Stats().Reconnects
	missed := dropped != f.dropped || reconnects != f.reconnects
	f.dropped, f.reconnects = dropped, reconnects
	if time.Since(f.full) > refetch {
		f.next, missed = 0, true
	}
	return missed
}

// catchUp fetches what changed since the last time. failed is the hub's fault, err that of Take.
func (f *Follower) catchUp(ctx context.Context) (failed, err error) {
	if f.next == 0 {
		f.full = time.Now()
	}
	f.next, failed = FetchAll(ctx, f.Conn, f.Network, f.next, f.Most, func(m Message) error {
		err = f.Take(m)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case failed != nil && !errors.Is(failed, context.Canceled):
		f.Logger.Debug("the book of a hub could not be read: trying again", "hub", f.Conn.ConnectedUrlRedacted(), "err", failed)
	case failed == nil && f.Complete != nil:
		f.Complete()
	}
	return failed, nil
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
