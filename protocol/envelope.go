package protocol

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxEnvelopeSize bounds every envelope, whatever a relay's own limits are.
const MaxEnvelopeSize = 8 << 20

// Envelope is one signed statement: who says what to whom, and when. It keeps the exact bytes it
// was made of. ParseEnvelope checks the shape; nothing in an Envelope may be believed before
// [Envelope.Verify] returned nil. An Envelope is immutable; its byte slices must not be written to.
type Envelope struct {
	From      PublicKey
	To        PublicKey
	Timestamp Timestamp
	Type      string         // the request's type
	Request   jsontext.Value // canonical bytes of the request object, part of Bytes
	Sig       Signature

	raw []byte // the whole wire form
	msg []byte // the bytes of the msg object in raw, what is signed
}

// The fixed bytes between the variable parts of the canonical form. Canonical order sorts the
// members, so there is exactly one place for each.
const (
	envelopeHead = `{"msg":{"from":"`
	envelopeReq  = `","request":`
	envelopeTime = `,"timestamp":`
	envelopeTo   = `,"to":"`
	envelopeSig  = `"},"sig":"`
	envelopeTail = `"}`
)

// ParseEnvelope reads the wire form. It checks size, canonical form and shape, not the signature,
// the audience or the time. It keeps data, which must not change afterwards. Errors have code
// [CodeTooLarge], [CodeMalformed] or [CodeNotCanonical].
func ParseEnvelope(data []byte) (*Envelope, error) {
	if len(data) > MaxEnvelopeSize {
		return nil, Errorf(CodeTooLarge, "an envelope has at most %d bytes", MaxEnvelopeSize)
	}
	if err := CheckCanonical(data); err != nil {
		return nil, err
	}
	e := &Envelope{raw: data}
	c := cutter{rest: data}
	c.literal(envelopeHead)
	c.text(&e.From, 2*PublicKeySize)
	c.literal(envelopeReq)
	e.Request = c.object()
	c.literal(envelopeTime)
	e.Timestamp = c.timestamp()
	c.literal(envelopeTo)
	c.text(&e.To, 2*PublicKeySize)
	c.literal(envelopeSig)
	c.text(&e.Sig, 2*len(e.Sig))
	c.literal(envelopeTail)
	if c.err == nil && len(c.rest) > 0 {
		c.fail("bytes after the envelope")
	}
	if c.err != nil {
		return nil, c.err
	}
	msgEnd := len(data) - len(`,"sig":"`) - 2*len(e.Sig) - len(envelopeTail)
	e.msg = data[len(`{"msg":`):msgEnd]
	if err := e.readType(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Envelope) readType() error {
	members(e.Request, func(name, value []byte) bool {
		if string(name) != "type" {
			return true
		}
		if len(value) > 2 && len(value) <= 66 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
			e.Type = typeName(value[1 : len(value)-1])
		}
		return false
	})
	if e.Type == "" {
		return Errorf(CodeMalformed, "the request has no type, a string of 1 to 64 bytes")
	}
	return nil
}

// typeName is string(name), without a copy of those that come all the time.
func typeName(name []byte) string {
	switch string(name) {
	case TypeWrite:
		return TypeWrite
	case TypePull:
		return TypePull
	case TypeGot:
		return TypeGot
	}
	return string(name)
}

// cutter takes an envelope apart from the front; the first failure sticks.
type cutter struct {
	rest []byte
	err  error
}

func (c *cutter) fail(format string, args ...any) {
	if c.err == nil {
		c.err = Errorf(CodeMalformed, "not an envelope: "+format, args...)
	}
}

func (c *cutter) literal(s string) {
	if c.err != nil {
		return
	}
	if !bytes.HasPrefix(c.rest, []byte(s)) {
		c.fail("expected %s", s)
		return
	}
	c.rest = c.rest[len(s):]
}

func (c *cutter) text(dst interface{ UnmarshalText([]byte) error }, n int) {
	if c.err != nil {
		return
	}
	if len(c.rest) < n {
		c.fail("it ends within a key or signature")
		return
	}
	if err := dst.UnmarshalText(c.rest[:n]); err != nil {
		c.err = err
		return
	}
	c.rest = c.rest[n:]
}

func (c *cutter) object() []byte {
	if c.err != nil {
		return nil
	}
	if len(c.rest) == 0 || c.rest[0] != '{' {
		c.fail("the request is not an object")
		return nil
	}
	end := skipValue(c.rest, 0)
	object := c.rest[:end:end]
	c.rest = c.rest[end:]
	return object
}

func (c *cutter) timestamp() Timestamp {
	n := 0
	for n < len(c.rest) && '0' <= c.rest[n] && c.rest[n] <= '9' {
		n++
	}
	if c.err != nil {
		return 0
	}
	t, err := strconv.ParseInt(string(c.rest[:n]), 10, 64)
	if err != nil {
		c.fail("the timestamp is not an integer of milliseconds from 0")
		return 0
	}
	c.rest = c.rest[n:]
	return Timestamp(t)
}

// Request is the body of an envelope that this package defines. The methods are only for use here.
type Request interface {
	// RequestType is the value of the type member.
	RequestType() string
	// Validate checks each field against what it may mean, not against a clock or an account.
	// Errors have code [CodeInvalidValue].
	Validate() error

	setType()
	required() []string
	open() bool // unknown members are ignored, not malformed
}

// grouped is a request with optional members that mean something only together.
type grouped interface{ together() []string }

func checkTogether(object []byte, names []string) error {
	found := 0
	members(object, func(name, _ []byte) bool {
		if slices.Contains(names, string(name)) {
			found++
		}
		return true
	})
	if found != 0 && found != len(names) {
		return Errorf(CodeMalformed, "a member is missing: %v stand together", names)
	}
	return nil
}

// Sign makes an envelope: it validates and encodes the request and signs it with fresh randomness.
func Sign(key *PrivateKey, to PublicKey, at Timestamp, request Request) (*Envelope, error) {
	var aux [32]byte
	if _, err := rand.Read(aux[:]); err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	return SignWith(key, to, at, request, aux)
}

// SignWith is [Sign] with the auxiliary randomness given, for test vectors.
func SignWith(key *PrivateKey, to PublicKey, at Timestamp, request Request, aux [32]byte) (*Envelope, error) {
	request.setType()
	if err := request.Validate(); err != nil {
		return nil, err
	}
	body, err := Canonicalize(request)
	if err != nil {
		return nil, err
	}
	return SignRaw(key, to, at, body, aux)
}

// SignRaw signs a request object given in canonical bytes. It is how a test makes an envelope that
// [Sign] would refuse to make; everything else wants Sign.
func SignRaw(key *PrivateKey, to PublicKey, at Timestamp, request []byte, aux [32]byte) (*Envelope, error) {
	if err := at.Validate(); err != nil {
		return nil, err
	}
	raw := make([]byte, 0, len(request)+352)
	raw = append(raw, envelopeHead...)
	raw = append(raw, key.public.String()...)
	raw = append(raw, envelopeReq...)
	raw = append(raw, request...)
	raw = append(raw, envelopeTime...)
	raw = strconv.AppendInt(raw, int64(at), 10)
	raw = append(raw, envelopeTo...)
	raw = append(raw, to.String()...)
	raw = append(raw, `"}`...)
	sig, err := key.SignDigest(TaggedHash(TagEnvelope, raw[len(`{"msg":`):]), aux)
	if err != nil {
		return nil, err
	}
	raw = append(raw, `,"sig":"`...)
	raw = append(raw, sig.String()...)
	raw = append(raw, envelopeTail...)
	return ParseEnvelope(raw)
}

// Bytes is the wire form, the exact bytes this envelope was parsed from.
func (e *Envelope) Bytes() []byte { return e.raw }

// Size is the length of the wire form in bytes, which is what a record is billed by.
func (e *Envelope) Size() int64 { return int64(len(e.raw)) }

// Digest is the tagged hash of the msg object, what the signature is over.
func (e *Envelope) Digest() Hash { return TaggedHash(TagEnvelope, e.msg) }

// Hash is the tagged hash of the whole wire form, signature included: the leaf of page trees.
func (e *Envelope) Hash() Hash { return TaggedHash(TagLeaf, e.raw) }

// RequestHash identifies what was asked, whatever the time and the randomness of its signature:
// two writes with one RequestHash are one write.
func (e *Envelope) RequestHash() Hash {
	return TaggedHash(TagRequest, e.From[:], e.To[:], e.Request)
}

// Sealed tells of the envelope of a write whether its content is sealed: whether it begins with anything but the suite 0, see
// [SuitePlain]. It trusts that the content is base64.
func (e *Envelope) Sealed() bool {
	const head = `{"content":"`
	if len(e.Request) < len(head)+2 {
		return true
	}
	// Eight bits of 0 are an A and one of A to P.
	first, second := e.Request[len(head)], e.Request[len(head)+1]
	return first != 'A' || second < 'A' || second > 'P'
}

// Verify checks the signature. The error has code [CodeBadSignature].
func (e *Envelope) Verify() error {
	if !VerifyDigest(e.From, e.Digest(), e.Sig) {
		return Errorf(CodeBadSignature, "the signature is not by %s over these bytes", e.From)
	}
	return nil
}

// Decode reads the request into dst, whose former contents are lost, and validates it. In a request, unknown members are
// malformed; in a document that others publish they are ignored. Errors have code
// [CodeWrongType], [CodeMalformed] or [CodeInvalidValue].
func (e *Envelope) Decode(dst Request) error {
	if want := dst.RequestType(); e.Type != want {
		return Errorf(CodeWrongType, "the request type is %q, this takes %q", e.Type, want)
	}
	if fast, ok := dst.(laidOut); ok && fast.readLayout(e.Request) {
		return nil
	}
	return e.decodeSlow(dst)
}

// DecodeTerms is [Envelope.Decode] of a write for who has no use for its content, like a relay, which keeps the
// whole envelope: the content is checked all the same, and w.Content left empty instead of being a copy.
func (e *Envelope) DecodeTerms(w *Write) error {
	if e.Type == TypeWrite {
		if _, ok := w.readTerms(e.Request); ok {
			return nil
		}
	}
	err := e.Decode(w)
	w.Content = ""
	return err
}

// decodeSlow is the generic reader of any request.
func (e *Envelope) decodeSlow(dst Request) error {
	reflect.ValueOf(dst).Elem().SetZero() // absent members must not keep what an earlier request had
	if err := decodeObject(e.Request, dst, !dst.open(), dst.required()); err != nil {
		return err
	}
	if g, ok := dst.(grouped); ok {
		if err := checkTogether(e.Request, g.together()); err != nil {
			return err
		}
	}
	return dst.Validate()
}

// MarshalJSON implements json.Marshaler: the wire form.
func (e *Envelope) MarshalJSON() ([]byte, error) { return e.raw, nil }

// authScheme is the authentication scheme of requests without a body.
const authScheme = "Relaymarket "

// Authorization is the value of the Authorization header that carries this envelope.
func (e *Envelope) Authorization() string {
	return authScheme + base64.RawURLEncoding.EncodeToString(e.raw)
}

// ParseAuthorization reads the value of an Authorization header: the scheme Relaymarket, one
// space, base64url without padding. An absent or foreign header has code [CodeUnauthorized].
func ParseAuthorization(header string) (*Envelope, error) {
	encoded, ok := strings.CutPrefix(header, authScheme)
	if !ok {
		return nil, Errorf(CodeUnauthorized, "this request needs: Authorization: Relaymarket <base64url envelope>")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil, Errorf(CodeMalformed, "the authorization is not base64url without padding")
	}
	return ParseEnvelope(raw)
}
