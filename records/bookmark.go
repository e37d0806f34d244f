package records

import (
	"sync"

	"relaymarket/protocol"
)

const (
	maxBookmarks = 16 << 10 // readers whose last single pull is remembered, some 5 MB
	maxNext      = "9"      // records that are looked for at once: one for a single pull, the others for those that follow
)

// bookmark is what this process remembers of a reader's last single pull. It spares the next one two walks through an index. It is only a hint: the
// statement of the pull sees to it that a record is still there and his, and that none of his pages is later. It stays true whatever other processes
// do: turns only grow until there is no page, and no record appears between two places once the later one is to be seen. But it is of one database:
// another one behind the same address, a standby that lost the last commits, may hand out their places again.
type bookmark struct {
	turn   int64 // of the page that was made
	sender protocol.PublicKey
	after  int64   // the page's cursor
	next   []int64 // places of the first records after it that the sender has for the reader; not to be changed
}

// bookmarks are those of some readers.
type bookmarks struct {
	most int

	mu    sync.Mutex // guards what follows
	by    map[protocol.PublicKey]bookmark
	conns int64
}

// newBookmarks remembers so many readers.
func newBookmarks(most int) *bookmarks {
	return &bookmarks{most: most, by: make(map[protocol.PublicKey]bookmark)}
}

// of forgets everything if there were new connections: so many have been made until now, the caller's among them.
func (b *bookmarks) of(conns int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns != conns {
		b.conns = conns
		clear(b.by)
	}
}

// find is what may help a single pull: a turn that its reader's last page has at least, if there is one, and the places of its record and of others
// after it, in order. None are told when it is not known whether there is another.
func (b *bookmarks) find(p *pull) (turn int64, next []int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.by[p.request.Reader]
	if len(k.next) > 1 && k.after == p.after && k.sender == p.request.Senders[0] {
		next = k.next
	}
	return k.turn, next
}

// follow remembers the pulls of a group that made a page, and forgets the readers of the others: something was not as expected.
func (b *bookmarks) follow(group []*pull, made []bookmark, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range group {
		reader := p.request.Reader
		if made[i].turn == 0 || err != nil {
			delete(b.by, reader)
			continue
		}
		if _, ok := b.by[reader]; !ok && len(b.by) >= b.most {
			for other := range b.by { // any
				delete(b.by, other)
				break
			}
		}
		b.by[reader] = made[i]
	}
}
