//go:build cgo && !purego

package protocol

import (
	"encoding/binary"
	"sync"
	"testing"
)

// Keys that share a slot of the table of parsed keys take turns, and no answer is another's, nor one from before.
func TestParsedKeys(t *testing.T) {
	slots := map[uint16]*PrivateKey{}
	var a, b *PrivateKey
	for b == nil { // some hundred draws
		k, err := GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		public := k.Public()
		slot := binary.LittleEndian.Uint16(public[:]) % numParsedKeys
		if a = slots[slot]; a != nil {
			b = k
		}
		slots[slot] = k
	}
	digest := TaggedHash(TagEnvelope, []byte("{}"))
	other := TaggedHash(TagEnvelope, []byte("[]"))
	signed := map[*PrivateKey]Signature{}
	for _, k := range []*PrivateKey{a, b} {
		sig, err := k.SignDigest(digest, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		signed[k] = sig
	}
	check := func() {
		for _, k := range []*PrivateKey{a, b} {
			for _, by := range []*PrivateKey{a, b, k} {
				if VerifyDigest(k.Public(), digest, signed[by]) != (by == k) || VerifyDigest(k.Public(), other, signed[by]) {
					t.Error("a check is wrong with a key in the table")
				}
			}
		}
	}
	slot := &parsedKeys[binary.LittleEndian.Uint16(a.public[:])%numParsedKeys]
	slot.Store(nil)
	if VerifyDigest(a.Public(), digest, signed[b]) || slot.Load() != nil {
		t.Error("a key came into the table by a false signature")
	}
	check()
	if known := slot.Load(); known == nil || known.key != b.Public() {
		t.Error("the last key whose signature was right is not in the table")
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				check()
			}
		})
	}
	all.Wait()
}
