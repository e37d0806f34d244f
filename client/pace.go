package client

import (
	"context"
	"sync"
	"time"
)

// pace is how fast a relay can be fed, or asked: fewer at once and pauses after what fails, more again after what does not.
type pace struct {
	mu     sync.Mutex
	most   int
	limit  int       // how many may be at it
	active int       // how many are
	good   int       // in a row
	until  time.Time // pause
	pauses backoff
	last   error
}

// enter waits until one more may be at it, who has to leave. It is false when ctx ended.
func (p *pace) enter(ctx context.Context) bool {
	for ctx.Err() == nil {
		p.mu.Lock()
		pause := time.Until(p.until)
		if pause <= 0 && p.active < p.limit {
			p.active++
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		wait(ctx, max(pause, 20*time.Millisecond), nil)
	}
	return false
}

func (p *pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active--
}

func (p *pace) success() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.pauses.tries = nil, 0
	if p.good++; p.good >= 8 && p.limit < p.most {
		p.good, p.limit = 0, p.limit+1
	}
}

func (p *pace) failure(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.until) { // another worker met the same
		return
	}
	p.pauses.first, p.pauses.most = 250*time.Millisecond, 15*time.Second
	p.last, p.good, p.limit = err, 0, max(1, p.limit/2)
	p.until = time.Now().Add(p.pauses.next(err))
}

// tired tells whether one failed several times without a success.
func (p *pace) tired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pauses.tries >= 5
}

func (p *pace) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// linger is ctx, but lasts a little longer, so that what is on its way when it ends still arrives, and its outcome is known.
func linger(ctx context.Context, longer time.Duration) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		wait(lasting, longer, nil)
		cancel()
	})
	return lasting, func() {
		stop()
		cancel()
	}
}
