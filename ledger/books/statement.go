package books

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Statement is what one contract owes, and why. Always Owed = Billed − Paid − WrittenOff − CarriedOn.
type Statement struct {
	Contract   protocol.ContractID
	Payer      protocol.PublicKey
	Closed     bool          // what is owed is final
	Billed     protocol.Msat // used and reserved, what was written off included
	Reserved   protocol.Msat // of it, what may come back
	Paid       protocol.Msat // by its states, for usage
	WrittenOff protocol.Msat // refused and dropped, or never paid
	CarriedOn  protocol.Msat // to the contract that renewed it, less what it took over itself
	Owed       protocol.Msat // below 0: paid ahead
	Disputed   protocol.Msat // refused and not dropped: it is owed, says the relay
	// CreditLeft is what may be used yet before it has to be paid; nil: the account is not under this contract.
	CreditLeft *protocol.Msat
}

// Filter is which statements are wanted.
type Filter struct {
	Payer    *protocol.PublicKey
	Contract *protocol.ContractID
	All      bool // also those that are closed and owe nothing
	Disputed bool // only those of which something is disputed
}

const statements = `SELECT b.contract, b.payer, b.closed, b.storage_price, b.bandwidth_price, b.disputed_stored::text, b.disputed_moved::text,
	  coalesce(e.owed, 0), coalesce(e.billed, 0), coalesce(e.reserved, 0), coalesce(e.paid, 0), coalesce(e.written_off, 0), coalesce(e.carried, 0),
	  a.credit, coalesce(a.used_stored, 0)::text, coalesce(a.used_moved, 0)::text
	FROM bills b
	LEFT JOIN (SELECT bill, sum(owed)::bigint AS owed, -sum(earned + reserved)::bigint AS billed, -sum(reserved)::bigint AS reserved, sum(paid)::bigint AS paid,
	  sum(written_off)::bigint AS written_off, sum(carried)::bigint AS carried FROM ledger_entries GROUP BY bill) e ON e.bill = b.id
	LEFT JOIN accounts a ON a.key = b.payer AND a.bill = b.id
	WHERE ($1::bytea IS NULL OR b.payer = $1) AND ($2::bytea IS NULL OR b.contract = $2)
	  AND ($3 OR NOT b.closed OR coalesce(e.owed, 0) <> 0 OR b.disputed_stored + b.disputed_moved > 0)
	  AND (NOT $4 OR b.disputed_stored + b.disputed_moved > 0)
	ORDER BY coalesce(e.owed, 0) DESC, b.id`

// Statements are those that fit, who owes most first.
func (s *Store) Statements(ctx context.Context, f Filter) ([]Statement, error) {
	var payer, contract []byte
	if f.Payer != nil {
		payer = f.Payer[:]
	}
	if f.Contract != nil {
		contract = f.Contract[:]
	}
	rows, err := s.db.Pool().Query(ctx, statements, payer, contract, f.All, f.Disputed)
	if err != nil {
		return nil, wrap(err, "read what contracts owe")
	}
	all, err := pgx.CollectRows(rows, scanStatement)
	return all, wrap(err, "read what contracts owe")
}

func scanStatement(row pgx.CollectableRow) (s Statement, err error) {
	var contract, payer []byte
	var p ledger.Prices
	var stored, moved, usedStored, usedMoved string
	var credit *protocol.Msat
	if err := row.Scan(&contract, &payer, &s.Closed, &p.Storage, &p.Bandwidth, &stored, &moved,
		&s.Owed, &s.Billed, &s.Reserved, &s.Paid, &s.WrittenOff, &s.CarriedOn, &credit, &usedStored, &usedMoved); err != nil {
		return s, err
	}
	copy(s.Contract[:], contract)
	copy(s.Payer[:], payer)
	if s.Disputed, err = costOf(p, stored, moved); err != nil || credit == nil {
		return s, err
	}
	used, err := costOf(p, usedStored, usedMoved)
	left := *credit - used
	s.CreditLeft = &left
	return s, err
}

// costOf is the price of two sums of the database.
func costOf(p ledger.Prices, stored, moved string) (protocol.Msat, error) {
	var u ledger.Usage
	if err := errors.Join(u.Stored.UnmarshalText([]byte(stored)), u.Moved.UnmarshalText([]byte(moved))); err != nil {
		return 0, err
	}
	return p.Cost(u)
}

// RefusedLine is a line that a payer refused.
type RefusedLine struct {
	Line    int64
	Kind    ledger.Kind
	Reason  protocol.RefusalReason // his word
	Usage   ledger.Usage           // that is refused
	Dropped bool                   // otherwise it is disputed
	At      protocol.Timestamp
}

// Refusals visits the lines of a contract that were refused, in their order. What visit returns ends it.
func (s *Store) Refusals(ctx context.Context, contract protocol.ContractID, visit func(RefusedLine) error) error {
	rows, err := s.db.Pool().Query(ctx, `SELECT line, kind, reason, stored::text, moved::text, dropped, at FROM ledger_refusals
		WHERE bill = (SELECT id FROM bills WHERE contract = $1) ORDER BY line`, contract[:])
	if err != nil {
		return wrap(err, "read refused lines of contract %s", contract.Short())
	}
	var l RefusedLine
	var stored, moved string
	_, err = pgx.ForEachRow(rows, []any{&l.Line, &l.Kind, &l.Reason, &stored, &moved, &l.Dropped, &l.At}, func() error {
		if err := errors.Join(l.Usage.Stored.UnmarshalText([]byte(stored)), l.Usage.Moved.UnmarshalText([]byte(moved))); err != nil {
			return err
		}
		return visit(l)
	})
	return wrap(err, "read refused lines of contract %s", contract.Short())
}

// Revenue is what one contract brought on one day (UTC).
type Revenue struct {
	Day        Day
	Contract   protocol.ContractID
	Payer      protocol.PublicKey
	Earned     protocol.Msat // used, and not coming back; below 0 where a renewal was undone
	Paid       protocol.Msat
	WrittenOff protocol.Msat // of what was earned, on this day or before
	Disputed   protocol.Msat // refused on this day and not dropped
	Owed       protocol.Msat // at the end of the day, reservations included
}

// Revenues are the days from one to another on which something came in, each with its contracts.
func (s *Store) Revenues(ctx context.Context, from, to Day) ([]Revenue, error) {
	rows, err := s.db.Pool().Query(ctx, `
		WITH entries AS (
		  SELECT day, bill, sum(earned) AS earned, sum(paid) AS paid, sum(written_off) AS written_off, sum(owed) AS owed FROM ledger_entries
		  WHERE day <= $2::date GROUP BY day, bill),
		disputes AS (
		  SELECT (to_timestamp(at / 1000.0) AT TIME ZONE 'UTC')::date AS day, bill, sum(stored) AS stored, sum(moved) AS moved FROM ledger_refusals
		  WHERE NOT dropped GROUP BY 1, 2),
		both_of AS (
		  SELECT day, bill, coalesce(earned, 0) AS earned, coalesce(paid, 0) AS paid, coalesce(written_off, 0) AS written_off,
		    coalesce(stored, 0) AS stored, coalesce(moved, 0) AS moved,
		    sum(coalesce(owed, 0)) OVER (PARTITION BY bill ORDER BY day) AS owed
		  FROM entries FULL JOIN disputes USING (day, bill) WHERE day <= $2::date)
		SELECT t.day::text, b.contract, b.payer, (-t.earned)::bigint, t.paid::bigint, t.written_off::bigint, t.owed::bigint,
		  t.stored::text, t.moved::text, b.storage_price, b.bandwidth_price
		FROM both_of t JOIN bills b ON b.id = t.bill WHERE t.day >= $1::date ORDER BY t.day, b.id`, string(from), string(to))
	if err != nil {
		return nil, wrap(err, "read the revenue")
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Revenue, err error) {
		var contract, payer []byte
		var p ledger.Prices
		var stored, moved string
		if err := row.Scan(&r.Day, &contract, &payer, &r.Earned, &r.Paid, &r.WrittenOff, &r.Owed, &stored, &moved, &p.Storage, &p.Bandwidth); err != nil {
			return r, err
		}
		copy(r.Contract[:], contract)
		copy(r.Payer[:], payer)
		r.Disputed, err = costOf(p, stored, moved)
		return r, err
	})
	return all, wrap(err, "read the revenue")
}
