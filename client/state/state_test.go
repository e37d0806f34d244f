package state_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

func key(n int) (k protocol.PublicKey) {
	k[0], k[1], k[2] = byte(n>>16), byte(n>>8), byte(n)
	return k
}

func open(t testing.TB, path string) *state.Store {
	t.Helper()
	owner := key(1)
	s, err := state.Open(t.Context(), state.Config{Path: path, Owner: &owner})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fresh(t testing.TB) *state.Store { return open(t, filepath.Join(t.TempDir(), "state.db")) }

func TestNewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`PRAGMA user_version = 1000`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(t.Context(), state.Config{Path: path}); !errors.Is(err, state.ErrNewer) {
		t.Errorf("open: %v", err)
	}
}

func TestDeviceStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	first := open(t, path)
	if device := open(t, path).Device(); device != first.Device() || len(device) != 16 {
		t.Errorf("device %q, then %q", first.Device(), device)
	}
}

func TestFolderWithOddName(t *testing.T) {
	open(t, filepath.Join(t.TempDir(), "a?b#c d%20.db"))
}

// The gaps are what is missing below the highest number, in whatever order messages come.
func TestGaps(t *testing.T) {
	s := fresh(t)
	round := 0 // each is another device's
	rapid.Check(t, func(r *rapid.T) {
		round++
		device := fmt.Sprint("d", round)
		numbers := rapid.SliceOfN(rapid.Int64Range(1, 20), 1, 20).Draw(r, "numbers")
		for i, seq := range numbers {
			m := state.Message{From: key(2), ID: protocol.RecordID(fmt.Sprint(device, "-", i)), Device: device, Seq: seq}
			if _, err := s.StoreMessages(t.Context(), []state.Message{m}); err != nil {
				r.Fatal(err)
			}
		}
		gaps, err := s.Gaps(t.Context(), 0)
		if err != nil {
			r.Fatal(err)
		}
		missing := map[int64]bool{}
		for _, g := range gaps {
			for n := g.First; g.Device == device && n <= g.Last; n++ {
				missing[n] = true
			}
		}
		for n := int64(1); n <= slices.Max(numbers); n++ {
			if missing[n] == slices.Contains(numbers, n) {
				r.Fatalf("of %v, number %d is missing: %v", numbers, n, missing[n])
			}
		}
	})
}

func TestGroups(t *testing.T) {
	s := fresh(t)
	relay := key(9)
	var friends []protocol.PublicKey
	befriend := func(n int) {
		k := key(100 + n)
		if err := s.AddFriend(t.Context(), k, fmt.Sprint("friend-", n), []byte("{}")); err != nil {
			t.Fatal(err)
		}
		friends = append(friends, k)
	}
	plan := func() []state.Source {
		sources, err := s.Plan(t.Context(), relay, friends)
		if err != nil {
			t.Fatal(err)
		}
		return sources
	}
	for n := range protocol.MaxSenders + 5 {
		befriend(n)
	}
	sources := plan()
	if len(sources) != 2 || len(sources[0].Senders) != protocol.MaxSenders || len(sources[1].Senders) != 5 {
		t.Fatalf("%d sources", len(sources))
	}
	page := &state.Page{ID: "p", Scope: &sources[0].Scope, Senders: sources[0].Senders, Limit: 10}
	if err := s.NotePage(t.Context(), relay, page); err != nil {
		t.Fatal(err)
	}
	root := protocol.Hash{1}
	if _, err := s.StorePage(t.Context(), relay, page, nil, &root, "e.1"); err != nil {
		t.Fatal(err)
	}
	befriend(5000)
	sources = plan()
	if len(sources) != 3 || sources[2].Friend == nil || sources[2].After != nil {
		t.Fatalf("the newcomer is not alone: %d sources", len(sources))
	}
	if err := s.Join(t.Context(), relay, *sources[2].Friend); err != nil {
		t.Fatal(err)
	}
	sources = plan()
	if len(sources) != 2 || len(sources[1].Senders) != 6 || sources[0].After == nil || *sources[0].After != "e.1" {
		t.Fatalf("after joining: %d sources, %d in the second", len(sources), len(sources[1].Senders))
	}
	pending, err := s.Pending(t.Context(), relay)
	if err != nil || pending.Page != nil || pending.Ack == nil || pending.Ack.Page != "p" || pending.Ack.Root != root {
		t.Errorf("pending: %+v, %v", pending, err)
	}
	friends = friends[:0]
	if sources = plan(); len(sources) != 0 {
		t.Errorf("%d sources without friends", len(sources))
	}
}

func TestPageSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	after := "e.7"
	friend := key(3)
	for _, page := range []*state.Page{
		{ID: "a", Scope: &state.Scope{Group: 2}, Senders: []protocol.PublicKey{key(4), key(5)}, After: &after, Limit: 7},
		{ID: "b", Scope: &state.Scope{Friend: &friend}, Senders: []protocol.PublicKey{friend}, Limit: 8},
		{ID: "c", Senders: []protocol.PublicKey{key(4)}, Limit: 9},
	} {
		if err := s.NotePage(t.Context(), key(9), page); err != nil {
			t.Fatal(err)
		}
		pending, err := open(t, path).Pending(t.Context(), key(9))
		if err != nil {
			t.Fatal(err)
		}
		got := pending.Page
		if got.ID != page.ID || got.Limit != page.Limit || !slices.Equal(got.Senders, page.Senders) ||
			(got.After == nil) != (page.After == nil) || (got.Scope == nil) != (page.Scope == nil) {
			t.Errorf("noted %+v, read %+v", page, got)
		}
		if got.Scope != nil && (got.Scope.Friend == nil) != (page.Scope.Friend == nil) {
			t.Errorf("page %s has another scope", page.ID)
		}
	}
}

func TestLease(t *testing.T) {
	s := fresh(t)
	relay, now := key(9), protocol.TimestampOf(time.Now())
	take := func(holder string, until protocol.Timestamp, want bool) {
		t.Helper()
		if got, err := s.Lease(t.Context(), relay, holder, until); err != nil || got != want {
			t.Errorf("lease of %s: %v, %v", holder, got, err)
		}
	}
	take("a", now.Add(time.Minute), true)
	take("a", now.Add(time.Minute), true)
	take("b", now.Add(time.Minute), false)
	if err := s.Release(t.Context(), relay, "b"); err != nil {
		t.Fatal(err)
	}
	take("b", now.Add(time.Minute), false)
	if err := s.Release(t.Context(), relay, "a"); err != nil {
		t.Fatal(err)
	}
	take("b", now.Add(-time.Minute), true)
	take("a", now.Add(time.Minute), true) // what b had is over
}

func TestForgottenStaysForgotten(t *testing.T) {
	s := fresh(t)
	m := state.Message{From: key(2), ID: "once", Body: []byte("secret"), Device: "d", Seq: 1}
	for range 2 {
		if _, err := s.StoreMessages(t.Context(), []state.Message{m}); err != nil {
			t.Fatal(err)
		}
		found, err := s.MessagesNamed(t.Context(), "on")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if err := s.Forget(t.Context(), f.N); err != nil {
				t.Fatal(err)
			}
		}
	}
	if all, err := s.Messages(t.Context(), state.Filter{}); err != nil || len(all) != 0 {
		t.Errorf("%d messages, %v", len(all), err)
	}
	if err := s.Forget(t.Context(), 1); !errors.Is(err, state.ErrNoMessage) {
		t.Errorf("forget again: %v", err)
	}
}

func TestIDsAreNoPatterns(t *testing.T) {
	s := fresh(t)
	for i, id := range []protocol.RecordID{"a_b", "axb"} {
		if _, err := s.StoreMessages(t.Context(), []state.Message{{From: key(2), ID: id, Device: "d", Seq: int64(i + 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	for typed, want := range map[string]int{"a_": 1, "a": 2, "b": 2, "_b": 1, "%": 0, "axb": 1, `\`: 0} {
		if found, err := s.MessagesNamed(t.Context(), typed); err != nil || len(found) != want {
			t.Errorf("%q finds %d, want %d (%v)", typed, len(found), want, err)
		}
	}
}
