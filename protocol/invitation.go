package protocol

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Names and limits of what brings cards, and of first words.
const (
	// CardType is the content type of a sealed card: its owner tells a friend where he is now. It goes under [ReceiptTag].
	CardType = "application/vnd.relaymarket.card+json"
	// FirstWordType is the content type of a sealed [FirstWord]. It goes under [ReceiptTag].
	FirstWordType = "application/vnd.relaymarket.first-word+json"
	TypeFirstWord = "firstWord"

	MaxFirstWord     = MaxCardSize + 8<<10 // bytes of its envelope
	MaxFirstWordText = 1000                // characters
)

// invitationMark stands between a link and the secret that makes it an invitation.
const invitationMark = "#invite="

// Invitation is a link with a secret: the private key of a key that the link's owner admits, so that a stranger who has
// the link can leave him a [FirstWord]. Who sees the text of an invitation can use it.
//
//	relaymarket:relay1…?relay=…#invite=<64 hex digits>
type Invitation struct {
	Link Link
	Key  *PrivateKey
}

// Text is the invitation with its secret. It is no String, which would be printed by mistake.
func (i Invitation) Text() string {
	secret := i.Key.Secret()
	return i.Link.String() + invitationMark + hex.EncodeToString(secret[:])
}

// IsInvitation tells whether a text would be an invitation rather than a link.
func IsInvitation(s string) bool { return strings.Contains(s, "#") }

// ParseInvitation reads an invitation. Errors have code [CodeMalformed] or [CodeInvalidValue], and do not repeat the secret.
func ParseInvitation(s string) (*Invitation, error) {
	link, secretText, found := strings.Cut(s, invitationMark)
	if !found {
		return nil, Errorf(CodeMalformed, "an invitation is a link that ends in %s and 64 hex digits", invitationMark)
	}
	l, err := ParseLink(link)
	if err != nil {
		return nil, err
	}
	if len(l.Relays) == 0 {
		return nil, Errorf(CodeInvalidValue, "an invitation names a relay at least")
	}
	var secret [32]byte
	if err := decodeHex(secret[:], []byte(secretText), "secret of an invitation"); err != nil {
		return nil, Errorf(CodeMalformed, "the secret of an invitation is 64 lower-case hex digits")
	}
	key, err := NewPrivateKey(secret)
	if err != nil {
		return nil, err
	}
	return &Invitation{Link: l, Key: key}, nil
}

// FirstWord is what a stranger who was invited says of himself: his card and some text, in an envelope from him to who
// invited him. It is the body of a record that the invitation's key signs. It is a document.
type FirstWord struct {
	Type       string         `json:"type"`
	Invitation PublicKey      `json:"invitation"` // the key that signs the record: so nobody can use the word with another invitation
	Text       string         `json:"text"`       // 0 … 1,000 characters
	Card       jsontext.Value `json:"card"`       // the envelope of the stranger's card
}

// RequestType implements [Request].
func (*FirstWord) RequestType() string { return TypeFirstWord }

func (w *FirstWord) setType()         { w.Type = TypeFirstWord }
func (*FirstWord) open() bool         { return true }
func (*FirstWord) required() []string { return []string{"invitation", "text", "card"} }

// Validate implements [Request].
func (w *FirstWord) Validate() error {
	if utf8.RuneCountInString(w.Text) > MaxFirstWordText {
		return Errorf(CodeInvalidValue, "a first word has at most %d characters", MaxFirstWordText)
	}
	if w.Card.Kind() != '{' {
		return Errorf(CodeMalformed, "the card of a first word is an envelope")
	}
	if len(w.Card) > MaxCardSize {
		return Errorf(CodeTooLarge, "a card has at most %d bytes", MaxCardSize)
	}
	return nil
}

// ParseFirstWord reads and verifies a first word that was left for a reader by the key of an invitation of his: size, envelope,
// body, audience, time, the card, that both are of one key, and both signatures. It returns the stranger's card, verified.
func ParseFirstWord(body []byte, invitation, reader PublicKey, now Timestamp) (*FirstWord, *Envelope, error) {
	if len(body) > MaxFirstWord {
		return nil, nil, Errorf(CodeTooLarge, "a first word has at most %d bytes", MaxFirstWord)
	}
	e, err := ParseEnvelope(body)
	if err != nil {
		return nil, nil, err
	}
	var w FirstWord
	if err := e.Decode(&w); err != nil {
		return nil, nil, err
	}
	if e.To != reader || w.Invitation != invitation {
		return nil, nil, Errorf(CodeWrongAudience, "the first word is for somebody else, or was left with another invitation")
	}
	if err := CheckNotFuture(e.Timestamp, now); err != nil {
		return nil, nil, err
	}
	card, _, err := ParseCard(w.Card, now)
	if err != nil {
		return nil, nil, err
	}
	if card.From != e.From {
		return nil, nil, Errorf(CodeMismatch, "the card in a first word is another key's than the word")
	}
	return &w, card, e.Verify()
}
