package moving

import (
	"bytes"

	"relaymarket/protocol"
)

// Verdict is what a card is beside the one that is known of its owner.
type Verdict int

// The verdicts. Only a card that is Newer or Wins is taken.
const (
	Same  Verdict = iota // the very same envelope
	Newer                // of a later time
	Wins                 // of the same time, and it is the one that all readers take
	Older                // of an earlier time: rolled back, or late
	Loses                // of the same time, and the known one counts
)

// Taken tells whether the card replaces the known one.
func (v Verdict) Taken() bool { return v == Newer || v == Wins }

// Twins tells whether the owner signed two cards of one time.
func (v Verdict) Twins() bool { return v == Wins || v == Loses }

// Judge compares a card with the known one of the same owner. Both are verified.
func Judge(next, known *protocol.Envelope) Verdict {
	switch supersedes := protocol.SupersedesCard(next, known); {
	case bytes.Equal(next.Bytes(), known.Bytes()):
		return Same
	case next.Timestamp == known.Timestamp && supersedes:
		return Wins
	case next.Timestamp == known.Timestamp:
		return Loses
	case supersedes:
		return Newer
	}
	return Older
}

// SaysTheSame tells whether two cards differ in their dates at most.
func SaysTheSame(a, b *protocol.Envelope) bool { return bytes.Equal(a.Request, b.Request) }

// Places are where a card is left for a friend: on the owner's own relays, on those of the cards that the friend may know, in case
// that they are there still, and on the friend's, which admit the owner or not. Each relay is among them once, at the first address of it.
func Places(lists ...[]protocol.RelayRef) []protocol.RelayRef {
	seen := map[protocol.PublicKey]bool{}
	var places []protocol.RelayRef
	for _, list := range lists {
		for _, r := range list {
			if !seen[r.PubKey] {
				seen[r.PubKey] = true
				places = append(places, r)
			}
		}
	}
	return places
}
