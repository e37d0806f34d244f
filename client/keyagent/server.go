//go:build linux || darwin

package keyagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxConnections bounds what is handled at once. More of them wait in the
	// kernel's queue: their users are this one's own programs.
	maxConnections = 16

	defaultCheckEvery = 5 * time.Second
	// acceptRetry is the pause when the process is out of file descriptors.
	acceptRetry = 50 * time.Millisecond
)

// server answers the requests for one secret.
type server struct {
	vault *vault
	term  term
	now   func() time.Time
	stop  context.CancelFunc
}

// Serve keeps c.Secret at c.Socket until its time is over, it is locked, another
// agent takes its place or ctx ends. In each of these cases it returns nil,
// with the secret overwritten and the socket gone. It fails with ErrSecret,
// ErrDuration, ErrPath or ErrFolder, or with what the operating system says; then
// the agent that was there before goes on.
func Serve(ctx context.Context, c Config) error {
	defer clear(c.Secret)
	if err := c.check(); err != nil {
		return err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CheckEvery <= 0 {
		c.CheckEvery = defaultCheckEvery
	}
	s := &server{now: c.Now, term: term{start: c.Now(), length: c.For}}
	var err error
	if s.vault, err = newVault(c.Secret); err != nil {
		return err
	}
	defer s.vault.wipe()
	l, err := listen(ctx, c.Socket)
	if err != nil {
		return err
	}
	defer l.remove()
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()

	var group errgroup.Group
	group.Go(func() error { s.watch(ctx, c.CheckEvery); return nil })
	group.Go(func() error { s.accept(ctx, l); return nil })
	// After the new one serves: a stuck old one holds nobody up.
	l.lockOld(ctx)
	if c.Ready != nil {
		c.Ready()
	}
	return group.Wait()
}

// watch ends the agent when its time is over, and wipes as soon as it ends for
// any reason, whatever connections are still open.
func (s *server) watch(ctx context.Context, every time.Duration) {
	defer s.lock()
	for {
		remaining := s.term.remaining(s.now())
		if remaining == 0 {
			return
		}
		// A timer alone would not do: it stands still with a suspended machine.
		timer := time.NewTimer(min(remaining, every))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (s *server) lock() {
	s.vault.wipe()
	s.stop()
}

func (s *server) accept(ctx context.Context, l *listener) {
	// A deadline, since closing is for remove to do.
	defer context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })()
	var handlers sync.WaitGroup
	defer handlers.Wait()
	slots := make(chan struct{}, maxConnections)
	for {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			<-slots
			time.Sleep(acceptRetry)
			continue
		}
		handlers.Go(func() {
			defer func() { <-slots }()
			s.handle(ctx, conn)
		})
	}
}

// handle answers one connection. Its errors have nobody to go to: the peer is
// gone, and will say so to its user.
func (s *server) handle(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	if checkPeer(conn) != nil || conn.SetDeadline(time.Now().Add(exchangeTime)) != nil {
		return
	}
	// Whoever has asked gets his answer, but nobody who is silent delays the end.
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	op, refused, err := readRequest(conn)
	if err != nil {
		return
	}
	if refused != "" {
		_ = writeLine(conn, reply{Version: protocolVersion, Error: refused})
		return
	}
	if err := s.answer(conn, op); errors.Is(err, errWiped) {
		_ = writeLine(conn, reply{Version: protocolVersion, Error: refusedLocked})
	}
}

// answer looks at the clock at every request: watch may be late.
func (s *server) answer(w io.Writer, op operation) error {
	remaining := s.term.remaining(s.now())
	if remaining == 0 {
		s.lock()
		return errWiped
	}
	r := reply{Version: protocolVersion, RemainingMs: remaining.Milliseconds(), PID: os.Getpid()}
	switch op {
	case opFetch:
		// The vault stays locked while this writes. It does not block: a reply
		// is smaller than the buffer of a new connection.
		return s.vault.use(func(secret []byte) error {
			r.SecretBytes = len(secret)
			if err := writeLine(w, r); err != nil {
				return err
			}
			_, err := w.Write(secret)
			return err
		})
	case opLock:
		s.vault.wipe()
		// Answered first: stopping closes what is not yet answered.
		defer s.stop()
		r.RemainingMs = 0
		return writeLine(w, r)
	default:
		return s.vault.use(func([]byte) error { return writeLine(w, r) })
	}
}

func checkSecret(secret []byte) error {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return fmt.Errorf("%w, not %d", ErrSecret, len(secret))
	}
	return nil
}

func (c *Config) check() error {
	if err := checkSecret(c.Secret); err != nil {
		return err
	}
	if c.For <= 0 || c.For > MaxDuration {
		return fmt.Errorf("%w, not %v", ErrDuration, c.For)
	}
	return nil
}
