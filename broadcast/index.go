package broadcast

import (
	"container/heap"
	"iter"
	"slices"
	"time"

	"relaymarket/protocol"
)

// Bounds of a book.
type Bounds struct {
	Relays int   // at most
	Bytes  int64 // of all envelopes together
	Host   int   // relays on one host at most
}

// DefaultBounds are room for a hundred thousand relays of the usual size: some 150 MB on disk, 40 MB of memory in a hub.
func DefaultBounds() Bounds { return Bounds{Relays: 100_000, Bytes: 192 << 20, Host: 4} }

// How often a relay may change its announcement: so many times at once, and once more after each pause.
const (
	changeBurst = 6
	changePause = time.Minute
)

// Entry is what an [Index] remembers of a relay: less than the announcement, which is stored elsewhere.
type Entry struct {
	Relay      protocol.PublicKey
	Known      Known
	Work       int
	Size       int64
	Hosts      []string
	ValidUntil protocol.Timestamp
	Forget     protocol.Timestamp // when no older announcement can be valid any more
	Place      uint64             // where its owner keeps it: the sequence number in a hub's stream

	expired bool
	changes int                // left of changeBurst
	changed protocol.Timestamp // when changes was counted
	turn    uint64             // counts entries, the first to come has the lowest
	at      int                // in the heap
}

// EntryOf is the entry of an offer that came at a time.
func EntryOf(o *Offer, place uint64, now protocol.Timestamp) *Entry {
	return &Entry{Relay: o.Relay, Known: Known{Seq: o.Seq, Hash: o.Hash, Is: true}, Work: o.Work, Size: o.Envelope.Size(),
		Hosts: hosts(o.Addresses), ValidUntil: o.ValidUntil, Forget: now.Add(Memory), Place: place}
}

// Index says which relays are in a book, within bounds. It is not safe for concurrent use.
//
// When it is full the one with the least work goes first, and of these the one that came last: whoever wants the place of
// another has to work more. One that has expired goes before all others. On a host that is full nobody gives way:
// nothing proves that a host is a relay's, so the first to come stay.
type Index struct {
	bounds  Bounds
	entries map[protocol.PublicKey]*Entry
	hosts   map[string]int
	bytes   int64
	turn    uint64
	least   byWork
}

// NewIndex is empty.
func NewIndex(b Bounds) *Index {
	return &Index{bounds: b, entries: map[protocol.PublicKey]*Entry{}, hosts: map[string]int{}}
}

// Len is how many relays are remembered, expired ones too; Bytes how large their envelopes are.
func (x *Index) Len() int { return len(x.entries) }

// Bytes is how large the envelopes are together.
func (x *Index) Bytes() int64 { return x.bytes }

// Known is what is remembered of a relay.
func (x *Index) Known(relay protocol.PublicKey) Known {
	if e := x.entries[relay]; e != nil {
		return e.Known
	}
	return Known{}
}

// Entry is a relay's, nil if there is none. It must not be changed.
func (x *Index) Entry(relay protocol.PublicKey) *Entry { return x.entries[relay] }

// Room tells whether an entry may come in, and whose place it would take. It changes nothing but the count of what its
// relay changes.
func (x *Index) Room(e *Entry, now protocol.Timestamp) (displaced []protocol.PublicKey, err error) {
	before := x.entries[e.Relay]
	if before != nil && !before.mayChange(now) {
		return nil, refuse(ReasonRate, "this relay changes its announcement more than %d times, and once a minute", changeBurst)
	}
	for _, host := range e.Hosts {
		had := before != nil && !before.expired && slices.Contains(before.Hosts, host)
		if !had && x.hosts[host] >= x.bounds.Host {
			return nil, refuse(ReasonHostFull, "%s has %d relays in the book, which is as many as one host may have", host, x.bounds.Host)
		}
	}
	relays, bytes := len(x.entries)+1, x.bytes+e.Size
	if before != nil {
		relays, bytes = relays-1, bytes-before.Size
	}
	for victim := range x.weakest() {
		if relays <= x.bounds.Relays && bytes <= x.bounds.Bytes {
			break
		}
		if victim == before {
			continue
		}
		if !victim.expired && victim.Work >= e.Work {
			break
		}
		displaced = append(displaced, victim.Relay)
		relays, bytes = relays-1, bytes-victim.Size
	}
	if relays > x.bounds.Relays || bytes > x.bounds.Bytes {
		return nil, refuse(ReasonBookFull, "the book is full, and everybody in it worked as much or more")
	}
	return displaced, nil
}

// weakest goes through the entries in the order in which they give way. Only those that are looked at are sorted: in a heap nobody
// stands before his parent.
func (x *Index) weakest() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for open := []int{0}; len(open) > 0; {
			first := 0
			for i, place := range open {
				if place < len(x.least) && (open[first] >= len(x.least) || x.least.Less(place, open[first])) {
					first = i
				}
			}
			place := open[first]
			if place >= len(x.least) || !yield(x.least[place]) {
				return
			}
			open[first] = 2*place + 1
			open = append(open, 2*place+2)
		}
	}
}

// LeastWork is the work that a newcomer needs, 0 while there is room for anybody.
func (x *Index) LeastWork() int {
	if len(x.entries) < x.bounds.Relays || len(x.least) == 0 || x.least[0].expired {
		return 0
	}
	return x.least[0].Work + 1
}

// Put puts an entry in the place of what its relay had.
func (x *Index) Put(e *Entry, now protocol.Timestamp) {
	e.changes, e.changed = changeBurst-1, now
	if before := x.entries[e.Relay]; before != nil {
		e.changes, e.changed, e.turn = before.changes-1, before.changed, before.turn
		x.Remove(e.Relay)
	} else {
		x.turn++
		e.turn = x.turn
	}
	e.expired = e.ValidUntil < now
	x.entries[e.Relay] = e
	x.bytes += e.Size
	if !e.expired {
		x.count(e, 1)
	}
	heap.Push(&x.least, e)
}

// Remove forgets a relay.
func (x *Index) Remove(relay protocol.PublicKey) {
	e := x.entries[relay]
	if e == nil {
		return
	}
	delete(x.entries, relay)
	x.bytes -= e.Size
	if !e.expired {
		x.count(e, -1)
	}
	heap.Remove(&x.least, e.at)
}

// count counts the hosts of an entry. One that has expired takes no place on a host.
func (x *Index) count(e *Entry, by int) {
	for _, host := range e.Hosts {
		if x.hosts[host] += by; x.hosts[host] <= 0 {
			delete(x.hosts, host)
		}
	}
}

// Expire notes who is no longer valid, and forgets those of whom nothing older can be valid any more.
func (x *Index) Expire(now protocol.Timestamp) (forgotten []*Entry) {
	for _, e := range x.entries {
		switch {
		case e.Forget < now:
			forgotten = append(forgotten, e)
		case !e.expired && e.ValidUntil < now:
			x.count(e, -1)
			e.expired = true
			heap.Fix(&x.least, e.at)
		}
	}
	for _, e := range forgotten {
		x.Remove(e.Relay)
	}
	return forgotten
}

// mayChange is a token bucket.
func (e *Entry) mayChange(now protocol.Timestamp) bool {
	if now > e.changed {
		pauses := int64(now-e.changed) / changePause.Milliseconds()
		e.changes = int(min(int64(e.changes)+pauses, changeBurst))
		e.changed += protocol.Timestamp(pauses * changePause.Milliseconds())
	}
	return e.changes > 0
}

// byWork is a heap with the first to give way in front.
type byWork []*Entry

func (h byWork) Len() int { return len(h) }
func (h byWork) Less(i, j int) bool {
	a, b := h[i], h[j]
	switch {
	case a.expired != b.expired:
		return a.expired
	case a.Work != b.Work:
		return a.Work < b.Work
	}
	return a.turn > b.turn
}
func (h byWork) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *byWork) Push(e any) {
	entry := e.(*Entry)
	entry.at = len(*h)
	*h = append(*h, entry)
}

// Pop implements heap.Interface.
func (h *byWork) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
