// Package publisher is a relay's end of the market: it keeps one true announcement of the relay on all of its hubs. It makes a new
// one when what the relay offers has changed, and when half of the old one's validity is over; does its proof of work in the
// background, leaving the other cores alone; keeps it durably; and sends it to every hub until the hub has taken it, and
// again from time to time, because a hub may have lost it.
//
// # Guarantees
//
//   - seq only rises, through restarts and for several relayd on one database. What is sent was saved before.
//   - Nobody outside is shown an announcement before Adopt has returned: contracts may be opened on it from then on.
//   - Hubs that are away, refuse or do not answer hold up nothing and nobody else.
//
// relaynode runs one where the operator names a hub, or is one.
package publisher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

const (
	// Validity of an announcement. It is made anew when half of it is over.
	Validity = 4 * 24 * time.Hour
	// lookPause is how often it is looked whether what the relay offers has changed.
	lookPause = 2 * time.Second
	// After a hub has taken it, the announcement is sent again after a while; after it did not, sooner, with growing pauses.
	resendPause = 30 * time.Minute
	retryPause  = time.Second
	retryLong   = 5 * time.Minute
	// receiptPatience is for a hub's answer.
	receiptPatience = 15 * time.Second
	// maxMore is how many bits more than it is told to a publisher works when a hub's book is full.
	maxMore = 4
	// reportPause is between lines in the log about a proof of work under way.
	reportPause = 15 * time.Second
)

// Hub takes announcements.
type Hub interface {
	Name() string // for people
	Announce(ctx context.Context, envelope []byte) (broadcast.Receipt, error)
}

// Config is what a publisher needs. All but Adopt is required.
type Config struct {
	Key *protocol.PrivateKey
	// Words is what the relay offers at this moment, from its live configuration; seq, validUntil and pow are not looked at.
	Words func() *protocol.Announcement
	// Adopt is told of an announcement before any hub is, and makes it the one that the relay itself shows. It is repeated
	// until it succeeds.
	Adopt  func(context.Context, *protocol.Envelope, *protocol.Announcement) error
	Bits   int // of work
	Hubs   []Hub
	Memory Memory
	Clock  func() time.Time
	Logger *slog.Logger
}

// Publisher is one. Its only method is Run.
type Publisher struct {
	cfg    Config
	prover broadcast.Prover
	bits   int // Config.Bits, or more when hubs are full
	least  int64
	asked  chan broadcast.Receipt // what hubs want otherwise: capacity 1
}

// New makes a publisher and starts nothing.
func New(cfg Config) *Publisher {
	p := &Publisher{cfg: cfg, bits: cfg.Bits, asked: make(chan broadcast.Receipt, 1)}
	p.prover = broadcast.Prover{Workers: 1, Every: reportPause, Report: func(r broadcast.Progress) {
		cfg.Logger.Info("proof of work for the announcement", "tried", r.Tried, "expected", r.Expected, "elapsed", r.Elapsed.Round(time.Second))
	}}
	return p
}

// Run publishes until ctx is done, which is no error.
func (p *Publisher) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		now, err := p.next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errChanged):
			continue
		case err != nil:
			p.cfg.Logger.Warn("the relay cannot announce itself: trying again", "err", err)
			pause(ctx, retryPause*5)
			continue
		}
		if err := p.publish(ctx, now); err != nil {
			return err
		}
	}
	return nil
}

// next is what to publish now: the announcement that is kept, or a new one.
func (p *Publisher) next(ctx context.Context) (*current, error) {
	kept, err := p.kept(ctx)
	if err != nil {
		return nil, err
	}
	if kept != nil && p.stands(kept) {
		return kept, p.adopt(ctx, kept)
	}
	made, err := p.make(ctx, kept)
	if err != nil {
		return nil, err
	}
	saved, err := p.cfg.Memory.Save(ctx, made.said.Seq, made.envelope.Bytes())
	if err != nil {
		return nil, err
	}
	if !saved {
		return nil, errChanged // another relayd was faster
	}
	return made, p.adopt(ctx, made)
}

// kept is the announcement that was saved last, nil if there is none of this key.
func (p *Publisher) kept(ctx context.Context) (*current, error) {
	data, err := p.cfg.Memory.Last(ctx)
	if err != nil || data == nil {
		return nil, err
	}
	e, err := protocol.ParseEnvelope(data)
	if err != nil {
		return nil, fmt.Errorf("the announcement in the database: %w", err)
	}
	k := &current{e, &protocol.Announcement{}}
	if err := e.Decode(k.said); err != nil {
		return nil, fmt.Errorf("the announcement in the database: %w", err)
	}
	if e.From != p.cfg.Key.Public() {
		return nil, nil // the relay has another key than it had, and so no past
	}
	return k, nil
}

// stands tells whether an announcement can go on as it is.
func (p *Publisher) stands(c *current) bool {
	now := protocol.TimestampOf(p.cfg.Clock())
	subject, work, err := c.envelope.WorkSubject()
	return err == nil && work != nil && work.Bits >= int64(p.bits) && work.Nonce.Bits(subject) >= int(work.Bits) &&
		c.said.Seq >= p.least && now.Add(Validity/2) < c.said.ValidUntil && c.envelope.Timestamp <= now.Add(protocol.FreshnessWindow) &&
		bytes.Equal(words(c.said), words(p.cfg.Words()))
}

// words are what an announcement says but for seq, validity and work.
func words(a *protocol.Announcement) []byte {
	bare := *a
	bare.Type, bare.Seq, bare.ValidUntil, bare.Pow = "", 0, 0, nil
	text, err := protocol.Canonicalize(&bare)
	if err != nil {
		return nil
	}
	return text
}

// errChanged: what was worked for is out of date.
var errChanged = errors.New("what is to be announced has changed")

// make proves and signs a new one. It gives up with errChanged when what is offered changes meanwhile.
func (p *Publisher) make(ctx context.Context, before *current) (*current, error) {
	said := *p.cfg.Words()
	offered := words(&said)
	at := protocol.TimestampOf(p.cfg.Clock())
	// The clock, so that seq rises although the database was lost.
	said.Seq = max(int64(at), p.least)
	if before != nil {
		said.Seq = max(said.Seq, before.said.Seq+1)
	}
	said.ValidUntil = at.Add(Validity)
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(working, lookPause) {
			if !bytes.Equal(offered, words(p.cfg.Words())) {
				stop(errChanged)
			}
		}
	}()
	e, err := p.prover.Announce(working, p.cfg.Key, at, &said, p.bits)
	stop(nil)
	<-done
	if err != nil {
		return nil, err
	}
	return &current{e, &said}, nil
}

func (p *Publisher) adopt(ctx context.Context, c *current) error {
	if p.cfg.Adopt == nil {
		return nil
	}
	return p.cfg.Adopt(ctx, c.envelope, c.said)
}

// publish keeps an announcement on all hubs until it no longer stands.
func (p *Publisher) publish(ctx context.Context, c *current) error {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	group, sending := errgroup.WithContext(sending)
	for _, hub := range p.cfg.Hubs {
		group.Go(func() error { p.keep(sending, hub, c); return nil })
	}
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for stands := true; stands; {
		select {
		case <-ctx.Done():
			stands = false
		case receipt := <-p.asked:
			stands = !p.follow(receipt, c)
		case <-look.C:
			stands = p.stands(c)
		}
	}
	stop()
	return group.Wait()
}

// follow does as a hub wants, as far as that is reasonable, and tells whether that takes a new announcement.
func (p *Publisher) follow(r broadcast.Receipt, c *current) bool {
	switch {
	case r.Reason == broadcast.ReasonOld && r.Seq >= c.said.Seq && r.Seq < protocol.MaxInteger:
		p.least = r.Seq + 1 // only this relay could have signed it: the database is older than that
		return true
	case r.Bits > int64(p.bits) && r.Bits <= int64(p.cfg.Bits)+maxMore:
		p.bits = int(r.Bits)
		return true
	}
	return false
}

// keep sends an announcement to one hub until ctx is done.
func (p *Publisher) keep(ctx context.Context, hub Hub, c *current) {
	log := p.cfg.Logger.With("hub", hub.Name())
	wait, told := retryPause, broadcast.Reason("none")
	for {
		asking, cancel := context.WithTimeout(ctx, receiptPatience)
		receipt, err := hub.Announce(asking, c.envelope.Bytes())
		cancel()
		if ctx.Err() != nil {
			return
		}
		reason := receipt.Reason
		if receipt.Taken {
			reason = ""
		} else if err != nil {
			reason = broadcast.ReasonStore
		}
		if reason != told {
			told = reason
			tell(log, receipt, err, c)
		}
		next := resendPause
		if !receipt.Taken {
			select {
			case p.asked <- receipt:
			default: // another hub's is looked at first; this one will say it again
			}
			next, wait = wait, min(2*wait, retryLong)
		} else {
			wait = retryPause
		}
		if !pause(ctx, next) {
			return
		}
	}
}

// tell logs what a hub says when it says something new.
func tell(log *slog.Logger, r broadcast.Receipt, err error, c *current) {
	switch {
	case r.Taken:
		log.Info("announced", "seq", c.said.Seq, "validUntil", c.said.ValidUntil.Time())
	case err != nil:
		log.Warn("the hub does not answer: trying again", "err", err)
	default:
		log.Warn("the hub does not take the announcement", "reason", r.Reason, "says", fmt.Sprintf("%.200q", r.Detail), "bits", r.Bits)
	}
}

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
