package client_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

func TestTwoPeople(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(node), somebody(t).joins(node)
	alice.befriends(bob)
	bob.befriends(alice)

	sent := alice.says(bob, "hello")
	if len(sent.Copies) != 1 || sent.Copies[0].State != "stored" || sent.Sealed == nil {
		t.Errorf("the copy is %+v, and %d sealed bytes are kept to put it back", sent.Copies, len(sent.Sealed))
	}
	m := bob.finds("hello").Messages[0]
	if m.From != alice.Key() || m.ID != sent.ID || m.Fault != "" || m.Seq != 1 {
		t.Errorf("arrived %+v", m)
	}
	bob.finds() // once only
	bob.says(alice, "hello yourself")
	alice.finds("hello yourself")

	unread, err := bob.Messages(t.Context(), client.Filter{Unread: true})
	if err != nil || len(unread) != 1 {
		t.Fatalf("%d unread, %v", len(unread), err)
	}
	if err := bob.MarkRead(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if unread, err = bob.Messages(t.Context(), client.Filter{Unread: true}); err != nil || len(unread) != 0 {
		t.Fatalf("%d unread after reading, %v", len(unread), err)
	}
}

func TestNoAccount(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t)
	_, _, err := alice.AddRelay(t.Context(), node.URL)
	if !errors.Is(err, protocol.CodeNoAccount) || !strings.Contains(err.Error(), alice.Key().Bech32()) {
		t.Fatalf("adding a relay without an account: %v", err)
	}
	if relays, err := alice.Relays(t.Context()); err != nil || len(relays) != 0 {
		t.Errorf("a relay that refused is in the list: %v, %v", relays, err)
	}
	if _, err := alice.Send(t.Context(), alice.Key(), []byte("x"), client.SendOptions{}); !errors.Is(err, client.ErrNoRelays) {
		t.Errorf("send without a relay: %v", err)
	}
}

func TestToOneself(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	alice.befriends(alice)
	alice.says(alice, "milk, bread")
	alice.finds("milk, bread")
	alice.other().befriends(alice).finds() // a device without relays of its own looks nowhere
}

func TestSeveralRelaysOneMessage(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	sent := alice.sends(bob, "twice stored", client.SendOptions{Copies: 2})
	for _, c := range sent.Copies {
		if c.State != "stored" {
			t.Errorf("copy on %s is %s: %s", c.Address, c.State, c.Error)
		}
	}
	result := bob.finds("twice stored")
	if len(result.Pulled) != 2 {
		t.Errorf("%d relays were pulled", len(result.Pulled))
	}
}

func TestOneRelayDead(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	two.Stop()

	started := time.Now()
	sent := alice.says(bob, "one is enough")
	if took := time.Since(started); took > patience/4 {
		t.Errorf("it took %s with one relay dead", took)
	}
	states := map[string]string{}
	for _, c := range sent.Copies {
		states[c.Address] = string(c.State)
	}
	if states[one.URL] != "stored" || states[two.URL] != "queued" {
		t.Fatalf("copies: %v", states)
	}
	result := bob.tries()
	bob.arrived(result, "one is enough")
	if failed := result.Failed(); len(failed) != 1 || failed[0].Address != two.URL {
		t.Errorf("failed: %+v", failed)
	}

	alice.queues(bob, "both, please", client.SendOptions{Copies: 2}, func(m client.Outgoing) bool {
		return slices.ContainsFunc(m.Copies, func(c client.Copy) bool { return c.Address == one.URL && c.State == client.CopyStored })
	})

	two.Restart()
	reports, err := alice.Flush(t.Context())
	if err != nil || len(reports) != 1 || reports[0].Err != nil || reports[0].Delivered != 2 {
		t.Fatalf("flush: %+v, %v", reports, err)
	}
	one.Stop()
	result = bob.tries()
	bob.arrived(result, "both, please")
}

func TestRemove(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	regretted := alice.sends(bob, "regretted", client.SendOptions{Copies: 2})
	two.Stop()
	removed, err := alice.Remove(t.Context(), regretted)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, c := range removed.Copies {
		states[c.Address] = string(c.State)
	}
	if states[one.URL] != "gone" || states[two.URL] != "removing" {
		t.Fatalf("copies: %v", states)
	}
	two.Restart()
	alice.syncs()
	alice.says(bob, "kept")
	result := bob.finds("kept")
	if len(result.Gaps) != 1 || result.Gaps[0].First != 1 || result.Gaps[0].Last != 1 {
		t.Errorf("gaps: %+v", result.Gaps)
	}
}

func TestNewcomers(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, carol := somebody(t).joins(node), somebody(t).joins(node)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	carol.befriends(bob)
	carol.says(bob, "before you knew me")
	alice.says(bob, "first")
	bob.finds("first")
	carol.says(bob, "still unknown")
	alice.says(bob, "second")
	bob.befriends(carol)
	result := bob.syncs()
	bob.arrived(result, "second", "before you knew me", "still unknown")
	carol.says(bob, "known")
	alice.says(bob, "third")
	bob.finds("known", "third")
}
