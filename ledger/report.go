package ledger

import (
	"errors"
	"fmt"

	"relaymarket/protocol"
)

// Parties says whose bill it is.
type Parties struct {
	Relay    protocol.PublicKey
	Payer    protocol.PublicKey
	Contract protocol.ContractID
}

// Place is where a chain of reports stands: after the last line of a report. The zero value is its beginning.
type Place struct {
	Report protocol.Hash // hash of the report's envelope; zero at the beginning
	Last   int64         // its last line
	Totals Totals        // after it
}

// What can be wrong with a report. None is a matter of opinion: a relay that signs such a report cannot bill by it.
var (
	ErrReport = errors.New("the report is not true")
	ErrChain  = errors.New("the report does not follow the one before")
)

// Builder makes a report from the lines that follow a place, in memory that does not grow with them.
type Builder struct {
	who    Parties
	before Place
	totals Totals
	tree   protocol.MerkleTree
}

// NewBuilder begins the report that follows a place.
func NewBuilder(who Parties, before Place) *Builder {
	return &Builder{who: who, before: before, totals: before.Totals}
}

// Add appends the next line, whose number it gives it, and returns its wire form. The error is an [ErrLine], or
// [ErrOverflow].
func (b *Builder) Add(l *Line) ([]byte, error) {
	if b.tree.Leaves() == protocol.MaxReportLines {
		return nil, fmt.Errorf("%w: a report has at most %d lines", ErrLine, protocol.MaxReportLines)
	}
	l.Seq = b.before.Last + b.tree.Leaves() + 1
	data, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if err := b.totals.Apply(l); err != nil {
		return nil, err
	}
	b.tree.Add(protocol.LineHash(data))
	return data, nil
}

// Lines is how many were added.
func (b *Builder) Lines() int64 { return b.tree.Leaves() }

// Totals are what they come to, after the last line added.
func (b *Builder) Totals() Totals { return b.totals }

// Report is the unsigned report over what was added, at least one line.
func (b *Builder) Report() *protocol.UsageReport {
	r := &protocol.UsageReport{Contract: b.who.Contract, First: b.before.Last + 1, Last: b.before.Last + b.tree.Leaves(),
		Root: b.tree.Root(), Totals: b.totals.Wire()}
	if b.before.Last > 0 {
		before := b.before.Report
		r.Previous = &before
	}
	return r
}

// Verifier checks a report against its lines, which it is given one by one, in memory that does not grow with them. It says
// whether the bill is consistent: complete, in order, added up, signed. Whether each line is deserved is for
// [Witness] and [Audit].
type Verifier struct {
	who    Parties
	hash   protocol.Hash
	report protocol.UsageReport
	want   Totals
	totals Totals
	tree   protocol.MerkleTree
}

// NewVerifier checks the envelope of a report: that the relay signed it for the payer, about the contract, and that
// it follows the place before. The error is an [ErrReport] or [ErrChain].
func NewVerifier(e *protocol.Envelope, who Parties, before Place) (*Verifier, error) {
	v := &Verifier{who: who, hash: e.Hash(), totals: before.Totals}
	if err := e.Decode(&v.report); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if e.From != who.Relay || e.To != who.Payer || v.report.Contract != who.Contract {
		return nil, fmt.Errorf("%w: it is of another relay, payer or contract", ErrReport)
	}
	if err := e.Verify(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	var err error
	if v.want, err = TotalsOf(v.report.Totals); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if v.report.First != before.Last+1 {
		return nil, fmt.Errorf("%w: it begins with line %d, %d is next", ErrChain, v.report.First, before.Last+1)
	}
	if before.Last > 0 && *v.report.Previous != before.Report {
		return nil, fmt.Errorf("%w: it names %s as the one before, which is %s", ErrChain, v.report.Previous, before.Report)
	}
	return v, nil
}

// Line takes the next line. The error is an [ErrLine], [ErrReport] or [ErrOverflow].
func (v *Verifier) Line(data []byte) (*Line, error) {
	l, err := ParseLine(data)
	if err != nil {
		return nil, err
	}
	return l, v.take(l, protocol.LineHash(data))
}

// Take takes the next line, which was read already. The error is an [ErrReport] or [ErrOverflow].
func (v *Verifier) Take(r *Reading) error { return v.take(r.Line, r.leaf) }

func (v *Verifier) take(l *Line, leaf protocol.Hash) error {
	if next := v.report.First + v.tree.Leaves(); l.Seq != next || l.Seq > v.report.Last {
		return fmt.Errorf("%w: line %d stands where %d should, of %d to %d", ErrReport, l.Seq, next, v.report.First, v.report.Last)
	}
	if err := v.totals.Apply(l); err != nil {
		return err
	}
	v.tree.Add(leaf)
	return nil
}

// End judges the whole once all lines were taken, and returns the place after it. The error is an [ErrReport].
func (v *Verifier) End() (Place, error) {
	switch {
	case v.report.First+v.tree.Leaves()-1 != v.report.Last:
		return Place{}, fmt.Errorf("%w: it has lines %d to %d, %d came", ErrReport, v.report.First, v.report.Last, v.tree.Leaves())
	case v.tree.Root() != v.report.Root:
		return Place{}, fmt.Errorf("%w: its lines do not hash to its root", ErrReport)
	case v.totals != v.want:
		return Place{}, fmt.Errorf("%w: its lines do not add up to its totals", ErrReport)
	}
	return Place{Report: v.hash, Last: v.report.Last, Totals: v.totals}, nil
}

// Lines is how many lines the report has, by its own word.
func (v *Verifier) Lines() int64 { return v.report.Last - v.report.First + 1 }

// CheckLine verifies that a report commits to one line, given its path, without the others. The error is an [ErrLine]
// or [ErrReport].
func (v *Verifier) CheckLine(data []byte, path []protocol.Hash) (*Line, error) {
	l, err := ParseLine(data)
	if err != nil {
		return nil, err
	}
	root, ok := protocol.MerkleClimb(protocol.LineHash(data), l.Seq-v.report.First, v.Lines(), path)
	if !ok || root != v.report.Root {
		return nil, fmt.Errorf("%w: it does not commit to this line %d", ErrReport, l.Seq)
	}
	return l, nil
}

// Lie tells whether two envelopes prove that a relay lied: two different reports, both signed by it, about one
// contract and after the same predecessor. It can be shown to anybody. The same statement signed twice is no lie.
func Lie(a, b *protocol.Envelope) bool {
	var one, other protocol.UsageReport
	if a.Decode(&one) != nil || b.Decode(&other) != nil || a.From != b.From || a.To != b.To || one.Contract != other.Contract {
		return false
	}
	same := one.Previous == nil && other.Previous == nil || one.Previous != nil && other.Previous != nil && *one.Previous == *other.Previous
	return same && a.RequestHash() != b.RequestHash() && a.Verify() == nil && b.Verify() == nil
}
