package records_test

import (
	"crypto/sha256"

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
