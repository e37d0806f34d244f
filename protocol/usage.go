package protocol

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Request types of what a contract's bill is made of.
const (
	TypeUsage       = "usage"       // GET /usage
	TypeUsageReport = "usageReport" // what the relay answers
)

// Limits of bills that no relay changes.
const (
	MaxReportLines   = 16_384   // lines under one report
	MaxUsageLine     = 16 << 10 // bytes of one line
	MaxReceipts      = 500      // receipts in one record
	ReceiptTag       = Tag("ack")
	ReceiptType      = "application/vnd.relaymarket.receipts+json" // content type of sealed receipts
	maxDecimalDigits = 39                                          // of 2^128−1
)

// Decimal is a quantity from 0 to 2^128−1 as it travels: decimal digits without leading zeros.
type Decimal string

// Validate checks the form; the error has code [CodeMalformed].
func (d Decimal) Validate() error {
	const most = "340282366920938463463374607431768211455"
	digits := len(d) > 0 && strings.Trim(string(d), "0123456789") == ""
	if !digits || len(d) > 1 && d[0] == '0' || len(d) > maxDecimalDigits || len(d) == maxDecimalDigits && string(d) > most {
		return Errorf(CodeMalformed, "a quantity is a decimal string, 0 to 2^128-1, without leading zeros")
	}
	return nil
}

// UsageTotals are running totals of a contract, since it began. See package ledger for what each
// counts and how they become money.
type UsageTotals struct {
	Written        Decimal `json:"written"`        // bytes of records written
	Pulled         Decimal `json:"pulled"`         // bytes of records pulled and acknowledged
	Stored         Decimal `json:"stored"`         // bytes × ms that records which ended were stored
	ReservedPulled Decimal `json:"reservedPulled"` // bytes of pulls that may still be made or acknowledged
	ReservedStored Decimal `json:"reservedStored"` // bytes × ms from write to expiry of records which did not end
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (t *UsageTotals) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain UsageTotals
	return decodeItem(dec, (*plain)(t), "written", "pulled", "stored", "reservedPulled", "reservedStored")
}

func (t UsageTotals) all() [5]Decimal {
	return [5]Decimal{t.Written, t.Pulled, t.Stored, t.ReservedPulled, t.ReservedStored}
}

// UsageReport is a relay's signed statement of what a contract used: the totals after ledger line
// Last, and the root over the lines from First on, in their order, whose leaves are [LineHash]. It
// is a document, an envelope from the relay to the payer: readers ignore members they do not know.
//
// Reports of a contract form a chain: each begins after the last line of the one before and names
// its envelope's hash. A relay never signs two different ones after the same predecessor.
type UsageReport struct {
	Type     string      `json:"type"`
	Contract ContractID  `json:"contract"`
	First    int64       `json:"first"`              // sequence number of its first line, from 1
	Last     int64       `json:"last"`               // of its last line; at most [MaxReportLines] lines
	Previous *Hash       `json:"previous,omitempty"` // hash of the report before; absent in the first
	Root     Hash        `json:"root"`
	Totals   UsageTotals `json:"totals"`
}

// RequestType implements [Request].
func (*UsageReport) RequestType() string { return TypeUsageReport }

func (u *UsageReport) setType() { u.Type = TypeUsageReport }
func (*UsageReport) open() bool { return true }
func (*UsageReport) required() []string {
	return []string{"contract", "first", "last", "root", "totals"}
}

// Validate implements [Request].
func (u *UsageReport) Validate() error {
	if u.First < 1 || u.Last < u.First || u.Last > MaxInteger || u.Last-u.First >= MaxReportLines {
		return Errorf(CodeInvalidValue, "a report has 1 to %d lines, numbered from 1", MaxReportLines)
	}
	if (u.First == 1) != (u.Previous == nil) {
		return Errorf(CodeInvalidValue, "every report but the first names the one before")
	}
	for _, d := range u.Totals.all() {
		if err := d.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// LineHash is the leaf of a ledger line in its report's tree: the tagged hash of its bytes, without
// the newline.
func LineHash(line []byte) Hash { return TaggedHash(TagLine, line) }

// UsageHeader is the first line of the answer to GET /usage, which nobody signs. After it come the
// report's lines, or only the one that was asked for, with its path to the report's root.
type UsageHeader struct {
	Report *Envelope `json:"report,omitempty"` // of a [UsageReport]; absent: nothing is new
	Lines  int64     `json:"lines"`            // that follow; 0 when their evidence is not kept any more
	More   bool      `json:"more"`             // there is another report after this one
	Path   []Hash    `json:"path,omitempty"`
}

// ParseUsageHeader reads the line, which need not be canonical. Errors have code [CodeMalformed] or
// [CodeNotCanonical].
func ParseUsageHeader(line []byte) (*UsageHeader, error) {
	value := jsontext.Value(bytes.Clone(line))
	if err := value.Canonicalize(); err != nil {
		return nil, Errorf(CodeMalformed, "the first line is no header of a report")
	}
	var raw struct {
		Report jsontext.Value `json:"report"`
		Lines  int64          `json:"lines"`
		More   bool           `json:"more"`
		Path   []Hash         `json:"path"`
	}
	if err := DecodeDocument(value, &raw, "lines", "more"); err != nil {
		return nil, err
	}
	h := &UsageHeader{Lines: raw.Lines, More: raw.More, Path: raw.Path}
	if h.Lines < 0 || h.Lines > MaxReportLines {
		return nil, Errorf(CodeMalformed, "a report has at most %d lines", MaxReportLines)
	}
	if raw.Report == nil {
		return h, nil
	}
	var err error
	h.Report, err = ParseEnvelope(raw.Report)
	return h, err
}

// Receipt is a reader's statement to a sender that he has a record, and from which relay.
type Receipt struct {
	Relay    PublicKey `json:"relay"`
	RecordID RecordID  `json:"recordId"`
	Hash     Hash      `json:"hash"`  // of the envelope
	Bytes    int64     `json:"bytes"` // of the envelope
	Got      Timestamp `json:"got"`   // the reader's clock
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (r *Receipt) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Receipt
	return decodeItem(dec, (*plain)(r), "relay", "recordId", "hash", "bytes", "got")
}

// Receipts is the body of a record of receipts, which is sealed to the sender whose records they
// are about, under [ReceiptTag] and the content type [ReceiptType]. It is a document.
type Receipts struct {
	Receipts []Receipt `json:"receipts"` // 1 … [MaxReceipts]
}

// ParseReceipts reads the body of a record of receipts. Errors have code [CodeMalformed],
// [CodeNotCanonical] or [CodeInvalidValue].
func ParseReceipts(body []byte) (*Receipts, error) {
	if err := CheckCanonical(body); err != nil {
		return nil, err
	}
	var r Receipts
	if err := DecodeDocument(body, &r, "receipts"); err != nil {
		return nil, err
	}
	return &r, r.Validate()
}

// Validate checks bounds. Errors have code [CodeInvalidValue] or [CodeMalformed].
func (r *Receipts) Validate() error {
	if len(r.Receipts) < 1 || len(r.Receipts) > MaxReceipts {
		return Errorf(CodeInvalidValue, "a record has 1 to %d receipts", MaxReceipts)
	}
	for i := range r.Receipts {
		one := &r.Receipts[i]
		if err := one.RecordID.Validate(); err != nil {
			return err
		}
		if one.Bytes < 1 || one.Bytes > MaxEnvelopeSize {
			return Errorf(CodeInvalidValue, "an envelope has 1 to %d bytes", MaxEnvelopeSize)
		}
		if err := one.Got.Validate(); err != nil {
			return err
		}
	}
	return nil
}
