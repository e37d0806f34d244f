package api

import (
	"sync"
	"time"

	"relaymarket/protocol"
)

// An announcement is good for a day and signed anew every hour, so that whoever read it has most
// of a day to use it.
const (
	announcementLife  = 24 * time.Hour
	announcementFresh = time.Hour
)

// announcer signs what the relay says of itself, from its live configuration.
type announcer struct {
	cfg Config

	mu     sync.Mutex
	signed []byte
	at     time.Time
}

// current is the announcement's envelope. A clock that went back makes a new one too: the old would be from the
// future.
func (a *announcer) current(now time.Time) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if age := now.Sub(a.at); a.signed != nil && age >= 0 && age < announcementFresh {
		return a.signed, nil
	}
	at := protocol.TimestampOf(now)
	l, b := a.cfg.Limits, a.cfg.Bounds
	e, err := protocol.Sign(a.cfg.Key, a.cfg.Key.Public(), at, &protocol.Announcement{
		Addresses: append([]string{}, a.cfg.Addresses...),
		Limits: protocol.Limits{
			RecordBytes: l.RecordBytes, AdmittedBytes: l.AdmittedBytes,
			BatchBytes: protocol.MaxPageBytes, BatchRecords: protocol.MaxPageRecords,
			PageBytes: protocol.MaxPageBytes, PageRecords: protocol.MaxPageRecords,
			LifetimeMs: l.Lifetime.Milliseconds(), MaxPulls: l.MaxPulls,
			HeaderSeconds: int64(b.HeaderTimeout / time.Second), BodySeconds: int64(b.BodyTimeout / time.Second),
		},
		Terms:      []protocol.Terms{{Type: "grant", Contact: a.cfg.Contact}},
		Seq:        int64(at), // rises by itself, across restarts and processes too
		ValidUntil: at.Add(announcementLife),
	})
	if err != nil {
		return nil, err
	}
	if e.Size() > protocol.MaxAnnouncementSize {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "it has %d bytes, %d are allowed: name fewer addresses",
			e.Size(), protocol.MaxAnnouncementSize)
	}
	a.signed, a.at = e.Bytes(), now
	return a.signed, nil
}
