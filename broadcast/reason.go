package broadcast

import (
	"errors"
	"fmt"
)

// Reason is why an announcement is not taken. Reasons are counted, and told to the sender; they are append-only.
type Reason string

// The reasons, in the order in which they are looked for: the cheap before the dear.
const (
	ReasonFlood     Reason = "flood"     // more came than was looked at
	ReasonSize      Reason = "size"      // over 4 KiB
	ReasonMalformed Reason = "malformed" // no canonical envelope
	ReasonType      Reason = "type"      // an envelope of something else
	ReasonAudience  Reason = "audience"  // not addressed to its own signer
	ReasonSubject   Reason = "subject"   // published where another relay's belongs
	ReasonFuture    Reason = "future"    // dated ahead, or valid for too long
	ReasonExpired   Reason = "expired"   // no longer valid
	ReasonDuplicate Reason = "duplicate" // what the book has already
	ReasonNoWork    Reason = "no_work"   // no proof of work, or a false one
	ReasonLittle    Reason = "little"    // true, but less than is asked for here
	ReasonNetwork   Reason = "network"   // for another Bitcoin network
	ReasonInvalid   Reason = "invalid"   // a member is missing or out of bounds
	ReasonAddress   Reason = "address"   // no address, or one that nobody else can reach
	ReasonOld       Reason = "old"       // the book has a higher seq, or the same with a lower hash
	ReasonSignature Reason = "signature" // not signed by the relay
	ReasonRate      Reason = "rate"      // this relay changes its announcement too often
	ReasonHostFull  Reason = "host_full" // its host has as many relays as a host may have
	ReasonBookFull  Reason = "book_full" // the book is full of relays that worked as much or more
	ReasonDisplaced Reason = "displaced" // was in the book, and gave way to more work
	ReasonStore     Reason = "store"     // the hub could not store it: try again
)

// Reasons lists all of them.
func Reasons() []Reason {
	return []Reason{ReasonFlood, ReasonSize, ReasonMalformed, ReasonType, ReasonAudience, ReasonSubject, ReasonFuture, ReasonExpired,
		ReasonDuplicate, ReasonNoWork, ReasonLittle, ReasonNetwork, ReasonInvalid, ReasonAddress, ReasonOld, ReasonSignature, ReasonRate,
		ReasonHostFull, ReasonBookFull, ReasonDisplaced, ReasonStore}
}

// Error makes a Reason usable as the target of errors.Is.
func (r Reason) Error() string { return string(r) }

// Refusal is why one announcement was not taken, with a sentence about it that may be shown to anybody.
type Refusal struct {
	Reason Reason
	Detail string
}

// Error implements error.
func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

// Unwrap makes errors.Is(err, reason) true.
func (r *Refusal) Unwrap() error { return r.Reason }

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// ReasonOf is the reason in an error, [ReasonStore] when there is none.
func ReasonOf(err error) Reason {
	var reason Reason
	if errors.As(err, &reason) {
		return reason
	}
	return ReasonStore
}

// Receipt is a hub's answer to a request on the ingest subject, as JSON. It is not signed: the book itself shows whether a hub has
// taken an announcement.
type Receipt struct {
	Taken  bool   `json:"taken"`            // it is stored; or it was there already
	Reason Reason `json:"reason,omitempty"` // why it is not taken
	Detail string `json:"detail,omitempty"`
	Bits   int64  `json:"bits,omitempty"` // with little and book_full: the work that would do
	Seq    int64  `json:"seq,omitempty"`  // with old: the seq that the hub knows
}
