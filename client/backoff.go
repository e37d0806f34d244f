package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// backoff spaces repeats: longer each time, and with chance in it, so that the clients of a relay
// that comes back do not come all at once.
type backoff struct {
	first, most time.Duration
	tries       int
}

// next is the pause before the next try, at least what the relay asked for.
func (b *backoff) next(err error) time.Duration {
	pause := min(b.first<<min(b.tries, 20), b.most)
	b.tries++
	pause = pause/2 + rand.N(pause/2+1)
	var refusal *RelayError
	if errors.As(err, &refusal) {
		pause = max(pause, refusal.RetryAfter)
	}
	return pause
}

// wait pauses, until stop is closed or the context ends; then it is false.
func wait(ctx context.Context, pause time.Duration, stop <-chan struct{}) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	case <-ctx.Done():
		return false
	}
}
