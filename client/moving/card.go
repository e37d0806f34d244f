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

// MaxPlaces is on how many relays a card is left for one friend.
const MaxPlaces = 48

// Cards are the relays of the cards by which the owner and a friend may find each other.
type Cards struct {
	Own    []protocol.RelayRef // the owner's, now
	Theirs []protocol.RelayRef // the friend's, now
	Known  []protocol.RelayRef // of the owner's card that the friend was told last
	Before []protocol.RelayRef // of the one that he knew before
}

// Places are where a card is left for a friend: on the owner's own relays, on the friend's, which admit the owner or not, and on those of the
// cards that the friend may know, in case that they are there still. Each relay is among them once, at the address that the owner has for it if he
// has one. If they are more than [MaxPlaces] the oldest are left out.
func Places(c Cards) []protocol.RelayRef {
	addresses := map[protocol.PublicKey]protocol.RelayRef{}
	for _, list := range [][]protocol.RelayRef{c.Own, c.Before, c.Known, c.Theirs} {
		for _, r := range list {
			if _, known := addresses[r.PubKey]; !known {
				addresses[r.PubKey] = r
			}
		}
	}
	var places []protocol.RelayRef
	for _, list := range [][]protocol.RelayRef{c.Own, c.Theirs, c.Known, c.Before} {
		for _, r := range list {
			if at, left := addresses[r.PubKey]; left {
				delete(addresses, r.PubKey)
				places = append(places, at)
			}
		}
	}
	return places[:min(len(places), MaxPlaces)]
}
