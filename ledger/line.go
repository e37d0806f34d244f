package ledger

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"relaymarket/protocol"
)

// Kind is what a line of the ledger says.
type Kind string

// The kinds of lines, in the order in which a record has them: one write, any number of pulls, one
// end; pulls and lapses may come after the end. A drop comes after a line that the payer refused. No other
// kinds exist: who meets one cannot know what it costs.
const (
	KindWrite Kind = "write" // a record was stored: its storage and its pulls are reserved
	KindPull  Kind = "pull"  // a reader has signed that he has the record: one reserved pull is used
	KindEnd   Kind = "end"   // it was deleted, used up or expired: what it did not use comes back
	KindLapse Kind = "lapse" // pulls that were served and never acknowledged come back
	KindDrop  Kind = "drop"  // what a refused line came to is given up; of a refused write, all that lines came to about the record
)

// Line is one line of a contract's ledger. On the wire it is one canonical JSON object, which the
// root of a report commits to; members that are not of its kind are absent.
//
// It is a document: readers ignore members they do not know.
type Line struct {
	Seq      int64              `json:"seq"` // counts from 1 in each contract, without gaps
	Kind     Kind               `json:"kind"`
	From     protocol.PublicKey `json:"from"` // who wrote the record: the payer, a writer he pays for, or a key he admits
	To       protocol.PublicKey `json:"to"`
	RecordID protocol.RecordID  `json:"recordId"`
	Hash     protocol.Hash      `json:"hash"`  // of the record's envelope
	Bytes    int64              `json:"bytes"` // of the envelope

	Written  protocol.Timestamp `json:"written,omitzero"`  // write, end: the relay's clock
	Expires  protocol.Timestamp `json:"expires,omitzero"`  // write, end
	MaxPulls int64              `json:"maxPulls,omitzero"` // write
	Evidence *Evidence          `json:"evidence,omitzero"` // pull
	Ended    protocol.Timestamp `json:"ended,omitzero"`    // end: it is charged for storage up to here
	Pulls    int64              `json:"pulls,omitzero"`    // end: never served; lapse: served and not acknowledged

	Of   int64                 `json:"of,omitzero"`   // drop: the line that was refused
	Back *protocol.UsageTotals `json:"back,omitzero"` // drop: taken from the totals
}

// Evidence is why a pull may be billed: the reader's signature under a root, and the way from the
// record to that root.
type Evidence struct {
	Got     jsontext.Value  `json:"got"`     // the reader's envelope to the relay, see [protocol.ParseAcknowledgement]
	Index   int64           `json:"index"`   // of the record in its page, from 0
	Records int64           `json:"records"` // in the page
	Path    []protocol.Hash `json:"path,omitempty"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: got, index and records are required.
func (e *Evidence) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Evidence
	return protocol.DecodeItem(dec, (*plain)(e), "got", "index", "records")
}

// ErrLine: a line is not what any relay may write.
var ErrLine = errors.New("not a line of a ledger")

var (
	lineRequired = []string{"seq", "kind", "from", "to", "recordId", "hash", "bytes"}
	ofKind       = map[Kind][]string{
		KindWrite: {"written", "expires", "maxPulls"},
		KindPull:  {"evidence"},
		KindEnd:   {"written", "expires", "ended"},
		KindLapse: {"pulls"},
		KindDrop:  {"of", "back"},
	}
)

// Encode is the wire form of a line, without a newline.
func (l *Line) Encode() ([]byte, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	return protocol.Canonicalize(l)
}

// ParseLine reads one line, without its newline. Signatures are not checked. The error is an
// [ErrLine].
func ParseLine(data []byte) (*Line, error) {
	if len(data) > protocol.MaxUsageLine {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrLine, protocol.MaxUsageLine)
	}
	if err := protocol.CheckCanonical(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLine, err)
	}
	l := &Line{}
	if err := protocol.DecodeDocument(data, l, lineRequired...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLine, err)
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	return l, nil
}

// Validate checks that the line says what lines of its kind say, within bounds. The error is an
// [ErrLine].
func (l *Line) Validate() error {
	if err := l.RecordID.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	switch {
	case ofKind[l.Kind] == nil:
		return fmt.Errorf("%w: the kind %.20q is not known", ErrLine, l.Kind)
	case l.Seq < 1 || l.Seq > protocol.MaxInteger:
		return fmt.Errorf("%w: lines are numbered from 1", ErrLine)
	case l.Bytes < 1 || l.Bytes > protocol.MaxEnvelopeSize:
		return fmt.Errorf("%w: line %d is about %d bytes, an envelope has 1 to %d", ErrLine, l.Seq, l.Bytes, protocol.MaxEnvelopeSize)
	case l.MaxPulls < 0 || l.MaxPulls > protocol.MaxPullsLimit || l.Pulls < 0 || l.Pulls > protocol.MaxPullsLimit:
		return fmt.Errorf("%w: line %d counts more pulls than there can be", ErrLine, l.Seq)
	}
	for _, t := range []protocol.Timestamp{l.Written, l.Expires, l.Ended} {
		if err := t.Validate(); err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrLine, l.Seq, err)
		}
	}
	if (l.Written != 0) != l.has("written") || (l.Expires != 0) != l.has("expires") || (l.MaxPulls != 0) != l.has("maxPulls") ||
		(l.Ended != 0) != l.has("ended") || (l.Evidence != nil) != l.has("evidence") || (l.Of != 0) != l.has("of") || (l.Back != nil) != l.has("back") || l.Pulls != 0 && l.Kind != KindEnd && l.Kind != KindLapse || l.Pulls == 0 && l.Kind == KindLapse {
		return fmt.Errorf("%w: line %d, a %s, needs %v and nothing of other kinds", ErrLine, l.Seq, l.Kind, ofKind[l.Kind])
	}
	if l.Kind == KindEnd && (l.Ended < l.Written || l.Ended > max(l.Written, l.Expires)) {
		return fmt.Errorf("%w: line %d: a record ends between its write and its expiry", ErrLine, l.Seq)
	}
	if l.Kind == KindDrop {
		return l.validateDrop()
	}
	return l.Evidence.validate()
}

func (l *Line) validateDrop() error {
	if l.Of < 1 || l.Of >= l.Seq {
		return fmt.Errorf("%w: line %d drops line %d, which does not stand before it", ErrLine, l.Seq, l.Of)
	}
	if _, err := TotalsOf(*l.Back); err != nil {
		return fmt.Errorf("%w: line %d: %w", ErrLine, l.Seq, err)
	}
	return nil
}

func (l *Line) has(member string) bool {
	for _, m := range ofKind[l.Kind] {
		if m == member {
			return true
		}
	}
	return false
}

func (e *Evidence) validate() error {
	switch {
	case e == nil:
		return nil
	case e.Got.Kind() != '{':
		return fmt.Errorf("%w: got is the envelope of an acknowledgement", ErrLine)
	case e.Records < 1 || e.Records > protocol.MaxPageRecords || e.Index < 0 || e.Index >= e.Records:
		return fmt.Errorf("%w: the evidence names no place in a page", ErrLine)
	}
	return nil
}

// Record is the path of the record that the line is about.
func (l *Line) Record() protocol.Path {
	return protocol.Path{Sender: l.From, Receiver: l.To, ID: l.RecordID}
}

// Storage is what an end charges: the bytes × ms from the write to the end.
func (l *Line) Storage() Quantity { return stored(l.Bytes, l.Written.Time(), l.Ended.Time()) }

// StorageAfter is the part of it from a time on; 0: all.
func (l *Line) StorageAfter(until protocol.Timestamp) Quantity {
	return stored(l.Bytes, max(until, l.Written).Time(), l.Ended.Time())
}

// ErrEvidence: the evidence of a pull does not show that the reader has the record.
var ErrEvidence = errors.New("no evidence")

// Witness checks the evidence of pulls on one relay. It remembers the acknowledgements it saw last,
// because the records of one page stand together and share one signature. It is not for concurrent
// use.
type Witness struct {
	relay protocol.PublicKey
	seen  map[protocol.Hash]*protocol.Acknowledgement
	order []protocol.Hash // of seen, a ring
	next  int
}

// rememberGots bounds the acknowledgements that a [Witness] remembers.
const rememberGots = 256

// NewWitness is for the pulls on one relay.
func NewWitness(relay protocol.PublicKey) *Witness {
	return &Witness{relay: relay, seen: make(map[protocol.Hash]*protocol.Acknowledgement), order: make([]protocol.Hash, rememberGots)}
}

// Check verifies that the reader named by a pull has signed, to this relay, a page with the record
// in it, and tells which page. A page bills a record once: who counts must refuse the same record of the same page
// again. The error is an [ErrEvidence].
func (w *Witness) Check(l *Line) (protocol.PageID, error) {
	if l.Evidence == nil {
		return "", fmt.Errorf("%w in line %d", ErrEvidence, l.Seq)
	}
	key := protocol.TaggedHash(protocol.TagLeaf, l.Evidence.Got)
	ack, known := w.seen[key]
	if !known {
		var err error
		if ack, err = w.read(l.Evidence.Got); err != nil {
			return "", fmt.Errorf("%w in line %d: %w", ErrEvidence, l.Seq, err)
		}
		delete(w.seen, w.order[w.next])
		w.seen[key], w.order[w.next] = ack, key
		w.next = (w.next + 1) % len(w.order)
	}
	if ack.Reader != l.To {
		return "", fmt.Errorf("%w in line %d: %s has signed, not the reader", ErrEvidence, l.Seq, ack.Reader.Short())
	}
	root, ok := protocol.MerkleClimb(l.Hash, l.Evidence.Index, l.Evidence.Records, l.Evidence.Path)
	if !ok || root != ack.Root {
		return "", fmt.Errorf("%w in line %d: the record is not under the root that was signed", ErrEvidence, l.Seq)
	}
	return ack.PageID, nil
}

// Reading is what can be said of a line without those before it: several readers may each have a part of a report.
type Reading struct {
	Line       *Line
	Raw        []byte          // its bytes, as they were given
	Page       protocol.PageID // of a pull with evidence
	leaf       protocol.Hash
	noEvidence error
}

// Read reads one line and, of a pull, checks the evidence. The error is an [ErrLine]; want of evidence is none, it is for
// [Audit.JudgeRead] to say what follows from it.
func (w *Witness) Read(data []byte) (Reading, error) {
	l, err := ParseLine(data)
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Line: l, Raw: data, leaf: protocol.LineHash(data)}
	if l.Kind == KindPull {
		r.Page, r.noEvidence = w.Check(l)
	}
	return r, nil
}

func (w *Witness) read(raw []byte) (*protocol.Acknowledgement, error) {
	ack, err := protocol.ParseAcknowledgement(raw)
	if err != nil {
		return nil, err
	}
	if ack.Relay != w.relay {
		return nil, fmt.Errorf("it is addressed to %s, another relay", ack.Relay.Short())
	}
	return ack, nil
}
