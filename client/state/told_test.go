package state_test

import (
	"testing"
	"time"

	"relaymarket/client/moving"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Of a record with a card there are never more copies than are allowed, and those where the friend is now take the place of others, but for one that
// another program may be at work on: that one is given up first.
func TestCopiesOfACardAreBounded(t *testing.T) {
	s := fresh(t)
	friend := key(2)
	if err := s.AddFriend(t.Context(), friend, "anna", []byte("x")); err != nil {
		t.Fatal(err)
	}
	relays := func(first, n int) (all []state.Relay) {
		for i := range n {
			all = append(all, state.Relay{Key: key(first + i), Address: "https://relay.example"})
		}
		return all
	}
	if err := s.EnqueueCard(t.Context(), friend, []byte("card"), relays(10, moving.MaxPlaces), func(string) (*state.Outgoing, error) {
		return &state.Outgoing{ID: "card", Sealed: []byte("x"), Tag: protocol.ReceiptTag, ContentType: protocol.CardType, Body: []byte("card"),
			Expires: protocol.TimestampOf(time.Now().Add(time.Hour)), MaxPulls: 1}, nil
	}); err != nil {
		t.Fatal(err)
	}
	told := func() (n int64, states map[state.CopyState]int) {
		all, err := s.Told(t.Context())
		if err != nil || len(all) != 1 || !all[0].Live {
			t.Fatalf("%+v, %v", all, err)
		}
		states = map[state.CopyState]int{}
		for _, c := range all[0].Copies {
			states[c.State]++
		}
		return all[0].N, states
	}
	n, _ := told()
	stored := relays(10, 1)[0]
	if err := s.SetCopy(t.Context(), n, stored.Key, state.CopyStored, ""); err != nil {
		t.Fatal(err)
	}
	newer := relays(100, protocol.MaxCardRelays)
	for i, want := range []map[state.CopyState]int{
		{state.CopyFailed: moving.MaxPlaces - 1, state.CopyQueued: 1},
		{state.CopyFailed: moving.MaxPlaces - protocol.MaxCardRelays, state.CopyQueued: protocol.MaxCardRelays},
	} {
		if err := s.PlaceCard(t.Context(), n, newer[i:], newer); err != nil {
			t.Fatal(err)
		}
		_, states := told()
		for _, each := range []state.CopyState{state.CopyQueued, state.CopyFailed, state.CopyStored} {
			if states[each] != want[each] {
				t.Errorf("turn %d: %v, want %v", i, states, want)
				break
			}
		}
	}
	if cards, err := s.CardsTold(t.Context(), friend); err != nil || len(cards) != 1 || string(cards[0]) != "card" {
		t.Errorf("%q, %v", cards, err)
	}
}
