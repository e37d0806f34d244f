package books

import (
	"bytes"
	"slices"
	"time"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Payment is what the writes of one transaction would use, added up by account: the way to charge
// them all with one statement. It is for those who write on their own account, or that of a contract which is known to
// list them, and have room or credit for everything; who has not is left out by the statement, and
// [Store.Lock] judges his writes one by one.
type Payment struct {
	lines     []paymentLine        // in the order of their keys
	payers    []protocol.PublicKey // of each charge
	delegated []delegation         // checked by the statement
	now       time.Time
}

// delegation is a writer for whom another pays.
type delegation struct{ writer, payer protocol.PublicKey }

type paymentLine struct {
	key                    protocol.PublicKey
	stored, moved, records int64
	held                   int64 // byte-milliseconds; −1: more than an int64 has
}

// NewPayment adds up charges, whose owners are the writers.
func (s *Store) NewPayment(charges []Charge) Payment {
	p := Payment{now: s.clock(), lines: make([]paymentLine, 0, len(charges)), payers: s.payersOf(charges)}
	for i, c := range charges {
		held, ok := ledger.Reserved(c.Bytes, c.Pulls, p.now, c.Expires.Time()).Stored.Int64()
		if !ok {
			held = -1
		}
		if p.payers[i] != c.Owner {
			p.delegated = append(p.delegated, delegation{c.Owner, p.payers[i]})
		}
		p.lines = append(p.lines, paymentLine{key: p.payers[i], stored: c.Bytes, moved: c.moved(), records: 1, held: held})
	}
	slices.SortFunc(p.lines, func(a, b paymentLine) int { return bytes.Compare(a.key[:], b.key[:]) })
	sums := p.lines[:0]
	for _, l := range p.lines {
		if last := len(sums) - 1; last >= 0 && sums[last].key == l.key {
			sums[last].add(l)
			continue
		}
		sums = append(sums, l)
	}
	p.lines = sums
	slices.SortFunc(p.delegated, func(a, b delegation) int { return bytes.Compare(a.writer[:], b.writer[:]) })
	p.delegated = slices.Compact(p.delegated)
	return p
}

func (l *paymentLine) add(m paymentLine) {
	l.stored += m.stored
	l.moved += m.moved
	l.records += m.records
	if sum := l.held + m.held; l.held >= 0 && m.held >= 0 && sum >= 0 {
		l.held = sum
	} else {
		l.held = -1
	}
}

// payersOf is who is thought to pay each charge.
func (s *Store) payersOf(charges []Charge) []protocol.PublicKey {
	keys := make([]protocol.PublicKey, len(charges))
	s.delegates.mu.RLock()
	defer s.delegates.mu.RUnlock()
	for i, c := range charges {
		keys[i] = s.delegates.payer(c.Owner)
	}
	return keys
}

// PaidForms are the two forms of a statement around a [Payment], each prepared once: most payments are of writers who pay for
// themselves, and to look for those who do not takes as long as to charge an account.
type PaidForms struct{ own, delegated string }

// NewPaidForms takes the statement as a function of its common table expression paid.
func NewPaidForms(statement func(paid string) string) PaidForms {
	return PaidForms{own: statement(paid("", "cardinality($9::bytea[]) + cardinality($10::bytea[]) = 0")),
		delegated: statement(paid(void, "a.key <> ALL (ARRAY(SELECT account FROM void))"))}
}

// Statement is the form for a payment. The other one would charge nobody whose payment has delegations.
func (f *PaidForms) Statement(p *Payment) string {
	if len(p.delegated) > 0 {
		return f.delegated
	}
	return f.own
}

// void are the accounts that do not pay for one of their writers any more.
const void = `void AS (
	SELECT d.account FROM unnest($9::bytea[], $10::bytea[]) AS d (writer, account)
	LEFT JOIN LATERAL (SELECT true AS listed FROM writers WHERE key = d.writer AND account = d.account OFFSET 0) w ON true
	LEFT JOIN LATERAL (SELECT true AS active FROM accounts WHERE key = d.writer
	  AND CASE kind WHEN 'contract' THEN taking ELSE NOT revoked AND last_day >= $6::date END OFFSET 0) o ON true
	WHERE w.listed IS NULL OR o.active),
`

// paid is the common table expression that charges a [Payment], whose [Payment.Args] are the first
// parameters of the statement around it. Its rows are the keys of the accounts that were charged,
// how many records each pays for, and on which bill (null: a grant's). An account without room or credit for all of its records is not charged, nor
// one that is ended, revoked, not taking, or of a month or contract ahead of this clock; nor one with a writer that it
// does not pay for any more. The rows are locked in the order of their keys, as [Store.Lock] does.
//
// The credit is compared exactly: the cost of all that is used and reserved, in numbers of any size and without a
// division, is never more than what may be owed, not for a moment.
//
// It has no meaning but in the transaction that stores the records.
func paid(before, allowed string) string {
	return before + `paid AS (
	UPDATE accounts a SET stored = a.stored + t.stored, moved = CASE WHEN a.month < $5 THEN 0 ELSE a.moved END + t.moved, month = $5,
	  latest = greatest(a.latest, $8),
	  used_stored = CASE a.kind WHEN 'contract' THEN a.used_stored + t.held ELSE a.used_stored END,
	  used_moved = CASE a.kind WHEN 'contract' THEN a.used_moved + t.moved ELSE a.used_moved END
	FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $7::bigint[]) AS t (key, stored, moved, records, held)
	WHERE a.key = t.key AND a.month <= $5 AND ` + allowed + `
	  AND CASE a.kind WHEN 'contract' THEN
	    a.taking AND a.since <= $8 AND t.held >= 0
	    AND (a.used_stored + t.held) * a.storage_price + (a.used_moved + t.moved) * a.bandwidth_price * 86400000 <= a.credit * 86400000000000000::numeric
	  ELSE
	    NOT a.revoked AND a.last_day >= $6::date AND a.topic IS NULL AND NOT a.plaintext
	    AND a.stored + t.stored <= a.quota_stored AND CASE WHEN a.month < $5 THEN 0 ELSE a.moved END + t.moved <= a.quota_moved
	  END
	RETURNING a.key, t.records, a.bill)`
}

// Args are the values of the parameters.
func (p Payment) Args() []any {
	n := len(p.lines)
	keys, stored, moved, records, held := make([][]byte, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range p.lines {
		l := &p.lines[i]
		keys[i], stored[i], moved[i], records[i], held[i] = l.key[:], l.stored, l.moved, l.records, l.held
	}
	writers, payers := make([][]byte, len(p.delegated)), make([][]byte, len(p.delegated))
	for i := range p.delegated {
		writers[i], payers[i] = p.delegated[i].writer[:], p.delegated[i].payer[:]
	}
	return []any{keys, stored, moved, records, int32(monthOf(p.now)), string(DayOf(p.now)), held, p.now.UnixMilli(), writers, payers}
}

// Counted is the instant that its charges count at, for [Release].
func (p Payment) Counted() time.Time { return p.now }

// Accounts is how many accounts it charges, if all can pay.
func (p Payment) Accounts() int { return len(p.lines) }

// Payer is the account of the charge with that index.
func (p Payment) Payer(i int) protocol.PublicKey { return p.payers[i] }
