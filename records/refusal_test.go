package records_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// refusing is a payer who does not know every record of his, and denies some of the pulls.
type refusing struct {
	draw    *rapid.T
	records func(protocol.Hash) *truth
	lines   []refused // that he did not tell the relay of yet
}

type refused struct {
	contract protocol.ContractID
	report   protocol.Hash
	line     protocol.RefusedLines
}

// refuse notes a line to be named to the relay.
func (p *payer) refuse(contract protocol.ContractID, report protocol.Hash, l *ledger.Line, v ledger.Verdict) error {
	if p.refusing == nil {
		return fmt.Errorf("line %d is refused: %s", l.Seq, v.Why)
	}
	one := protocol.RefusedLines{First: l.Seq, Last: l.Seq, Reason: protocol.RefusalReason(v.Reason)}
	if v.Reason == ledger.EndedLate {
		one.Until = p.standings[l.Hash].Ended
	}
	p.refusing.lines = append(p.refusing.lines, refused{contract, report, one})
	return nil
}

// denies tells whether the payer says of a pull with true evidence that he paid for it before.
func (r *refusing) denies(h protocol.Hash) bool {
	record := r.records(h)
	if record.disowned || rapid.IntRange(0, 4).Draw(r.draw, "deny") > 0 {
		return false
	}
	record.denied++
	return true
}

// journal is the sum of a contract's entries.
func (p *payer) journal(t interface{ Fatal(...any) }, id protocol.ContractID) (j struct {
	owed, earned, reserved, paid, writtenOff, carried protocol.Msat
}) {
	err := p.h.db.Pool().QueryRow(p.h.t.Context(), `SELECT coalesce(sum(owed), 0)::bigint, coalesce(sum(earned), 0)::bigint, coalesce(sum(reserved), 0)::bigint,
		coalesce(sum(paid), 0)::bigint, coalesce(sum(written_off), 0)::bigint, coalesce(sum(carried), 0)::bigint
		FROM ledger_entries e JOIN bills b ON b.id = e.bill WHERE b.contract = $1`, id[:]).
		Scan(&j.owed, &j.earned, &j.reserved, &j.paid, &j.writtenOff, &j.carried)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// tell names some refused lines to the relay, those of one report, in pieces and twice.
func (s *spending) tell() {
	r := s.refusing
	if len(r.lines) == 0 {
		return
	}
	k := 1
	most := rapid.IntRange(1, 5).Draw(s.T, "piece")
	for k < len(r.lines) && k < most && r.lines[k].report == r.lines[0].report {
		k++
	}
	refusal := books.Refusal{Payer: s.key.Public(), Contract: r.lines[0].contract, Report: r.lines[0].report, Most: math.MaxInt64}
	for _, one := range r.lines[:k] {
		refusal.Lines = append(refusal.Lines, one.line)
	}
	r.lines = r.lines[k:]
	for again := range 2 {
		out, err := s.h.refuseUsage(refusal)
		if err != nil {
			s.Fatal(err)
		}
		if out.Disputes != 0 || out.Disputed != 0 || again == 1 && out.Given != 0 {
			s.Fatalf("%d: %+v", again, out)
		}
	}
}

func (h *house) refuseUsage(r books.Refusal) (out books.Refused, err error) {
	err = h.inTx(func(tx pgx.Tx) error {
		out, err = h.books.Refuse(h.t.Context(), tx, r)
		return err
	})
	return out, err
}

// disown has the payer forget a record that the relay did not report yet.
func (s *spending) disown() {
	for _, record := range s.records {
		hash := record.hash
		if !record.disowned && s.standings[hash].Write == 0 && rapid.IntRange(0, 2).Draw(s.T, "disown") == 0 {
			record.disowned = true
			delete(s.own, hash)
			return
		}
	}
}

// backdate has the payer say that a record was deleted an hour before it was.
func (s *spending) backdate() {
	for _, record := range s.records {
		if record.own.Deleted == 0 || record.backdated || s.standings[record.hash].End != 0 || record.disowned {
			continue
		}
		record.backdated = true
		record.own.Deleted -= protocol.Timestamp(time.Hour.Milliseconds())
		slack := protocol.Timestamp(protocol.FreshnessWindow.Milliseconds())
		record.ended = min(record.ended, max(record.own.Deleted+slack, record.written))
		return
	}
}

// Refused lines leave the bill, whatever becomes of the records meanwhile: what is left is what an independent
// model says without them, to the millisatoshi, the account counts that and nothing else, reports still add up and follow
// each other, and the journal balances with what was written off.
func TestRefusedLinesLeaveTheBill(t *testing.T) {
	h := newStillHouse(t, time.Date(2031, 1, 15, 12, 0, 0, 0, time.UTC))
	rapid.Check(t, func(t *rapid.T) {
		s := &spending{T: t, payer: h.payer()}
		s.refusing = &refusing{draw: t, records: s.recordOf}
		for range 2 {
			s.readers = append(s.readers, &spendingReader{reader: reader{h: h, key: key(h.t)}})
		}
		steps := []func(){s.write, s.write, s.write, s.pull, s.pull, s.pull, s.remove, s.advance, s.sweep, s.look, s.crash, s.tidy,
			s.disown, s.disown, s.backdate, s.tell, s.tell, s.renew}
		for range rapid.IntRange(10, 50).Draw(t, "steps") {
			rapid.SampledFrom(steps).Draw(t, "step")()
		}
		for s.look(); len(s.refusing.lines) > 0; s.look() {
			s.tell()
		}
		s.compare()
		if j := s.journal(t, s.contract); j.writtenOff < 0 || -(j.earned+j.reserved) != j.owed+j.writtenOff+j.carried {
			s.Fatalf("%+v", j)
		}
	})
}

func (s *spending) recordOf(h protocol.Hash) *truth {
	for _, record := range s.records {
		if record.hash == h {
			return record
		}
	}
	s.Fatalf("no record has the envelope %s", h)
	return nil
}

// What is more than may be written off is disputed: nothing is dropped, it stays so, and the operator sees it. A refusal of what
// is in no report, in another one, or gone is none.
func TestRefusedBeyondTheBound(t *testing.T) {
	h := newHouse(t)
	p := h.payer()
	p.refusing = &refusing{records: func(protocol.Hash) *truth { return &truth{disowned: true} }}
	bob := key(t)
	for i := range 4 {
		in := h.compose(p.key, bob.Public(), fmt.Sprint("r", i), content(strings.Repeat("AAAA", 200)))
		p.wrote(in)
		h.mustWrite(in)
		if i == 3 {
			clear(p.own) // he knows nothing of it
		}
	}
	if _, err := h.refuseUsage(books.Refusal{Payer: p.key.Public(), Contract: p.contract, Lines: []protocol.RefusedLines{{First: 1, Last: 1, Reason: "unknown"}}}); err == nil {
		t.Error("a line of no report is refused")
	}
	p.check(t)
	before := h.owed(contracts, p.key).Cost
	report := p.refusing.lines[0].report
	refuse := func(most protocol.Msat, first, last int64) (books.Refused, error) {
		return h.refuseUsage(books.Refusal{Payer: p.key.Public(), Contract: p.contract, Report: report, Most: most,
			Lines: []protocol.RefusedLines{{First: first, Last: last, Reason: "unknown"}}})
	}
	one, err := refuse(before/4+1, 1, 1)
	if err != nil || one.Disputes != 0 || one.Given == 0 || one.WrittenOff-one.Given > 1 || // each total is rounded up
		h.owed(contracts, p.key).Cost != before-one.Given {
		t.Fatalf("%+v %v", one, err)
	}
	for range 2 {
		out, err := refuse(before/4+1, 1, 3)
		if err != nil || out.Disputes != 2 || out.Given != 0 || out.Disputed == 0 || out.WrittenOff != one.WrittenOff {
			t.Errorf("%+v %v", out, err)
		}
	}
	if now := h.owed(contracts, p.key).Cost; now != before-one.Given {
		t.Errorf("the account costs %d, %d before", now, before)
	}
	for name, c := range map[string]struct {
		code protocol.Code
		do   func() (books.Refused, error)
	}{
		"a line after the report": {protocol.CodeInvalidValue, func() (books.Refused, error) { return refuse(1, 4, 5) }},
		"another's contract": {protocol.CodeNotFound, func() (books.Refused, error) {
			return h.refuseUsage(books.Refusal{Payer: bob.Public(), Contract: p.contract, Report: report, Lines: []protocol.RefusedLines{{First: 1, Last: 1}}})
		}},
		"another report": {protocol.CodeNotFound, func() (books.Refused, error) {
			return h.refuseUsage(books.Refusal{Payer: p.key.Public(), Contract: p.contract, Lines: []protocol.RefusedLines{{First: 1, Last: 1}}})
		}},
	} {
		if _, err := c.do(); err == nil {
			t.Errorf("%s is refused", name)
		} else {
			wantCode(t, err, c.code)
		}
	}
}

// renew puts another contract in the place of the payer's, as who runs contracts does; what is owed goes over.
func (s *spending) renew() {
	if len(s.renewed) > 1 {
		return
	}
	ctx := s.h.t.Context()
	contracts++
	next := contractID(contracts)
	old := s.billed
	if err := s.h.inTx(func(tx pgx.Tx) error {
		use, err := s.h.books.Owed(ctx, tx, s.key.Public(), old.contract)
		if err != nil {
			return err
		}
		old.counted = use.Cost
		o := books.Opening{ID: next, Payer: s.key.Public(), Prices: dear, Renews: &old.contract}
		if err := s.h.books.OpenContract(ctx, tx, o); err != nil {
			return err
		}
		if err := s.h.books.HandOver(ctx, tx, books.HandOver{From: old.contract, To: next, Used: use.Cost + s.carried}); err != nil {
			return err
		}
		return s.h.books.SetCredit(ctx, tx, s.key.Public(), next, 1<<60)
	}); err != nil {
		s.Fatal(err)
	}
	s.carried += old.counted
	s.renewed = append(s.renewed, &old)
	s.billed = billed{contract: next}
}

// comeBack takes off what is carried what came back under the contracts before: unused, or refused. Nothing is owed under those.
func (p *payer) comeBack(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}) {
	ctx := p.h.t.Context()
	for _, old := range p.renewed {
		refused := -p.journal(t, old.contract).owed // is off what is owed there, and not yet off what is carried
		if err := p.h.inTx(func(tx pgx.Tx) error {
			cost, known, err := p.h.books.Billed(ctx, tx, old.contract)
			if err != nil || !known || cost >= old.counted {
				return err
			}
			if err := p.h.books.Returned(ctx, tx, old.contract, old.counted-cost-refused); err != nil {
				return err
			}
			if err := p.h.books.Carry(ctx, tx, old.contract, p.contract, cost-old.counted); err != nil {
				return err
			}
			p.carried -= old.counted - cost
			old.counted = cost
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if j := p.journal(t, old.contract); j.owed != 0 {
			t.Fatalf("a renewed contract owes %+v", j)
		}
	}
}

// What ended just before a refusal is on the bill with it: its storage is billed, and what it had reserved comes back.
func TestRefusalPostsWhatEnded(t *testing.T) {
	h := newHouse(t)
	p := h.payer()
	p.refusing = &refusing{records: func(protocol.Hash) *truth { return &truth{disowned: true} }}
	bob := key(t)
	strange, kept := h.compose(p.key, bob.Public(), "strange"), h.compose(p.key, bob.Public(), "kept")
	h.mustWrite(strange)
	h.mustWrite(kept)
	own := p.wrote(kept)
	p.check(t)
	reserved := p.place.Totals.ReservedStored
	own.Deleted = h.now()
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: p.key.Public(), Receiver: bob.Public(), ID: "kept"}); err != nil {
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM ledger_facts`); n != 1 {
		t.Fatalf("%d ends wait", n)
	}
	one := p.refusing.lines[0]
	for range 2 {
		if out, err := h.refuseUsage(books.Refusal{Payer: p.key.Public(), Contract: p.contract, Report: one.report, Most: math.MaxInt64,
			Lines: []protocol.RefusedLines{one.line}}); err != nil || out.Disputes != 0 {
			t.Fatalf("%+v, %v", out, err)
		}
		if n := h.count(`SELECT count(*) FROM ledger_facts`); n != 0 {
			t.Fatalf("%d ends wait", n)
		}
		if bill, err := h.books.Posted(t.Context(), p.contract); err != nil || bill.Last != 4 { // two writes, an end, a drop
			t.Fatalf("%+v, %v", bill, err)
		}
	}
	p.check(t)
	if left := p.place.Totals.ReservedStored; left == reserved || left.String() != "0" {
		t.Errorf("%v is reserved, %v before", left, reserved)
	}
}

// A pull is refused first, and then the record it was of: what the pull cost is given back once.
func TestPullAndThenItsRecordRefused(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p, bob := h.payer(), &reader{h: h, key: key(t)}
	for _, id := range []string{"refused", "stays"} { // one is enough to hide what is given back twice
		h.mustWrite(h.compose(p.key, bob.key.Public(), id, pulls(1)))
	}
	page, err := bob.pull(t.Context(), 1, p.key.Public())
	if err != nil || len(page.Lines) != 1 {
		t.Fatal(page, err)
	}
	if err := h.store.Got(t.Context(), bob.key.Public(), *bob.ack(page.Header)); err != nil {
		t.Fatal(err)
	}
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: p.key.Public(), Receiver: bob.key.Public(), ID: "refused"}); err != nil {
		t.Fatal(err)
	}
	if err := h.books.Post(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := h.books.Report(t.Context(), p.key.Public(), p.contract, 0, p.sign)
	if err != nil {
		t.Fatal(err)
	}
	e, err := protocol.ParseEnvelope(r.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]int64) // of the record that is refused
	if err := h.books.Lines(t.Context(), r, func(data []byte) error {
		l, err := ledger.ParseLine(data)
		if err == nil && l.RecordID == "refused" {
			lines[string(l.Kind)] = l.Seq
		}
		return err
	}); err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	for _, kind := range []ledger.Kind{ledger.KindPull, ledger.KindWrite} {
		seq := lines[string(kind)]
		if out, err := h.refuseUsage(books.Refusal{Payer: p.key.Public(), Contract: p.contract, Report: e.Hash(), Most: math.MaxInt64,
			Lines: []protocol.RefusedLines{{First: seq, Last: seq, Reason: "unknown"}}}); err != nil || out.Given == 0 || out.Disputes != 0 {
			t.Fatal(kind, out, err)
		}
	}
	bill, err := h.books.Posted(t.Context(), p.contract)
	stays := h.count(`SELECT bytes FROM records WHERE id = 'stays'`)
	if err != nil || bill.Totals.Written != ledger.Times(stays, 1) || bill.Totals.Pulled != (ledger.Quantity{}) || bill.Totals.ReservedPulled != ledger.Times(stays, 1) {
		t.Errorf("%+v is left of a record of %d bytes: %v", bill.Totals, stays, err)
	}
}
