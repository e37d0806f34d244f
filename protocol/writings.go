package protocol

import (
	"github.com/go-json-experiment/json/jsontext"
)

// Limits and names of what a writer tells the payer of his contract.
const (
	MaxWritings  = 500 // in one record
	WritingsType = "application/vnd.relaymarket.writings+json"
)

// Writing is a writer's word to who pays for it that he wrote a record, and where: all that the payer needs to check a
// line of the bill.
type Writing struct {
	Relay    PublicKey `json:"relay"`
	To       PublicKey `json:"to"`
	RecordID RecordID  `json:"recordId"`
	Hash     Hash      `json:"hash"`   // of the envelope
	Bytes    int64     `json:"bytes"`  // of the envelope
	Signed   Timestamp `json:"signed"` // the envelope's
	Expires  Timestamp `json:"expires"`
	MaxPulls int64     `json:"maxPulls"`
	Deleted  Timestamp `json:"deleted,omitzero"` // when the relay confirmed to the writer that it is deleted
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member but deleted is required.
func (w *Writing) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Writing
	return decodeItem(dec, (*plain)(w), "relay", "to", "recordId", "hash", "bytes", "signed", "expires", "maxPulls")
}

// Writings is the body of a record in which a writer names records that he wrote on a payer's account. It is sealed to the
// payer, under [ReceiptTag] and the content type [WritingsType]. It is a document.
type Writings struct {
	Writings []Writing `json:"writings"` // 1 … [MaxWritings]
}

// ParseWritings reads the body of a record of writings. Errors have code [CodeMalformed], [CodeNotCanonical] or
// [CodeInvalidValue].
func ParseWritings(body []byte) (*Writings, error) {
	if err := CheckCanonical(body); err != nil {
		return nil, err
	}
	var w Writings
	if err := DecodeDocument(body, &w, "writings"); err != nil {
		return nil, err
	}
	return &w, w.Validate()
}

// Validate checks bounds. Errors have code [CodeInvalidValue] or [CodeMalformed].
func (w *Writings) Validate() error {
	if len(w.Writings) < 1 || len(w.Writings) > MaxWritings {
		return Errorf(CodeInvalidValue, "a record has 1 to %d writings", MaxWritings)
	}
	for i := range w.Writings {
		one := &w.Writings[i]
		if err := one.RecordID.Validate(); err != nil {
			return err
		}
		if one.Bytes < 1 || one.Bytes > MaxEnvelopeSize || one.MaxPulls < 1 || one.MaxPulls > MaxPullsLimit {
			return Errorf(CodeInvalidValue, "an envelope has 1 to %d bytes and allows 1 to %d pulls", MaxEnvelopeSize, MaxPullsLimit)
		}
		for _, t := range []Timestamp{one.Signed, one.Expires, one.Deleted} {
			if err := t.Validate(); err != nil {
				return err
			}
		}
	}
	return nil
}
