package protocol

import "github.com/go-json-experiment/json/jsontext"

// Request types of what a payer says of a bill that he audited.
const (
	TypeUsageRefusal = "usageRefusal" // POST /contracts/{contract}/refusals
	TypeUsageRefused = "usageRefused" // what the relay answers
)

// Limits of refusals that no relay changes.
const (
	MaxRefusedRanges = 500 // in one message: who refuses more says it in several
	MaxReason        = 32  // bytes of a reason
)

// RefusalReason is one word for why a line is refused: lower-case letters and underscores. Those of package ledger are
// used; a relay shows it to its operator and decides nothing by it.
type RefusalReason string

// Validate checks the grammar; the error has code [CodeInvalidValue].
func (r RefusalReason) Validate() error {
	fits := len(r) >= 1 && len(r) <= MaxReason
	for i := 0; i < len(r) && fits; i++ {
		fits = r[i] >= 'a' && r[i] <= 'z' || r[i] == '_'
	}
	if !fits {
		return Errorf(CodeInvalidValue, "a reason is 1 to %d lower-case letters and underscores", MaxReason)
	}
	return nil
}

// UsageRefusal names lines of one report that the payer of a contract does not pay for. POST
// /contracts/{contract}/refusals; the answer is a [UsageRefused]. A line that was refused before is no news, whatever its
// reason, so the same message again has the same effect, and a long list goes in pieces, in any order.
//
// A refused write takes the whole record off the bill, with what it reserved and what was billed of it since; a refused
// pull takes itself; a refused end its storage, from Until on if that is given. Lines that only give back
// (lapse, drop) may be named, and nothing happens.
type UsageRefusal struct {
	Type     string         `json:"type"`
	Contract ContractID     `json:"contract"`
	Report   Hash           `json:"report"` // hash of the envelope of the [UsageReport] that the lines are of
	Lines    []RefusedLines `json:"lines"`  // 1 … [MaxRefusedRanges], in ascending order, none twice
}

// RefusedLines are lines that follow one another and are refused for one reason.
type RefusedLines struct {
	First  int64         `json:"first"`
	Last   int64         `json:"last"` // at least First
	Reason RefusalReason `json:"reason"`
	// Until is for one line, the end of a record that was billed too long: storage is accepted up to then, ms.
	Until Timestamp `json:"until,omitzero"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: first, last and reason are required.
func (l *RefusedLines) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain RefusedLines
	return decodeItem(dec, (*plain)(l), "first", "last", "reason")
}

// RequestType implements [Request].
func (*UsageRefusal) RequestType() string { return TypeUsageRefusal }

func (u *UsageRefusal) setType() { u.Type = TypeUsageRefusal }
func (*UsageRefusal) open() bool { return false }
func (*UsageRefusal) required() []string {
	return []string{"contract", "report", "lines"}
}

// Validate implements [Request].
func (u *UsageRefusal) Validate() error {
	if len(u.Lines) < 1 || len(u.Lines) > MaxRefusedRanges {
		return Errorf(CodeInvalidValue, "a refusal names 1 to %d ranges of lines: send several", MaxRefusedRanges)
	}
	before := int64(0)
	for i := range u.Lines {
		l := &u.Lines[i]
		if l.First <= before || l.Last < l.First || l.Last > MaxInteger || l.Last-u.Lines[0].First >= MaxReportLines {
			return Errorf(CodeInvalidValue, "refused lines are those of one report, in ascending order, none twice")
		}
		if err := l.Reason.Validate(); err != nil {
			return err
		}
		if err := l.Until.Validate(); err != nil {
			return err
		}
		if l.Until != 0 && l.Last != l.First {
			return Errorf(CodeInvalidValue, "until is for one line, the end of a record")
		}
		before = l.Last
	}
	return nil
}

// RefusalOutcome is what a relay makes of a refusal.
type RefusalOutcome string

// The outcomes. Readers tolerate words of the future.
const (
	// RefusalDropped: the lines cost nothing any more. Lines of kind drop say so in a later report, and the credit that
	// they took is there again.
	RefusalDropped RefusalOutcome = "dropped"
	// RefusalClosed: the relay does not write this off. The lines are disputed, the contract takes no more usage and
	// payments, and ends with the highest state that the relay holds.
	RefusalClosed RefusalOutcome = "closed"
)

// UsageRefused is a relay's answer to a refusal: where the contract stands with all that was refused by then. It is a
// document, an envelope from the relay to the payer.
type UsageRefused struct {
	Type       string         `json:"type"`
	Contract   ContractID     `json:"contract"`
	Report     Hash           `json:"report"` // as in the refusal
	Outcome    RefusalOutcome `json:"outcome"`
	WrittenOff Msat           `json:"writtenOff"` // of the contract, since it began: what dropped lines come to
	Disputed   Msat           `json:"disputed"`   // of the contract: what refused lines come to that were not dropped
	Most       Msat           `json:"most"`       // that the relay would write off of this contract at present, all in all
}

// RequestType implements [Request].
func (*UsageRefused) RequestType() string { return TypeUsageRefused }

func (u *UsageRefused) setType() { u.Type = TypeUsageRefused }
func (*UsageRefused) open() bool { return true }
func (*UsageRefused) required() []string {
	return []string{"contract", "report", "outcome", "writtenOff", "disputed", "most"}
}

// Validate implements [Request].
func (u *UsageRefused) Validate() error {
	if len(u.Outcome) < 1 || len(u.Outcome) > MaxReason {
		return Errorf(CodeInvalidValue, "an outcome is a word of at most %d bytes", MaxReason)
	}
	return nil
}
