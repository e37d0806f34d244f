package records

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// maxWaiting bounds what waits for one listener. One that does not keep up is told where to
// resume, and its memory is given back.
const maxWaiting = 1024

// Subscription tells one listener of the records that named senders leave for him, each once and
// in cursor order: first what was committed before, from the database, then as it is committed.
//
// [Subscription.Next] waits, and is for one goroutine. Who would rather be called does without it:
// [Subscription.CatchUp] until nothing is left in the database, with [Subscription.Poll] after each, then Poll at
// each call of what was given to [Store.Listen]. Close, Cursor and Poll are for any goroutine.
type Subscription struct {
	store    *Store
	receiver protocol.PublicKey
	senders  []protocol.PublicKey // sorted: a map of a thousand takes twice the memory
	joined   int64                // the tail tells what is above this, the database what is not
	call     func()               // something waits; nil: wake says so
	wake     chan struct{}        // capacity 1: something waits

	mu      sync.Mutex // guards what follows; taken after tail.mu
	told    int64      // everything up to here was handed out
	read    int64      // everything up to here was read from the database
	backlog []*Entry   // read from the database, to be handed out
	caught  bool       // the database has nothing more up to joined
	waiting []*Entry   // told by the tail
	behind  bool       // waiting overflowed
	closed  bool
}

// Listen starts a subscription after a cursor; nil is the beginning. The caller must Close it.
//
// If call is given, it is called whenever a commit has something for this listener, and Next must not be used. It is
// called with locks held by whoever committed, perhaps before Listen returns: it must neither block nor use the
// subscription.
func (s *Store) Listen(ctx context.Context, reader protocol.PublicKey, senders []protocol.PublicKey, after *string, call func()) (*Subscription, error) {
	place, err := s.place(after)
	if err != nil {
		return nil, err
	}
	head, err := s.head(ctx)
	if err != nil {
		return nil, err
	}
	if place > head {
		return nil, errEpoch()
	}
	sub := &Subscription{store: s, receiver: reader, senders: slices.Clone(senders), call: call, told: place, read: place}
	if call == nil {
		sub.wake = make(chan struct{}, 1)
	}
	slices.SortFunc(sub.senders, compareKeys)
	s.tail.join(sub, head)
	return sub, nil
}

// join registers a subscription. What was committed up to head is read from the database; when
// nobody listened before, the tail need not tell it either.
func (t *tail) join(sub *Subscription, head int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		t.last = max(t.last, head)
	}
	sub.joined = t.last
	group := t.listeners[sub.receiver]
	if group == nil {
		group = make(map[*Subscription]struct{})
		t.listeners[sub.receiver] = group
	}
	group[sub] = struct{}{}
	t.count++
	t.readOn() // what other processes committed since
}

// offer is called by the tail, which holds its lock: it must not block.
func (sub *Subscription) offer(e *Entry) {
	if _, wanted := slices.BinarySearchFunc(sub.senders, e.Sender, compareKeys); !wanted {
		return
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.behind || sub.closed || e.n <= sub.told {
		return
	}
	if len(sub.waiting) >= maxWaiting {
		sub.behind, sub.waiting = true, nil
		sub.store.metrics.behind.Inc()
	} else {
		sub.waiting = append(sub.waiting, e)
	}
	if sub.call != nil {
		sub.call()
		return
	}
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

func compareKeys(a, b protocol.PublicKey) int { return bytes.Compare(a[:], b[:]) }

// Next waits for the next event, or for ctx. After an event with Behind there is none.
func (sub *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		caught, err := sub.CatchUp(ctx)
		if err != nil {
			return Event{}, err
		}
		if event, ok := sub.Poll(); ok {
			return event, nil
		}
		if !caught {
			continue
		}
		select {
		case <-sub.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Poll is the next event, if there is one without waiting for a commit or for the database.
func (sub *Subscription) Poll() (Event, bool) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.pop()
}

// pop is called with mu held.
func (sub *Subscription) pop() (Event, bool) {
	var e *Entry
	switch {
	case len(sub.backlog) > 0:
		e, sub.backlog = sub.backlog[0], sub.backlog[1:]
	case !sub.caught: // what waits comes after what the database still has
		return Event{}, false
	case sub.behind:
		return Event{Behind: true, Cursor: sub.store.cursor(sub.told)}, true
	case len(sub.waiting) > 0:
		e, sub.waiting[0] = sub.waiting[0], nil
		if sub.waiting = sub.waiting[1:]; len(sub.waiting) == 0 {
			sub.waiting = nil // so that a burst's memory is not kept for the life of the listener
		}
	default:
		return Event{}, false
	}
	sub.told = e.n
	return Event{Entry: e, Cursor: e.Cursor}, true
}

// CatchUp reads what was committed before the subscription began, some at a time and only when what it read last was
// handed out. It tells whether nothing is left to read. There may be, and nothing to hand out either: then all it looked
// at has ended.
func (sub *Subscription) CatchUp(ctx context.Context) (caught bool, err error) {
	sub.mu.Lock()
	caught, read, pending := sub.caught, sub.read, len(sub.backlog)
	sub.mu.Unlock()
	if caught || pending > 0 {
		return caught, nil
	}
	entries, edge, err := sub.store.committedBetween(ctx, sub, read)
	if err != nil {
		return false, err
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.backlog = entries
	switch {
	case len(entries) == tailBatch:
		sub.read = entries[tailBatch-1].n
	case edge > 0:
		sub.read = edge
	default:
		sub.caught = true
	}
	return sub.caught, nil
}

// committedBetween reads up to tailBatch records between a place and the one from which on the tail tells. With fewer,
// edge is how far it looked; 0: to the end.
func (s *Store) committedBetween(ctx context.Context, sub *Subscription, after int64) (entries []*Entry, edge int64, err error) {
	senders := make([][]byte, len(sub.senders))
	for i := range senders {
		senders[i] = sub.senders[i][:]
	}
	rows, err := s.db.Pool().Query(ctx, `
		`+found+`
		SELECT c.n, e.* FROM (SELECT coalesce((SELECT n FROM edge), 0) AS n) c
		LEFT JOIN (SELECT `+entryColumns+` FROM found f JOIN records r USING (n) `+joinPulls+`) e ON true
		ORDER BY e.n`,
		sub.receiver[:], senders, after, sub.joined, int64(s.now()), int64(tailBatch), lookFor(tailBatch, len(senders)), int64(maxLook))
	if err != nil {
		return nil, 0, wrap(err, "listen")
	}
	var row entryRow
	_, err = pgx.ForEachRow(rows, append([]any{&edge}, row.targets()...), func() error {
		if row.n != nil {
			entries = append(entries, row.entry(s))
		}
		return nil
	})
	return entries, edge, wrap(err, "listen")
}

// Cursor is where to resume: everything up to it was handed out. It moves on while nothing comes
// for this listener, so that a resumed one need not look through what was for others.
func (sub *Subscription) Cursor() string {
	t := sub.store.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.caught && len(sub.backlog) == 0 && len(sub.waiting) == 0 && !sub.behind {
		sub.told = max(sub.told, t.last)
	}
	return sub.store.cursor(sub.told)
}

// Close ends the subscription. It may be called more than once.
func (sub *Subscription) Close() {
	t := sub.store.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.closed {
		return
	}
	sub.closed, sub.waiting, sub.backlog = true, nil, nil
	t.count--
	delete(t.listeners[sub.receiver], sub)
	if len(t.listeners[sub.receiver]) == 0 {
		delete(t.listeners, sub.receiver)
	}
}
