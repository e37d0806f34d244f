package protocol

import (
	"bytes"
	"testing"
)

func testCard(t *testing.T, at Timestamp, label string) *Envelope {
	t.Helper()
	key := testKey(t, 3)
	e, err := Sign(key, key.Public(), at, &Identity{Label: label, Relays: []RelayRef{}, Sealing: []SealingItem{{Suite: 200, Key: "AAAA"}}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Whatever two cards are compared, in whatever order they came, one of them wins for everybody.
func TestSupersedesCard(t *testing.T) {
	older, newer := testCard(t, 1000, "a"), testCard(t, 1001, "a")
	if !SupersedesCard(newer, older) || SupersedesCard(older, newer) {
		t.Error("the newer timestamp does not win")
	}
	if SupersedesCard(older, older) {
		t.Error("a card supersedes itself")
	}
	for range 20 {
		a, b := testCard(t, 1000, "a"), testCard(t, 1000, "b")
		ha, hb := a.Hash(), b.Hash()
		if lower := bytes.Compare(ha[:], hb[:]) < 0; SupersedesCard(a, b) != lower || SupersedesCard(b, a) == lower {
			t.Fatal("of two cards with one timestamp the lower hash does not win")
		}
	}
}

func TestSealingKeyOfCard(t *testing.T) {
	key, err := NewSealingPrivateKey([32]byte{4})
	if err != nil {
		t.Fatal(err)
	}
	future, ours := SealingItem{Suite: 200, Key: "AAAA"}, key.Public().Item()
	for _, c := range []struct {
		name  string
		items []SealingItem
		found bool
	}{
		{"none", nil, false},
		{"of the future", []SealingItem{future}, false},
		{"after one of the future", []SealingItem{future, ours}, true},
		{"broken", []SealingItem{{Suite: SuiteXWing, Key: "AAAA"}}, false},
		{"after a broken one", []SealingItem{{Suite: SuiteXWing, Key: "!"}, ours}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, found := (&Identity{Sealing: c.items}).SealingKey()
			if found != c.found || found && got.Item() != ours {
				t.Errorf("found %v", found)
			}
		})
	}
}

func TestParseCardTellsWhoAndWhat(t *testing.T) {
	f := readVectors(t, "cards.json")
	var plain documentVector
	decodeCase(t, f.Cases[0], &plain)
	e, id, err := ParseCard(plain.bytes(t), plain.Now)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "owner", e.From, f.Keys["alice"].Public)
	equal(t, "label", id.Label, "alice")
	equal(t, "relay", id.Relays[0], RelayRef{"https://relay.example", f.Keys["relay"].Public})
	if _, ok := id.SealingKey(); !ok {
		t.Error("the card has no sealing key")
	}
}
