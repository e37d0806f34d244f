package client

import (
	"context"
	"time"

	"github.com/google/uuid"

	"relaymarket/protocol"
)

// fileLease is how long a program that died is taken to be at work on a file.
const fileLease = 5 * time.Second

// lease makes a holder the one program that is at work on a file, and tells until when the one that is has it.
type lease func(ctx context.Context, holder string, until protocol.Timestamp) (ours bool, held protocol.Timestamp, err error)

// hold takes a lease and keeps it until end is called. The context it returns ends when the lease is lost. One that
// nobody renews is waited for: its program died.
func (c *Client) hold(ctx context.Context, take lease, release func(context.Context, string) error) (_ context.Context, end func(), _ error) {
	holder := uuid.NewString()
	started := time.Now()
	for first := protocol.Timestamp(0); ; {
		ours, held, err := take(ctx, holder, c.now().Add(fileLease))
		if err != nil {
			return nil, nil, err
		}
		if ours {
			break
		}
		if first == 0 {
			first = held
		}
		if held > first || time.Since(started) > 2*fileLease {
			return nil, nil, ErrFileBusy
		}
		if !wait(ctx, 100*time.Millisecond, nil) {
			return nil, nil, ctx.Err()
		}
	}
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait(held, fileLease/5, nil) {
			ours, _, err := take(ctx, holder, c.now().Add(fileLease))
			if err == nil && !ours {
				err = ErrFileBusy
			}
			if err != nil && held.Err() == nil {
				cancel(err)
			}
		}
	}()
	return held, func() {
		cancel(nil)
		<-done
		note, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		if err := release(note, holder); err != nil {
			c.log.Info("a lease is left to run out", "error", err)
		}
	}, nil
}
