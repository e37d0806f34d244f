package devices

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"relaymarket/protocol"
)

// full is a batch with an entry of each kind.
func full(t testing.TB) *Batch {
	t.Helper()
	owner, some := cards(t, 1)
	id := ID("00112233445566ff")
	h := protocol.Hash{1, 2}
	s := Stamp{At: 1_763_683_200_000, By: id}
	return &Batch{
		Device: id, Seq: 3, At: 1_763_683_200_001,
		Devices: []Device{{ID: id, Stamp: s, Name: "laptop"}, {ID: "0000000000000001", Stamp: s, Removed: true}},
		Friends: []Friend{{Key: owner, Stamp: s, Name: "änna", Card: []byte(some[0])}},
		Label:   &Label{Stamp: s, Text: "me"},
		Marks:   []Mark{{From: owner, RecordID: "m-1", Read: 5, Expires: 9}},
		Messages: []Message{{From: owner, RecordID: "m-2", Content: h, Envelope: h, Relay: owner, ContentType: "text/plain", Device: "00000000000000aa", Seq: 1,
			Body: []byte("hi"), Sent: 1, Expires: 2}},
		Relays: []Relay{{Key: owner, Stamp: s, Address: "https://relay.example", Added: 7, Bytes: 1 << 20}},
		Sent: []Sent{{RecordID: "s-1", To: owner, ContentType: "text/plain", Device: id, Seq: 2, Body: []byte("ho"), Sealed: []byte{1}, Expires: 9, MaxPulls: 8,
			Created: 1, Copies: []Copy{{Relay: owner, Address: "https://relay.example", State: Stored, Changed: 4, Hash: &h, Bytes: 2300, Signed: 3, Got: 8}}}},
	}
}

func TestBatchRoundTrip(t *testing.T) {
	b := full(t)
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(b, back) {
		t.Errorf("%+v became %+v", b, back)
	}
	// Later versions may say more.
	grown := strings.Replace(string(data), `"device":"00112233445566ff",`, `"device":"00112233445566ff","deviceColour":"blue",`, 1)
	if _, err := Parse([]byte(grown)); err != nil {
		t.Errorf("with a member that is not known: %v", err)
	}
}

// count is how many entries a batch has.
func count(b *Batch) int {
	n := len(b.Devices) + len(b.Friends) + len(b.Marks) + len(b.Messages) + len(b.Relays) + len(b.Sent)
	if b.Label != nil {
		n++
	}
	return n
}

func TestBadBatches(t *testing.T) {
	ofAll := map[string]bool{"no number": true, "no device": true, "device in upper case": true, "too many marks": true}
	stranger, _ := cards(t, 1)
	for name, spoil := range map[string]func(*Batch){
		"no number":            func(b *Batch) { b.Seq = 0 },
		"no device":            func(b *Batch) { b.Device = "" },
		"device in upper case": func(b *Batch) { b.Device = "00112233445566FF" },
		"another's card":       func(b *Batch) { b.Friends[0].Key = stranger },
		"friend without name":  func(b *Batch) { b.Friends[0].Name = "" },
		"long name":            func(b *Batch) { b.Friends[0].Name = strings.Repeat("x", MaxName+1) },
		"no address":           func(b *Batch) { b.Relays[0].Address = "relay.example" },
		"negative time":        func(b *Batch) { b.Marks[0].Read = -1 },
		"path as id":           func(b *Batch) { b.Messages[0].RecordID = "../x" },
		"long body":            func(b *Batch) { b.Messages[0].Body = make([]byte, MaxTold+1) },
		"long cursor":          func(b *Batch) { b.Sent[0].Copies[0].Cursor = strings.Repeat("c", protocol.MaxCursor+1) },
		"long label":           func(b *Batch) { b.Label.Text = strings.Repeat("x", MaxName+1) },
		"unknown state":        func(b *Batch) { b.Sent[0].Copies[0].State = "lost" },
		"too many copies":      func(b *Batch) { b.Sent[0].Copies = make([]Copy, MaxCopies+1) },
		"no pulls":             func(b *Batch) { b.Sent[0].MaxPulls = 0 },
		"too many marks":       func(b *Batch) { b.Marks = make([]Mark, MaxEntries+1) },
	} {
		t.Run(name, func(t *testing.T) {
			b := full(t)
			spoil(b)
			data, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var refusal *protocol.Error
			if _, err := Parse(data); !errors.As(err, &refusal) {
				t.Errorf("parsed: %v", err)
			}
			if ofAll[name] {
				return
			}
			// The rest of it is read all the same.
			back, refused, err := Read(data)
			if err != nil || len(refused) != 1 {
				t.Fatalf("refused %v, %v", refused, err)
			}
			if got, want := count(back), count(full(t))-1; got != want {
				t.Errorf("%d entries are left, want %d", got, want)
			}
		})
	}
	data, err := full(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(data, []byte(`"label":"0"`), []byte(`"label":"1"`), 1)
	if _, err := Parse(forged); !errors.Is(err, protocol.CodeBadSignature) {
		t.Errorf("a forged card: %v", err)
	}
	if _, err := Parse(append([]byte(" "), data...)); !errors.Is(err, protocol.CodeNotCanonical) {
		t.Errorf("not canonical: %v", err)
	}
	if _, err := Parse(make([]byte, MaxBatchBytes+1)); !errors.Is(err, protocol.CodeTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	whole, err := full(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"at":0,"device":"00112233445566ff","seq":1}`))
	f.Add([]byte(`{"at":0,"device":"00112233445566ff","label":null,"seq":1}`))
	f.Add([]byte(`{"at":0,"device":"00112233445566ff","friends":[{}],"seq":1}`))
	f.Add([]byte(`{"at":0,"device":"00112233445566ff","marks":[1,null],"seq":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, refused, err := Read(data)
		if err != nil {
			return
		}
		if _, err := Parse(data); (err == nil) != (len(refused) == 0) {
			t.Fatalf("read without %v, parsed: %v", refused, err)
		}
		again, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(again)
		if err != nil {
			t.Fatalf("%q was read and is written as %q: %v", data, again, err)
		}
		if once, err := back.Encode(); err != nil || !bytes.Equal(once, again) {
			t.Fatalf("%q, then %q: %v", again, once, err)
		}
	})
}

func somebody(t testing.TB) *Link {
	t.Helper()
	owner, _ := cards(t, 1)
	relay, _ := cards(t, 1)
	secret, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	return &Link{Owner: owner, Relay: protocol.RelayRef{Address: "https://203.0.113.5:7447", PubKey: relay}, Until: 1_763_683_200_000, Secret: secret}
}

func TestLink(t *testing.T) {
	l := somebody(t)
	back, err := ParseLink(" " + l.Text() + "\n")
	if err != nil || *back != *l {
		t.Fatalf("%+v, %v", back, err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", l, *l, l.Secret, l.Secret); strings.Contains(text, l.Text()[len(l.Text())-20:]) {
		t.Errorf("a link prints its secret: %s", text)
	}
	text := l.Text()
	for name, bad := range map[string]string{
		"cut":          strings.Split(text, "&secret")[0],
		"no relay":     strings.Replace(text, "relay=", "r=", 1),
		"no pin":       strings.Replace(text, "pin=", "p=", 1),
		"friend link":  strings.Replace(text, "relaymarket-device:", "relaymarket:", 1),
		"long":         text + "&x=" + strings.Repeat("x", 1024),
		"short secret": strings.Replace(text, "secret=", "secret=AAAA&s=", 1),
		"past 2^53":    strings.Replace(text, "until=", "until=99999", 1),
		"negative":     strings.Replace(text, "until=", "until=-", 1),
	} {
		_, err := ParseLink(bad)
		var refusal *protocol.Error
		if !errors.As(err, &refusal) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), text[len(text)-20:]) {
			t.Errorf("%s: the error quotes the secret", name)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(somebody(f).Text())
	f.Add(linkScheme + "relay1?relay=http%3A%2F%2F127.0.0.1%3A1&until=1&secret=")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLink(text)
		if err != nil {
			return
		}
		if back, err := ParseLink(l.Text()); err != nil || *back != *l {
			t.Fatalf("%q became another link: %v", text, err)
		}
	})
}

// The code hangs on all that an attacker could choose or change.
func TestCode(t *testing.T) {
	l := somebody(t)
	request := &Request{Sealing: protocol.SealingItem{Suite: 1, Key: "AAAA"}}
	challenge := &Challenge{Nonce: protocol.Hash{1}}
	code := Code(l, request, challenge)
	if len(code) != 9 || !SameCode(" "+strings.ReplaceAll(code, "-", " ")+"\n", code) || SameCode("", code) || SameCode(code[:8], code) {
		t.Errorf("the code is %q", code)
	}
	other := *l
	other.Secret[0]++
	owner := *l
	owner.Owner[0]++
	for name, with := range map[string]string{
		"secret": Code(&other, request, challenge), "owner": Code(&owner, request, challenge),
		"key":   Code(l, &Request{Sealing: protocol.SealingItem{Suite: 1, Key: "AAAB"}}, challenge),
		"nonce": Code(l, request, &Challenge{Nonce: protocol.Hash{2}}),
	} {
		if with == code {
			t.Errorf("another %s gives the same code", name)
		}
	}
}

func FuzzPairing(f *testing.F) {
	f.Add([]byte(`{"name":"x","sealing":{"key":"AAAA","suite":1}}`))
	f.Add([]byte(`{"nonce":"` + strings.Repeat("0", 64) + `"}`))
	f.Add([]byte(`{"device":"00112233445566ff","label":"","relays":[],"seed":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, key, err := ParseRequest(data); err == nil && (key == nil || len(r.Name) > MaxName) {
			t.Fatalf("a request %+v without a key", r)
		}
		if k, err := ParseKeys(data); err == nil && len(k.Seed) != 32 {
			t.Fatalf("a seed of %d bytes", len(k.Seed))
		}
		_, _ = ParseChallenge(data)
	})
}
