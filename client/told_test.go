package client_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/moving"
	"relaymarket/internal/sqlite"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// A friend who names sixteen other relays with every card has no more of them knocked at than his newest card names.
func TestFriendNamesEverOtherRelays(t *testing.T) {
	home, next := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, mallory := somebody(t).joins(home), somebody(t)
	sealing := mallory.config.Sealing.Public()
	for round := range 6 {
		id := &protocol.Identity{Sealing: []protocol.SealingItem{sealing.Item()}}
		named := map[string]bool{}
		for i := range protocol.MaxCardRelays {
			at := fmt.Sprintf("http://127.0.0.1:%d", 100+round*protocol.MaxCardRelays+i)
			named[at] = true
			id.Relays = append(id.Relays, protocol.RelayRef{Address: at, PubKey: testnode.NewKey(t).Public()})
		}
		e, err := protocol.Sign(mallory.config.Identity, mallory.Key(), protocol.TimestampOf(time.Now().Add(time.Duration(round)*time.Second)), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := alice.AddFriend(t.Context(), e.Bytes(), ""); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			alice.joins(next) // her card changes, and is left for him
		}
		if _, err := alice.TellFriends(t.Context()); err != nil {
			t.Fatal(err)
		}
		copies, waiting := cardCopies(t, alice)
		for _, at := range waiting {
			if !named[at] {
				t.Errorf("card %d: something waits for %s", round, at)
			}
		}
		if copies > moving.MaxPlaces || len(waiting) != protocol.MaxCardRelays {
			t.Errorf("card %d: %d copies, %d of them wait", round, copies, len(waiting))
		}
	}
}

// A relay of a card that she had for an hour, and that he may know, is tried again, though neither she nor he names it now.
func TestCardWaitsWhereItMayBeLookedFor(t *testing.T) {
	one, two, three := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(one), somebody(t)
	bob.befriends(alice)
	alice.befriends(bob)
	for _, move := range []struct{ from, to *testnode.Node }{{one, two}, {two, three}} {
		alice.joins(move.to)
		if _, err := alice.RemoveRelay(t.Context(), move.from.Key); err != nil {
			t.Fatal(err)
		}
		if move.to == three {
			two.Stop()
		}
		for range 3 {
			if _, err := alice.TellFriends(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, waiting := cardCopies(t, alice); len(waiting) != 1 || waiting[0] != two.URL {
		t.Errorf("it waits for %v", waiting)
	}
}

// cardCopies counts the copies of the newest card that was told, and says for which relays it waits.
func cardCopies(t *testing.T, p *person) (all int, waiting []string) {
	t.Helper()
	db, err := sqlite.OpenAsIs(t.Context(), filepath.Join(p.config.Dir, client.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	addresses, err := sqlite.Collect(t.Context(), db, func(scan func(...any) error) (at string, err error) { return at, scan(&at) },
		`SELECT CASE c.state WHEN 'queued' THEN c.address ELSE '' END FROM copies c JOIN told t ON t.n = c.n`)
	if err != nil {
		t.Fatal(err)
	}
	return len(addresses), slices.DeleteFunc(addresses, func(at string) bool { return at == "" })
}
