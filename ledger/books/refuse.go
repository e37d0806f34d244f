package books

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Refusal is what a payer does not pay for, of one report.
type Refusal struct {
	Payer    protocol.PublicKey
	Contract protocol.ContractID
	Report   protocol.Hash
	Lines    []protocol.RefusedLines
	// Most is what may be written off of the contract, all in all. If it is not enough nothing is dropped, and the lines
	// are disputed.
	Most protocol.Msat
}

// Refused is where a contract stands with all that was refused of it.
type Refused struct {
	Disputes   int64         // lines of this refusal that were not dropped, now or before
	WrittenOff protocol.Msat // what was dropped came to, all in all
	Disputed   protocol.Msat // what was not
	Given      protocol.Msat // by this refusal
	Uncounted  protocol.Msat // of Given: what the account, under this contract, did not count, and is to be taken off what is carried
}

// Refuse takes lines off a contract's bill, in the transaction of who runs the contract and has locked it: what they came to
// leaves the totals by lines of kind drop, the account's use and the journal, as one effect. A refused write takes the whole
// record; what comes of its pages later costs nothing. Lines that were refused before, or give back themselves, are passed over. The
// error has code [protocol.CodeNotFound], [protocol.CodeInvalidValue] or, when the lines are not kept any more, [protocol.CodeGone].
func (s *Store) Refuse(ctx context.Context, tx pgx.Tx, r Refusal) (Refused, error) {
	d := &dropping{s: s, ctx: ctx, tx: tx, r: r}
	refused, err := d.run()
	return refused, wrap(err, "refuse lines of contract %s", r.Contract.Short())
}

// dropping is one refusal under way.
type dropping struct {
	s   *Store
	ctx context.Context
	tx  pgx.Tx
	r   Refusal

	account *Batch
	bill    *billState
	waived  ledger.Usage // before
	dispute ledger.Usage
	refused []refusedLine

	uncounted protocol.Msat // that the account did not count of what was dropped
}

// refusedLine is a line that is to be dropped, or disputed.
type refusedLine struct {
	line   *ledger.Line // without its evidence
	reason protocol.RefusalReason
	back   ledger.Totals // what it gives back
	sum    ledger.Usage  // of back
}

func (d *dropping) run() (Refused, error) {
	if err := d.lock(); err != nil {
		return Refused{}, err
	}
	if err := d.find(); err != nil {
		return Refused{}, err
	}
	disputes, err := d.disputes()
	if err != nil {
		return Refused{}, err
	}
	waived := d.waived
	for i := range d.refused {
		if waived, err = waived.Plus(d.refused[i].sum); err != nil {
			return Refused{}, err
		}
	}
	cost, err := d.bill.prices.Cost(waived)
	if err != nil {
		return Refused{}, err
	}
	out := Refused{Disputes: disputes}
	if len(d.refused) > 0 && cost <= d.r.Most {
		if out.Given, err = d.drop(waived); err != nil {
			return Refused{}, err
		}
		d.waived, out.Uncounted = waived, d.uncounted
	} else if len(d.refused) > 0 {
		out.Disputes += int64(len(d.refused))
		if err := d.note(false); err != nil {
			return Refused{}, err
		}
		if d.dispute, err = d.disputed(); err != nil {
			return Refused{}, err
		}
	}
	if out.WrittenOff, err = d.bill.prices.Cost(d.waived); err != nil {
		return Refused{}, err
	}
	out.Disputed, err = d.bill.prices.Cost(d.dispute)
	return out, err
}

// lock takes, in the order in which everybody takes them, the account, what is to be posted, and the bill. Nothing is on its way to
// the bill then but pages that were served: what ended or lapsed is posted first, so that the lines say what the account counts.
func (d *dropping) lock() (err error) {
	if d.account, err = d.s.LockHeld(d.ctx, d.tx, []Held{{Account: d.r.Payer}}); err != nil {
		return err
	}
	post := round{day: DayOf(d.s.clock()), postings: make(map[int64][]posting), log: d.s.log}
	if err := d.tx.QueryRow(d.ctx, `SELECT n FROM ledger_posted FOR UPDATE`).Scan(&post.upTo); err != nil {
		return err
	}
	b, err := readBill(d.ctx, d.tx, d.r.Contract, " FOR UPDATE")
	if err == nil && b.payer != d.r.Payer {
		err = protocol.Errorf(protocol.CodeNotFound, "there is no contract %s of yours", d.r.Contract.Short())
	}
	if err != nil {
		return err
	}
	rows, err := d.tx.Query(d.ctx, `DELETE FROM ledger_facts WHERE n <= $1 AND bill = $2 RETURNING `+factColumns, post.upTo, b.id)
	if err != nil {
		return err
	}
	if err := post.readFacts(rows); err != nil {
		return err
	}
	if err := post.write(d.ctx, d.tx); err != nil {
		return err
	}
	states, err := lockBills(d.ctx, d.tx, []int64{b.id})
	if err != nil {
		return err
	}
	d.bill = states[0]
	return d.readRefused()
}

// readRefused reads what was refused of the bill before.
func (d *dropping) readRefused() error {
	var text [4]string
	err := d.tx.QueryRow(d.ctx, `SELECT waived_stored::text, waived_moved::text, disputed_stored::text, disputed_moved::text FROM bills WHERE id = $1`, d.bill.id).
		Scan(&text[0], &text[1], &text[2], &text[3])
	return errors.Join(err, d.waived.Stored.UnmarshalText([]byte(text[0])), d.waived.Moved.UnmarshalText([]byte(text[1])),
		d.dispute.Stored.UnmarshalText([]byte(text[2])), d.dispute.Moved.UnmarshalText([]byte(text[3])))
}

// find reads the lines that are refused now, and what each would give back.
func (d *dropping) find() error {
	first, last := d.r.Lines[0].First, d.r.Lines[len(d.r.Lines)-1].Last
	if err := d.checkReport(first, last); err != nil {
		return err
	}
	known, err := d.known(first, last)
	if err != nil {
		return err
	}
	writes := make(map[protocol.Hash]*ledger.Totals) // of records that are refused whole: what lines say of them, from their write on
	from := int64(0)
	at := 0
	err = readLines(d.ctx, d.tx, d.bill.id, first, last, func(l *ledger.Line) error {
		for d.r.Lines[at].Last < l.Seq {
			at++
		}
		named := &d.r.Lines[at]
		if l.Seq < named.First || known[l.Seq] {
			return nil
		}
		l.Evidence = nil
		one := refusedLine{line: l, reason: named.Reason}
		switch l.Kind {
		case ledger.KindWrite:
			if writes[l.Hash] != nil {
				return nil
			}
			writes[l.Hash] = &ledger.Totals{}
			if from == 0 {
				from = l.Seq
			}
		case ledger.KindPull:
			one.back.Pulled = ledger.Times(l.Bytes, 1)
		case ledger.KindEnd:
			one.back.Stored = l.StorageAfter(named.Until)
		}
		d.refused = append(d.refused, one)
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.addUp(from, writes); err != nil {
		return err
	}
	return d.keepThose(writes)
}

// checkReport checks that the lines are of the report that is named.
func (d *dropping) checkReport(first, last int64) error {
	var end int64
	var raw []byte
	var gone bool
	err := d.tx.QueryRow(d.ctx, `SELECT last, envelope, dropped FROM usage_reports WHERE bill = $1 AND first <= $2 ORDER BY first DESC LIMIT 1`, d.bill.id, first).
		Scan(&end, &raw, &gone)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && first > end {
		return protocol.Errorf(protocol.CodeInvalidValue, "line %d is in no report yet", first)
	}
	if err != nil {
		return err
	}
	e, err := protocol.ParseEnvelope(raw)
	if err != nil {
		return err
	}
	switch {
	case e.Hash() != d.r.Report:
		return protocol.Errorf(protocol.CodeNotFound, "line %d is in another report than %s", first, d.r.Report)
	case last > end:
		return protocol.Errorf(protocol.CodeInvalidValue, "the report ends with line %d, line %d is refused", end, last)
	case gone:
		return protocol.Errorf(protocol.CodeGone, "the lines of this report were paid for long ago, and are not kept any more")
	}
	return nil
}

// known are the lines of a range that were refused before.
func (d *dropping) known(first, last int64) (map[int64]bool, error) {
	rows, err := d.tx.Query(d.ctx, `SELECT line FROM ledger_refusals WHERE bill = $1 AND line BETWEEN $2 AND $3`, d.bill.id, first, last)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	known := make(map[int64]bool, len(lines))
	for _, l := range lines {
		known[l] = true
	}
	return known, err
}

// addUp adds up what the bill says of records that are refused whole, from the first of their writes to its end.
func (d *dropping) addUp(from int64, writes map[protocol.Hash]*ledger.Totals) error {
	if len(writes) == 0 {
		return nil
	}
	return readLines(d.ctx, d.tx, d.bill.id, from, d.bill.last, func(l *ledger.Line) error {
		if t := writes[l.Hash]; t != nil {
			return t.Apply(l)
		}
		return nil
	})
}

// keepThose gives each refused write what its record came to, and leaves out what gives nothing back, or is about a
// record that is off the bill, by this refusal or one before.
func (d *dropping) keepThose(writes map[protocol.Hash]*ledger.Totals) error {
	hashes := make([][]byte, len(d.refused))
	for i := range d.refused {
		hashes[i] = d.refused[i].line.Hash[:]
	}
	gone, err := droppedOf(d.ctx, d.tx, d.bill.id, hashes)
	if err != nil {
		return err
	}
	kept := d.refused[:0]
	for _, one := range d.refused {
		whole := writes[one.line.Hash]
		switch {
		case gone[one.line.Hash], whole != nil && one.line.Kind != ledger.KindWrite:
			continue
		case whole != nil:
			one.back = *whole
		}
		if one.sum, err = one.back.Reserved(); err != nil {
			return err
		}
		if one.sum != (ledger.Usage{}) {
			kept = append(kept, one)
		}
	}
	d.refused = kept
	return nil
}

// droppedOf are those of the hashes whose records are off the bill.
func droppedOf(ctx context.Context, q Querier, bill int64, hashes [][]byte) (map[protocol.Hash]bool, error) {
	rows, err := q.Query(ctx, `SELECT hash FROM ledger_dropped WHERE bill = $1 AND hash = ANY($2)`, bill, hashes)
	if err != nil {
		return nil, err
	}
	dropped := make(map[protocol.Hash]bool)
	var hash []byte
	_, err = pgx.ForEachRow(rows, []any{&hash}, func() error {
		dropped[protocol.Hash(hash)] = true
		return nil
	})
	return dropped, err
}

// disputes is how many of the named lines were disputed before, and stay so.
func (d *dropping) disputes() (n int64, err error) {
	first, last := make([]int64, len(d.r.Lines)), make([]int64, len(d.r.Lines))
	for i := range d.r.Lines {
		first[i], last[i] = d.r.Lines[i].First, d.r.Lines[i].Last
	}
	err = d.tx.QueryRow(d.ctx, `SELECT count(*) FROM ledger_refusals r JOIN unnest($2::bigint[], $3::bigint[]) AS t (first, last)
		ON r.line BETWEEN t.first AND t.last WHERE r.bill = $1 AND NOT r.dropped`, d.bill.id, first, last).Scan(&n)
	return n, err
}

// disputed adds what is refused to what is disputed.
func (d *dropping) disputed() (sum ledger.Usage, err error) {
	sum = d.dispute
	for i := range d.refused {
		if sum, err = sum.Plus(d.refused[i].sum); err != nil {
			return sum, err
		}
	}
	_, err = d.tx.Exec(d.ctx, `UPDATE bills SET disputed_stored = $2::text::numeric, disputed_moved = $3::text::numeric WHERE id = $1`,
		d.bill.id, sum.Stored.String(), sum.Moved.String())
	return sum, err
}
