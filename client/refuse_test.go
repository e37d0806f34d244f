package client_test

import (
	"fmt"
	"testing"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Refused lines are named to the relay, each once and in as many messages as that takes, and its answer is noted. What later
// lines of its ledger drop is in dispute no more.
func TestRefusedLinesAreNamed(t *testing.T) {
	alice, l, write := deceived(t)
	l.outcome = protocol.RefusalDropped
	// 1,100 lines that are refused, for two reasons by turns, so that no two go into one range; and lines that follow one another.
	lines := []*ledger.Line{write}
	const turns, run = 1100, 50
	stranger := testnode.NewKey(t).Public()
	for i := range turns {
		lie := *write
		lie.RecordID = protocol.RecordID(fmt.Sprint("lie", i))
		if i%2 == 0 {
			lie.Hash[0] ^= byte(1 + i%200)
			lie.Hash[1] = byte(i / 200)
			lie.From = stranger
		}
		lines = append(lines, &lie)
	}
	for i := range run {
		lie := *write
		lie.Hash[2] ^= byte(1 + i)
		lie.From = stranger
		lines = append(lines, &lie)
	}
	place := l.report(t, ledger.Place{}, lines...)
	l.reports[place.Last] = []byte(`{"lines":0,"more":false}` + "\n")
	m := l.serve(t)
	a := alice.audits(m)
	if a.Bill.Disputed == 0 || a.Named != 0 {
		t.Fatalf("%+v", a)
	}
	if n := alice.pages(m, turns+run); n != 12 {
		t.Errorf("%d pages of 100 refused lines", n)
	}
	told, err := alice.NameRefused(t.Context(), m)
	if err != nil || told.Lines != turns+run || told.Outcome != protocol.RefusalDropped || told.WrittenOff != 7 || len(l.refused) != 3 {
		t.Fatalf("%+v in %d messages, %v", told, len(l.refused), err)
	}
	named := map[int64]bool{}
	for i := range l.refused {
		for _, r := range l.refused[i].Lines {
			for n := r.First; n <= r.Last; n++ {
				if named[n] {
					t.Fatalf("line %d is named twice", n)
				}
				named[n] = true
			}
		}
	}
	if len(named) != turns+run || named[1] || !named[2] || !named[int64(len(lines))] {
		t.Fatalf("%d lines are named", len(named))
	}
	if told, err = alice.NameRefused(t.Context(), m); err != nil || told.Lines != 0 || len(l.refused) != 3 {
		t.Errorf("told again: %+v, %v", told, err)
	}
	if a = alice.audits(m); a.Named != turns+run || a.Dropped != 0 || a.Bill.Disputed == 0 {
		t.Errorf("before it drops them: %+v", a)
	}

	back := ledger.Totals{Written: ledger.Times(write.Bytes, 1), ReservedPulled: ledger.Times(write.Bytes, write.MaxPulls),
		ReservedStored: ledger.Times(write.Bytes, int64(write.Expires-write.Written))}.Wire()
	var drops []*ledger.Line
	for _, lie := range lines[1:] {
		drops = append(drops, &ledger.Line{Kind: ledger.KindDrop, From: lie.From, To: lie.To, RecordID: lie.RecordID, Hash: lie.Hash, Bytes: lie.Bytes, Of: lie.Seq, Back: &back})
	}
	end := l.report(t, place, drops...)
	l.reports[end.Last] = []byte(`{"lines":0,"more":false}` + "\n")
	a = alice.audits(m)
	if a.Bill.Disputed != 0 || a.Dropped != turns+run || a.Named != 0 || len(a.Reasons) != 0 || a.Accepted.Written != ledger.Times(write.Bytes, 1) {
		t.Errorf("dropped: %+v", a)
	}
	scores, err := alice.AuditScores(t.Context())
	if s := scores[m.Relay]; err != nil || s.Disputed == 0 || s.Open != 0 || !s.Bad() {
		t.Errorf("it is remembered: %+v, %v", s, err)
	}
}

// pages reads the refused lines a hundred at a time, each once and in order, and tells how many times it had to ask.
func (p *person) pages(m client.Metered, want int) (pages int) {
	p.t.Helper()
	seen, part := 0, client.AuditPart{Limit: 100}
	for more := true; more; pages++ {
		before := seen
		if err := p.RefusedPart(p.ctx(), m.Contract, part, func(r *client.RefusedLine) error {
			if r.Line <= part.After {
				p.t.Fatalf("line %d after %d", r.Line, part.After)
			}
			seen, part.After = seen+1, r.Line
			return nil
		}); err != nil {
			p.t.Fatal(err)
		}
		more = seen-before == part.Limit
	}
	if seen != want {
		p.t.Errorf("%d refused lines, want %d", seen, want)
	}
	one, stranger := 0, protocol.PublicKey{1}
	for _, part := range []client.AuditPart{{Record: "lie1099"}, {Record: "_ie1099"}, {Friend: &stranger}} {
		if err := p.RefusedPart(p.ctx(), m.Contract, part, func(*client.RefusedLine) error { one++; return nil }); err != nil {
			p.t.Fatal(err)
		}
	}
	if one != 1 {
		p.t.Errorf("%d lines are about the one record", one)
	}
	return pages
}

// Bad faith: a relay answers a refusal with what is not about it. Nothing is noted, and it is told again.
func TestBadFaithAnswerToARefusal(t *testing.T) {
	alice, l, write := deceived(t)
	lie := *write
	lie.Hash[0] ^= 1
	lie.From = testnode.NewKey(t).Public()
	place := l.report(t, ledger.Place{}, write, &lie)
	l.reports[place.Last] = []byte(`{"lines":0,"more":false}` + "\n")
	m := l.serve(t)
	alice.audits(m)
	l.payer = l.key.Public() // signs for somebody else
	if told, err := alice.NameRefused(t.Context(), m); err == nil || told.Lines != 0 {
		t.Fatalf("%+v, %v", told, err)
	}
	l.payer, l.outcome = alice.Key(), "a word of the future"
	told, err := alice.NameRefused(t.Context(), m)
	if err != nil || told.Lines != 1 || told.Outcome != "a word of the future" || len(l.refused) != 2 {
		t.Errorf("%+v, %v", told, err)
	}
}
