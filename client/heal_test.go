package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/client"
	"relaymarket/internal/testnode"
)

// line is a network on which relays can be cut off.
type line struct {
	http.Transport
	mu   sync.Mutex
	down map[string]bool // hosts
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	down := l.down[r.URL.Host]
	l.mu.Unlock()
	if down {
		return nil, errors.New("nobody is there")
	}
	return l.Transport.RoundTrip(r)
}

func (l *line) cut(n *testnode.Node, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down[strings.TrimPrefix(n.URL, "http://")] = down
}

// loses has a relay lose all its records: only who has an account is left.
func loses(t *testing.T, n *testnode.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := pgx.Connect(ctx, n.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	// The accounts first, as the relay does: the two must not wait for each other.
	_, err = db.Exec(ctx, `UPDATE accounts SET stored = 0, moved = 0; DELETE FROM records; DELETE FROM pulls; DELETE FROM pages`)
	if err != nil {
		t.Fatal(err)
	}
}

func (p *person) heals() []client.Healed {
	p.t.Helper()
	healed, err := p.Heal(p.ctx(), client.HealOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return healed
}

// healsAll heals, and again what a relay was too slow for: who may be told of a file already does not wait for long. The reports are of the first
// healing, with all that was sent.
func (p *person) healsAll() []client.Healed {
	p.t.Helper()
	healed := p.heals()
	eventually(p.t, "all is put back", func() bool {
		whole := true
		for i := range healed {
			whole = whole && (healed[i].Err != nil || healed[i].Put >= healed[i].Lost+healed[i].Added)
		}
		if whole {
			return true
		}
		for i, h := range p.heals() {
			healed[i].Put += h.Put
		}
		return false
	})
	return healed
}

// Five relays, of which two lose everything each round while the sender heals in between: nothing is lost, and nothing
// comes twice.
func TestHealingOutlivesTheRelays(t *testing.T) {
	const rounds, relays = 50, 5
	var nodes []*testnode.Node
	for range relays {
		nodes = append(nodes, testnode.Start(t, testnode.Options{}))
	}
	alice, bob := somebody(t), somebody(t)
	network := &line{down: map[string]bool{}}
	alice.config.HTTP = &http.Client{Transport: network}
	alice = device(t, alice.config).joins(nodes...)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "heirloom.bin", 900_000)
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Copies: relays}); err != nil {
		t.Fatal(err)
	}
	chance := rand.New(rand.NewPCG(7, 7))
	var want []string
	for round := range rounds {
		if round%3 == 0 {
			text := fmt.Sprintf("message %d", round)
			alice.sends(bob, text, client.SendOptions{Copies: relays})
			want = append(want, text)
		}
		order := chance.Perm(relays)
		// The two that die come back with nothing, now and then only after a healing that they are missing from.
		for _, i := range order[:2] {
			network.cut(nodes[i], true)
			loses(t, nodes[i])
		}
		if round%10 == 0 {
			for _, h := range alice.heals() {
				down := h.Address == nodes[order[0]].URL || h.Address == nodes[order[1]].URL
				if (h.Err != nil) != down || h.Lost != 0 {
					t.Fatalf("round %d: %+v, down: %t", round, h, down)
				}
			}
		}
		for _, i := range order[:2] {
			network.cut(nodes[i], false)
		}
		for _, h := range alice.healsAll() {
			lost := int64(0)
			if h.Address == nodes[order[0]].URL || h.Address == nodes[order[1]].URL {
				lost = int64(len(want)) + 4 // the file's three pieces and its message
			}
			if h.Err != nil || h.Lost != lost || h.Put != lost || h.Added != 0 {
				t.Fatalf("round %d: %+v, want %d lost", round, h, lost)
			}
		}
	}
	for _, h := range alice.heals() {
		if h.Err != nil || h.Lost+h.Added+h.Put != 0 || h.Listed != len(want)+4 {
			t.Errorf("there was nothing to heal: %+v", h)
		}
	}
	// Any one of them is enough.
	for _, n := range nodes[1:] {
		n.Stop()
	}
	result := bob.tries()
	told := 0
	var got []string
	for _, m := range result.Messages {
		if m.Name != "" {
			told++
			continue
		}
		got = append(got, string(m.Body))
	}
	if told != 1 || len(got) != len(want) || len(result.Gaps) != 0 {
		t.Fatalf("%d messages and %d files arrived, %d gaps", len(got), told, len(result.Gaps))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("message %d is %q", i, got[i])
		}
	}
	if _, file := bob.gets(client.FetchOptions{}); !bytes.Equal(file, data) {
		t.Error("the file is another")
	}
}

// A new relay gets what the others have; what was confirmed, removed or has expired is left alone.
func TestHealingANewRelay(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(one), somebody(t).joins(one)
	alice.befriends(bob)
	bob.befriends(alice)
	alice.says(bob, "read before")
	bob.finds("read before")
	bob.syncs() // his receipt
	alice.syncs()
	removed := alice.says(bob, "removed")
	if _, err := alice.Remove(t.Context(), removed); err != nil {
		t.Fatal(err)
	}
	path, data := someFile(t, "late.bin", 500_000)
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{}); err != nil {
		t.Fatal(err)
	}
	alice.says(bob, "unread")
	alice.joins(two)
	healed := alice.healsAll()
	for _, h := range healed {
		want := int64(0)
		if h.Address == two.URL {
			want = 4 // a message, two pieces and the message of the file
		}
		if h.Err != nil || h.Added != want || h.Put != want || h.Lost != 0 {
			t.Errorf("%+v, want %d added", h, want)
		}
	}
	sent, err := alice.Outbox(t.Context(), 0)
	if err != nil || len(sent) != 4 {
		t.Fatal(len(sent), err)
	}
	if c := sent[0].Copies; len(c) != 1 || c[0].Pulled == 0 || c[0].Pulls != 1 {
		t.Errorf("the confirmed message: %+v", c)
	}
	one.Stop()
	if err := os.WriteFile(path, data[:10], 0o600); err != nil { // what is there needs the file no more
		t.Fatal(err)
	}
	result := bob.tries()
	if len(result.Messages) != 0 {
		t.Errorf("he knew the new relay before he saw the card: %+v", result.Messages)
	}
	bob.befriends(alice)
	if result = bob.tries(); len(result.Messages) != 2 {
		t.Fatalf("%d messages arrived", len(result.Messages))
	}
	if _, file := bob.gets(client.FetchOptions{}); !bytes.Equal(file, data) {
		t.Error("the file is another")
	}
	loses(t, two)
	two.Restart()
	for _, h := range alice.heals() {
		if h.Address == two.URL && (h.Failed != 2 || h.Lost != 2) {
			t.Errorf("pieces of a file that is not there any more: %+v", h)
		}
	}
	if _, err := alice.ResumeFiles(t.Context(), "", client.FileOptions{}); err != nil && !errors.Is(err, client.ErrFileChanged) {
		t.Error(err)
	}
}

// A message that is about to expire unread is told of once; one that was read is not.
func TestExpiringIsTold(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(node), somebody(t)
	now := time.Now()
	config := alice.config
	config.Clock = func() time.Time { return now }
	alice = device(t, config)
	alice.befriends(bob)
	bob.befriends(alice)
	alice.sends(bob, "read", client.SendOptions{TTL: time.Hour})
	bob.finds("read") // he has no relay to leave a receipt on: it is the relay that tells
	alice.sends(bob, "unread", client.SendOptions{TTL: time.Hour})
	if result := alice.syncs(); len(result.Expiring) != 0 {
		t.Errorf("too early: %+v", result.Expiring)
	}
	now = now.Add(50 * time.Minute)
	result := alice.syncs()
	if len(result.Expiring) != 1 || string(result.Expiring[0].Body) != "unread" {
		t.Fatalf("told of %+v", result.Expiring)
	}
	if result := alice.syncs(); len(result.Expiring) != 0 {
		t.Errorf("told again: %+v", result.Expiring)
	}
	if all, err := alice.Expiring(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the outbox shows %+v, %v", all, err)
	}
}
