package ledger_test

import (
	"testing"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// drops are the lines by which a relay gives up what an audit refused: a write with all that lines say of its record, a pull
// or an end alone.
func (w *world) drops(lines []*ledger.Line, verdicts []ledger.Verdict) []*ledger.Line {
	w.t.Helper()
	whole := map[protocol.Hash]bool{}
	for i, v := range verdicts {
		if v.Reason != "" && lines[i].Kind == ledger.KindWrite {
			whole[lines[i].Hash] = true
		}
	}
	drop := func(l *ledger.Line, back ledger.Totals) *ledger.Line {
		wire := back.Wire()
		return &ledger.Line{Kind: ledger.KindDrop, From: l.From, To: l.To, RecordID: l.RecordID, Hash: l.Hash, Bytes: l.Bytes, Of: l.Seq, Back: &wire}
	}
	var out []*ledger.Line
	for i, v := range verdicts {
		l := lines[i]
		switch {
		case v.Reason == "" || whole[l.Hash] && l.Kind != ledger.KindWrite:
		case l.Kind == ledger.KindPull:
			out = append(out, drop(l, ledger.Totals{Pulled: ledger.Times(l.Bytes, 1)}))
		case l.Kind == ledger.KindEnd:
			out = append(out, drop(l, ledger.Totals{Stored: v.Refused.Stored}))
		case l.Kind == ledger.KindWrite:
			var all ledger.Totals
			for _, other := range lines {
				if other.Hash == l.Hash {
					if err := all.Apply(other); err != nil {
						w.t.Fatal(err)
					}
				}
			}
			out = append(out, drop(l, all))
		}
	}
	return out
}

// What a relay drops is disputed no more: nothing of it is left in the bill, what is accepted is as it was, and the report is as true
// as any.
func TestDroppedLinesAreForgotten(t *testing.T) {
	for name, cheat := range map[string]func(w *world) []*ledger.Line{
		"a write that never was, with its pull": func(w *world) []*ledger.Line {
			fake, pull := *w.lines[0], *w.lines[find(w, ledger.KindPull, 0)]
			fake.Hash[0] ^= 1
			pull.Hash = fake.Hash
			return append(w.lines, &fake, &pull)
		},
		"a pull twice": func(w *world) []*ledger.Line {
			twice := *w.lines[find(w, ledger.KindPull, 0)]
			return moveBefore(append(w.lines, &twice), len(w.lines), find(w, ledger.KindEnd, 0))
		},
		"an end too late": func(w *world) []*ledger.Line {
			end := w.lines[find(w, ledger.KindEnd, 0)]
			end.Ended = end.Expires
			return w.lines
		},
		"an end of another write": func(w *world) []*ledger.Line {
			w.lines[find(w, ledger.KindEnd, 0)].Written -= 1000
			return w.lines
		},
		"sizes": func(w *world) []*ledger.Line {
			for _, l := range w.lines {
				if l.Hash == w.records[2].hash {
					l.Bytes *= 10
				}
			}
			return w.lines
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := history(t)
			lines := cheat(w)
			number(lines)
			refused := w.audit(lines)
			if refused.bill.Disputed == 0 {
				t.Fatal("nothing is disputed")
			}
			lines = append(lines, w.drops(lines, refused.verdicts)...)
			number(lines)
			got := w.audit(lines)
			if got.bill.Disputed != 0 || got.bill.Accepted > refused.bill.Accepted {
				t.Errorf("%+v, %+v before the drop", got.bill, refused.bill)
			}
			var gone ledger.Usage
			for _, v := range got.verdicts {
				var err error
				if gone, err = gone.Plus(v.Dropped); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := refused.claimed.Reserved()
			after, _ := got.claimed.Reserved()
			if sum, err := after.Plus(gone); err != nil || sum != before {
				t.Errorf("%v were claimed, %v are, %v were dropped", before, after, gone)
			}
			e, raw := w.report(ledger.Place{}, lines)
			if _, _, err := verify(e, raw, ledger.Place{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func number(lines []*ledger.Line) {
	for i, l := range lines {
		l.Seq = int64(i + 1)
	}
}

// No line drops what was never counted, nor a line that does not stand before it.
func TestDropsAreBounded(t *testing.T) {
	w := history(t)
	first := w.lines[0]
	drop := func(of int64, back protocol.UsageTotals) *ledger.Line {
		return &ledger.Line{Seq: 20, Kind: ledger.KindDrop, From: first.From, To: first.To, RecordID: first.RecordID, Hash: first.Hash, Bytes: first.Bytes, Of: of, Back: &back}
	}
	nothing := protocol.UsageTotals{Written: "0", Pulled: "0", Stored: "0", ReservedPulled: "0", ReservedStored: "0"}
	if err := drop(1, nothing).Validate(); err != nil {
		t.Error(err)
	}
	bad := nothing
	bad.Stored = "-1"
	for name, l := range map[string]*ledger.Line{"of itself": drop(20, nothing), "of a line to come": drop(21, nothing), "of none": drop(0, nothing), "below 0": drop(1, bad),
		"without an amount": {Seq: 20, Kind: ledger.KindDrop, From: first.From, To: first.To, RecordID: "a", Bytes: 1, Of: 1}} {
		if l.Validate() == nil {
			t.Errorf("a drop %s is a line", name)
		}
	}
	for _, one := range []func(*protocol.UsageTotals) *protocol.Decimal{
		func(u *protocol.UsageTotals) *protocol.Decimal { return &u.Written }, func(u *protocol.UsageTotals) *protocol.Decimal { return &u.Pulled },
		func(u *protocol.UsageTotals) *protocol.Decimal { return &u.Stored }, func(u *protocol.UsageTotals) *protocol.Decimal { return &u.ReservedPulled },
		func(u *protocol.UsageTotals) *protocol.Decimal { return &u.ReservedStored }} {
		much := nothing
		*one(&much) = "340282366920938463463374607431768211455"
		totals := w.audit(w.lines).claimed
		if before := totals; totals.Apply(drop(1, much)) == nil || totals != before {
			t.Errorf("%+v was dropped of %+v", much, before)
		}
	}
}
