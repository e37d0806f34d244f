package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/rest"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	// silence is how long a stream may say nothing. Relays give a sign of life every 15 s.
	silence = 45 * time.Second
	// lookAgain is how often Listen looks whether friends or relays changed, also through another process.
	lookAgain = 5 * time.Second
	// maxLine bounds one line of a stream.
	maxLine = 64 << 10
)

// Event is one thing that Listen tells: exactly one of a message, a notice and a relay's state.
type Event struct {
	Message *Message
	// Notice is something that the user is to be told of a friend: that he moved, say.
	Notice *FriendNotice
	// Relay tells that a relay is listened to (Err is nil), or is not any more, and why. It is tried again.
	Relay *RelayReport
}

// Listen tells of each message as it arrives, from all relays of all friends, until ctx ends or
// handle returns an error. It begins with what arrives after it was called; call Messages
// for what is here already. A message that several relays bring is told once, in the order of arrival, and is on
// disk before it is told. The handler is called by one goroutine.
func (c *Client) Listen(ctx context.Context, handle func(Event) error) error {
	if err := c.unlocked(); err != nil {
		return err
	}
	last, err := c.state.LastMessage(ctx)
	if err != nil {
		return err
	}
	noticed, err := c.state.LastNotice(ctx)
	if err != nil {
		return err
	}
	l := &listener{c: c, arrived: make(chan struct{}, 1), moved: make(chan struct{}, 1), reports: make(chan RelayReport)}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return l.tell(work, last, noticed, handle) })
	group.Go(func() error { return l.follow(work) })
	group.Go(func() error { return c.leaveReceipts(work) })
	err = group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

type listener struct {
	c       *Client
	arrived chan struct{}    // holds one: something may have arrived, look
	moved   chan struct{}    // holds one: a friend's card changed, look where he is
	reports chan RelayReport // unbuffered: a handler that is slow slows the reconnecting down
}

func (l *listener) look() {
	select {
	case l.arrived <- struct{}{}:
	default: // a look is due already and will find this message too
	}
}

// tell hands over what is stored, in order. Reading it from the state is what makes it once, also
// when another process pulled it.
func (l *listener) tell(ctx context.Context, last, noticed int64, handle func(Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case report := <-l.reports:
			if err := handle(Event{Relay: &report}); err != nil {
				return err
			}
		case <-l.arrived:
			notices, err := l.c.notices(ctx, noticed, false)
			if err != nil {
				return err
			}
			for _, n := range notices {
				noticed = n.N
				if n.Kind == NoticeCard {
					select {
					case l.moved <- struct{}{}:
					default: // a look is due already
					}
				}
				if err := handle(Event{Notice: &n}); err != nil {
					return err
				}
			}
			messages, err := l.c.state.Messages(ctx, state.Filter{After: last})
			if err != nil {
				return err
			}
			for _, m := range messages {
				last = m.N
				if err := handle(Event{Message: &m}); err != nil {
					return err
				}
			}
		}
	}
}

// follow keeps one stream open for each relay, and looks now and then whether there are others to listen to.
func (l *listener) follow(ctx context.Context) error {
	group, work := errgroup.WithContext(ctx)
	running := map[protocol.PublicKey]context.CancelFunc{}
	listened := map[protocol.PublicKey]post{}
	for {
		posts, err := l.c.posts(ctx)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		wanted := map[protocol.PublicKey]bool{}
		for _, p := range posts {
			wanted[p.key] = true
			before := listened[p.key]
			if running[p.key] != nil && slices.Equal(before.friends, p.friends) && slices.Equal(before.addresses, p.addresses) {
				continue
			}
			if stop := running[p.key]; stop != nil {
				stop()
			}
			one, stop := context.WithCancel(work)
			running[p.key], listened[p.key] = stop, p
			group.Go(func() error { return l.keepListening(one, p) })
		}
		for key, stop := range running {
			if !wanted[key] {
				stop()
				delete(running, key)
				delete(listened, key)
			}
		}
		if !l.pause(work) {
			for _, stop := range running {
				stop()
			}
			return group.Wait()
		}
	}
}

// pause waits until it is time to look again for friends and relays. It is false when the context ends.
func (l *listener) pause(ctx context.Context) bool {
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.moved:
	case <-ctx.Done():
		return false
	}
	return true
}

// keepListening listens to one relay again and again. It returns an error only if this side failed.
func (l *listener) keepListening(ctx context.Context, at post) error {
	pauses := backoff{first: 200 * time.Millisecond, most: 30 * time.Second}
	silent := false // whether the failure was told already
	for turn := 0; ; turn++ {
		report, err := l.c.pullPost(ctx, at)
		l.look()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if report.Err == nil {
			address := at.addresses[0]
			if report.Address != "" {
				address = report.Address
			}
			report.Err = l.stream(ctx, at, address, func() {
				pauses.tries, silent = 0, false
				l.report(ctx, RelayReport{Relay: at.key, Address: address})
			})
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(report.Err, errBehind) {
			continue
		}
		if !silent {
			l.report(ctx, report)
			silent = true
		}
		if !wait(ctx, pauses.next(report.Err), nil) {
			return nil
		}
	}
}

func (l *listener) report(ctx context.Context, r RelayReport) {
	select {
	case l.reports <- r:
	case <-ctx.Done():
	}
}

// errBehind says that the relay ended the stream because we were too slow.
var errBehind = errors.New("fell behind")

// stream listens to one relay until the stream ends, and pulls whenever a record is told. There is
// one stream for each group of friends, of which all but the largest lists have one.
func (l *listener) stream(ctx context.Context, at post, address string, open func()) error {
	sources, err := l.c.state.Sources(ctx, at.key)
	if err != nil {
		return err
	}
	p, err := l.c.peer(at.key, address)
	if err != nil {
		return err
	}
	kick := make(chan struct{}, 1)
	ready := make(chan struct{}, len(sources))
	group, work := errgroup.WithContext(ctx)
	for _, source := range sources {
		group.Go(func() error { return l.read(work, p, source, kick, ready) })
	}
	group.Go(func() error {
		for range sources {
			select {
			case <-ready:
			case <-work.Done():
				return nil
			}
		}
		open()
		return nil
	})
	group.Go(func() error { return l.pullOnKick(work, at, kick) })
	return group.Wait()
}

// pullOnKick pulls the relay when a stream told of something. A failure ends the streams, which are
// opened again after a pause: so nothing that was told is forgotten.
func (l *listener) pullOnKick(ctx context.Context, at post, kick <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-kick:
			report, err := l.c.pullPost(ctx, at)
			l.look()
			if err := errors.Join(err, report.Err); err != nil {
				return err
			}
		}
	}
}

// read reads one stream. It returns an error always.
func (l *listener) read(ctx context.Context, p *peer, source state.Source, kick, ready chan<- struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errors.New("no sign of life for 45 s")) })
	defer watchdog.Stop()
	request := &protocol.Listen{Senders: source.Senders, After: source.After}
	err := p.listen(ctx, request, func(reply *http.Response) error {
		lines := bufio.NewReaderSize(reply.Body, maxLine)
		for first := true; ; first = false {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				return streamEnd(ctx, err)
			}
			watchdog.Reset(silence)
			told, err := readListenLine(line)
			switch {
			case err != nil:
				return p.tampered("%v", err)
			case told.Behind != nil:
				return errBehind
			case told.Record != nil:
				select {
				case kick <- struct{}{}:
				default: // a pull is due already and will bring this record too
				}
			}
			if first {
				ready <- struct{}{}
			}
		}
	})
	if errors.Is(err, protocol.CodeCursorEpoch) || errors.Is(err, protocol.CodeBadCursor) {
		return errors.Join(errBehind, l.c.state.StartOver(ctx, p.key))
	}
	var refusal *RelayError
	if err == nil || errors.As(err, &refusal) || errors.Is(err, errBehind) {
		return err
	}
	return p.fail(err)
}

func streamEnd(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the relay ended the stream")
	}
	if errors.Is(err, bufio.ErrBufferFull) {
		return fmt.Errorf("a line of the stream is longer than %d bytes", maxLine)
	}
	return plainCause(err)
}

func readListenLine(line []byte) (*rest.ListenLine, error) {
	var told rest.ListenLine
	if err := json.Unmarshal(line, &told); err != nil {
		return nil, errors.New("a line of its stream is not what a relay says")
	}
	return &told, nil
}

// Listened are the relays that Listen listens to now, with an address of each.
func (c *Client) Listened(ctx context.Context) (map[protocol.PublicKey]string, error) {
	posts, err := c.posts(ctx)
	all := make(map[protocol.PublicKey]string, len(posts))
	for _, p := range posts {
		all[p.key] = p.addresses[0]
	}
	return all, err
}

// NoticesAfter lists what there is to tell of friends, shown or not, that was noticed after another notice, in order.
func (c *Client) NoticesAfter(ctx context.Context, n int64) ([]FriendNotice, error) {
	return c.notices(ctx, n, false)
}

// LastNotice is the number of the newest notice, 0 if there is none.
func (c *Client) LastNotice(ctx context.Context) (int64, error) { return c.state.LastNotice(ctx) }
