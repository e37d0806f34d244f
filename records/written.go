package records

import (
	"hash/maphash"
	"sync"
	"time"

	"relaymarket/protocol"
)

// writtenPaths is how many paths each of two generations remembers, in tables of twice the size: some
// 16 MB, and at least half a minute of a busy relay.
const writtenPaths = 512 << 10

// written remembers which paths this process stored lately. A client repeats what it got no answer to;
// a write that is a repeat is looked up before it is tried, because one that runs into the unique index
// spoils the attempt of all that are committed with it. It is only a hint, and may err both ways.
type written struct {
	seed maphash.Seed
	most int

	mu    sync.Mutex // guards what follows
	young pathSet
	old   pathSet
}

// pathSet is a hash table of paths' hashes, without deletion. Zero is a free slot.
type pathSet struct {
	since time.Time // every path stored from then on is in it, or in the one after it
	slots []uint64  // a power of two
	count int
}

// newWritten remembers between paths and twice as many; paths is a power of two.
func newWritten(paths int, now time.Time) *written {
	return &written{seed: maphash.MakeSeed(), most: paths,
		young: pathSet{since: now, slots: make([]uint64, 2*paths)}, old: pathSet{since: now, slots: make([]uint64, 2*paths)}}
}

// add remembers the paths of items that are stored now.
func (w *written) add(items []*item, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range items {
		if w.young.count == w.most {
			w.young, w.old = w.old, w.young
			w.young.since, w.young.count = now, 0
			clear(w.young.slots)
		}
		w.young.put(w.hash(it.path))
	}
}

// mayHave tells whether a write under the path, signed at that time by its client's clock, may be
// a repeat: it was stored lately, or so long ago, perhaps by an earlier process, that nobody remembers.
func (w *written) mayHave(path protocol.Path, signed protocol.Timestamp) bool {
	h := w.hash(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	return signed < protocol.TimestampOf(w.old.since) || w.young.has(h) || w.old.has(h)
}

func (w *written) hash(path protocol.Path) uint64 { return max(maphash.Comparable(w.seed, path), 1) }

func (s *pathSet) slot(h uint64) *uint64 {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		if at := &s.slots[i]; *at == h || *at == 0 {
			return at
		}
	}
}

func (s *pathSet) put(h uint64) {
	if at := s.slot(h); *at == 0 {
		*at = h
		s.count++
	}
}

func (s *pathSet) has(h uint64) bool { return *s.slot(h) == h }
