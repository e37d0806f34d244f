package protocol

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// SuiteXWing is the sealing suite 0x01: HPKE (RFC 9180) base mode with the KEM X-Wing
// (MLKEM768-X25519, 0x647a), HKDF-SHA256 and ChaCha20-Poly1305.
const SuiteXWing = 0x01

// SuitePlain is the suite 0x00, of content that is not sealed.
const SuitePlain = 0x00

// Sizes of suite 0x01, in bytes.
const (
	SealingKeySize  = 1216 // public key
	SealingSeedSize = 32   // private key, an X-Wing seed
	sealEncSize     = 1120 // encapsulated key
	sealTagSize     = 16   // of ChaCha20-Poly1305
	sealMinPlain    = 256  // the least plaintext, so that short messages look alike
	maxSealHeader   = 8 << 10
	maxContentType  = 255
)

// SealingPublicKey is where messages to somebody are sealed to.
type SealingPublicKey struct {
	key   hpke.PublicKey
	raw   []byte
	print [sha256.Size]byte // SHA-256 of raw, bound into every seal
}

// ParseSealingPublicKey takes the 1216 bytes of a public key of suite 0x01.
func ParseSealingPublicKey(raw []byte) (*SealingPublicKey, error) {
	if len(raw) != SealingKeySize {
		return nil, Errorf(CodeInvalidValue, "a sealing key of suite 1 has %d bytes, this has %d", SealingKeySize, len(raw))
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(raw)
	if err != nil {
		return nil, Errorf(CodeInvalidValue, "the sealing key is not an X-Wing public key")
	}
	return &SealingPublicKey{key: key, raw: slices.Clone(raw), print: sha256.Sum256(raw)}, nil
}

// Item is the key as it stands in a card.
func (k *SealingPublicKey) Item() SealingItem {
	return SealingItem{Suite: SuiteXWing, Key: base64.StdEncoding.EncodeToString(k.raw)}
}

// SealingPrivateKey opens what was sealed to its public key.
type SealingPrivateKey struct {
	key    hpke.PrivateKey
	public *SealingPublicKey
}

// NewSealingPrivateKey derives the key pair of a 32-byte X-Wing seed.
func NewSealingPrivateKey(seed [SealingSeedSize]byte) (*SealingPrivateKey, error) {
	key, err := hpke.MLKEM768X25519().NewPrivateKey(seed[:])
	if err != nil {
		return nil, fmt.Errorf("X-Wing seed: %w", err)
	}
	public, err := ParseSealingPublicKey(key.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	return &SealingPrivateKey{key: key, public: public}, nil
}

// Format implements fmt.Formatter: no verb prints the secret.
func (k SealingPrivateKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "sealing private key")
}

// Public is the public key.
func (k *SealingPrivateKey) Public() *SealingPublicKey { return k.public }

// SealContext is what a seal is bound to: content moved under another sender, receiver, record id
// or tag does not open.
type SealContext struct {
	From     PublicKey
	To       PublicKey
	RecordID RecordID
	Tag      *Tag
}

// SealedHeader is the part of a sealed message that describes the rest. It is a document:
// readers ignore members they do not know.
type SealedHeader struct {
	ContentType string `json:"contentType"`    // RFC 6838 media type of the body, 1–255 printable ASCII
	Device      string `json:"device"`         // 16 lower-case hex digits, one value a device of the sender
	Seq         int64  `json:"seq"`            // counts from 1 for each device and receiver
	Name        string `json:"name,omitempty"` // a file's name, never a path
}

// validate checks the members that every reader relies on.
func (h SealedHeader) validate() error {
	var device [8]byte
	if decodeHex(device[:], []byte(h.Device), "device") != nil || h.Seq < 1 || h.Seq > MaxInteger {
		return Errorf(CodeInvalidValue, "a sealed header needs a device of 16 lower-case hex digits and a seq from 1")
	}
	if len(h.ContentType) < 1 || len(h.ContentType) > maxContentType {
		return Errorf(CodeInvalidValue, "a sealed header needs a contentType of 1 to %d characters", maxContentType)
	}
	for i := range len(h.ContentType) {
		if c := h.ContentType[i]; c < ' ' || c > '~' {
			return Errorf(CodeInvalidValue, "a contentType is printable ASCII")
		}
	}
	return nil
}

// info = "relaymarket/v1/seal" ‖ suite ‖ from(32) ‖ to(32) ‖ SHA-256(sealing public key)
func (c SealContext) info(key *SealingPublicKey) []byte {
	info := append([]byte(LabelSeal), SuiteXWing)
	info = append(info, c.From[:]...)
	info = append(info, c.To[:]...)
	return append(info, key.print[:]...)
}

// aad = canonical JSON {"recordId": …, "tag": … if any}
func (c SealContext) aad() ([]byte, error) {
	return Canonicalize(struct {
		RecordID RecordID `json:"recordId"`
		Tag      *Tag     `json:"tag,omitempty"`
	}{c.RecordID, c.Tag})
}

// PaddedSize is the length of the plaintext that carries n bytes of header, separator and body:
// max(256, Padmé(4+n)). Padmé (PURBs, Nikitin and others 2019) leaves at most 12 % of padding and
// lets the size tell only O(log log n) bits.
func PaddedSize(n int) int {
	l := uint64(n) + 4
	e := bits.Len64(l) - 1 // floor(log2(l)), l ≥ 4
	s := bits.Len64(uint64(e))
	mask := uint64(1)<<max(e-s, 0) - 1
	return int(max(sealMinPlain, (l+mask)&^mask))
}

// Seal encrypts a message to a sealing key. The result is the content of a [Write], before base64:
//
//	suite(1) ‖ enc(1120) ‖ ciphertext
//	plaintext = uint32be(n) ‖ n bytes: canonical JSON header ‖ 0x00 ‖ body ‖ zeros to PaddedSize(n)
func Seal(to *SealingPublicKey, c SealContext, header SealedHeader, body []byte) ([]byte, error) {
	if err := header.validate(); err != nil {
		return nil, err
	}
	head, err := Canonicalize(header)
	if err != nil {
		return nil, err
	}
	n := len(head) + 1 + len(body)
	if n > MaxEnvelopeSize || len(head) > maxSealHeader {
		return nil, Errorf(CodeTooLarge, "a sealed message has at most %d bytes, its header %d", MaxEnvelopeSize, maxSealHeader)
	}
	plain := make([]byte, PaddedSize(n))
	binary.BigEndian.PutUint32(plain, uint32(n))
	copy(plain[4:], head)
	copy(plain[4+len(head)+1:], body)
	aad, err := c.aad()
	if err != nil {
		return nil, err
	}
	enc, sender, err := hpke.NewSender(to.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), c.info(to))
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	ciphertext, err := sender.Seal(aad, plain)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	sealed := append([]byte{SuiteXWing}, enc...)
	return append(sealed, ciphertext...), nil
}

// Plain makes content that is not sealed, for relays that want to read what they carry. Whoever has it reads it; the envelope around it is
// signed like any. The result is the content of a [Write], before base64:
//
//	suite(1) = 0x00 ‖ canonical JSON header ‖ 0x00 ‖ body
func Plain(header SealedHeader, body []byte) ([]byte, error) {
	if err := header.validate(); err != nil {
		return nil, err
	}
	head, err := Canonicalize(header)
	if err != nil {
		return nil, err
	}
	if len(head)+len(body) > MaxEnvelopeSize || len(head) > maxSealHeader {
		return nil, Errorf(CodeTooLarge, "a message has at most %d bytes, its header %d", MaxEnvelopeSize, maxSealHeader)
	}
	return slices.Concat([]byte{SuitePlain}, head, []byte{0}, body), nil
}

// ReadPlain reads what [Plain] makes. Errors are those of [Open], but for [CodeBadSignature].
func ReadPlain(content []byte) (*SealedHeader, []byte, error) {
	if len(content) == 0 || content[0] != SuitePlain {
		return nil, nil, Errorf(CodeMalformed, "the content is not of the suite %d", SuitePlain)
	}
	return splitHeader(content[1:])
}

// Open decrypts sealed content. Any failure to authenticate has code [CodeBadSignature]: altered,
// sealed to another key, or moved from another context. What opens and is not what Seal makes has
// code [CodeMalformed], [CodeNotCanonical] or [CodeInvalidValue].
func Open(key *SealingPrivateKey, c SealContext, sealed []byte) (*SealedHeader, []byte, error) {
	if len(sealed) < 1+sealEncSize+sealMinPlain+sealTagSize {
		return nil, nil, Errorf(CodeMalformed, "sealed content has at least %d bytes", 1+sealEncSize+sealMinPlain+sealTagSize)
	}
	if sealed[0] != SuiteXWing {
		return nil, nil, Errorf(CodeMalformed, "the sealing suite %d is not known here", sealed[0])
	}
	recipient, err := hpke.NewRecipient(sealed[1:1+sealEncSize], key.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), c.info(key.public))
	if err != nil {
		return nil, nil, Errorf(CodeBadSignature, "the content does not open with this key")
	}
	aad, err := c.aad()
	if err != nil {
		return nil, nil, err
	}
	plain, err := recipient.Open(aad, sealed[1+sealEncSize:])
	if err != nil {
		return nil, nil, Errorf(CodeBadSignature, "the content does not open with this key")
	}
	return splitPlain(plain)
}

// splitPlain takes the plaintext apart. Length and padding must be exactly what Seal makes.
func splitPlain(plain []byte) (*SealedHeader, []byte, error) {
	if len(plain) < sealMinPlain {
		return nil, nil, Errorf(CodeMalformed, "a sealed plaintext has at least %d bytes", sealMinPlain)
	}
	n := uint64(binary.BigEndian.Uint32(plain))
	if n > uint64(len(plain)-4) || PaddedSize(int(n)) != len(plain) {
		return nil, nil, Errorf(CodeMalformed, "the sealed length is not that of its padding")
	}
	for _, b := range plain[4+n:] {
		if b != 0 {
			return nil, nil, Errorf(CodeMalformed, "the padding is not zero")
		}
	}
	return splitHeader(plain[4 : 4+n])
}

// splitHeader takes header and body apart.
func splitHeader(content []byte) (*SealedHeader, []byte, error) {
	if len(content) == 0 || content[0] != '{' {
		return nil, nil, Errorf(CodeMalformed, "the sealed header is not an object")
	}
	zero := 0
	for zero < len(content) && content[zero] != 0 {
		zero++
	}
	if zero == len(content) || zero > maxSealHeader {
		return nil, nil, Errorf(CodeMalformed, "the sealed header does not end")
	}
	head := jsontext.Value(content[:zero])
	if err := CheckCanonical(head); err != nil {
		return nil, nil, err
	}
	var header SealedHeader
	if err := decodeObject(head, &header, false, []string{"contentType", "device", "seq"}); err != nil {
		return nil, nil, err
	}
	if err := header.validate(); err != nil {
		return nil, nil, err
	}
	return &header, content[zero+1:], nil
}
