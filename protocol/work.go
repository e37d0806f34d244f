package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"math/bits"

	"github.com/go-json-experiment/json/jsontext"
)

// Proof of work of an announcement, so that a place in the public market costs something that nobody can fake:
//
//	subject = TaggedHash("relaymarket/v1/announcement", the canonical msg without the member pow of its request)
//	work    = TaggedHash("relaymarket/v1/announcement", subject ‖ nonce)        nonce: 8 bytes
//
// and pow = {bits, nonce} is true when work begins with at least bits zero bits. What a try costs does not grow with the
// size of the announcement, and a false proof costs its reader two hashes and no signature.

// MaxWorkBits bounds pow.bits: there are no more bits in a hash.
const MaxWorkBits = 256

// NonceSize is the length of a nonce in bytes.
const NonceSize = 8

// Nonce is what a proof of work is found with: 16 lower-case hex digits on the wire.
type Nonce [NonceSize]byte

// MarshalText implements encoding.TextMarshaler.
func (n Nonce) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, n[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (n *Nonce) UnmarshalText(text []byte) error { return decodeHex(n[:], text, "nonce") }

// Work is the member pow of an announcement.
type Work struct {
	Bits  int64 `json:"bits"` // zero bits that are claimed, 0 … [MaxWorkBits]
	Nonce Nonce `json:"nonce"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (w *Work) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Work
	return decodeItem(dec, (*plain)(w), "bits", "nonce")
}

func (w *Work) validate() error {
	if w != nil && (w.Bits < 0 || w.Bits > MaxWorkBits) {
		return Errorf(CodeInvalidValue, "pow.bits is 0 to %d", MaxWorkBits)
	}
	return nil
}

// WorkSubject is what the proof of work of an announcement is over. With it comes the claim as the announcement
// makes it, nil if it makes none; the error of one that cannot be read has code [CodeMalformed] or [CodeInvalidValue].
// It may be called before [Envelope.Decode], which costs more.
func (e *Envelope) WorkSubject() (Hash, *Work, error) {
	start, end, value := memberSpan(e.Request, "pow")
	if value == nil {
		return TaggedHash(TagAnnouncement, e.msg), nil, nil
	}
	var w Work
	if err := decodeObject(value, &w, false, workRequired); err != nil {
		return Hash{}, nil, err
	}
	if err := w.validate(); err != nil {
		return Hash{}, nil, err
	}
	// The comma goes with it: type follows pow in every request.
	const request = len(envelopeHead) - len(`{"msg":`) + 2*PublicKeySize + len(envelopeReq)
	return TaggedHash(TagAnnouncement, e.msg[:request+start], e.msg[request+end+1:]), &w, nil
}

var workRequired = []string{"bits", "nonce"}

// memberSpan is where a member of a canonical object begins and ends, and its value; nil if there is none.
func memberSpan(object []byte, wanted string) (start, end int, value []byte) {
	at := len(`{`)
	members(object, func(name, v []byte) bool {
		length := len(name) + len(`"":`) + len(v)
		if string(name) == wanted {
			start, end, value = at, at+length, v
			return false
		}
		at += length + len(`,`)
		return true
	})
	return start, end, value
}

// Bits is how many zero bits the work of this nonce over a subject begins with.
func (n Nonce) Bits(subject Hash) int {
	prefix := tagPrefixes[TagAnnouncement]
	var block [2*sha256.Size + sha256.Size + NonceSize]byte
	copy(block[:], prefix[:])
	copy(block[2*sha256.Size:], subject[:])
	copy(block[3*sha256.Size:], n[:])
	return ZeroBits(sha256.Sum256(block[:]))
}

// ZeroBits is how many zero bits a hash begins with.
func ZeroBits(h Hash) int {
	for i, b := range h {
		if b != 0 {
			return 8*i + bits.LeadingZeros8(b)
		}
	}
	return 8 * len(h)
}
