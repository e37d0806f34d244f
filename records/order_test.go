package records_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// 64 writers leave records for one receiver, through one or two processes, while he polls and
// listens on either. Both see every record once, and in the same order.
func TestEveryRecordOnceAndInOrder(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			h := newHouse(t)
			houses := []*house{h}
			for range processes - 1 {
				houses = append(houses, joinHouse(t, h.url, h.relay, h.offset))
			}
			const writers, each = 64, 15
			bob := key(t)
			var senders []protocol.PublicKey
			var keys []*protocol.PrivateKey
			for range writers {
				k := h.account()
				keys, senders = append(keys, k), append(senders, k.Public())
			}
			total := writers * each
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			var polled, listened [2][]string
			var wg sync.WaitGroup
			for p := range processes {
				wg.Go(func() { listened[p] = listenFor(ctx, t, houses[p], bob, senders, total) })
			}
			wg.Go(func() { polled[0] = pollFor(ctx, t, houses[processes-1], bob, senders, total) })
			for w, k := range keys {
				wg.Go(func() {
					for i := range each {
						if out := houses[w%processes].write(h.compose(k, bob.Public(), fmt.Sprintf("%d-%d", w, i)))[0]; out.Err != nil {
							t.Error(out.Err)
						}
					}
				})
			}
			wg.Wait()
			for p := range processes {
				if a, b := strings.Join(polled[0], " "), strings.Join(listened[p], " "); a != b {
					t.Fatalf("process %d: polled and listened differ\n%.300s\n%.300s", p, a, b)
				}
			}
			seen := make(map[string]bool)
			for _, id := range polled[0] {
				if seen[id] {
					t.Fatalf("%s twice", id)
				}
				seen[id] = true
			}
			if len(seen) != total {
				t.Fatalf("%d of %d records", len(seen), total)
			}
		})
	}
}

func pollFor(ctx context.Context, t *testing.T, h *house, bob *protocol.PrivateKey, senders []protocol.PublicKey, total int) (seen []string) {
	r := &reader{h: h, key: bob}
	for len(seen) < total {
		page, err := r.pull(ctx, 37, senders...)
		if err != nil {
			t.Errorf("after %d: %v", len(seen), err)
			return seen
		}
		seen = append(seen, ids(t, page)...)
	}
	return seen
}

// listenFor reconnects every now and then, as a client on a train does.
func listenFor(ctx context.Context, t *testing.T, h *house, bob *protocol.PrivateKey, senders []protocol.PublicKey, total int) (seen []string) {
	var after *string
	for len(seen) < total {
		sub, err := h.store.Listen(ctx, bob.Public(), senders, after, nil)
		if err != nil {
			t.Error(err)
			return seen
		}
		for range 100 {
			if len(seen) == total {
				break
			}
			e, err := sub.Next(ctx)
			if err != nil {
				t.Errorf("after %d: %v", len(seen), err)
				sub.Close()
				return seen
			}
			if e.Behind {
				after = &e.Cursor
				break
			}
			seen = append(seen, string(e.Entry.ID))
			after = &e.Cursor
		}
		sub.Close()
	}
	return seen
}

func TestListenFallsBehind(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	sub, err := h.store.Listen(t.Context(), bob.Public(), []protocol.PublicKey{alice.Public()}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for i := range 13 {
		var batch []string
		for j := range 100 {
			batch = append(batch, fmt.Sprintf("r%d-%d", i, j))
		}
		writeAll(t, h, alice, bob.Public(), batch)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var told []string
	var last string
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		last = e.Cursor
		if e.Behind {
			break
		}
		told = append(told, string(e.Entry.ID))
	}
	// What the listener was told, and what it is told when it resumes, is everything once.
	again, err := h.store.Listen(t.Context(), bob.Public(), []protocol.PublicKey{alice.Public()}, &last, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	seen := make(map[string]bool)
	for _, id := range told {
		seen[id] = true
	}
	for len(seen) < 1300 {
		e, err := again.Next(ctx)
		if err != nil {
			t.Fatalf("%d of 1300: %v", len(seen), err)
		}
		if seen[string(e.Entry.ID)] {
			t.Fatalf("%s twice", e.Entry.ID)
		}
		seen[string(e.Entry.ID)] = true
	}
	quiet, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if e, err := again.Next(quiet); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("one too many: %+v %v", e, err)
	}
	if e, more := again.Poll(); more {
		t.Fatalf("one too many: %+v", e)
	}
}

func writeAll(t *testing.T, h *house, from *protocol.PrivateKey, to protocol.PublicKey, names []string) {
	t.Helper()
	batch := make([]records.Incoming, len(names))
	for i, id := range names {
		batch[i] = h.compose(from, to, id)
	}
	for _, out := range h.write(batch...) {
		if out.Err != nil {
			t.Fatal(out.Err)
		}
	}
}

// A listener that resumes on a process which has not yet seen what he saw elsewhere is not told it twice.
func TestResumeOnAProcessThatLags(t *testing.T) {
	h := newHouse(t)
	lagging := joinHouse(t, h.url, h.relay, h.offset)
	alice, bob := h.account(), key(t)
	senders := []protocol.PublicKey{alice.Public()}
	first, err := lagging.store.Listen(t.Context(), bob.Public(), senders, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	cursor := h.mustWrite(h.compose(alice, bob.Public(), "a"))
	resumed, err := lagging.store.Listen(t.Context(), bob.Public(), senders, &cursor, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resumed.Close()
	if e, err := first.Next(t.Context()); err != nil || e.Entry.ID != "a" {
		t.Fatalf("%+v %v", e, err)
	}
	h.mustWrite(h.compose(alice, bob.Public(), "b"))
	if e, err := resumed.Next(t.Context()); err != nil || e.Entry.ID != "b" {
		t.Fatalf("resumed after a, told %+v %v", e, err)
	}
}
