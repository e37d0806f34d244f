package records_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// A sender who repeats what this process does not remember does not get others' writes judged with his.
func TestRepeatsOfAnotherProcess(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), h.account()
	old := h.compose(alice, bob.Public(), "old")
	cursor := h.mustWrite(old)
	elsewhere := joinHouse(t, h.url, h.relay, new(atomic.Int64))
	outcomes := elsewhere.write(h.compose(bob, alice.Public(), "b1"), old, h.compose(alice, bob.Public(), "new"), h.compose(bob, alice.Public(), "b2"))
	for i, o := range outcomes {
		if o.Err != nil || o.Replayed != (i == 1) {
			t.Errorf("write %d: %+v", i, o)
		}
	}
	if outcomes[1].Cursor != cursor {
		t.Errorf("the repeat is at %s, the record at %s", outcomes[1].Cursor, cursor)
	}
	if n := h.count(`SELECT count(*) FROM records`); n != 4 {
		t.Errorf("%d records are stored", n)
	}
	h.balanced()
}

// However many readers wait for each other, with connections in their hands, writes go on: new ones, repeats,
// those of admitted keys and of strangers.
func TestReadersDoNotStopWrites(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.account(), key(t)
	first := h.compose(alice, bob.Public(), "first")
	h.mustWrite(first)
	lock, err := h.db.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_lock(('x' || left($1, 16))::bit(64)::bigint)`, bob.Public().String()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	const crowd = 40
	for i := range crowd {
		go func() {
			_, _ = h.store.Read(ctx, protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "first"}, protocol.PageID(fmt.Sprintf("crowd-page-%08d", i)))
			ended <- struct{}{}
		}()
	}
	for deadline := time.Now().Add(patience); h.db.Pool().Stat().IdleConns() > 0 || h.db.Pool().Stat().AcquiredConns() < h.db.Pool().Stat().MaxConns(); {
		if time.Now().After(deadline) {
			t.Fatal("the readers do not hold all connections")
		}
		time.Sleep(time.Millisecond)
	}
	done := make(chan []records.Outcome, 1)
	go func() {
		done <- h.store.Write(ctx, []records.Incoming{h.compose(alice, bob.Public(), "second"), first, h.compose(alice, bob.Public(), "second"), h.compose(key(t), alice.Public(), "x")})
	}()
	select {
	case outcomes := <-done:
		if outcomes[0].Err != nil || !outcomes[1].Replayed || outcomes[3].Err == nil {
			t.Errorf("%+v", outcomes)
		}
		wantCode(t, outcomes[3].Err, protocol.CodeNoAccount)
	case <-time.After(patience):
		t.Error("a write waited for readers")
	}
	// A pull of one who is at something else does not keep others waiting.
	carol := &reader{h: h, key: key(t)}
	h.mustWrite(h.compose(alice, carol.key.Public(), "for-carol"))
	cancel()
	for range crowd {
		<-ended
	}
	waiting := make(chan struct{})
	ctx, cancel = context.WithCancel(t.Context())
	busy := &reader{h: h, key: bob}
	requests := []records.PullRequest{busy.request(5, alice.Public()), carol.request(5, alice.Public())}
	go func() {
		defer close(waiting)
		_, _ = h.store.Pull(ctx, requests[0])
	}()
	page, err := h.store.Pull(t.Context(), requests[1])
	if err != nil || len(page.Lines) != 1 {
		t.Errorf("%+v %v", page, err)
	}
	cancel()
	<-waiting
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_unlock_all()`); err != nil {
		t.Fatal(err)
	}
}
