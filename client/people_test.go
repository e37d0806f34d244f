package client_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

func TestFriendByLink(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	link, err := alice.Link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one.Stop()
	bob := somebody(t)
	f, err := bob.AddFriendByLink(t.Context(), link.String(), "alice")
	if err != nil || f.Key != alice.Key() || len(f.Card.Relays) != 2 {
		t.Fatalf("%+v, %v", f, err)
	}
	two.Stop()
	if _, err := somebody(t).AddFriendByLink(t.Context(), link.String(), ""); !errors.Is(err, client.ErrNoCard) {
		t.Errorf("with all relays away: %v", err)
	}
}

func TestNames(t *testing.T) {
	bob, alice, other := somebody(t), somebody(t), somebody(t)
	card := func(p *person) []byte {
		e, err := p.Card(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	if _, err := bob.AddFriend(t.Context(), card(alice), "Alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.AddFriend(t.Context(), card(other), "ALICE"); !errors.Is(err, client.ErrNameTaken) {
		t.Errorf("a second alice: %v", err)
	}
	for _, name := range []string{"-n", "relay1abc", "a\x1b[2J", " a", strings.Repeat("x", 65), "a\u202eb", "\xff"} {
		if _, err := bob.AddFriend(t.Context(), card(other), name); !errors.Is(err, client.ErrName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if f, err := bob.FindFriend(t.Context(), "alice"); err != nil || f.Key != alice.Key() {
		t.Errorf("find: %v, %v", f, err)
	}
	if f, err := bob.FindFriend(t.Context(), alice.Key().Bech32()); err != nil || f.Name != "Alice" {
		t.Errorf("find by key: %v, %v", f, err)
	}
	_, err := bob.FindFriend(t.Context(), "alcie")
	if !errors.Is(err, client.ErrNoFriend) || !strings.Contains(err.Error(), "Alice") {
		t.Errorf("a typo: %v", err)
	}
	tampered := []byte(strings.Replace(string(card(other)), `"label":""`, `"label":"x"`, 1))
	if _, err := bob.AddFriend(t.Context(), tampered, "x"); !errors.Is(err, protocol.CodeBadSignature) {
		t.Errorf("a forged card: %v", err)
	}
}

// A friend who moved is found again by the relays that are left, and the move is told.
func TestFriendMoves(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one)
	bob := somebody(t)
	now := time.Now()
	bob.config.Clock = func() time.Time { return now }
	bob = device(t, bob.config)
	bob.befriends(alice)
	alice.befriends(bob)
	alice.joins(two)
	if _, err := alice.RemoveRelay(t.Context(), one.Key); err != nil {
		t.Fatal(err)
	}
	alice.says(bob, "from the new place")
	if result := bob.finds(); len(result.Changes) != 0 {
		t.Fatalf("he looked before an hour was over, and nobody told him: %+v", result.Changes)
	}
	now = now.Add(61 * time.Minute)
	result := bob.tries()
	bob.arrived(result, "from the new place")
	if len(result.Changes) != 1 || len(result.Changes[0].RelaysAdded) != 1 || len(result.Changes[0].RelaysRemoved) != 1 {
		t.Errorf("changes: %+v", result.Changes)
	}
}

// The same key on a device that knows nothing of the other's card.
func TestCardOfAnotherDevice(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t)
	config := alice.config
	config.Clock = func() time.Time { return time.Now().Add(time.Minute) }
	ahead := device(t, config)
	ahead.joins(node)
	behind := alice.other()
	behind.adds(node.URL)
	if _, err := behind.PublishCard(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLocked(t *testing.T) {
	alice := somebody(t)
	if _, err := alice.PublishCard(t.Context()); err != nil {
		t.Fatal(err)
	}
	locked := device(t, client.Config{Dir: alice.config.Dir})
	if locked.Key() != alice.Key() {
		t.Error("another key")
	}
	if card, err := locked.Card(t.Context()); err != nil || card.From != alice.Key() {
		t.Errorf("card: %v", err)
	}
	if _, err := locked.Sync(t.Context()); !errors.Is(err, client.ErrLocked) {
		t.Errorf("sync: %v", err)
	}
	if _, err := client.Open(t.Context(), client.Config{Dir: t.TempDir()}); !errors.Is(err, client.ErrNoState) {
		t.Errorf("an empty folder: %v", err)
	}
	config := somebody(t).config
	config.Dir = alice.config.Dir
	if _, err := client.Open(t.Context(), config); !errors.Is(err, client.ErrOtherOwner) {
		t.Errorf("another key's folder: %v", err)
	}
}

// What is at an address is a stranger until it proved to be a relay.
func TestStrangersAtAnAddress(t *testing.T) {
	reached := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer elsewhere.Close()
	for name, handler := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		},
		"web page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"hostile error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"code":"mismatch","detail":"\u001b[2Jgone\nrelay: all is well"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			alice := somebody(t)
			_, _, err := alice.AddRelay(t.Context(), server.URL)
			var refusal *client.RelayError
			if !errors.As(err, &refusal) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q", err)
			}
			if reached {
				t.Error("a redirect was followed")
			}
		})
	}
}

func TestNormalizeAddress(t *testing.T) {
	for typed, want := range map[string]string{
		"relay.example":           "https://relay.example",
		"https://Relay.Example/":  "https://relay.example",
		"127.0.0.1:7447":          "http://127.0.0.1:7447",
		"localhost:7447":          "http://localhost:7447",
		"[::1]:7447":              "http://[::1]:7447",
		" relay.example:8443 ":    "https://relay.example:8443",
		"http://relay.example":    "",
		"https://relay.example/a": "",
		"":                        "",
		"ftp://relay.example":     "",
	} {
		got, err := client.NormalizeAddress(typed)
		if (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
}
