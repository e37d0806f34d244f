package api

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"relaymarket/protocol"
)

// An announcement is good for a day and signed anew every hour, so that whoever read it has most
// of a day to use it.
const (
	announcementLife  = 24 * time.Hour
	announcementFresh = time.Hour
	announcementRetry = 10 * time.Second // when it could not be kept
	announcementKeep  = 5 * time.Second  // for the database to keep it
)

// announcer signs what the relay says of itself, from its live configuration.
type announcer struct {
	cfg  Config
	conf *atomic.Pointer[Live] // the server's

	mu     sync.Mutex
	signed []byte
	at     time.Time // of its signature
	offers []protocol.Terms
	from   *Live     // what it was made of
	seq    int64     // of the newest
	tried  time.Time // when a new one could not be kept
	market []byte    // what the market is shown, which then is shown here too
	until  time.Time // that is valid
}

// Words is what the relay offers at this moment, from its live configuration, without seq and validity. It is what the market is
// told, see [Server.Show].
func (s *Server) Words() *protocol.Announcement { return s.announcer.words(s.live()) }

// Show makes an announcement of the relay the one that everybody is shown, here and in refusals, as long as it is valid. It is kept
// before: contracts are opened on it.
func (s *Server) Show(ctx context.Context, e *protocol.Envelope, said *protocol.Announcement) error {
	a := s.announcer
	if a.cfg.Contracts != nil && said.Contracts != nil {
		if err := a.cfg.Contracts.Announce(ctx, e, said); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.market, a.until = e.Bytes(), said.ValidUntil.Time()
	return nil
}

// current is the announcement's envelope. A clock that went back makes a new one too: the old would be from the
// future. Contracts are opened on it, so it is kept before anybody is told; while the database is away, the one
// before serves as long as it has most of an hour left.
func (a *announcer) current(ctx context.Context) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Clock()
	if a.market != nil && now.Add(announcementFresh).Before(a.until) {
		return a.market, nil
	}
	age := now.Sub(a.at)
	held := a.signed != nil && age >= 0 && age < announcementLife-announcementFresh
	if pause := now.Sub(a.tried); held && (age < announcementFresh && !a.changed() || pause >= 0 && pause < announcementRetry) {
		return a.signed, nil
	}
	offers, from := a.cfg.Willing.Offers(), a.conf.Load()
	e, said, err := a.sign(now, from, a.seq+1)
	if err != nil {
		return nil, err
	}
	if from.Offer != nil {
		// One who gives up must not keep the others from an answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announcementKeep)
		defer cancel()
		if err := a.cfg.Contracts.Announce(ctx, e, said); err != nil {
			a.tried = now
			if held {
				return a.signed, nil
			}
			return nil, err
		}
	}
	a.signed, a.at, a.offers, a.from, a.seq = e.Bytes(), now, offers, from, said.Seq
	return a.signed, nil
}

// changed tells whether the relay offers something else than what it signed last.
func (a *announcer) changed() bool {
	return !a.from.saysAs(a.conf.Load()) || !slices.Equal(a.offers, a.cfg.Willing.Offers())
}

// sign makes the announcement of an instant, with at least that seq.
func (a *announcer) sign(now time.Time, live *Live, least int64) (*protocol.Envelope, *protocol.Announcement, error) {
	at := protocol.TimestampOf(now)
	said := a.words(live)
	// The clock rises by itself, across restarts and processes too; two changes in one millisecond are two announcements all the same.
	said.Seq = max(int64(at), least)
	said.ValidUntil = at.Add(announcementLife)
	e, err := protocol.Sign(a.cfg.Key, a.cfg.Key.Public(), at, said)
	if err != nil {
		return nil, nil, err
	}
	if e.Size() > protocol.MaxAnnouncementSize {
		return nil, nil, protocol.Errorf(protocol.CodeTooLarge, "it has %d bytes, %d are allowed: name fewer addresses",
			e.Size(), protocol.MaxAnnouncementSize)
	}
	return e, said, nil
}

// words are all but seq, validity and proof of work.
func (a *announcer) words(live *Live) *protocol.Announcement {
	l, b := live.Limits, live.Bounds
	said := &protocol.Announcement{
		Addresses: append([]string{}, a.cfg.Addresses...),
		Limits: protocol.Limits{
			RecordBytes: l.RecordBytes, AdmittedBytes: l.AdmittedBytes,
			BatchBytes: protocol.MaxPageBytes, BatchRecords: protocol.MaxPageRecords,
			PageBytes: protocol.MaxPageBytes, PageRecords: protocol.MaxPageRecords,
			LifetimeMs: l.Lifetime.Milliseconds(), MaxPulls: l.MaxPulls,
			HeaderSeconds: int64(b.HeaderTimeout / time.Second), BodySeconds: int64(b.BodyTimeout / time.Second),
		},
		Terms:   []protocol.Terms{{Type: protocol.TermsGrant, Contact: live.Contact}},
		Network: a.cfg.Network,
		Hubs:    slices.Clone(a.cfg.Hubs),
	}
	if live.Offer != nil {
		said.Contracts = live.Offer
		said.Terms = append([]protocol.Terms{{Type: protocol.TermsContract, Payment: true, Contact: live.Contact}}, said.Terms...)
	}
	a.volunteer(said)
	return said
}

// room is what an announcement's envelope has beside the members that words make: keys, times, signature, seq, validity and work.
const room = 640

// volunteer adds what the relay does for nothing. What would make the announcement too large is left out, the last first: a relay that
// could say nothing any more would be worse.
func (a *announcer) volunteer(said *protocol.Announcement) {
	own := said.Terms
	offers := a.cfg.Willing.Offers()
	for ; ; offers = offers[:len(offers)-1] {
		said.Terms, said.Notice = slices.Concat(own, offers), ""
		if slices.ContainsFunc(offers, func(t protocol.Terms) bool { return t.Ads }) {
			said.Notice = a.cfg.Willing.Notice()
		}
		text, err := protocol.Canonicalize(said)
		if len(offers) == 0 || err == nil && len(text)+room <= protocol.MaxAnnouncementSize {
			return
		}
	}
}
