package client_test

import (
	"testing"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

func (p *person) receipts(n int, from *testnode.Node) []protocol.Receipt {
	p.t.Helper()
	list, err := p.Receipts(p.t.Context(), from.Key)
	if err != nil || len(list) != n {
		p.t.Fatalf("%d receipts, want %d: %v", len(list), n, err)
	}
	return list
}

// Reading leaves receipts by itself, on the reader's own relay; the sender files them, sees no message, and writes
// no receipt for them.
func TestReadingLeavesReceipts(t *testing.T) {
	mine, his := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(mine), somebody(t).joins(his)
	alice.befriends(bob)
	bob.befriends(alice)
	sent := []*client.Outgoing{alice.says(bob, "one"), alice.says(bob, "two"), alice.says(bob, "three")}
	bob.finds("one", "two", "three")
	alice.finds()
	list := alice.receipts(3, mine)
	for i, m := range sent {
		if r := list[i]; r.RecordID != m.ID || r.Hash != *m.Copies[0].Hash || r.Relay != mine.Key || r.Bytes < 1000 || r.Got == 0 {
			t.Errorf("receipt %d: %+v of %+v", i, r, m.Copies[0])
		}
	}
	if before := his.Account(t, bob.Key()).Stored; before == 0 {
		t.Error("nothing is on the reader's relay")
	}
	for range 2 {
		bob.finds()
		alice.finds()
	}
	alice.receipts(3, mine)
	bob.receipts(0, his) // receipts are not receipted
	if out, err := bob.Outbox(t.Context(), 0); err != nil || len(out) != 0 {
		t.Errorf("receipts are among the messages sent: %v %v", out, err)
	}
	alice.says(bob, "four")
	if result := bob.finds("four"); len(result.Gaps) != 0 {
		t.Errorf("gaps: %+v", result.Gaps)
	}
	bob.says(alice, "hello")
	if result := alice.finds("hello"); len(result.Gaps) != 0 {
		t.Errorf("receipts are counted among the messages: %+v", result.Gaps)
	}
	alice.receipts(4, mine)
}

// A reader without a relay leaves receipts on the sender's, if that admits him; if not, nobody is bothered.
func TestReceiptsOfAReaderWithoutRelay(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	bob, carol := somebody(t), somebody(t)
	for _, friend := range []*person{bob, carol} {
		friend.befriends(alice)
		alice.befriends(friend)
	}
	node.Admit(t, alice.Key(), protocol.Admitted{Key: bob.Key(), Bytes: 1 << 20, Records: 10})
	for _, friend := range []*person{bob, carol} {
		alice.says(friend, "hello")
		friend.finds("hello")
	}
	for _, friend := range []*person{bob, carol} {
		if result := friend.finds(); len(result.Sent) != 0 {
			t.Errorf("more is tried: %+v", result.Sent)
		}
	}
	alice.finds()
	alice.receipts(1, node)
}

// A receipt that was due when the program ended is written by the next one; when the relay is away, it waits.
func TestReceiptsAreDurable(t *testing.T) {
	mine, his := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(mine), somebody(t).joins(his)
	alice.befriends(bob)
	bob.befriends(alice)
	alice.says(bob, "hello")
	his.Stop()
	if _, err := bob.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob.queues(alice, "hello yourself", client.SendOptions{}, nil)
	if n, err := bob.Waiting(t.Context()); err != nil || n != 1 {
		t.Errorf("%d messages wait beside the receipt, %v", n, err)
	}
	his.Restart()
	alice.finds()
	alice.receipts(0, mine)
	again := device(t, bob.config)
	again.finds()
	alice.finds("hello yourself")
	alice.receipts(1, mine)
}

func TestReceiptTagIsReserved(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	alice.befriends(alice)
	if _, err := alice.Send(t.Context(), alice.Key(), []byte("x"), client.SendOptions{Tag: protocol.ReceiptTag}); err == nil {
		t.Error("a message was sent as receipts")
	}
}
