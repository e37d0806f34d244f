package state_test

import (
	"testing"
	"time"

	"relaymarket/client/devices"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// A relay that was removed before anybody heard of it is known as one that was, for thirty days; a card that names it brings it not back.
func TestGoneRelays(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 1)
	defer w.close()
	s := w.devices[0]
	left, here := state.Relay{Key: key(8), Address: "https://left.example", Bytes: 1 << 20}, state.Relay{Key: key(9), Address: "https://here.example", Bytes: 1 << 20}
	w.ok(s.PutRelay(w.ctx, left.Key, left.Address, left.Bytes))
	log, err := s.Enqueue(w.ctx, w.owner, []state.Relay{left}, func(string, int64) (*state.Outgoing, error) {
		return &state.Outgoing{ID: "log", Tag: protocol.ReceiptTag, ContentType: devices.LogType, Body: []byte{}, Sealed: []byte("s"), Expires: protocol.TimestampOf(begun.Add(time.Hour)), MaxPulls: 8}, nil
	})
	w.ok(err)
	w.ok(s.DeleteRelay(w.ctx, left.Key))
	gone, err := s.GoneRelays(w.ctx)
	if err != nil || len(gone) != 1 || gone[0].Key != left.Key || gone[0].Address != left.Address || gone[0].Bytes != left.Bytes {
		t.Fatalf("gone are %+v, %v", gone, err)
	}
	if at, err := s.Copy(w.ctx, log.N, left.Key); err != nil || at.State != state.CopyQueued {
		t.Errorf("what other devices are to be told there is %+v, %v", at, err)
	}
	secret, err := protocol.GeneratePrivateKey()
	w.ok(err)
	sealing, err := protocol.NewSealingPrivateKey([protocol.SealingSeedSize]byte{1})
	w.ok(err)
	newer, err := protocol.Sign(secret, secret.Public(), protocol.TimestampOf(w.now), &protocol.Identity{Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{sealing.Public().Item()}})
	w.ok(err)
	for i, want := range []bool{true, false} {
		if news, err := s.FollowCard(w.ctx, newer, []state.Relay{left, here}); err != nil || news != want {
			t.Fatalf("following the card, time %d: %t, %v", i, news, err)
		}
	}
	if relays, err := s.Relays(w.ctx); err != nil || len(relays) != 1 || relays[0].Key != here.Key {
		t.Errorf("the relays are %+v, %v", relays, err)
	}
	w.now = w.now.Add(31 * 24 * time.Hour)
	if gone, err := s.GoneRelays(w.ctx); err != nil || len(gone) != 0 {
		t.Errorf("a month later gone are %+v, %v", gone, err)
	}
}
