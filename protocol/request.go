package protocol

import (
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of requests that no relay changes.
const (
	MaxPullsLimit  = 1_000_000 // the most pulls a write may ask for
	MaxSenders     = 1000      // senders in one pull or listen
	MaxPageRecords = 1000      // records in one page, listing or batch
	MaxPageBytes   = 8 << 20   // envelope bytes in one page or batch; one record always fits
	MaxPageServes  = 3         // times one page is served
	MaxAdmitted    = 1000      // keys an account may admit
	MaxCursor      = 64        // bytes of a cursor
)

// Request types. Those without a struct of their own are signed as a [Targeted].
const (
	TypeWrite     = "write"
	TypePull      = "pull"
	TypeGot       = "got"
	TypeListen    = "listen"
	TypeAdmit     = "admit"
	TypeRead      = "read"      // GET of one record
	TypeDelete    = "delete"    // DELETE of one record
	TypeInventory = "inventory" // GET of an outbox or of all outboxes
	TypeAccount   = "account"   // GET /account
)

// Write asks a relay to store a record at /from/outbox/to/recordId. Its envelope is the record.
type Write struct {
	Type     string    `json:"type"`
	Relay    PublicKey `json:"relay"`    // the one relay that may store it
	RecordID RecordID  `json:"recordId"` // unique in the outbox
	Expires  Timestamp `json:"expires"`  // nothing is served from then on
	MaxPulls int64     `json:"maxPulls"` // 1 … [MaxPullsLimit]
	Tag      *Tag      `json:"tag,omitempty"`
	Content  string    `json:"content"` // standard base64 with padding, at least one byte
}

// RequestType implements [Request].
func (*Write) RequestType() string { return TypeWrite }

func (w *Write) setType()         { w.Type = TypeWrite }
func (*Write) open() bool         { return false }
func (*Write) required() []string { return writeRequired }

// Required members, apart from "type", which an envelope cannot lack. Slices are made once: the
// write path decodes one of these for every record.
var (
	writeRequired    = []string{"relay", "recordId", "expires", "maxPulls", "content"}
	pullRequired     = []string{"query"}
	gotRequired      = []string{"pageId", "root"}
	listenRequired   = []string{"senders"}
	admitRequired    = []string{"keys"}
	targetedRequired = []string{"target"}
)

// Validate implements [Request].
func (w *Write) Validate() error {
	if err := w.validateTerms(); err != nil {
		return err
	}
	if w.Content == "" {
		return Errorf(CodeInvalidValue, "the content is empty")
	}
	if !isBase64(w.Content) {
		return Errorf(CodeMalformed, "the content is not standard base64 with padding")
	}
	return nil
}

// validateTerms validates all but the content.
func (w *Write) validateTerms() error {
	if err := w.RecordID.Validate(); err != nil {
		return err
	}
	if err := w.Expires.Validate(); err != nil {
		return err
	}
	if w.MaxPulls < 1 || w.MaxPulls > MaxPullsLimit {
		return Errorf(CodeInvalidValue, "maxPulls is 1 to %d", MaxPullsLimit)
	}
	if w.Tag != nil {
		return w.Tag.Validate()
	}
	return nil
}

// Got is a reader's statement that he has the records of a page: the Merkle root of their
// envelope hashes, see [MerkleRoot]. It names no sender. A [Pull] of the next page may say the same.
type Got struct {
	Type   string `json:"type"`
	PageID PageID `json:"pageId"`
	Root   Hash   `json:"root"`
}

// RequestType implements [Request].
func (*Got) RequestType() string { return TypeGot }

func (g *Got) setType()         { g.Type = TypeGot }
func (*Got) open() bool         { return false }
func (*Got) required() []string { return gotRequired }

// Validate implements [Request].
func (g *Got) Validate() error { return g.PageID.Validate() }

// Listen asks to be told, as it is committed, of each record that any of the senders leaves for
// the signer.
type Listen struct {
	Type    string      `json:"type"`
	Senders []PublicKey `json:"senders"`         // 1 … [MaxSenders], distinct
	After   *string     `json:"after,omitempty"` // absent: from the beginning
}

// RequestType implements [Request].
func (*Listen) RequestType() string { return TypeListen }

func (l *Listen) setType()         { l.Type = TypeListen }
func (*Listen) open() bool         { return false }
func (*Listen) required() []string { return listenRequired }

// Validate implements [Request].
func (l *Listen) Validate() error {
	if err := validateSenders(l.Senders); err != nil {
		return err
	}
	return validateCursor(l.After)
}

func validateSenders(senders []PublicKey) error {
	if len(senders) < 1 || len(senders) > MaxSenders {
		return Errorf(CodeInvalidValue, "senders are 1 to %d keys", MaxSenders)
	}
	if len(senders) == 1 {
		return nil
	}
	seen := make(map[PublicKey]struct{}, len(senders))
	for _, s := range senders {
		if _, twice := seen[s]; twice {
			return Errorf(CodeInvalidValue, "the sender %s occurs twice", s)
		}
		seen[s] = struct{}{}
	}
	return nil
}

func validateCursor(after *string) error {
	if after == nil {
		return nil
	}
	if len(*after) < 1 || len(*after) > MaxCursor {
		return Errorf(CodeBadCursor, "a cursor has 1 to %d bytes", MaxCursor)
	}
	for i := range len(*after) {
		if c := (*after)[i]; c <= ' ' || c > '~' {
			return Errorf(CodeBadCursor, "a cursor is printable ASCII")
		}
	}
	return nil
}

// Admit replaces the list of keys that may leave records for the signer on the signer's cost.
type Admit struct {
	Type string     `json:"type"`
	Keys []Admitted `json:"keys"` // at most [MaxAdmitted], distinct; empty admits nobody
}

// Admitted is one key and what it may have stored here for the account's owner at any moment.
type Admitted struct {
	Key     PublicKey `json:"key"`
	Bytes   int64     `json:"bytes"`   // envelope bytes, 1 … 2^53−1
	Records int64     `json:"records"` // 1 … 2^53−1
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (a *Admitted) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Admitted
	return decodeItem(dec, (*plain)(a), "key", "bytes", "records")
}

// RequestType implements [Request].
func (*Admit) RequestType() string { return TypeAdmit }

func (a *Admit) setType()         { a.Type = TypeAdmit }
func (*Admit) open() bool         { return false }
func (*Admit) required() []string { return admitRequired }

// Validate implements [Request].
func (a *Admit) Validate() error {
	if len(a.Keys) > MaxAdmitted {
		return Errorf(CodeInvalidValue, "an account admits at most %d keys", MaxAdmitted)
	}
	seen := make(map[PublicKey]struct{}, len(a.Keys))
	for _, k := range a.Keys {
		if k.Bytes < 1 || k.Records < 1 {
			return Errorf(CodeInvalidValue, "an admitted key has at least 1 byte and 1 record")
		}
		if _, twice := seen[k.Key]; twice {
			return Errorf(CodeInvalidValue, "the key %s occurs twice", k.Key)
		}
		seen[k.Key] = struct{}{}
	}
	return nil
}

// Targeted is a request without a body: its type, and the request line it authorizes.
type Targeted struct {
	Type   string `json:"type"`   // one of the Type constants without a struct
	Target string `json:"target"` // see [Target]
}

// RequestType implements [Request].
func (t *Targeted) RequestType() string { return t.Type }

func (*Targeted) setType()           {}
func (*Targeted) open() bool         { return false }
func (*Targeted) required() []string { return targetedRequired }

// Validate implements [Request].
func (t *Targeted) Validate() error {
	if len(t.Target) < 1 || len(t.Target) > 4096 {
		return Errorf(CodeInvalidValue, "a target has 1 to 4096 bytes")
	}
	return nil
}
