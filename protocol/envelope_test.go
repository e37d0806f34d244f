package protocol

import (
	"bytes"
	"errors"
	"testing"
)

func testKey(t testing.TB, n byte) *PrivateKey {
	t.Helper()
	k, err := NewPrivateKey([32]byte{31: n})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEnvelopeRoundTrip(t *testing.T) {
	alice, bob := testKey(t, 1), testKey(t, 2)
	tag := Tag("ack")
	w := &Write{Relay: bob.Public(), RecordID: "a-1", Expires: 2000, MaxPulls: 3, Tag: &tag, Content: "aGk="}
	e, err := Sign(alice, bob.Public(), 1763683200000, w)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseEnvelope(bytes.Clone(e.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(); err != nil {
		t.Fatal(err)
	}
	var got Write
	if err := again.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if *got.Tag != tag || got.Content != w.Content || got.Expires != 2000 || again.Type != TypeWrite {
		t.Fatalf("decoded %+v", got)
	}
	for i := range e.Bytes() {
		broken := bytes.Clone(e.Bytes())
		broken[i] ^= 1
		if b, err := ParseEnvelope(broken); err == nil && b.Verify() == nil {
			t.Fatalf("verifies with byte %d changed", i)
		}
	}
	header := e.Authorization()
	if p, err := ParseAuthorization(header); err != nil || !bytes.Equal(p.Bytes(), e.Bytes()) {
		t.Fatalf("authorization: %v", err)
	}
	if _, err := ParseAuthorization("Bearer x"); !errors.Is(err, CodeUnauthorized) {
		t.Fatalf("foreign scheme: %v", err)
	}
}

func TestSealRoundTrip(t *testing.T) {
	key, err := NewSealingPrivateKey([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	c := SealContext{From: testKey(t, 1).Public(), To: testKey(t, 2).Public(), RecordID: "r"}
	sealed, err := Seal(key.Public(), c, SealedHeader{ContentType: "text/plain", Device: "0123456789abcdef", Seq: 1}, []byte("hi"))
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + 1120 + 256 + 16; len(sealed) != want {
		t.Fatalf("sealed hi has %d bytes, want %d", len(sealed), want)
	}
	h, body, err := Open(key, c, sealed)
	if err != nil || string(body) != "hi" || h.Seq != 1 {
		t.Fatalf("opened %+v %q %v", h, body, err)
	}
	c.RecordID = "s"
	if _, _, err := Open(key, c, sealed); !errors.Is(err, CodeBadSignature) {
		t.Fatalf("moved content: %v", err)
	}
}

func BenchmarkParseEnvelope(b *testing.B) {
	alice := testKey(b, 1)
	e, err := Sign(alice, alice.Public(), 1763683200000, &Write{Relay: alice.Public(), RecordID: "a-1", Expires: 2000, MaxPulls: 3, Content: string(bytes.Repeat([]byte("abcd"), 230))})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseEnvelope(e.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var w Write
		for b.Loop() {
			if err := e.Decode(&w); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("terms", func(b *testing.B) {
		b.ReportAllocs()
		var w Write
		for b.Loop() {
			if err := e.DecodeTerms(&w); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hashes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e.Digest() == e.Hash() || e.RequestHash() == e.Hash() {
				b.Fatal("two purposes have one hash")
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Verify(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
