package state_test

import (
	"fmt"
	"testing"
	"time"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Who changes his card all the time keeps nobody else out of what is told, and is not told of all the time.
func TestRestlessFriend(t *testing.T) {
	secret, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	sealing, err := protocol.NewSealingPrivateKey([protocol.SealingSeedSize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	keys, cards := people(t, 1)
	w := newWorld(t, t.Context(), t.TempDir(), 1)
	defer w.close()
	s := w.devices[0]
	card := func() *protocol.Envelope {
		e, err := protocol.Sign(secret, secret.Public(), protocol.TimestampOf(w.now), &protocol.Identity{Label: w.now.String(), Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{sealing.Public().Item()}})
		w.ok(err)
		return e
	}
	w.ok(s.AddFriend(w.ctx, secret.Public(), "mallory", card().Bytes()))
	w.ok(s.AddFriend(w.ctx, keys[0], "anna", cards[0][0]))
	const step = 9 * time.Minute
	told := 0
	for n := range int(72 * time.Hour / step) {
		w.now = w.now.Add(step)
		w.ok(s.TakeCard(w.ctx, card(), state.Brought{Signed: protocol.TimestampOf(w.now)}))
		w.ok(s.SetLabel(w.ctx, fmt.Sprint(n))) // and it is never quiet
		w.tell(s)
		if n == int(time.Hour/step)+1 && (len(w.written) == 0 || len(w.written[0].Batch.Friends) != 2) {
			t.Fatalf("after an hour %d batches are written", len(w.written))
		}
	}
	for _, m := range w.written {
		for _, f := range m.Batch.Friends {
			if f.Key == secret.Public() {
				told++
			}
		}
	}
	if told < 3 || told > 4 {
		t.Errorf("in three days he was told of %d times", told)
	}
}
