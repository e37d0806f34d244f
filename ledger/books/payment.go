package books

import (
	"bytes"
	"slices"
	"time"

	"relaymarket/protocol"
)

// Payment is what the writes of one transaction would use, added up by account: the way to charge
// them all with one statement. It is for account holders who pay for themselves and have room for
// everything; who has not is left out by the statement, and [Store.Lock] judges his writes one by one.
type Payment struct {
	lines []paymentLine // in the order of their keys
	now   time.Time
}

type paymentLine struct {
	key                    protocol.PublicKey
	stored, moved, records int64
}

// NewPayment adds up charges, whose writers are the accounts themselves.
func (s *Store) NewPayment(charges []Charge) Payment {
	p := Payment{now: s.clock(), lines: make([]paymentLine, 0, len(charges))}
	for _, c := range charges {
		p.lines = append(p.lines, paymentLine{key: c.Account, stored: c.Bytes, moved: c.moved(), records: 1})
	}
	slices.SortFunc(p.lines, func(a, b paymentLine) int { return bytes.Compare(a.key[:], b.key[:]) })
	sums := p.lines[:0]
	for _, l := range p.lines {
		if last := len(sums) - 1; last >= 0 && sums[last].key == l.key {
			sums[last].stored += l.stored
			sums[last].moved += l.moved
			sums[last].records += l.records
			continue
		}
		sums = append(sums, l)
	}
	p.lines = sums
	return p
}

// Paid is the common table expression that charges a [Payment], whose [Payment.Args] are the first
// parameters of the statement around it. Its rows are the keys of the accounts that were charged and
// how many records each pays for. An account without room for all of its records is not charged, nor
// one that is ended, revoked or of a month ahead of this clock. The rows are locked in the order of
// their keys, as [Store.Lock] does.
//
// It has no meaning but in the transaction that stores the records.
const Paid = `paid AS (
	UPDATE accounts a SET stored = a.stored + t.stored, moved = CASE WHEN a.month < $5 THEN 0 ELSE a.moved END + t.moved, month = $5
	FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) AS t (key, stored, moved, records)
	WHERE a.key = t.key AND NOT a.revoked AND a.last_day >= $6::date AND a.month <= $5
	  AND a.stored + t.stored <= a.quota_stored AND CASE WHEN a.month < $5 THEN 0 ELSE a.moved END + t.moved <= a.quota_moved
	RETURNING a.key, t.records)`

// Args are the values of the parameters.
func (p Payment) Args() []any {
	n := len(p.lines)
	keys, stored, moved, records := make([][]byte, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range p.lines {
		l := &p.lines[i]
		keys[i], stored[i], moved[i], records[i] = l.key[:], l.stored, l.moved, l.records
	}
	return []any{keys, stored, moved, records, int32(monthOf(p.now)), string(DayOf(p.now))}
}

// Counted is the instant that its charges count at, for [Release].
func (p Payment) Counted() time.Time { return p.now }

// Accounts is how many accounts it charges, if all can pay.
func (p Payment) Accounts() int { return len(p.lines) }
