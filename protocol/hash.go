package protocol

import (
	"crypto/sha256"
	"encoding/hex"
)

// Domain labels. Each hash and each derivation of the protocol has one, so that no digest of one
// purpose is ever valid for another.
const (
	TagEnvelope = "relaymarket/v1/envelope" // the digest that is signed
	TagLeaf     = "relaymarket/v1/leaf"     // the hash of one whole envelope, leaf of a page's tree
	TagNode     = "relaymarket/v1/node"     // an inner node of a page's tree
	TagRequest  = "relaymarket/v1/request"  // the identity of a write, whatever its timestamp
	LabelSeal   = "relaymarket/v1/seal"     // HPKE info prefix
)

// Hash is a 32-byte SHA-256 value, 64 lower-case hex digits on the wire.
type Hash [sha256.Size]byte

// String is the wire form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (h *Hash) UnmarshalText(text []byte) error { return decodeHex(h[:], text, "hash") }

// TaggedHash is BIP340's tagged hash: SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ parts…).
func TaggedHash(tag string, parts ...[]byte) Hash {
	t := sha256.Sum256([]byte(tag))
	d := sha256.New()
	d.Write(t[:])
	d.Write(t[:])
	for _, p := range parts {
		d.Write(p)
	}
	var h Hash
	d.Sum(h[:0])
	return h
}

// decodeHex fills dst from exactly 2·len(dst) lower-case hex digits.
func decodeHex(dst, text []byte, what string) error {
	if len(text) != 2*len(dst) {
		return Errorf(CodeMalformed, "a %s has %d hex digits, this has %d", what, 2*len(dst), len(text))
	}
	for i := range dst {
		hi, lo := nibble(text[2*i]), nibble(text[2*i+1])
		if hi|lo > 15 {
			return Errorf(CodeMalformed, "a %s is lower-case hex digits only", what)
		}
		dst[i] = hi<<4 | lo
	}
	return nil
}

// nibble is the value of one lower-case hex digit, 0xff for any other byte.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
