package state_test

import (
	"testing"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// A reader's receipt is kept if it is about an envelope that we signed for him, on that relay, of that size; whatever else
// he says leaves no trace.
func TestBadFaithForgedReceipts(t *testing.T) {
	s := fresh(t)
	identity, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	reader, other, relay := key(2), key(3), key(9)
	m, err := s.Enqueue(t.Context(), reader, []state.Relay{{Key: relay, Address: "https://relay.example"}}, func(string, int64) (*state.Outgoing, error) {
		return &state.Outgoing{ID: "a", Sealed: []byte{1}, Body: []byte{1}, Expires: 9e12, MaxPulls: 8}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := protocol.Sign(identity, reader, 1000, &protocol.Write{Relay: relay, RecordID: m.ID, Expires: m.Expires, MaxPulls: 8, Content: "AAAA"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Attempt(t.Context(), m.N, relay, e); err != nil {
		t.Fatal(err)
	}
	honest := protocol.Receipt{Relay: relay, RecordID: "a", Hash: e.Hash(), Bytes: e.Size(), Got: 2000}
	file := func(by protocol.PublicKey, r protocol.Receipt) {
		t.Helper()
		n, err := s.StoreMessages(t.Context(), []state.Message{{From: by, ID: "r", Tag: protocol.ReceiptTag, Receipts: []protocol.Receipt{r}}})
		if err != nil || n != 0 {
			t.Fatalf("%d new messages, %v", n, err)
		}
	}
	kept := func(want int) {
		t.Helper()
		list, err := s.Receipts(t.Context(), relay)
		if err != nil || len(list) != want {
			t.Fatalf("%d receipts, want %d; %v", len(list), want, err)
		}
	}
	for _, spoil := range []func(*protocol.Receipt){
		func(r *protocol.Receipt) { r.Hash[0] ^= 1 },
		func(r *protocol.Receipt) { r.Relay = key(8) },
		func(r *protocol.Receipt) { r.Bytes++ },
		func(r *protocol.Receipt) { r.RecordID = "b" },
	} {
		forged := honest
		spoil(&forged)
		file(reader, forged)
	}
	file(other, honest)
	kept(0)
	for range 3 {
		file(reader, honest)
	}
	kept(1)
}
