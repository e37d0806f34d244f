package books

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

const (
	keepPaid  = 35 * 24 * time.Hour // evidence, after a payment covered it
	tidyEvery = time.Hour
	tidyAgain = time.Minute // after an error
)

// Signer signs a report for a payer with the relay's key.
type Signer func(to protocol.PublicKey, report *protocol.UsageReport) (*protocol.Envelope, error)

// Report is a report that was signed, and where its lines are.
type Report struct {
	Envelope []byte // nil: nothing new is posted
	First    int64
	Last     int64
	More     bool // lines after it are posted already
	Dropped  bool // its lines are not kept any more

	bill int64
}

// bill is a contract's bill as far as reports need it.
type bill struct {
	id     int64
	payer  protocol.PublicKey
	prices ledger.Prices
	last   int64
}

func readBill(ctx context.Context, q Querier, contract protocol.ContractID, lock string) (bill, error) {
	rows, err := q.Query(ctx, `SELECT id, payer, storage_price, bandwidth_price, last FROM bills WHERE contract = $1`+lock, contract[:])
	if err != nil {
		return bill{}, err
	}
	found, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (bill, error) {
		var b bill
		var payer []byte
		err := row.Scan(&b.id, &payer, &b.prices.Storage, &b.prices.Bandwidth, &b.last)
		copy(b.payer[:], payer)
		return b, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = protocol.Errorf(protocol.CodeNotFound, "there is no contract %s of yours", contract.Short())
	}
	return found, err
}

// Report is the report of a payer's contract that begins after a line, where another one ended or at 0. The first
// time it is asked for it is made of what is posted, signed, and stored before anybody sees it; from then on it is that
// one. The error has code [protocol.CodeNotFound] or, where no report ends, [protocol.CodeInvalidValue].
func (s *Store) Report(ctx context.Context, payer protocol.PublicKey, contract protocol.ContractID, after int64, sign Signer) (*Report, error) {
	b, err := readBill(ctx, s.db.Pool(), contract, "")
	if err == nil && b.payer != payer {
		err = protocol.Errorf(protocol.CodeNotFound, "there is no contract %s of yours", contract.Short())
	}
	if err != nil {
		return nil, wrap(err, "report on contract %s", contract.Short())
	}
	r, err := s.signed(ctx, s.db.Pool(), b, after)
	if err == nil && r == nil {
		r, err = s.makeReport(ctx, b, contract, after, sign)
	}
	return r, wrap(err, "report on contract %s", contract.Short())
}

// signed is the report after a line, or nil if there is none yet.
func (s *Store) signed(ctx context.Context, q Querier, b bill, after int64) (*Report, error) {
	rows, err := q.Query(ctx, `SELECT last, envelope, dropped FROM usage_reports WHERE bill = $1 AND first = $2`, b.id, after+1)
	if err != nil {
		return nil, err
	}
	r := &Report{First: after + 1, bill: b.id}
	if rows.Next() {
		err = rows.Scan(&r.Last, &r.Envelope, &r.Dropped)
	}
	rows.Close()
	if err = errors.Join(err, rows.Err()); err != nil || r.Envelope == nil {
		return nil, err
	}
	r.More = b.last > r.Last
	return r, nil
}

func (s *Store) makeReport(ctx context.Context, b bill, contract protocol.ContractID, after int64, sign Signer) (report *Report, err error) {
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		report = nil
		// Lines are read before anything is locked: the pages that they are in may have to come from the disk, and the poster waits for the bill. It
		// is one transaction all the same, of one connection, since a crash of the database may undo what was posted last.
		place, err := lastReport(ctx, tx, b)
		if err != nil {
			return err
		}
		builder := ledger.NewBuilder(ledger.Parties{Payer: b.payer, Contract: contract}, place)
		if last := min(b.last, after+protocol.MaxReportLines); place.Last == after && last > after {
			if err := addLines(ctx, tx, b, builder, after, last); err != nil {
				return err
			}
		}
		// The bill's row keeps two processes from signing at once; the key of usage_reports, from ever storing both.
		locked, err := readBill(ctx, tx, contract, " FOR UPDATE")
		if err != nil {
			return err
		}
		if report, err = s.signed(ctx, tx, locked, after); report != nil || err != nil {
			return err
		}
		// Without a report that begins here, the last one is still that of before.
		if after != place.Last {
			return protocol.Errorf(protocol.CodeInvalidValue, "no report ends with line %d: the last one ends with %d", after, place.Last)
		}
		if report = (&Report{bill: b.id}); builder.Lines() == 0 {
			return nil
		}
		return s.signReport(ctx, tx, locked, builder, sign, report)
	})
	return report, err
}

// addLines adds lines of a bill to a report.
func addLines(ctx context.Context, q Querier, b bill, builder *ledger.Builder, after, last int64) error {
	err := readLines(ctx, q, b.id, after+1, last, func(l *ledger.Line) error {
		_, err := builder.Add(l)
		return err
	})
	if err == nil && builder.Lines() != last-after {
		err = errBlock
	}
	return err
}

// lastReport is the place where a bill's chain of reports ends.
func lastReport(ctx context.Context, q Querier, b bill) (ledger.Place, error) {
	rows, err := q.Query(ctx, `SELECT last, envelope FROM usage_reports WHERE bill = $1 ORDER BY first DESC LIMIT 1`, b.id)
	if err != nil {
		return ledger.Place{}, err
	}
	var last int64
	var data []byte
	if _, err := pgx.ForEachRow(rows, []any{&last, &data}, func() error { return nil }); err != nil || data == nil {
		return ledger.Place{}, err
	}
	e, err := protocol.ParseEnvelope(data)
	if err != nil {
		return ledger.Place{}, err
	}
	var r protocol.UsageReport
	if err := e.Decode(&r); err != nil {
		return ledger.Place{}, err
	}
	totals, err := ledger.TotalsOf(r.Totals)
	return ledger.Place{Report: e.Hash(), Last: last, Totals: totals}, err
}

func (s *Store) signReport(ctx context.Context, tx pgx.Tx, b bill, builder *ledger.Builder, sign Signer, report *Report) error {
	document := builder.Report()
	e, err := sign(b.payer, document)
	if err != nil {
		return err
	}
	used, err := builder.Totals().Used()
	if err != nil {
		return err
	}
	cost, err := b.prices.Cost(used)
	if err != nil {
		return err
	}
	*report = Report{Envelope: e.Bytes(), First: document.First, Last: document.Last, More: b.last > document.Last, bill: b.id}
	_, err = tx.Exec(ctx, `INSERT INTO usage_reports (bill, first, last, envelope, cost) VALUES ($1, $2, $3, $4, $5)`,
		b.id, document.First, document.Last, e.Bytes(), int64(cost))
	return err
}

// readBlocks is how many blocks are read at once: whoever takes lines slowly holds no connection meanwhile.
const readBlocks = 16

// readLines visits lines of a bill in their order, numbered.
func readLines(ctx context.Context, q Querier, bill, first, last int64, visit func(*ledger.Line) error) error {
	again := false
	for from := first; from <= last; {
		rows, err := q.Query(ctx, `SELECT last, lines FROM ledger_blocks WHERE bill = $1 AND last >= $2 ORDER BY last LIMIT $3`, bill, from, readBlocks)
		if err != nil {
			return err
		}
		blocks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[block])
		if err != nil {
			return err
		}
		if len(blocks) == 0 {
			return errBlock
		}
		for _, b := range blocks {
			lines, err := b.lines(ctx, q, bill)
			if errors.Is(err, errPageGone) && !again {
				again = true // it was written out since, and swept
				break
			}
			if err != nil {
				return fmt.Errorf("bill %d, block %d: %w", bill, b.Last, err)
			}
			if err := b.visit(lines, from, last, visit); err != nil {
				return err
			}
			from, again = b.Last+1, false
		}
	}
	return nil
}

type block struct {
	Last  int64
	Lines []byte
}

// visit numbers the lines of a block, and visits those within bounds.
func (b block) visit(lines []*ledger.Line, first, last int64, visit func(*ledger.Line) error) error {
	for i, l := range lines {
		if l.Seq = b.Last - int64(len(lines)) + int64(i) + 1; l.Seq < first || l.Seq > last {
			continue
		}
		if err := visit(l); err != nil {
			return err
		}
	}
	return nil
}

// Lines visits the lines of a report in their order, in the wire form that its root commits to. It holds few in memory
// at a time. What visit returns ends it.
func (s *Store) Lines(ctx context.Context, r *Report, visit func(line []byte) error) error {
	lines := int64(0)
	err := readLines(ctx, s.db.Pool(), r.bill, r.First, r.Last, func(l *ledger.Line) error {
		data, err := l.Encode()
		if err != nil {
			return err
		}
		lines++
		return visit(data)
	})
	if err == nil && lines != r.Last-r.First+1 {
		err = errBlock
	}
	return wrap(err, "read lines %d to %d of bill %d", r.First, r.Last, r.bill)
}

// Paid notes, in the transaction that stores a payment state, that it pays for a contract's usage up to an amount. The
// evidence of reports up to the last that comes to no more is kept for [keepPaid] from then on: one before it may come to more, of which lines were
// taken back since.
func (s *Store) Paid(ctx context.Context, tx pgx.Tx, contract protocol.ContractID, usage protocol.Msat) error {
	_, err := tx.Exec(ctx, `WITH last AS (
		  SELECT bill, max(first) AS first FROM usage_reports WHERE bill = (SELECT id FROM bills WHERE contract = $1) AND paid_at IS NULL AND cost <= $2 GROUP BY bill)
		UPDATE usage_reports r SET paid_at = $3 FROM last WHERE r.bill = last.bill AND r.first <= last.first AND r.paid_at IS NULL`,
		contract[:], int64(usage), s.clock().UnixMilli())
	return wrap(err, "note what is paid of contract %s", contract.Short())
}

// Tidy drops the lines and the evidence of what was paid long ago, and writes out what was not. The reports stay: the chain can always be
// shown.
func (s *Store) Tidy(ctx context.Context) error {
	dropped := wrap(s.drop(ctx), "drop evidence of paid bills")
	return errors.Join(dropped, wrap(s.writeOut(ctx), "write out the evidence of unpaid bills"))
}

// drop drops the blocks before the first report that is kept. Clocks that jump may have reports paid for out of their order.
func (s *Store) drop(ctx context.Context) error {
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `UPDATE usage_reports SET dropped = true WHERE paid_at <= $1 AND paid_at IS NOT NULL AND NOT dropped RETURNING bill`, s.clock().Add(-keepPaid).UnixMilli())
		if err != nil {
			return err
		}
		bills, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(bills) == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `WITH upto AS (
			  SELECT bill, coalesce(min(first) FILTER (WHERE NOT dropped) - 1, max(last)) AS last FROM usage_reports WHERE bill = ANY($1) GROUP BY bill)
			DELETE FROM ledger_blocks b USING upto WHERE b.bill = upto.bill AND b.last <= upto.last`, bills)
		return err
	})
}

// Bill is how far a contract's ledger is posted, and what it comes to.
type Bill struct {
	Last   int64 // line
	Totals ledger.Totals
}

// Posted is a contract's bill as it is posted now. The error has code [protocol.CodeNotFound].
func (s *Store) Posted(ctx context.Context, contract protocol.ContractID) (Bill, error) {
	var b Bill
	var text [5]string
	err := s.db.Pool().QueryRow(ctx, `SELECT last, `+totalsColumns+` FROM bills WHERE contract = $1`, contract[:]).
		Scan(&b.Last, &text[0], &text[1], &text[2], &text[3], &text[4])
	if errors.Is(err, pgx.ErrNoRows) {
		err = protocol.Errorf(protocol.CodeNotFound, "there is no bill of contract %s", contract.Short())
	}
	if err == nil {
		b.Totals, err = totalsOf(text)
	}
	return b, wrap(err, "read the bill of contract %s", contract.Short())
}
