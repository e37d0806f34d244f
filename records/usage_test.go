package records_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
	"relaymarket/records"
)

// payer is a contract's payer as his client sees it: what he wrote, and how far he has checked the relay's reports.
type payer struct {
	billed
	h         *house
	key       *protocol.PrivateKey
	own       map[protocol.Hash]*ledger.Own
	standings map[protocol.Hash]ledger.Standing
	claims    map[string]bool
	refusing  *refusing // nil: nothing may be refused
	renewed   []*billed // contracts that were renewed, whose lines go on
	carried   protocol.Msat
}

// billed is a contract's bill, as far as it was checked.
type billed struct {
	contract protocol.ContractID
	place    ledger.Place
	accepted ledger.Totals
	counted  protocol.Msat // of a renewed one, what its renewal carries of it
	told     []told
}

// told is a report, and what its lines hash to.
type told struct {
	report *books.Report
	lines  [32]byte
}

var _ ledger.Memory = (*payer)(nil)

var contracts int

// payer opens a contract of a new key, with a credit that never ends.
func (h *house) payer() *payer {
	contracts++
	p := &payer{h: h, key: key(h.t), billed: billed{contract: contractID(contracts)}, own: map[protocol.Hash]*ledger.Own{},
		standings: map[protocol.Hash]ledger.Standing{}, claims: map[string]bool{}}
	h.contract(contracts, p.key, 1<<60)
	return p
}

func (p *payer) Own(h protocol.Hash) (*ledger.Own, error)          { return p.own[h], nil }
func (p *payer) Standing(h protocol.Hash) (ledger.Standing, error) { return p.standings[h], nil }
func (p *payer) SetStanding(h protocol.Hash, s ledger.Standing) error {
	p.standings[h] = s
	return nil
}
func (p *payer) Claim(h protocol.Hash, page protocol.PageID, _ int64) (bool, error) {
	k := h.String() + string(page)
	if p.refusing != nil && p.refusing.denies(h) {
		return false, nil
	}
	first := !p.claims[k]
	p.claims[k] = true
	return first, nil
}

func (p *payer) wrote(in records.Incoming) *ledger.Own {
	e, w := in.Envelope, in.Write
	own := &ledger.Own{Path: protocol.Path{Sender: e.From, Receiver: e.To, ID: w.RecordID}, Bytes: e.Size(), Signed: e.Timestamp,
		Expires: w.Expires, MaxPulls: w.MaxPulls}
	p.own[e.Hash()] = own
	return own
}

func (p *payer) sign(to protocol.PublicKey, r *protocol.UsageReport) (*protocol.Envelope, error) {
	return protocol.Sign(p.h.relay, to, p.h.now(), r)
}

// check has the ledger posted and takes every report that there is: all of them have to be true, and every line deserved.
func (p *payer) check(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}) {
	t.Helper()
	ctx := p.h.t.Context()
	if err := p.h.books.Post(ctx); err != nil {
		t.Fatal(err)
	}
	for _, old := range p.renewed {
		p.read(t, old)
	}
	p.read(t, &p.billed)
	p.comeBack(t)
	use, err := p.h.books.Owed(ctx, p.h.db.Pool(), p.key.Public(), p.contract)
	if err != nil {
		t.Fatal(err)
	}
	if reserved, err := p.place.Totals.Reserved(); err != nil || reserved != use.Used {
		t.Fatalf("the account counts %v, the reports come to %v (%v)", use.Used, reserved, err)
	}
	if j := p.journal(t, p.contract); j.owed != use.Cost+p.carried || j.owed+j.earned+j.reserved+j.paid+j.writtenOff+j.carried != 0 {
		t.Fatalf("the account costs %d and carries %d, the journal has %+v", use.Cost, p.carried, j)
	}
}

// read takes the reports of one contract.
func (p *payer) read(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, b *billed) {
	t.Helper()
	ctx := p.h.t.Context()
	who := ledger.Parties{Relay: p.h.relay.Public(), Payer: p.key.Public(), Contract: b.contract}
	audit := ledger.NewAudit(who.Relay, p, p.h.now(), b.accepted)
	for more := true; more; {
		r, err := p.h.books.Report(ctx, who.Payer, b.contract, b.place.Last, p.sign)
		if err != nil {
			t.Fatal(err)
		}
		if r.Envelope == nil {
			break
		}
		e, err := protocol.ParseEnvelope(r.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ledger.NewVerifier(e, who, b.place)
		if err != nil {
			t.Fatal(err)
		}
		lines := sha256.New()
		if err := p.h.books.Lines(ctx, r, func(data []byte) error {
			_, _ = lines.Write(data)
			l, err := v.Line(data)
			if err != nil {
				return err
			}
			verdict, err := audit.Judge(l)
			if err == nil && verdict.Reason != "" {
				err = p.refuse(b.contract, e.Hash(), l, verdict)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if b.place, err = v.End(); err != nil {
			t.Fatal(err)
		}
		b.told = append(b.told, told{r, [32]byte(lines.Sum(nil))})
		more = r.More
	}
	b.accepted = audit.Accepted()
}

// readAgain holds all lines of one contract against what they were.
func (p *payer) readAgain(t interface {
	Helper()
	Fatalf(string, ...any)
}, b *billed) {
	t.Helper()
	for _, was := range b.told {
		lines := sha256.New()
		err := p.h.books.Lines(p.h.t.Context(), was.report, func(data []byte) error {
			_, _ = lines.Write(data)
			return nil
		})
		if err != nil || [32]byte(lines.Sum(nil)) != was.lines {
			t.Fatalf("lines %d to %d are not what they were: %v", was.report.First, was.report.Last, err)
		}
	}
}

// bill is what the payer makes of what he has checked of one contract.
func (p *payer) bill(t interface{ Fatal(...any) }, b *billed, mine func(protocol.Hash) bool) ledger.Bill {
	var accrued ledger.Quantity
	for h, s := range p.standings {
		if mine(h) {
			accrued, _ = accrued.Plus(s.Accrued(p.h.now()))
		}
	}
	bill, err := ledger.Settle(dear, b.place.Totals, b.accepted, accrued)
	if err != nil {
		t.Fatal(err)
	}
	return bill
}

// wholeBill is the bill of a payer with one contract.
func (p *payer) wholeBill(t interface{ Fatal(...any) }) ledger.Bill {
	return p.bill(t, &p.billed, func(protocol.Hash) bool { return true })
}

// modelRecord is what truly became of a record.
type truth struct {
	hash                  protocol.Hash
	contract              protocol.ContractID
	own                   *ledger.Own
	written, ended        protocol.Timestamp
	served, acked, lapsed int64
	lastPull              protocol.Timestamp
	denied                int64 // acknowledged pulls that the payer refuses
	disowned, backdated   bool  // he denies that he wrote it at all, or says that it was deleted earlier
}

// spending is one random life of a contract, beside what truly happened in it.
type spending struct {
	*rapid.T
	*payer
	records []*truth
	readers []*spendingReader
}

type spendingReader struct {
	reader
	page []*truth // open
	made protocol.Timestamp
}

// The bill that the relay computes is its account's counters, is what the payer computes from its reports, and is what an
// independent model of what truly happened comes to, to the millisatoshi, after any history of writes, pulls,
// acknowledgements that never come, deletes, expiries and sweeps, posted at any moments.
func TestBillIsItsCounters(t *testing.T) {
	h := newStillHouse(t, time.Date(2031, 1, 15, 12, 0, 0, 0, time.UTC))
	rapid.Check(t, func(t *rapid.T) {
		s := &spending{T: t, payer: h.payer()}
		for range 2 {
			s.readers = append(s.readers, &spendingReader{reader: reader{h: h, key: key(h.t)}})
		}
		steps := []func(){s.write, s.write, s.write, s.pull, s.pull, s.pull, s.remove, s.advance, s.sweep, s.look, s.crash, s.tidy, s.renew}
		for range rapid.IntRange(10, 50).Draw(t, "steps") {
			rapid.SampledFrom(steps).Draw(t, "step")()
		}
		s.look()
		s.compare()
	})
}

// crash ends a poster wherever it is.
func (s *spending) crash() {
	ctx, cancel := context.WithTimeout(s.h.t.Context(), time.Duration(rapid.IntRange(0, 4000).Draw(s.T, "µs"))*time.Microsecond)
	defer cancel()
	_ = s.h.books.Post(ctx) // it is undone, or done: both are well
}

// write writes a record, or as many as make pages that bills name.
func (s *spending) write() {
	to := s.reader().key.Public()
	for range rapid.SampledFrom([]int{1, 1, 20}).Draw(s.T, "records") {
		s.writeOne(to)
	}
}

func (s *spending) writeOne(to protocol.PublicKey) {
	in := s.h.compose(s.key, to, fmt.Sprint("r", len(s.records)),
		pulls(rapid.Int64Range(1, 3).Draw(s.T, "pulls")),
		ttl(s.h, rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 50 * time.Hour, 60 * 24 * time.Hour}).Draw(s.T, "life")),
		content(strings.Repeat("AAAA", rapid.IntRange(1, 500).Draw(s.T, "size"))))
	for range rapid.IntRange(1, 2).Draw(s.T, "tries") { // the same again is one write
		if out := s.h.write(in)[0]; out.Err != nil {
			s.Fatal(out.Err)
		}
	}
	s.records = append(s.records, &truth{hash: in.Envelope.Hash(), contract: s.contract, own: s.wrote(in), written: s.h.now()})
}

// tidy writes out what bills have named for long: pages may be swept then.
func (s *spending) tidy() {
	if err := s.h.books.Tidy(s.h.t.Context()); err != nil {
		s.Fatal(err)
	}
}

func (s *spending) reader() *spendingReader {
	return rapid.SampledFrom(s.readers).Draw(s.T, "reader")
}

// pull acknowledges the reader's open page, or not, and pulls the next one.
func (s *spending) pull() {
	r := s.reader()
	if r.open != nil {
		if rapid.IntRange(0, 3).Draw(s.T, "silent") == 0 {
			return
		}
		for _, record := range r.page {
			if !s.lapsed(r) {
				record.acked++
			}
		}
	}
	if rapid.Bool().Draw(s.T, "again") {
		r.after = nil
	}
	page, err := r.reader.pull(s.h.t.Context(), rapid.SampledFrom([]int64{1, 2, 4, 40}).Draw(s.T, "limit"), s.key.Public())
	if err != nil {
		s.Fatal(err)
	}
	r.page, r.made = nil, s.h.now()
	for _, line := range page.Lines {
		e, err := protocol.ParseEnvelope(line.Envelope)
		if err != nil {
			s.Fatal(err)
		}
		for _, record := range s.records {
			if record.hash == e.Hash() {
				record.served++
				record.lastPull = s.h.now()
				r.page = append(r.page, record)
			}
		}
	}
}

// lapsed tells whether the pulls of a reader's open page were given back.
func (s *spending) lapsed(r *spendingReader) bool { return r.made < 0 }

func (s *spending) remove() {
	for _, record := range s.records {
		if record.ended == 0 && s.h.now() < record.own.Expires && rapid.IntRange(0, 3).Draw(s.T, "delete") == 0 {
			if err := s.h.store.Delete(s.h.t.Context(), record.own.Path); err != nil {
				s.Fatal(err)
			}
			record.ended, record.own.Deleted = s.h.now(), s.h.now()
			if record.served == record.own.MaxPulls {
				record.ended = record.lastPull
			}
			return
		}
	}
}

func (s *spending) advance() {
	s.h.advance(rapid.SampledFrom([]time.Duration{time.Second, 11 * time.Minute, time.Hour, 26 * time.Hour, 36 * 24 * time.Hour}).Draw(s.T, "for"))
}

func (s *spending) sweep() {
	if rapid.Bool().Draw(s.T, "posted") {
		if err := s.h.books.Post(s.h.t.Context()); err != nil {
			s.Fatal(err)
		}
	}
	if err := s.h.store.Sweep(s.h.t.Context()); err != nil {
		s.Fatal(err)
	}
	now := s.h.now()
	for _, record := range s.records {
		if record.ended != 0 {
			continue
		}
		usedUp := record.served == record.own.MaxPulls
		switch {
		case now >= record.own.Expires.Add(time.Hour):
			// Unless it is not posted: then it stays, and is swept later.
			if s.standsStill(record) {
				continue
			}
			if record.ended = record.own.Expires; usedUp {
				record.ended = record.lastPull
			}
		case usedUp && now >= record.lastPull.Add(10*time.Minute):
			record.ended = record.lastPull
		}
	}
	for _, r := range s.readers {
		if r.open != nil && r.made > 0 && now >= r.made.Add(35*24*time.Hour) {
			for _, record := range r.page {
				record.lapsed++
			}
			r.made = -1
		}
	}
}

// standsStill tells whether the record's row is still there and live.
func (s *spending) standsStill(record *truth) bool {
	p := record.own.Path
	return s.h.count(`SELECT count(*) FROM records WHERE sender = $1 AND id = $2 AND state = 0`, p.Sender[:], string(p.ID)) > 0
}

func (s *spending) look() { s.check(s.T) }

// compare holds the bill against what truly happened.
func (s *spending) compare() {
	for _, old := range s.renewed {
		s.compareOne(old)
	}
	s.compareOne(&s.billed)
}

func (s *spending) compareOne(b *billed) {
	s.readAgain(s.T, b)
	mine := make(map[protocol.Hash]bool)
	var due, all ledger.Usage
	add := func(to *ledger.Usage, bytes, times, until int64) {
		to.Moved, _ = to.Moved.Plus(ledger.Times(bytes, times))
		to.Stored, _ = to.Stored.Plus(ledger.Times(bytes, max(until, 0)))
	}
	for _, r := range s.records {
		own := r.own
		if r.contract != b.contract {
			continue
		}
		mine[r.hash] = true
		if r.disowned {
			continue
		}
		r.acked, r.lapsed = r.acked-r.denied, r.lapsed+r.denied
		if r.ended != 0 {
			add(&due, own.Bytes, 1+r.acked, int64(r.ended-r.written))
			add(&all, own.Bytes, 1+r.served-r.lapsed, int64(r.ended-r.written))
			continue
		}
		add(&due, own.Bytes, 1+r.acked, int64(min(s.h.now(), own.Expires)-r.written))
		add(&all, own.Bytes, 1+own.MaxPulls-r.lapsed, int64(own.Expires-r.written))
	}
	accepted, err := dear.Cost(due)
	claimed, also := dear.Cost(all)
	if err = errors.Join(err, also); err != nil {
		s.Fatal(err)
	}
	want := ledger.Bill{Accepted: accepted, Waiting: claimed - accepted, Claimed: claimed}
	if got := s.bill(s.T, b, func(h protocol.Hash) bool { return mine[h] }); got != want {
		s.Fatalf("the bill is %+v, in truth it is %+v", got, want)
	}
}

// Two processes write, serve, delete, sweep and post at once: nothing is left out and nothing is posted twice.
func TestPostingUnderConcurrency(t *testing.T) {
	h := newHouse(t)
	other := joinHouse(t, h.url, h.relay, h.offset)
	p := h.payer()
	bob := key(t)
	var mu sync.Mutex
	var group, posters sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for _, house := range []*house{h, other} {
		posters.Go(func() {
			for ctx.Err() == nil {
				if err := house.books.Post(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
		for w := range 4 {
			group.Go(func() {
				for i := range 50 {
					in := house.compose(p.key, bob.Public(), fmt.Sprintf("%p-%d-%d", house, w, i), pulls(2))
					mu.Lock()
					p.wrote(in)
					mu.Unlock()
					if out := house.store.Write(ctx, []records.Incoming{in}); out[0].Err != nil {
						t.Error(out[0].Err)
					}
					if i%3 == 0 {
						if err := house.store.Delete(ctx, protocol.Path{Sender: p.key.Public(), Receiver: bob.Public(), ID: in.Write.RecordID}); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	group.Go(func() {
		r := &reader{h: other, key: bob}
		for range 60 {
			if _, err := r.pull(ctx, 20, p.key.Public()); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
	cancel()
	posters.Wait()
	p.check(t)
	if p.place.Last < 400+2*68 {
		t.Errorf("%d lines", p.place.Last)
	}
}

// A report is made once: asked again it is the same, also after more was posted, and none begins where none ended.
func TestReportIsMadeOnce(t *testing.T) {
	h := newHouse(t)
	p := h.payer()
	stranger := key(t)
	ctx := t.Context()
	report := func(after int64) *books.Report {
		t.Helper()
		if err := h.books.Post(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := h.books.Report(ctx, p.key.Public(), p.contract, after, p.sign)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := report(0); r.Envelope != nil {
		t.Error("a report of nothing")
	}
	h.mustWrite(h.compose(p.key, stranger.Public(), "a"))
	first := report(0)
	h.mustWrite(h.compose(p.key, stranger.Public(), "b"))
	again := report(0)
	if string(first.Envelope) != string(again.Envelope) || first.More || !again.More || again.Last != 1 {
		t.Errorf("%+v, then %+v", first, again)
	}
	second := report(1)
	if second.First != 2 || second.Last != 2 || second.More {
		t.Errorf("%+v", second)
	}
	_, err := h.books.Report(ctx, p.key.Public(), p.contract, 7, p.sign)
	wantCode(t, err, protocol.CodeInvalidValue)
	_, err = h.books.Report(ctx, stranger.Public(), p.contract, 0, p.sign)
	wantCode(t, err, protocol.CodeNotFound)
}

// What is not posted is not removed, however late the poster is.
func TestSweepWaitsForThePoster(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	bob := key(t)
	in := h.compose(p.key, bob.Public(), "a", ttl(h, time.Hour))
	h.mustWrite(in)
	p.wrote(in)
	r := &reader{h: h, key: bob}
	for range 2 {
		if _, err := r.pull(t.Context(), 1, p.key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	h.advance(100 * 24 * time.Hour)
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, pages := h.count(`SELECT count(*) FROM records`), h.count(`SELECT count(*) FROM pages`); rows != 1 || pages != 1 {
		t.Fatalf("%d records and %d pages are left that are not posted", rows, pages)
	}
	p.check(t)
	// Now the bill names the page. Once it has said all that is in it, it may go.
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, pages := h.count(`SELECT count(*) FROM records`), h.count(`SELECT count(*) FROM pages`); rows != 0 || pages != 1 {
		t.Errorf("%d records and %d pages are left, of which one is evidence", rows, pages)
	}
	if err := errors.Join(h.books.Tidy(t.Context()), h.store.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
	if rows, pages := h.count(`SELECT count(*) FROM records`), h.count(`SELECT count(*) FROM pages`); rows != 0 || pages != 0 {
		t.Errorf("%d records and %d pages are left that are posted", rows, pages)
	}
	p.check(t)
	if p.place.Last != 3 || p.wholeBill(t).Waiting != 0 {
		t.Errorf("%+v, %+v", p.place, p.wholeBill(t))
	}
}

// Evidence of what is not paid is kept; of what is, for a set time. The report stays.
func TestEvidenceIsKeptUntilPaid(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	bob := key(t)
	in := h.compose(p.key, bob.Public(), "a")
	h.mustWrite(in)
	p.wrote(in)
	p.check(t)
	cost := p.wholeBill(t).Accepted
	dropped := func() bool {
		t.Helper()
		h.advance(36 * 24 * time.Hour)
		if err := h.books.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := h.books.Report(t.Context(), p.key.Public(), p.contract, 0, p.sign)
		if err != nil || r.Envelope == nil {
			t.Fatal(r, err)
		}
		return r.Dropped
	}
	for _, paid := range []protocol.Msat{0, cost - 1, cost} {
		if dropped() {
			t.Fatalf("dropped with less than %d msat paid", cost)
		}
		tx, err := h.db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(h.books.Paid(t.Context(), tx, p.contract, paid), tx.Commit(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if !dropped() {
		t.Error("kept for good")
	}
	if n := h.count(`SELECT count(*) FROM ledger_blocks`); n != 0 {
		t.Errorf("%d blocks are left", n)
	}
}

// Reports that are paid out of their order, by clocks that jump, lose their lines in their order.
func TestEvidenceGoesInItsOrder(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	for i := range 3 { // a block and a report each
		in := h.compose(p.key, key(t).Public(), fmt.Sprint(i))
		h.mustWrite(in)
		p.wrote(in)
		p.check(t)
	}
	h.exec(`UPDATE usage_reports SET paid_at = $1 - first`, int64(h.now())) // the last one first
	h.advance(35*24*time.Hour - 2*time.Millisecond)
	for kept := int64(3); kept >= 0; kept -= 3 {
		if err := h.books.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if dropped, blocks := h.count(`SELECT count(*) FROM usage_reports WHERE dropped`), h.count(`SELECT count(*) FROM ledger_blocks`); dropped == 0 || blocks != kept {
			t.Errorf("%d reports are dropped, and %d blocks are left, want %d", dropped, blocks, kept)
		}
		if r, err := h.books.Report(t.Context(), p.key.Public(), p.contract, 0, p.sign); err != nil || r.Dropped != (kept == 0) {
			t.Errorf("%+v, %v", r, err)
		}
		h.advance(time.Minute)
	}
}

// Whoever pays for a report has paid for those before it, also for one that came to more before lines of it were taken back.
func TestPaidUpToTheLast(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	p := h.payer()
	for i := range 3 {
		in := h.compose(p.key, key(t).Public(), fmt.Sprint(i))
		h.mustWrite(in)
		p.wrote(in)
		p.check(t)
	}
	h.exec(`UPDATE usage_reports SET cost = (ARRAY[900, 500, 600])[first]`)
	if err := h.inTx(func(tx pgx.Tx) error { return h.books.Paid(t.Context(), tx, p.contract, 550) }); err != nil {
		t.Fatal(err)
	}
	if first, all := h.count(`SELECT count(*) FROM usage_reports WHERE paid_at IS NOT NULL AND first < 3`), h.count(`SELECT count(*) FROM usage_reports WHERE paid_at IS NOT NULL`); first != 2 || all != 2 {
		t.Errorf("%d reports are paid, %d of the first two", all, first)
	}
}
