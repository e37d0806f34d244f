package market

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

// Tally is what became of announcements that a hub told.
type Tally struct {
	Taken   int                      // new, or better than what was known
	Refused map[broadcast.Reason]int // duplicates are among them, and are no fault
}

// Bad is how many a hub should not have had, or not any more.
func (t Tally) Bad() (n int) {
	for reason, count := range t.Refused {
		switch reason {
		case broadcast.ReasonDuplicate, broadcast.ReasonOld, broadcast.ReasonExpired, broadcast.ReasonRate, broadcast.ReasonHostFull,
			broadcast.ReasonBookFull, broadcast.ReasonLittle:
		default:
			n += count
		}
	}
	return n
}

func (t *Tally) refuse(err error) {
	if t.Refused == nil {
		t.Refused = map[broadcast.Reason]int{}
	}
	t.Refused[broadcast.ReasonOf(err)]++
}

func (t *Tally) add(other Tally) {
	t.Taken += other.Taken
	for reason, count := range other.Refused {
		if t.Refused == nil {
			t.Refused = map[broadcast.Reason]int{}
		}
		t.Refused[reason] += count
	}
}

// merge checks what a hub told and keeps what is new, durably when it returns.
func (b *Book) merge(ctx context.Context, messages []feed.Message) (changed []*broadcast.Offer, t Tally, err error) {
	now := b.now()
	offers := b.check(messages, now)
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []protocol.PublicKey
	for _, c := range offers {
		if c.err == nil {
			c.err = b.index.Known(c.offer.Relay).Beats(c.offer) // twice in one page
		}
		var displaced []protocol.PublicKey
		var entry *broadcast.Entry
		if c.err == nil {
			entry = broadcast.EntryOf(c.offer, 0, now)
			displaced, c.err = b.index.Room(entry, now)
		}
		if c.err != nil {
			t.refuse(c.err)
			continue
		}
		for _, relay := range displaced {
			b.index.Remove(relay)
		}
		b.index.Put(entry, now)
		gone, changed = append(gone, displaced...), append(changed, c.offer)
	}
	t.Taken = len(changed)
	if len(changed) == 0 && len(gone) == 0 {
		return nil, t, nil
	}
	if err := b.write(ctx, changed, gone, now); err != nil {
		return nil, t, err
	}
	return changed, t, nil
}

// checked is one message and what is to be said of it.
type checked struct {
	offer *broadcast.Offer
	err   error
}

// check checks on all cores.
func (b *Book) check(messages []feed.Message, now protocol.Timestamp) []checked {
	all := make([]checked, len(messages))
	known := func(relay protocol.PublicKey) broadcast.Known {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.index.Known(relay)
	}
	workers := min(runtime.GOMAXPROCS(0), len(messages))
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for i := w; i < len(messages); i += workers {
				m := messages[i]
				if m.Subject == "" { // over HTTP
					all[i].offer, all[i].err = b.rules.Check(m.Data, now, known)
				} else {
					all[i].offer, all[i].err = b.rules.CheckOn(m.Subject, m.Data, now, known)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // they return none
	return all
}
