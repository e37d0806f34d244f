package protocol

import (
	"bytes"
	"encoding/base64"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of an identity card.
const (
	MaxCardSize   = 16 << 10 // bytes of the envelope
	MaxLabel      = 64       // characters
	MaxCardRelays = 16
	MaxCardHubs   = 8
	MaxSealing    = 4
)

// TypeIdentity is the request type of an identity card.
const TypeIdentity = "identity"

// Identity is the body of an identity card (file *.relayid): how a person is called, where he
// leaves and looks for messages, and to which keys they are sealed. The card is an envelope from
// and to its owner. Of two cards the one that [SupersedesCard] wins.
type Identity struct {
	Type    string        `json:"type"`
	Label   string        `json:"label"`  // 0 … 64 characters, no control characters; a hint, never an identity
	Relays  []RelayRef    `json:"relays"` // may be empty
	Sealing []SealingItem `json:"sealing"`
	Hubs    []string      `json:"hubs,omitempty"`
}

// RelayRef names a relay: where it is, and the key it signs with.
type RelayRef struct {
	Address string    `json:"address"` // see [ValidateAddress]
	PubKey  PublicKey `json:"pubkey"`
}

// SealingItem is a public key that messages to the owner may be sealed to. Readers skip suites
// they do not know.
type SealingItem struct {
	Suite int64  `json:"suite"` // [SuiteXWing] or one of the future, 0 … 255
	Key   string `json:"key"`   // standard base64
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (r *RelayRef) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain RelayRef
	return decodeItem(dec, (*plain)(r), "address", "pubkey")
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (s *SealingItem) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain SealingItem
	return decodeItem(dec, (*plain)(s), "suite", "key")
}

// RequestType implements [Request].
func (*Identity) RequestType() string { return TypeIdentity }

func (i *Identity) setType()         { i.Type = TypeIdentity }
func (*Identity) open() bool         { return true }
func (*Identity) required() []string { return []string{"label", "relays", "sealing"} }

// Validate implements [Request].
func (i *Identity) Validate() error {
	if utf8.RuneCountInString(i.Label) > MaxLabel {
		return Errorf(CodeInvalidValue, "a label has at most %d characters", MaxLabel)
	}
	for _, r := range i.Label {
		if unicode.IsControl(r) {
			return Errorf(CodeInvalidValue, "a label has no control characters")
		}
	}
	if err := validateRelays(i.Relays); err != nil {
		return err
	}
	if len(i.Sealing) < 1 || len(i.Sealing) > MaxSealing {
		return Errorf(CodeInvalidValue, "a card has 1 to %d sealing keys", MaxSealing)
	}
	for _, s := range i.Sealing {
		if err := s.validate(); err != nil {
			return err
		}
	}
	if len(i.Hubs) > MaxCardHubs {
		return Errorf(CodeInvalidValue, "a card names at most %d hubs", MaxCardHubs)
	}
	for _, h := range i.Hubs {
		if err := ValidateAddress(h); err != nil {
			return err
		}
	}
	return nil
}

func validateRelays(relays []RelayRef) error {
	if len(relays) > MaxCardRelays {
		return Errorf(CodeInvalidValue, "a card names at most %d relays", MaxCardRelays)
	}
	seen := make(map[PublicKey]struct{}, len(relays))
	for _, r := range relays {
		if err := ValidateAddress(r.Address); err != nil {
			return err
		}
		if _, twice := seen[r.PubKey]; twice {
			return Errorf(CodeInvalidValue, "the relay %s occurs twice", r.PubKey)
		}
		seen[r.PubKey] = struct{}{}
	}
	return nil
}

func (s SealingItem) validate() error {
	if s.Suite < 0 || s.Suite > 255 {
		return Errorf(CodeInvalidValue, "a sealing suite is 0 to 255")
	}
	if s.Key == "" || !isBase64(s.Key) { // encoding/base64 would skip line breaks
		return Errorf(CodeMalformed, "a sealing key is standard base64 with padding")
	}
	if s.Suite != SuiteXWing {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(s.Key)
	if err == nil {
		_, err = ParseSealingPublicKey(raw)
	}
	return err
}

// SealingKey is the first key of the card whose suite this package can seal to; false when there
// is none.
func (i *Identity) SealingKey() (*SealingPublicKey, bool) {
	for _, s := range i.Sealing {
		if s.Suite != SuiteXWing {
			continue
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(s.Key)
		if err != nil {
			continue
		}
		if key, err := ParseSealingPublicKey(raw); err == nil {
			return key, true
		}
	}
	return nil, false
}

// ParseCard reads and verifies an identity card: size, envelope, signature, from = to, body. The
// reader's clock bounds how far ahead it may be dated; it may be as old as it likes.
func ParseCard(data []byte, now Timestamp) (*Envelope, *Identity, error) {
	data = bytes.TrimSuffix(data, []byte("\n")) // a card file ends like a text file
	if len(data) > MaxCardSize {
		return nil, nil, Errorf(CodeTooLarge, "a card has at most %d bytes", MaxCardSize)
	}
	e, err := ParseEnvelope(data)
	if err != nil {
		return nil, nil, err
	}
	var id Identity
	if err := e.Decode(&id); err != nil {
		return nil, nil, err
	}
	if e.From != e.To {
		return nil, nil, Errorf(CodeWrongAudience, "a card is addressed to its own signer")
	}
	if err := CheckNotFuture(e.Timestamp, now); err != nil {
		return nil, nil, err
	}
	if err := e.Verify(); err != nil {
		return nil, nil, err
	}
	return e, &id, nil
}

// SupersedesCard tells whether a card replaces another of the same owner: the newer timestamp
// wins, and of two with one timestamp the one with the lower hash, so that all readers agree.
func SupersedesCard(next, current *Envelope) bool {
	if next.Timestamp != current.Timestamp {
		return next.Timestamp > current.Timestamp
	}
	a, b := next.Hash(), current.Hash()
	return bytes.Compare(a[:], b[:]) < 0
}
