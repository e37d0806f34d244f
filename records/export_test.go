package records

import (
	"context"
	"time"

	"relaymarket/protocol"
)

// PullTogether serves the pulls in one transaction, as they are when they wait at the same time, and those
// that it leaves alone as [Store.Pull] does.
func (s *Store) PullTogether(ctx context.Context, requests ...PullRequest) (pages []*Page, errs []error, alone int) {
	group := make([]*pull, len(requests))
	for i, r := range requests {
		after, err := s.place(r.After)
		if err != nil {
			panic(err)
		}
		group[i] = &pull{ctx: ctx, request: r, after: after, done: make(chan struct{})}
	}
	s.serve(ctx, append([]*pull(nil), group...))
	pages, errs = make([]*Page, len(group)), make([]error, len(group))
	for i, p := range group {
		pages[i], errs[i] = p.page, p.err
		if p.alone {
			alone++
			pages[i], errs[i] = s.Pull(ctx, p.request)
		}
	}
	return pages, errs, alone
}

// BeCareful has single pulls look for their page ids, or not.
func (s *Store) BeCareful(on bool) {
	var until time.Time
	if on {
		until = time.Now().Add(carefulFor)
	}
	s.careful.Store(&until)
}

// PullSingle serves a pull of one record by the statement for those, and tells whether that left it to others.
func (s *Store) PullSingle(ctx context.Context, r PullRequest) (page *Page, left bool, err error) {
	after, err := s.place(r.After)
	if err != nil {
		return nil, false, err
	}
	p := &pull{ctx: ctx, request: r, after: after}
	others, err := s.serveSingles(ctx, []*pull{p})
	return p.page, len(others) > 0, err
}

// Recent is the ring of recent records, for tests.
type Recent struct{ c *recent }

// NewRecent makes one of so many bytes.
func NewRecent(bytes int) Recent { return Recent{newRecent(bytes)} }

// Add keeps a record at a place.
func (r Recent) Add(n int64, in Incoming) {
	it := newItem(in)
	it.n = n
	r.c.add([]*item{it})
}

// Envelope is what is held of the record at a place.
func (r Recent) Envelope(n int64, hash protocol.Hash) []byte { return r.c.envelope(n, hash, new(room)) }

// Held is how many records and bytes are held.
func (r Recent) Held() (records, bytes int) {
	for _, h := range r.c.order {
		bytes += h.size
	}
	return len(r.c.order), bytes
}

// KeepBookmarks has a store begin anew with room for so many bookmarks, and tell how many there are.
func (s *Store) KeepBookmarks(most int) (held func() int) {
	s.bookmarks = newBookmarks(most)
	return func() int { return len(s.bookmarks.by) }
}

// Careful tells whether single pulls looked for their page ids.
func (s *Store) Careful() bool { return s.careful.Load() != nil }

// Written is the memory of paths stored lately, for tests.
type Written struct{ w *written }

// NewWritten remembers so many paths at least.
func NewWritten(paths int, now time.Time) Written { return Written{newWritten(paths, now)} }

// Add remembers a path.
func (w Written) Add(path protocol.Path, now time.Time) { w.w.add([]*item{{path: path}}, now) }

// MayHave tells whether a write may be a repeat.
func (w Written) MayHave(path protocol.Path, signed protocol.Timestamp) bool {
	return w.w.mayHave(path, signed)
}

// MaxLook is how many records one look reads, or little more.
const MaxLook = maxLook

// WaitingPulls is how many pulls wait for a server.
func (s *Store) WaitingPulls() int { return s.pulls.depth() }

// The statements that the sweeper finds pages with.
const (
	FindReaders = findReaders
	EndPages    = endPages
)

// Walker sweeps as [Store.Run] does, pass by pass, and hardly rests.
type Walker struct{ w *sweeper }

// NewWalker makes one.
func (s *Store) NewWalker() Walker { return Walker{s.newSweeper(1e-9)} }

// Pass sweeps once. It tells how often it looked at readers, and whether it has been at all of them.
func (w Walker) Pass(ctx context.Context) (looks int, over bool, err error) {
	err = w.w.pass(ctx)
	return w.w.walk.looks, w.w.walk.over, err
}

// Anew is what happens once an hour.
func (w Walker) Anew() { w.w.anew() }

// WalkLooks and WalkReaders bound a pass over readers.
const (
	WalkLooks   = walkLooks
	WalkReaders = walkReaders
)
