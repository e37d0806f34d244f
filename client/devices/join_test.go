package devices

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"relaymarket/protocol"
)

// laws checks that joining is commutative, associative and idempotent: what devices agree by.
func laws[T interface{ Join(T) T }](t *testing.T, draw func(*rapid.T) T) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := draw(t), draw(t), draw(t)
		same := func(law string, x, y T) {
			if !reflect.DeepEqual(x, y) {
				t.Fatalf("%s: %+v and %+v", law, x, y)
			}
		}
		same("idempotent", a.Join(a), a)
		same("commutative", a.Join(b), b.Join(a))
		same("associative", a.Join(b).Join(c), a.Join(b.Join(c)))
		same("absorbing", a.Join(b).Join(a), a.Join(b))
	})
}

// Few values, so that they meet often.
func small(t *rapid.T, what string) int64 { return rapid.Int64Range(0, 3).Draw(t, what) }

func moment(t *rapid.T, what string) protocol.Timestamp { return protocol.Timestamp(small(t, what)) }

func stamp(t *rapid.T) Stamp {
	return Stamp{At: moment(t, "at"), By: rapid.SampledFrom([]ID{"0000000000000001", "0000000000000002"}).Draw(t, "by")}
}

func text(t *rapid.T) string { return rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "text") }

func cards(t testing.TB, n int) (key protocol.PublicKey, all []json.RawMessage) {
	t.Helper()
	secret, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	sealing, err := protocol.NewSealingPrivateKey([protocol.SealingSeedSize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e, err := protocol.Sign(secret, secret.Public(), protocol.Timestamp(1_763_683_200_000+i/2), &protocol.Identity{
			Label: fmt.Sprint(i), Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{sealing.Public().Item()}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Bytes())
	}
	return secret.Public(), all
}

func TestJoins(t *testing.T) {
	_, some := cards(t, 4)
	t.Run("device", func(t *testing.T) {
		laws(t, func(t *rapid.T) Device {
			return Device{Stamp: stamp(t), Name: text(t), Removed: rapid.Bool().Draw(t, "removed")}
		})
	})
	t.Run("friend", func(t *testing.T) {
		laws(t, func(t *rapid.T) Friend {
			return Friend{Stamp: stamp(t), Name: text(t), Removed: rapid.Bool().Draw(t, "removed"), Card: []byte(rapid.SampledFrom(some).Draw(t, "card"))}
		})
	})
	t.Run("relay", func(t *testing.T) {
		laws(t, func(t *rapid.T) Relay {
			return Relay{Stamp: stamp(t), Address: text(t), Added: moment(t, "added"), Bytes: small(t, "bytes"), Removed: rapid.Bool().Draw(t, "removed")}
		})
	})
	t.Run("label", func(t *testing.T) {
		laws(t, func(t *rapid.T) Label { return Label{Stamp: stamp(t), Text: text(t)} })
	})
	t.Run("mark", func(t *testing.T) {
		laws(t, func(t *rapid.T) Mark {
			return Mark{Read: moment(t, "read"), Removed: moment(t, "removed"), Expires: moment(t, "expires")}
		})
	})
	t.Run("copy", func(t *testing.T) {
		laws(t, func(t *rapid.T) Copy {
			c := Copy{State: rapid.SampledFrom(copyStates).Draw(t, "state"), Changed: moment(t, "changed"), Got: moment(t, "got"), Bytes: small(t, "bytes")}
			if n := small(t, "hash"); n > 0 {
				c.Hash = &protocol.Hash{byte(n)}
			}
			return c
		})
	})
}

// A removal loses to what was done to the friend afterwards, and a card never grows older.
func TestFriendJoin(t *testing.T) {
	key, some := cards(t, 4)
	friend := func(at int, name string, removed bool, card int) Friend {
		return Friend{Key: key, Stamp: Stamp{At: protocol.Timestamp(at), By: "0000000000000001"}, Name: name, Removed: removed, Card: []byte(some[card])}
	}
	removed, back, older := friend(5, "anna", true, 0), friend(7, "Anna", false, 0), friend(3, "ann", false, 3)
	got := removed.Join(back).Join(older)
	if got.Name != "Anna" || got.Removed || string(got.Card) == string(some[0]) {
		t.Errorf("joined to %s, removed %t", got.Name, got.Removed)
	}
	// A copy that a relay lost is queued again, whatever another device still thinks.
	lost := Copy{State: Queued, Changed: 9}.Join(Copy{State: Stored, Changed: 8, Got: 4})
	if lost.State != Queued || lost.Got != 4 {
		t.Errorf("a lost copy joins to %+v", lost)
	}
}
