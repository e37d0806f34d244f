package client_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/escrow/userside"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

const keptType = "application/x-kept"

// What is kept is on the other relays alone, and a new folder with the same keys reads it back from an address.
func TestKeep(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one)
	if _, err := alice.Keep(alice.ctx(), keptType, []byte("x"), time.Hour, one.Key); !errors.Is(err, client.ErrNoOtherRelay) {
		t.Fatalf("with one relay: %v", err)
	}
	alice.joins(two).befriends(alice)
	for i := range 3 {
		if _, err := alice.Keep(alice.ctx(), keptType, fmt.Append(nil, i), time.Hour, one.Key); err != nil {
			t.Fatal(err)
		}
	}
	alice.says(alice, "a note, which is no such document")

	other := alice.other()
	// In this order: what was read once is in the folder.
	for _, at := range []struct {
		node *testnode.Node
		want string
	}{{one, ""}, {two, "0 1 2 "}} {
		kept, err := other.KeptAt(other.ctx(), at.node.URL, keptType)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, k := range kept {
			got += string(k.Body) + " "
		}
		if got != at.want {
			t.Errorf("%q is kept, want %q", got, at.want)
		}
	}
	// What programs keep there is nothing to read.
	if _, err := alice.Keep(alice.ctx(), userside.BackupType, []byte("{}"), time.Hour, one.Key); err != nil {
		t.Fatal(err)
	}
	for _, m := range alice.syncs().Messages {
		if m.ContentType == userside.BackupType {
			t.Error("a document that is kept is shown as a message")
		}
	}
	if kept, err := alice.KeptContracts(alice.ctx(), two.URL); err != nil || len(kept) != 1 {
		t.Errorf("%d contracts are kept, %v", len(kept), err)
	}
	stranger := somebody(t)
	if kept, err := stranger.KeptAt(stranger.ctx(), two.URL, keptType); len(kept) > 0 {
		t.Errorf("a stranger reads %d documents, %v", len(kept), err)
	}
}

// A backup that is on relays is pulled by every device of its owner, and its body kept only by the one that is about to restore it.
func TestBackupsArePulledWithoutTheirBodies(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	alice.befriends(alice)
	other := alice.other().joins(node)
	if _, err := alice.Keep(alice.ctx(), state.BackupType, []byte("a part"), time.Hour, protocol.PublicKey{}); err != nil {
		t.Fatal(err)
	}
	alice.says(alice, "a note")
	for _, d := range []*person{alice, other} {
		d.syncs()
		kept, err := d.Messages(d.ctx(), client.Filter{Kept: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := bodies(kept); len(got) != 2 || got[0] != "" || got[1] != "a note" {
			t.Errorf("%q is kept", got)
		}
	}
	fresh := alice.other()
	if kept, err := fresh.KeptAt(fresh.ctx(), node.URL, state.BackupType); err != nil || len(kept) != 1 || string(kept[0].Body) != "a part" {
		t.Errorf("to be restored: %+v, %v", kept, err)
	}
}
