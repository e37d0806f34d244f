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
	TagNode     = "relaymarket/v1/node"     // an inner node of a page's or a report's tree
	TagLine     = "relaymarket/v1/line"     // a line of the ledger, leaf of a report's tree
	TagRequest  = "relaymarket/v1/request"  // the identity of a write, whatever its timestamp
	TagQuery    = "relaymarket/v1/query"    // what a pull asks for, named in its request
	LabelSeal   = "relaymarket/v1/seal"     // HPKE info prefix

	TagAnnouncement = "relaymarket/v1/announcement" // proof of work of an announcement
	TagTLS          = "relaymarket/v1/tls"          // what a relay signs of its own certificate

	TagPiece       = "relaymarket/v1/piece"        // the hash of a piece of a file
	TagPieceID     = "relaymarket/v1/piece-id"     // its record id
	TagPieceReader = "relaymarket/v1/piece-reader" // the secret key of its reader
	TagPieceKey    = "relaymarket/v1/piece-key"    // the key it is encrypted with
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
	prefix, known := tagPrefixes[tag]
	if !known {
		prefix = tagPrefix(tag)
	}
	d := sha256.New()
	d.Write(prefix[:])
	for _, p := range parts {
		d.Write(p)
	}
	var h Hash
	d.Sum(h[:0])
	return h
}

// tagPrefixes are the prefixes of the tags that are hashed with all the time.
var tagPrefixes = map[string][2 * sha256.Size]byte{
	TagEnvelope:     tagPrefix(TagEnvelope),
	TagLeaf:         tagPrefix(TagLeaf),
	TagNode:         tagPrefix(TagNode),
	TagLine:         tagPrefix(TagLine),
	TagRequest:      tagPrefix(TagRequest),
	TagQuery:        tagPrefix(TagQuery),
	TagAnnouncement: tagPrefix(TagAnnouncement),
	TagPiece:        tagPrefix(TagPiece),
}

// tagPrefix is what a tagged hash starts with: SHA-256(tag) ‖ SHA-256(tag).
func tagPrefix(tag string) (prefix [2 * sha256.Size]byte) {
	t := sha256.Sum256([]byte(tag))
	copy(prefix[:], t[:])
	copy(prefix[len(t):], t[:])
	return prefix
}

// decodeHex fills dst from exactly 2·len(dst) lower-case hex digits.
func decodeHex(dst, text []byte, what string) error {
	if len(text) != 2*len(dst) {
		return Errorf(CodeMalformed, "a %s has %d hex digits, this has %d", what, 2*len(dst), len(text))
	}
	if !readHex(dst, text) {
		return Errorf(CodeMalformed, "a %s is lower-case hex digits only", what)
	}
	return nil
}

// readHex is decodeHex without words; text has 2·len(dst) bytes.
func readHex(dst, text []byte) bool {
	bad := byte(0)
	for i := range dst {
		pair := text[2*i : 2*i+2]
		hi, lo := nibble(pair[0]), nibble(pair[1])
		bad |= hi | lo
		dst[i] = hi<<4 | lo
	}
	return bad <= 15
}

// nibble is the value of one lower-case hex digit, 0xff for any other byte.
func nibble(c byte) byte { return nibbles[c] }

var nibbles = valuesOf("0123456789abcdef")

// valuesOf maps each byte of an alphabet to its place in it, all others to 0xff.
func valuesOf(alphabet string) (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i := range len(alphabet) {
		values[alphabet[i]] = byte(i)
	}
	return values
}
