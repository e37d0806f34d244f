package devices

import (
	"encoding/hex"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"relaymarket/protocol"
)

// LogType is the content type of a batch. It is sealed by the key to itself, under [protocol.ReceiptTag]: nobody waits for it, and it
// is not counted among the messages.
const LogType = "application/vnd.relaymarket.device-log+json"

// Bounds of a batch.
const (
	MaxBatchBytes = 1 << 20   // of a body that is read
	BatchBytes    = 128 << 10 // at which a writer ends one
	MaxEntries    = 2000      // of each kind
	MaxCopies     = 64        // of one message
	MaxTold       = 48 << 10  // bytes of a message's body, or of its sealed content, that are told
	MaxName       = 256       // bytes
)

// ID is a device's word for itself, 16 lower-case hex digits, as in sealed headers.
type ID string

// Validate checks the form.
func (id ID) Validate() error {
	raw, err := hex.DecodeString(string(id))
	if err != nil || len(raw) != 8 || hex.EncodeToString(raw) != string(id) {
		return protocol.Errorf(protocol.CodeInvalidValue, "a device is 16 lower-case hex digits")
	}
	return nil
}

// Stamp is when a register was changed, and by which device. The later change wins; of two of one moment, that of the
// greater device.
type Stamp struct {
	At protocol.Timestamp `json:"at"` // by the device's clock, and later than the change before it knew
	By ID                 `json:"by"`
}

// Device is one of the devices, as a register.
type Device struct {
	ID      ID     `json:"id"`
	Stamp   Stamp  `json:"stamp"`
	Name    string `json:"name"`
	Removed bool   `json:"removed,omitzero"`
}

// Friend is a contact: the name is a register, the card the newest there is. Of one removed both stay: else a word from
// before could bring an older card back.
type Friend struct {
	Key     protocol.PublicKey `json:"key"`
	Stamp   Stamp              `json:"stamp"`
	Name    string             `json:"name"`
	Removed bool               `json:"removed,omitzero"`
	Card    jsontext.Value     `json:"card"` // the envelope
}

// Relay is one of the key's own relays, as a register.
type Relay struct {
	Key     protocol.PublicKey `json:"key"`
	Stamp   Stamp              `json:"stamp"`
	Address string             `json:"address"`
	Added   protocol.Timestamp `json:"added"`
	Bytes   int64              `json:"bytes"` // the largest record it takes
	Removed bool               `json:"removed,omitzero"`
}

// Label is what the card calls the user, as a register.
type Label struct {
	Stamp Stamp  `json:"stamp"`
	Text  string `json:"text"`
}

// Mark says that a message was read, or removed from view, and when first. 0: it was not.
type Mark struct {
	From     protocol.PublicKey `json:"from"`
	RecordID protocol.RecordID  `json:"recordId"`
	Read     protocol.Timestamp `json:"read,omitzero"`
	Removed  protocol.Timestamp `json:"removed,omitzero"`
	Expires  protocol.Timestamp `json:"expires"` // of the message: until then the mark is of use
}

// Message is one that arrived. Others under its name and with another content are other elements of the set.
type Message struct {
	From        protocol.PublicKey `json:"from"`
	RecordID    protocol.RecordID  `json:"recordId"`
	Content     protocol.Hash      `json:"content"`  // over sealed content and tag
	Envelope    protocol.Hash      `json:"envelope"` // that came to the device that tells
	Relay       protocol.PublicKey `json:"relay"`    // that brought it there
	Tag         protocol.Tag       `json:"tag,omitempty"`
	ContentType string             `json:"contentType"`
	Name        string             `json:"name,omitempty"`
	Device      string             `json:"device"` // the sender's
	Seq         int64              `json:"seq"`
	Body        []byte             `json:"body"`
	Fault       string             `json:"fault,omitempty"`
	Plain       bool               `json:"plain,omitzero"`
	Sent        protocol.Timestamp `json:"sent"`
	Expires     protocol.Timestamp `json:"expires"`
}

// Sent is a message of the user, and where its copies lie. All but Removed, Sealed and Copies never changes.
type Sent struct {
	RecordID    protocol.RecordID  `json:"recordId"`
	To          protocol.PublicKey `json:"to"`
	Tag         protocol.Tag       `json:"tag,omitempty"`
	ContentType string             `json:"contentType"`
	Name        string             `json:"name,omitempty"`
	Device      ID                 `json:"device"` // that wrote it
	Seq         int64              `json:"seq"`
	Body        []byte             `json:"body,omitempty"`
	Long        bool               `json:"long,omitzero"`    // the body is too long to be told
	Sealed      []byte             `json:"sealed,omitempty"` // while a copy waits: any device may bring it
	Expires     protocol.Timestamp `json:"expires"`
	MaxPulls    int64              `json:"maxPulls"`
	Created     protocol.Timestamp `json:"created"`
	Removed     protocol.Timestamp `json:"removed,omitzero"`
	Copies      []Copy             `json:"copies"`
}

// CopyState is where a copy stands.
type CopyState string

// The states, in the order in which a copy goes through them.
const (
	Queued   CopyState = "queued"
	Failed   CopyState = "failed"
	Stored   CopyState = "stored"
	Removing CopyState = "removing"
	Gone     CopyState = "gone"
)

var copyStates = []CopyState{Queued, Failed, Stored, Removing, Gone}

// Copy is one relay's copy of a sent message.
type Copy struct {
	Relay   protocol.PublicKey `json:"relay"`
	Address string             `json:"address"`
	State   CopyState          `json:"state"`
	Changed protocol.Timestamp `json:"changed"`
	Cursor  string             `json:"cursor,omitempty"`
	Hash    *protocol.Hash     `json:"hash,omitempty"` // of the envelope that the relay keeps
	Bytes   int64              `json:"bytes,omitzero"` // of that envelope; 0: not known
	Signed  protocol.Timestamp `json:"signed,omitzero"`
	Got     protocol.Timestamp `json:"got,omitzero"` // when the reader had it from there, by his receipt; 0: he has not said so
}

// Batch is what one device says at once. It is a document: readers ignore members they do not know.
type Batch struct {
	Device   ID                 `json:"device"`
	Seq      int64              `json:"seq"` // counts the batches of the device from 1
	At       protocol.Timestamp `json:"at"`
	Devices  []Device           `json:"devices,omitempty"`
	Friends  []Friend           `json:"friends,omitempty"`
	Label    *Label             `json:"label,omitempty"`
	Marks    []Mark             `json:"marks,omitempty"`
	Messages []Message          `json:"messages,omitempty"`
	Relays   []Relay            `json:"relays,omitempty"`
	Sent     []Sent             `json:"sent,omitempty"`
}

// Encode gives the bytes of a batch.
func (b *Batch) Encode() ([]byte, error) { return protocol.Canonicalize(b) }

// Parse is [Read] for a batch of which every entry is to be right: its error is that of the first that is not.
func Parse(body []byte) (*Batch, error) {
	b, refused, err := Read(body)
	if err == nil && len(refused) > 0 {
		err = refused[0]
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Read reads a batch. An entry that is out of bounds is left out, and its error is among the refused: what a device says of one thing
// does not hang on what it says of another. Errors have code [protocol.CodeMalformed], [protocol.CodeNotCanonical] or
// [protocol.CodeInvalidValue], or are those of a card. Cards are verified, but for their time: the device that tells of one had a clock of
// its own to hold it against.
func Read(body []byte) (_ *Batch, refused []error, _ error) {
	if len(body) > MaxBatchBytes {
		return nil, nil, protocol.Errorf(protocol.CodeTooLarge, "a batch has at most %d bytes", MaxBatchBytes)
	}
	if err := protocol.CheckCanonical(body); err != nil {
		return nil, nil, err
	}
	var raw struct {
		Device   ID                 `json:"device"`
		Seq      int64              `json:"seq"`
		At       protocol.Timestamp `json:"at"`
		Devices  []jsontext.Value   `json:"devices"`
		Friends  []jsontext.Value   `json:"friends"`
		Label    jsontext.Value     `json:"label"`
		Marks    []jsontext.Value   `json:"marks"`
		Messages []jsontext.Value   `json:"messages"`
		Relays   []jsontext.Value   `json:"relays"`
		Sent     []jsontext.Value   `json:"sent"`
	}
	if err := protocol.DecodeDocument(body, &raw, "device", "seq", "at"); err != nil {
		return nil, nil, err
	}
	for _, list := range [][]jsontext.Value{raw.Devices, raw.Friends, raw.Marks, raw.Messages, raw.Relays, raw.Sent} {
		if len(list) > MaxEntries {
			return nil, nil, invalid("a batch has at most %d entries of a kind", MaxEntries)
		}
	}
	if raw.Seq < 1 || raw.Seq > protocol.MaxInteger {
		return nil, nil, invalid("batches are numbered from 1")
	}
	if err := firstOf(raw.Device.Validate(), raw.At.Validate()); err != nil {
		return nil, nil, err
	}
	b := &Batch{Device: raw.Device, Seq: raw.Seq, At: raw.At}
	b.Devices = entries[Device](raw.Devices, &refused)
	b.Friends = entries[Friend](raw.Friends, &refused)
	if len(raw.Label) > 0 && raw.Label.Kind() != 'n' {
		if labels := entries[Label]([]jsontext.Value{raw.Label}, &refused); labels != nil {
			b.Label = &labels[0]
		}
	}
	b.Marks = entries[Mark](raw.Marks, &refused)
	b.Messages = entries[Message](raw.Messages, &refused)
	b.Relays = entries[Relay](raw.Relays, &refused)
	b.Sent = entries[Sent](raw.Sent, &refused)
	return b, refused, nil
}

// entries reads each by itself.
func entries[T any, P interface {
	*T
	validate() error
}](list []jsontext.Value, refused *[]error) (all []T) {
	for _, value := range list {
		var entry T
		err := protocol.DecodeDocument(value, &entry)
		if err == nil {
			err = P(&entry).validate()
		}
		if err != nil {
			*refused = append(*refused, err)
			continue
		}
		all = append(all, entry)
	}
	return all
}

func invalid(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeInvalidValue, format, args...)
}

// firstOf is the first error.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func each[T any, P interface {
	*T
	validate() error
}](list []T) error {
	for i := range list {
		if err := P(&list[i]).validate(); err != nil {
			return err
		}
	}
	return nil
}

// name checks a text that a person wrote.
func name(s string) error {
	if len(s) > MaxName || !utf8.ValidString(s) {
		return invalid("a name has at most %d bytes of UTF-8", MaxName)
	}
	return nil
}

func (s Stamp) validate() error { return firstOf(s.At.Validate(), s.By.Validate()) }

func (d *Device) validate() error { return firstOf(d.ID.Validate(), d.Stamp.validate(), name(d.Name)) }

func (f *Friend) validate() error {
	if f.Name == "" {
		return invalid("a friend has a name")
	}
	if err := firstOf(f.Key.Validate(), f.Stamp.validate(), name(f.Name)); err != nil {
		return err
	}
	card, _, err := protocol.ParseCard(f.Card, protocol.MaxInteger)
	if err == nil && card.From != f.Key {
		err = invalid("the card is not that of %s", f.Key.Short())
	}
	return err
}

func (l *Label) validate() error { return firstOf(l.Stamp.validate(), name(l.Text)) }

func (r *Relay) validate() error {
	if r.Bytes < 0 || r.Bytes > protocol.MaxInteger {
		return invalid("the size of a relay's records is not one")
	}
	return firstOf(r.Key.Validate(), r.Stamp.validate(), r.Added.Validate(), protocol.ValidateAddress(r.Address))
}

func (m *Mark) validate() error {
	return firstOf(m.RecordID.Validate(), m.Read.Validate(), m.Removed.Validate(), m.Expires.Validate())
}

func (m *Message) validate() error {
	if m.Seq < 0 || m.Seq > protocol.MaxInteger || len(m.Body) > MaxTold || len(m.Fault) > 4*MaxName || len(m.Device) > 16 {
		return invalid("a message of another device is out of bounds")
	}
	return firstOf(m.RecordID.Validate(), header(m.Tag, m.ContentType, m.Name), m.Sent.Validate(), m.Expires.Validate())
}

// header checks what messages of both directions have.
func header(tag protocol.Tag, contentType, file string) error {
	if len(contentType) > 255 || len(file) > 8192 || !utf8.ValidString(file) {
		return invalid("the header of a message is out of bounds")
	}
	if tag != "" {
		return tag.Validate()
	}
	return nil
}

func (s *Sent) validate() error {
	if s.Seq < 1 || s.Seq > protocol.MaxInteger || len(s.Body) > MaxTold || len(s.Sealed) > 2*MaxTold || len(s.Copies) > MaxCopies ||
		s.MaxPulls < 1 || s.MaxPulls > protocol.MaxPullsLimit {
		return invalid("a sent message is out of bounds")
	}
	return firstOf(s.RecordID.Validate(), s.Device.Validate(), header(s.Tag, s.ContentType, s.Name), s.Expires.Validate(), s.Created.Validate(),
		s.Removed.Validate(), each(s.Copies))
}

func (c *Copy) validate() error {
	if !slices.Contains(copyStates, c.State) {
		return invalid("%q is no state of a copy", c.State)
	}
	if c.Bytes < 0 || c.Bytes > protocol.MaxEnvelopeSize || len(c.Cursor) > protocol.MaxCursor {
		return invalid("a copy is out of bounds")
	}
	return firstOf(protocol.ValidateAddress(c.Address), c.Changed.Validate(), c.Signed.Validate(), c.Got.Validate())
}
