package devices

import (
	"bytes"
	"cmp"
	"slices"

	"relaymarket/protocol"
)

// Compare orders stamps: the greater one wins.
func (s Stamp) Compare(o Stamp) int { return cmp.Or(cmp.Compare(s.At, o.At), cmp.Compare(s.By, o.By)) }

// Next is the stamp of a change by a device now to what was stamped before: later than that, also when the clock is not.
func (s Stamp) Next(now protocol.Timestamp, by ID) Stamp { return Stamp{At: max(now, s.At+1), By: by} }

func order(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// Join gives what two words about one device come to. That of two with one stamp the contents decide makes it an order even if
// a device broke its word.
func (d Device) Join(o Device) Device {
	if cmp.Or(d.Stamp.Compare(o.Stamp), cmp.Compare(order(d.Removed), order(o.Removed)), cmp.Compare(d.Name, o.Name)) < 0 {
		return o
	}
	return d
}

// Join joins the name, and beside it the card: the newest there is, whoever won the name.
func (f Friend) Join(o Friend) Friend {
	card := newest(f.Card, o.Card)
	if cmp.Or(f.Stamp.Compare(o.Stamp), cmp.Compare(order(f.Removed), order(o.Removed)), cmp.Compare(f.Name, o.Name)) < 0 {
		f = o
	}
	f.Card = card
	return f
}

// newest is the card that replaces the other. Bytes that are no card lose.
func newest(a, b []byte) []byte {
	x, errX := protocol.ParseEnvelope(a)
	y, errY := protocol.ParseEnvelope(b)
	switch {
	case errX != nil && errY != nil:
		return slices.MaxFunc([][]byte{a, b}, bytes.Compare)
	case errX != nil || errY == nil && protocol.SupersedesCard(y, x):
		return b
	}
	return a
}

// Join joins two words about one relay.
func (r Relay) Join(o Relay) Relay {
	if cmp.Or(r.Stamp.Compare(o.Stamp), cmp.Compare(order(r.Removed), order(o.Removed)), cmp.Compare(r.Address, o.Address),
		cmp.Compare(r.Added, o.Added), cmp.Compare(r.Bytes, o.Bytes)) < 0 {
		return o
	}
	return r
}

// Join joins two labels.
func (l Label) Join(o Label) Label {
	if cmp.Or(l.Stamp.Compare(o.Stamp), cmp.Compare(l.Text, o.Text)) < 0 {
		return o
	}
	return l
}

// Join joins two marks of one message: the first time counts.
func (m Mark) Join(o Mark) Mark {
	m.Read, m.Removed, m.Expires = First(m.Read, o.Read), First(m.Removed, o.Removed), max(m.Expires, o.Expires)
	return m
}

// First is the earlier of two times, of which 0 is never.
func First(a, b protocol.Timestamp) protocol.Timestamp {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Join joins two words about one copy: the last counts, since a copy that a relay lost is sent again, and of two of
// one moment the one that is further on. That its reader has it stays true.
func (c Copy) Join(o Copy) Copy {
	got := First(c.Got, o.Got)
	if c.compare(o) < 0 {
		c = o
	}
	c.Got = got
	return c
}

func (c Copy) compare(o Copy) int {
	return cmp.Or(cmp.Compare(c.Changed, o.Changed), cmp.Compare(slices.Index(copyStates, c.State), slices.Index(copyStates, o.State)),
		compareHash(c.Hash, o.Hash), cmp.Compare(c.Bytes, o.Bytes), cmp.Compare(c.Signed, o.Signed), cmp.Compare(c.Cursor, o.Cursor),
		cmp.Compare(c.Address, o.Address))
}

func compareHash(a, b *protocol.Hash) int {
	switch {
	case a == nil || b == nil:
		return cmp.Compare(order(a != nil), order(b != nil))
	default:
		return bytes.Compare(a[:], b[:])
	}
}
