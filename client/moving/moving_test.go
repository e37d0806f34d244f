package moving_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"relaymarket/client/moving"
	"relaymarket/protocol"
)

func key(n byte) protocol.PublicKey { return protocol.PublicKey{31: n} }

func entry(n byte, bytes int64) protocol.Admitted {
	return protocol.Admitted{Key: key(n), Bytes: bytes, Records: 1}
}

func wish(n byte, bytes int64, own bool) moving.Wish {
	return moving.Wish{Admitted: entry(n, bytes), Own: own}
}

func TestMerge(t *testing.T) {
	type list = []protocol.Admitted
	for _, c := range []struct {
		name string
		in   moving.Lists
		want list
	}{
		{"first", moving.Lists{Wishes: []moving.Wish{wish(1, 10, false)}}, list{entry(1, 10)}},
		{"another device's stays", moving.Lists{Wishes: []moving.Wish{wish(1, 10, false)}, There: list{entry(2, 5)}}, list{entry(2, 5), entry(1, 10)}},
		{"not wished for any more", moving.Lists{Last: list{entry(1, 10)}, There: list{entry(1, 10)}}, nil},
		{"refused, whoever put it", moving.Lists{Refused: map[protocol.PublicKey]bool{key(1): true}, There: list{entry(1, 10)}}, nil},
		{"own beats what is there", moving.Lists{Wishes: []moving.Wish{wish(1, 10, true)}, There: list{entry(1, 99)}}, list{entry(1, 10)}},
		{"default keeps another device's", moving.Lists{Wishes: []moving.Wish{wish(1, 10, false)}, There: list{entry(1, 99)}}, list{entry(1, 99)}},
		{"a new default", moving.Lists{Wishes: []moving.Wish{wish(1, 20, false)}, Last: list{entry(1, 10)}, There: list{entry(1, 10)}}, list{entry(1, 20)}},
		{"taken off elsewhere", moving.Lists{Wishes: []moving.Wish{wish(1, 10, false), wish(2, 10, false)}, Last: list{entry(1, 10), entry(2, 10)},
			There: list{entry(2, 10)}}, list{entry(2, 10)}},
		{"the relay lost all", moving.Lists{Wishes: []moving.Wish{wish(1, 10, false)}, Last: list{entry(1, 10)}}, list{entry(1, 10)}},
	} {
		if got := moving.Merge(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	in := moving.Lists{}
	for i := range protocol.MaxAdmitted + 50 {
		in.Wishes = append(in.Wishes, moving.Wish{Admitted: protocol.Admitted{Key: protocol.PublicKey{byte(i >> 8), byte(i)}, Bytes: 1, Records: 1}})
	}
	in.Wishes = append(in.Wishes, wish(255, 7, true))
	if got := moving.Merge(in); len(got) != protocol.MaxAdmitted || got[0] != entry(255, 7) {
		t.Errorf("%d entries, the first %v", len(got), got[0])
	}
}

// A list that was merged is left as it is by the next merge, and is one that a relay takes.
func TestMergeSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string) (list []protocol.Admitted) {
			for _, n := range rapid.SliceOfNDistinct(rapid.ByteRange(1, 9), 0, 6, rapid.ID[byte]).Draw(t, name) {
				list = append(list, entry(n, rapid.Int64Range(1, 3).Draw(t, "bytes")))
			}
			return list
		}
		in := moving.Lists{Last: some("last"), There: some("there"), Refused: map[protocol.PublicKey]bool{}}
		var wished []protocol.Admitted
		for _, a := range some("wished") {
			in.Wishes = append(in.Wishes, moving.Wish{Admitted: a, Own: rapid.Bool().Draw(t, "own")})
			wished = append(wished, a)
		}
		for _, a := range some("refused") {
			if !slices.ContainsFunc(wished, func(w protocol.Admitted) bool { return w.Key == a.Key }) {
				in.Refused[a.Key] = true
			}
		}
		once := moving.Merge(in)
		if err := (&protocol.Admit{Keys: once}).Validate(); err != nil {
			t.Fatal(err)
		}
		for _, a := range once {
			if in.Refused[a.Key] {
				t.Fatalf("%v was refused", a)
			}
		}
		for _, w := range in.Wishes {
			if w.Own && !slices.Contains(once, w.Admitted) {
				t.Fatalf("%v is not admitted", w)
			}
		}
		in.Last, in.There = moving.Noted(in, once), once
		if again := moving.Merge(in); len(once) > 0 && !moving.SameList(once, again) {
			t.Fatalf("%v, then %v", once, again)
		}
	})
}

func TestJudge(t *testing.T) {
	owner, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	card := func(at protocol.Timestamp, label string) *protocol.Envelope {
		e, err := protocol.Sign(owner, owner.Public(), at, &protocol.Identity{Label: label, Relays: []protocol.RelayRef{},
			Sealing: []protocol.SealingItem{{Suite: 200, Key: "AAAA"}}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	old, one, other, next := card(1, "a"), card(2, "a"), card(2, "b"), card(3, "a")
	for _, c := range []struct {
		name        string
		next, known *protocol.Envelope
		want        moving.Verdict
	}{{"same", one, one, moving.Same}, {"newer", next, one, moving.Newer}, {"older", old, one, moving.Older}} {
		if got := moving.Judge(c.next, c.known); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	a, b := moving.Judge(one, other), moving.Judge(other, one)
	if !a.Twins() || !b.Twins() || a.Taken() == b.Taken() {
		t.Errorf("of two cards of one time: %v and %v", a, b)
	}
	if !moving.SaysTheSame(one, next) || moving.SaysTheSame(one, other) {
		t.Error("what cards say")
	}
}

func TestPlaces(t *testing.T) {
	own := []protocol.RelayRef{{Address: "https://a.example", PubKey: key(1)}}
	friends := []protocol.RelayRef{{Address: "https://elsewhere.example", PubKey: key(1)}, {Address: "https://b.example", PubKey: key(2)}}
	known := []protocol.RelayRef{{Address: "https://c.example", PubKey: key(3)}}
	got := moving.Places(moving.Cards{Own: own, Theirs: friends, Known: known})
	if len(got) != 3 || got[0] != own[0] || got[1] != friends[1] || got[2] != known[0] {
		t.Errorf("%v", got)
	}
	// A friend does not say where a relay is that the owner knows.
	if got := moving.Places(moving.Cards{Theirs: friends, Before: own}); len(got) != 2 || got[0] != own[0] {
		t.Errorf("%v", got)
	}
	many := func(first byte) (list []protocol.RelayRef) {
		for n := range byte(protocol.MaxCardRelays) {
			list = append(list, protocol.RelayRef{PubKey: key(first + n)})
		}
		return list
	}
	got = moving.Places(moving.Cards{Own: many(0), Theirs: many(40), Known: many(80), Before: many(120)})
	if !slices.Equal(got, slices.Concat(many(0), many(40), many(80))) {
		t.Errorf("%d places, %v", len(got), got)
	}
}
