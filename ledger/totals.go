package ledger

import (
	"fmt"

	"relaymarket/protocol"
)

// Totals are what a contract used and has reserved since it began. A line changes them, in this way:
//
//	write   Written +bytes             ReservedPulled +bytes × maxPulls   ReservedStored +bytes × (expires − written)
//	pull    Pulled  +bytes             ReservedPulled −bytes
//	end     Stored  +bytes × (ended − written)   ReservedPulled −bytes × pulls   ReservedStored −bytes × (expires − written)
//	lapse                              ReservedPulled −bytes × pulls
//	drop    each as the line says
//
// What a relay counts against the credit is their sum, [Totals.Reserved].
type Totals struct {
	Written        Quantity // bytes
	Pulled         Quantity // bytes
	Stored         Quantity // bytes × ms
	ReservedPulled Quantity // bytes
	ReservedStored Quantity // bytes × ms
}

// Used is what will not come back: what was written, pulled and acknowledged, and stored until it ended.
func (t Totals) Used() (Usage, error) {
	return Usage{Moved: t.Written}.Plus(Usage{Stored: t.Stored, Moved: t.Pulled})
}

// Reserved is Used and all that may still come to be used.
func (t Totals) Reserved() (Usage, error) {
	used, err := t.Used()
	if err != nil {
		return Usage{}, err
	}
	return used.Plus(Usage{Stored: t.ReservedStored, Moved: t.ReservedPulled})
}

// Apply adds a line. The error is an [ErrLine] or [ErrOverflow], for a line that gives back what was never taken, or
// more than can be counted; the totals are then as before.
func (t *Totals) Apply(l *Line) error {
	next := *t
	sum := adder{seq: l.Seq}
	switch l.Kind {
	case KindWrite:
		sum.plus(&next.Written, Times(l.Bytes, 1))
		sum.plus(&next.ReservedPulled, Times(l.Bytes, l.MaxPulls))
		sum.plus(&next.ReservedStored, l.reservedStorage())
	case KindPull:
		sum.plus(&next.Pulled, Times(l.Bytes, 1))
		sum.minus(&next.ReservedPulled, Times(l.Bytes, 1))
	case KindEnd:
		sum.plus(&next.Stored, l.Storage())
		sum.minus(&next.ReservedPulled, Times(l.Bytes, l.Pulls))
		sum.minus(&next.ReservedStored, l.reservedStorage())
	case KindLapse:
		sum.minus(&next.ReservedPulled, Times(l.Bytes, l.Pulls))
	case KindDrop:
		back, err := l.back()
		if err != nil {
			return err
		}
		for _, one := range next.pairs(&back) {
			sum.minus(one[0], *one[1])
		}
	default:
		return fmt.Errorf("%w: the kind %.20q is not known", ErrLine, l.Kind)
	}
	if sum.err == nil {
		*t = next
	}
	return sum.err
}

// pairs are the five of t, each with that of u.
func (t *Totals) pairs(u *Totals) [5][2]*Quantity {
	return [5][2]*Quantity{{&t.Written, &u.Written}, {&t.Pulled, &u.Pulled}, {&t.Stored, &u.Stored},
		{&t.ReservedPulled, &u.ReservedPulled}, {&t.ReservedStored, &u.ReservedStored}}
}

// back is what a drop gives up.
func (l *Line) back() (Totals, error) {
	if l.Back == nil {
		return Totals{}, fmt.Errorf("%w: line %d drops nothing", ErrLine, l.Seq)
	}
	return TotalsOf(*l.Back)
}

func (l *Line) reservedStorage() Quantity {
	return stored(l.Bytes, l.Written.Time(), l.Expires.Time())
}

// adder does sums of one line; the first failure sticks.
type adder struct {
	seq int64
	err error
}

func (a *adder) plus(q *Quantity, r Quantity) {
	sum, ok := q.Plus(r)
	if !ok && a.err == nil {
		a.err = fmt.Errorf("line %d: %w", a.seq, ErrOverflow)
	}
	*q = sum
}

func (a *adder) minus(q *Quantity, r Quantity) {
	difference, ok := q.Minus(r)
	if !ok && a.err == nil {
		a.err = fmt.Errorf("%w: line %d gives back more than was reserved", ErrLine, a.seq)
	}
	*q = difference
}

// Wire is the form of the totals in a report.
func (t Totals) Wire() protocol.UsageTotals {
	text := func(q Quantity) protocol.Decimal { return protocol.Decimal(q.String()) }
	return protocol.UsageTotals{Written: text(t.Written), Pulled: text(t.Pulled), Stored: text(t.Stored),
		ReservedPulled: text(t.ReservedPulled), ReservedStored: text(t.ReservedStored)}
}

// TotalsOf reads the totals of a report.
func TotalsOf(w protocol.UsageTotals) (Totals, error) {
	var t Totals
	for _, one := range []struct {
		to   *Quantity
		from protocol.Decimal
	}{{&t.Written, w.Written}, {&t.Pulled, w.Pulled}, {&t.Stored, w.Stored},
		{&t.ReservedPulled, w.ReservedPulled}, {&t.ReservedStored, w.ReservedStored}} {
		if err := one.to.UnmarshalText([]byte(one.from)); err != nil {
			return Totals{}, err
		}
	}
	return t, nil
}
