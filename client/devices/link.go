package devices

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"relaymarket/protocol"
)

// Names of the records of a pairing, in their order. Request and done go from the guest key to the owner, sealed to
// the owner's card; the others from the owner to the guest key, sealed to the key in the request.
const (
	RequestID   protocol.RecordID = "device-request"
	ChallengeID protocol.RecordID = "device-challenge"
	KeysID      protocol.RecordID = "device-keys"
	DoneID      protocol.RecordID = "device-done"

	RequestType   = "application/vnd.relaymarket.device-request+json"
	ChallengeType = "application/vnd.relaymarket.device-challenge+json"
	KeysType      = "application/vnd.relaymarket.device-keys+json"
	RefusedType   = "application/vnd.relaymarket.device-refused+json" // instead of the keys: the code was not typed
	DoneType      = "application/vnd.relaymarket.device-done+json"
)

const (
	linkScheme = "relaymarket-device:"
	maxLink    = 1024 // bytes
	secretSize = 32
	tagGuest   = "relaymarket/v1/device-guest"
	tagCode    = "relaymarket/v1/device-code"
)

// Link is where a new device finds the old one. It is not the seed: who has stolen it can ask, as the new device does, once.
// He cannot make the old device answer, because the [Code] on his screen is not the one that the person sees on the new device.
// Nor can the relay, which does not know the secret. It ends after some minutes.
//
//	relaymarket-device:relay1…?relay=<address>&pin=relay1…&until=<ms>&secret=<base64url>
type Link struct {
	Owner  protocol.PublicKey
	Relay  protocol.RelayRef
	Until  protocol.Timestamp
	Secret Secret
}

// Secret is what a link is about, 32 random bytes, used once.
type Secret [secretSize]byte

// NewSecret draws one.
func NewSecret() (s Secret, err error) {
	if _, err := rand.Read(s[:]); err != nil {
		return s, fmt.Errorf("read entropy: %w", err)
	}
	return s, nil
}

// Format prints "[secret]", whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// Guest is the key under which the new device asks. The owner admits it at his relay while the link lasts.
func (s Secret) Guest() (*protocol.PrivateKey, error) {
	return protocol.NewPrivateKey(protocol.TaggedHash(tagGuest, s[:]))
}

// Text is the link as it is written. It is no String method: a secret is not printed by accident.
func (l *Link) Text() string {
	query := url.Values{
		"relay": {l.Relay.Address}, "pin": {l.Relay.PubKey.Bech32()}, "until": {strconv.FormatInt(int64(l.Until), 10)},
		"secret": {base64.RawURLEncoding.EncodeToString(l.Secret[:])},
	}
	return linkScheme + l.Owner.Bech32() + "?" + query.Encode()
}

// ParseLink reads a link. Errors have code [protocol.CodeMalformed] or [protocol.CodeInvalidValue], and never quote the link. Parameters that are
// not known are ignored, so that links can grow.
func ParseLink(text string) (*Link, error) {
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, linkScheme)
	if !ok || len(text) > maxLink {
		return nil, protocol.Errorf(protocol.CodeMalformed, "the link of a device starts with %s and has at most %d bytes", linkScheme, maxLink)
	}
	owner, query, _ := strings.Cut(rest, "?")
	var l Link
	var err error
	if l.Owner, err = protocol.ParsePublicKey(owner); err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeMalformed, "the link's parameters are not percent-encoded")
	}
	l.Relay.Address = values.Get("relay")
	if err := protocol.ValidateAddress(l.Relay.Address); err != nil {
		return nil, err
	}
	if l.Relay.PubKey, err = protocol.ParsePublicKey(values.Get("pin")); err != nil {
		return nil, err
	}
	until, err := strconv.ParseInt(values.Get("until"), 10, 64)
	if l.Until = protocol.Timestamp(until); err != nil || l.Until.Validate() != nil {
		return nil, protocol.Errorf(protocol.CodeMalformed, "the link does not say until when it is good")
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(values.Get("secret"))
	if err != nil || len(secret) != secretSize {
		return nil, protocol.Errorf(protocol.CodeMalformed, "the link is not whole: its secret is cut off")
	}
	copy(l.Secret[:], secret)
	return &l, nil
}

// codeDigits are enough: who guesses has three tries at each link, and cannot know the code before he has committed to a key.
const codeDigits = 8

// Code is what the new device shows and the person types at the old one: it hangs on the key that the seed is to be sealed to, and
// on a nonce that the old device draws after it has that key. So nobody can look for a key that gives the same code.
func Code(l *Link, request *Request, challenge *Challenge) string {
	h := protocol.TaggedHash(tagCode, l.Secret[:], l.Owner[:], []byte(request.Sealing.Key), challenge.Nonce[:])
	const most = 100_000_000 // 10^codeDigits
	digits := fmt.Sprintf("%0*d", codeDigits, binary.BigEndian.Uint64(h[:8])%most)
	return digits[:codeDigits/2] + "-" + digits[codeDigits/2:]
}

// SameCode compares what was typed with a code. How it is grouped does not matter.
func SameCode(typed, code string) bool {
	digits := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r < '0' || r > '9' {
				return -1
			}
			return r
		}, s)
	}
	return digits(typed) == digits(code)
}

// Request is what the new device says first.
type Request struct {
	Name    string               `json:"name"`    // what the device is called, for the person
	Sealing protocol.SealingItem `json:"sealing"` // made for this, and forgotten afterwards
}

// ParseRequest reads one.
func ParseRequest(body []byte) (*Request, *protocol.SealingPublicKey, error) {
	var r Request
	if err := document(body, &r, "name", "sealing"); err != nil {
		return nil, nil, err
	}
	if err := name(r.Name); err != nil {
		return nil, nil, err
	}
	if r.Sealing.Suite != protocol.SuiteXWing {
		return nil, nil, invalid("the new device asks with a key of another kind: install the same version on both")
	}
	key, ok := (&protocol.Identity{Sealing: []protocol.SealingItem{r.Sealing}}).SealingKey()
	if !ok {
		return nil, nil, invalid("the sealing key of the new device is none")
	}
	return &r, key, nil
}

// Challenge is what the old device answers.
type Challenge struct {
	Nonce protocol.Hash `json:"nonce"`
}

// ParseChallenge reads one.
func ParseChallenge(body []byte) (*Challenge, error) {
	var c Challenge
	return &c, document(body, &c, "nonce")
}

// Keys is what makes a device of the key.
type Keys struct {
	Seed   []byte  `json:"seed"` // the entropy of the 24 words
	Relays []Relay `json:"relays"`
	Label  string  `json:"label"`
	Device ID      `json:"device"` // that gives them
}

// Format prints "[secret]", whatever the verb.
func (Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// ParseKeys reads them.
func ParseKeys(body []byte) (*Keys, error) {
	var k Keys
	if err := document(body, &k, "seed", "relays", "label", "device"); err != nil {
		return nil, err
	}
	if len(k.Seed) != 32 || len(k.Relays) > protocol.MaxCardRelays {
		return nil, invalid("the keys of a device are out of bounds")
	}
	return &k, firstOf(k.Device.Validate(), name(k.Label), each(k.Relays))
}

func document(body []byte, dst any, required ...string) error {
	if err := protocol.CheckCanonical(body); err != nil {
		return err
	}
	return protocol.DecodeDocument(body, dst, required...)
}
