package records

import (
	"sync"
	"time"

	"relaymarket/protocol"
)

// Limits are the bounds this relay keeps on records. They are published in its announcement.
type Limits struct {
	RecordBytes   int64         // envelope of one record
	AdmittedBytes int64         // envelope of one record that an admitted key leaves
	Lifetime      time.Duration // expires − now at most
	MaxPulls      int64         // of one write, at most
}

// DefaultLimits are what a relay keeps when its operator says nothing.
func DefaultLimits() Limits {
	return Limits{RecordBytes: 1 << 20, AdmittedBytes: 64 << 10, Lifetime: 366 * 24 * time.Hour, MaxPulls: 10_000}
}

// Incoming is one write whose envelope is parsed, decoded and verified: signature, audience and
// time are right.
type Incoming struct {
	Envelope *protocol.Envelope
	Write    *protocol.Write
}

// Outcome is what became of one write. With a nil Err the record is committed.
type Outcome struct {
	Cursor   string        // where it stands in this relay's order
	Hash     protocol.Hash // of the stored envelope, which is the first one's when Replayed
	Replayed bool          // the same request was stored before
	Err      error         // a *protocol.Error, or an unexpected one
}

// PullRequest is a verified pull.
type PullRequest struct {
	Reader  protocol.PublicKey
	Senders []protocol.PublicKey
	After   *string
	Limit   int64
	PageID  protocol.PageID
	Got     *Acknowledgement // rides along, for the page before
}

// Acknowledgement is a reader's verified statement that he has a page. Its envelope, of a got or of the pull of the next page, is the
// evidence that a bill rests on.
type Acknowledgement struct {
	Envelope *protocol.Envelope
	PageID   protocol.PageID
	Root     protocol.Hash
}

// Page is what is served for a pull: the header, and one line a record.
type Page struct {
	Header protocol.PageHeader
	Lines  []Line
}

// Line is one record of a page: the exact envelope, or what remains of a record that ended since
// the page was made.
type Line struct {
	Envelope []byte
	Gone     *protocol.GoneRecord
}

// Entry is what is known of a stored record without its content.
type Entry struct {
	n      int64 // the place that Cursor names
	shared *form // nil: told to nobody, or to one listener alone

	Cursor    string
	Sender    protocol.PublicKey
	Receiver  protocol.PublicKey
	ID        protocol.RecordID
	Bytes     int64 // length of the envelope
	Timestamp protocol.Timestamp
	Expires   protocol.Timestamp
	MaxPulls  int64
	Pulls     int64 // pages it was part of so far
	Tag       *protocol.Tag
	Hash      protocol.Hash
}

// form is what all listeners are sent of one entry.
type form struct {
	once sync.Once
	data []byte
	err  error
}

// Encoded is what make makes of the entry. It is made once for all listeners who are told of the entry together, who
// must therefore pass the same function and leave the bytes as they are.
func (e *Entry) Encoded(make func(*Entry) ([]byte, error)) ([]byte, error) {
	if e.shared == nil {
		return make(e)
	}
	e.shared.once.Do(func() { e.shared.data, e.shared.err = make(e) })
	return e.shared.data, e.shared.err
}

// ListRequest asks for one page of an inventory.
type ListRequest struct {
	Sender   protocol.PublicKey
	Receiver *protocol.PublicKey // nil: all of the sender's outboxes
	After    *string             // cursor; nil: from the beginning
	Limit    int64               // 1 … protocol.MaxPageRecords
	AfterTs  *protocol.Timestamp // exclusive
	BeforeTs *protocol.Timestamp // exclusive
}

// Listing is one page of an inventory.
type Listing struct {
	Cursor  string // list again after this
	More    bool
	Entries []Entry
}

// Event is one thing a subscription tells: exactly one of a record, a sign of life or the end.
type Event struct {
	Entry  *Entry // a committed record
	Cursor string // all up to here was told
	Behind bool   // the listener fell behind; the subscription is over, resume after Cursor
}
