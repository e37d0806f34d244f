package protocol

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// A page travels as NDJSON (application/x-ndjson): one [PageHeader], then for each record, in
// cursor order, either its envelope, exactly as it was written, or a [GoneLine] for a record that
// ended since the page was made. A reader that got fewer lines than records was cut off.

// PageHeader is the first line of a page.
type PageHeader struct {
	Cursor  string `json:"cursor"`  // pull again after this
	More    bool   `json:"more"`    // there may be more already, also after an empty page
	PageID  PageID `json:"pageId"`  // as asked
	Records int64  `json:"records"` // lines that follow
	Root    *Hash  `json:"root,omitempty"`
	Served  int64  `json:"served"` // how often so far, 1 … [MaxPageServes]; 0 for an empty page
}

// GoneLine stands in a page for a record that ended since the page was made. Its hash keeps the
// page's root computable.
type GoneLine struct {
	Gone GoneRecord `json:"gone"`
}

// GoneRecord names the record of a [GoneLine].
type GoneRecord struct {
	From     PublicKey `json:"from"`
	RecordID RecordID  `json:"recordId"`
	Hash     Hash      `json:"hash"`
}

// PageLine is a record of a page: Envelope, or Gone.
type PageLine struct {
	Envelope *Envelope
	Gone     *GoneRecord
}

// Page is what a reader received of one page.
type Page struct {
	Header PageHeader
	Lines  []PageLine
}

// ReadPage reads a page. Bytes and lines are bounded by [MaxPageBytes] and [MaxPageRecords], a
// line by [MaxEnvelopeSize]. When the reply was cut it returns what arrived whole, and
// io.ErrUnexpectedEOF. Signatures are not checked. A malformed page has code [CodeMalformed].
func ReadPage(r io.Reader) (*Page, error) {
	const slack = 1 << 20 // header, newlines and gone lines
	lines := bufio.NewReaderSize(io.LimitReader(r, MaxPageBytes+MaxEnvelopeSize+slack), 64<<10)
	page := &Page{}
	first, err := readLine(lines)
	if err != nil {
		return nil, err
	}
	if err := page.Header.decode(first); err != nil {
		return nil, err
	}
	if n := page.Header.Records; n < 0 || n > MaxPageRecords {
		return nil, Errorf(CodeMalformed, "a page has 0 to %d records", MaxPageRecords)
	}
	for range page.Header.Records {
		line, err := readLine(lines)
		if err != nil {
			return page, err
		}
		parsed, err := parsePageLine(line)
		if err != nil {
			return page, err
		}
		page.Lines = append(page.Lines, parsed)
	}
	return page, nil
}

// decode reads the header line, which nobody signs and which therefore need not be canonical.
func (h *PageHeader) decode(line jsontext.Value) error {
	if err := line.Canonicalize(); err != nil {
		return Errorf(CodeMalformed, "the first line is not a page header")
	}
	if err := decodeObject(line, h, false, []string{"cursor", "more", "pageId", "records", "served"}); err != nil {
		return err
	}
	return h.PageID.Validate()
}

func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return line[:len(line)-1], nil
}

func parsePageLine(line []byte) (PageLine, error) {
	if !bytes.HasPrefix(line, []byte(`{"gone":`)) {
		e, err := ParseEnvelope(line)
		return PageLine{Envelope: e}, err
	}
	var gone GoneLine
	if err := CheckCanonical(line); err != nil {
		return PageLine{}, err
	}
	var raw struct {
		Gone jsontext.Value `json:"gone"`
	}
	if err := decodeObject(line, &raw, false, []string{"gone"}); err != nil {
		return PageLine{}, err
	}
	if err := decodeObject(raw.Gone, &gone.Gone, false, []string{"from", "recordId", "hash"}); err != nil {
		return PageLine{}, err
	}
	if err := gone.Gone.RecordID.Validate(); err != nil {
		return PageLine{}, err
	}
	return PageLine{Gone: &gone.Gone}, nil
}

// Complete tells whether every record of the header arrived.
func (p *Page) Complete() bool { return int64(len(p.Lines)) == p.Header.Records }

// CheckRoot computes the root over the lines of a complete page and compares it with the header's.
// The error has code [CodeRootMismatch].
func (p *Page) CheckRoot() error {
	leaves := make([]Hash, len(p.Lines))
	for i, l := range p.Lines {
		if l.Gone != nil {
			leaves[i] = l.Gone.Hash
		} else {
			leaves[i] = l.Envelope.Hash()
		}
	}
	if p.Header.Root == nil || !p.Complete() || MerkleRoot(leaves) != *p.Header.Root {
		return Errorf(CodeRootMismatch, "the records of page %s do not hash to its root", p.Header.PageID)
	}
	return nil
}
