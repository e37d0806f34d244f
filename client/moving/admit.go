package moving

import (
	"slices"

	"relaymarket/protocol"
)

// Wish is somebody who may leave records for the owner, on his account.
type Wish struct {
	protocol.Admitted
	Own bool // the owner said so himself; else it is what he gives to any friend
}

// Lists is what is known of one relay's list of admitted keys.
type Lists struct {
	Wishes  []Wish                      // the most important first
	Refused map[protocol.PublicKey]bool // to whom the owner said no
	Last    []protocol.Admitted         // what this device put there, see [Noted]
	There   []protocol.Admitted         // what is there now
}

// Merge is the list that the relay is to have. Other devices of the owner have lists of their own, so what is there is changed,
// not replaced: an entry of theirs stays unless the owner said otherwise here, and what one of them took off is not put
// back, unless all is gone, as on a relay that lost it. It is cut at [protocol.MaxAdmitted]: what was given to any friend goes first.
func Merge(l Lists) []protocol.Admitted {
	var merged []protocol.Admitted
	for _, own := range []bool{true, false} { // what the owner said himself comes first, in case that there is no room for all
		for _, w := range l.Wishes {
			if w.Own != own {
				continue
			}
			there, last := find(l.There, w.Key), find(l.Last, w.Key)
			switch {
			case own, there == nil && last == nil, len(l.There) == 0:
				merged = append(merged, w.Admitted)
			case there == nil: // another device took him off
			case last != nil && *there == *last: // as this device left it: what any friend gets may have changed
				merged = append(merged, w.Admitted)
			default:
				merged = append(merged, *there)
			}
		}
		if !own {
			break
		}
		for _, a := range l.There { // of other devices; those that are wished for by default come in their turn
			if !l.Refused[a.Key] && find(l.Last, a.Key) == nil && !among(l.Wishes, a.Key) {
				merged = append(merged, a)
			}
		}
	}
	return merged[:min(len(merged), protocol.MaxAdmitted)]
}

// Noted is what is to be [Lists].Last the next time, once the relay has the merged list: what of it is as it was wished here, and
// what another device took off.
func Noted(l Lists, merged []protocol.Admitted) []protocol.Admitted {
	var noted []protocol.Admitted
	for _, w := range l.Wishes {
		if now, last := find(merged, w.Key), find(l.Last, w.Key); now != nil && *now == w.Admitted {
			noted = append(noted, *now)
		} else if now == nil && last != nil {
			noted = append(noted, *last)
		}
	}
	return noted
}

// SameList tells whether two lists admit the same, in whatever order.
func SameList(a, b []protocol.Admitted) bool {
	if len(a) != len(b) {
		return false
	}
	for _, one := range a {
		if other := find(b, one.Key); other == nil || *other != one {
			return false
		}
	}
	return true
}

func find(list []protocol.Admitted, key protocol.PublicKey) *protocol.Admitted {
	if i := slices.IndexFunc(list, func(a protocol.Admitted) bool { return a.Key == key }); i >= 0 {
		return &list[i]
	}
	return nil
}

func among(wishes []Wish, key protocol.PublicKey) bool {
	return slices.ContainsFunc(wishes, func(w Wish) bool { return w.Key == key })
}
