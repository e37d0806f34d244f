package protocol

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"

	"github.com/go-json-experiment/json/jsontext"
)

// A pull travels as two lines (application/x-ndjson): the envelope of a [Pull], and in canonical form the [PullQuery]
// that it names by its hash. One signature is over both. The envelope alone is also the reader's acknowledgement of the page
// before, if it has a got: a relay shows it to those whose records were in that page, and they learn nothing of the query from it.

// Pull asks for the page that its query describes, and may acknowledge the page before.
type Pull struct {
	Type  string    `json:"type"`
	Got   *PageRoot `json:"got,omitempty"` // the page before: the reader has its records
	Query Hash      `json:"query"`         // [QueryHash] of the second line
}

// PageRoot names a page of a reader by its id, and what was in it by its root, see [MerkleRoot].
type PageRoot struct {
	PageID PageID `json:"pageId"`
	Root   Hash   `json:"root"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: both members are required.
func (p *PageRoot) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain PageRoot
	return decodeItem(dec, (*plain)(p), gotRequired...)
}

// RequestType implements [Request].
func (*Pull) RequestType() string { return TypePull }

func (p *Pull) setType()         { p.Type = TypePull }
func (*Pull) open() bool         { return false }
func (*Pull) required() []string { return pullRequired }

// Validate implements [Request].
func (p *Pull) Validate() error {
	if p.Got != nil {
		return p.Got.PageID.Validate()
	}
	return nil
}

// CheckQuery checks that a line is the query that was signed for. The error has code [CodeWrongQuery].
func (p *Pull) CheckQuery(line []byte) error {
	if QueryHash(line) != p.Query {
		return Errorf(CodeWrongQuery, "the second line does not hash to the query of the request")
	}
	return nil
}

// Salt hides the query of a pull from who sees its hash and could guess the rest. 32 lower-case hex digits on the wire.
type Salt [16]byte

// String is the wire form.
func (s Salt) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler.
func (s Salt) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (s *Salt) UnmarshalText(text []byte) error { return decodeHex(s[:], text, "salt") }

// PullQuery describes a page: what any of the senders has for the signer on this relay, from after on, in cursor order. Asked again
// with the same page id it is the same page.
type PullQuery struct {
	After   *string     `json:"after,omitempty"` // absent: from the beginning
	Limit   int64       `json:"limit"`           // 1 … [MaxPageRecords] records
	PageID  PageID      `json:"pageId"`
	Salt    Salt        `json:"salt"`    // drawn by [NewPull]
	Senders []PublicKey `json:"senders"` // 1 … [MaxSenders], distinct
}

var queryRequired = []string{"limit", "pageId", "salt", "senders"}

// Validate checks each member against what it may mean.
func (q *PullQuery) Validate() error {
	if err := validateSenders(q.Senders); err != nil {
		return err
	}
	if q.Limit < 1 || q.Limit > MaxPageRecords {
		return Errorf(CodeInvalidValue, "limit is 1 to %d", MaxPageRecords)
	}
	if err := validateCursor(q.After); err != nil {
		return err
	}
	return q.PageID.Validate()
}

// QueryHash is the tagged hash of a query in canonical form, by which a [Pull] names it.
func QueryHash(line []byte) Hash { return TaggedHash(TagQuery, line) }

// ParsePullQuery reads the second line of a pull, without its newline.
func ParsePullQuery(line []byte) (*PullQuery, error) {
	if err := CheckCanonical(line); err != nil {
		return nil, err
	}
	q := &PullQuery{}
	if q.readLayout(line) {
		return q, nil
	}
	if err := q.decodeSlow(line); err != nil {
		return nil, err
	}
	return q, nil
}

// decodeSlow is the generic reader.
func (q *PullQuery) decodeSlow(line []byte) error {
	*q = PullQuery{} // it may have been filled in halfway
	if err := decodeObject(line, q, true, queryRequired); err != nil {
		return err
	}
	return q.Validate()
}

// NewPull makes the request to sign for a query, under a salt drawn for it, and the line that [PullBody] puts beside its
// envelope. got, if not nil, is the page before. A salt serves once: each envelope that is signed, a repetition too, wants a new pull.
func NewPull(query PullQuery, got *PageRoot) (request *Pull, line []byte, err error) {
	_, _ = rand.Read(query.Salt[:]) // it never fails
	if err := query.Validate(); err != nil {
		return nil, nil, err
	}
	if line, err = Canonicalize(query); err != nil {
		return nil, nil, err
	}
	return &Pull{Type: TypePull, Got: got, Query: QueryHash(line)}, line, nil
}

// PullBody is the body of a pull.
func PullBody(e *Envelope, line []byte) []byte {
	body := make([]byte, 0, len(e.raw)+len(line)+2)
	body = append(append(body, e.raw...), '\n')
	return append(append(body, line...), '\n')
}

// ParsePullBody takes the body of a pull apart. Of the second line it only checks that there is no more and no less; see
// [ParsePullQuery]. Both keep the data, which must not change afterwards.
func ParsePullBody(body []byte) (e *Envelope, line []byte, err error) {
	first, rest, _ := bytes.Cut(body, []byte("\n"))
	line, more, ended := bytes.Cut(rest, []byte("\n"))
	if !ended || len(more) > 0 {
		return nil, nil, Errorf(CodeMalformed, "the body of a pull is two lines, the envelope and its query, each with a newline at its end")
	}
	e, err = ParseEnvelope(first)
	return e, line, err
}

// Acknowledgement is what a reader has signed to a relay: that he has the records of a page.
type Acknowledgement struct {
	Reader PublicKey
	Relay  PublicKey
	PageRoot
}

// ParseAcknowledgement reads the evidence of a page: an envelope of a [Got], or of a [Pull] that has a got. It checks form and
// signature; whether reader and relay are those in question is for the caller to look at.
func ParseAcknowledgement(data []byte) (*Acknowledgement, error) {
	e, err := ParseEnvelope(data)
	if err != nil {
		return nil, err
	}
	page, err := e.acknowledged()
	if err != nil {
		return nil, err
	}
	if err := e.Verify(); err != nil {
		return nil, err
	}
	return &Acknowledgement{Reader: e.From, Relay: e.To, PageRoot: page}, nil
}

func (e *Envelope) acknowledged() (PageRoot, error) {
	if e.Type != TypePull {
		var got Got
		err := e.Decode(&got)
		return PageRoot{PageID: got.PageID, Root: got.Root}, err
	}
	var pull Pull
	if err := e.Decode(&pull); err != nil {
		return PageRoot{}, err
	}
	if pull.Got == nil {
		return PageRoot{}, Errorf(CodeMalformed, "this pull acknowledges no page")
	}
	return *pull.Got, nil
}
