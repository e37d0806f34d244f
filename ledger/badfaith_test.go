package ledger_test

import (
	"bytes"
	"testing"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// padded audits what a relay makes of its lines, and compares it with the honest bill: whatever it adds is disputed
// for that reason, and nothing of it is accepted.
func padded(t *testing.T, reason ledger.Reason, cheat func(w *world) []*ledger.Line) audited {
	t.Helper()
	honest := history(t)
	want := honest.audit(honest.lines)
	w := history(t)
	lines := cheat(w)
	for i, l := range lines {
		l.Seq = int64(i + 1)
		if err := l.Validate(); err != nil {
			t.Fatalf("the padded bill cannot even be written: %v", err)
		}
	}
	got := w.audit(lines)
	if got.reasons[reason] == 0 {
		t.Errorf("no line is refused as %s: %v", reason, got.reasons)
	}
	// A relay's clock may be some minutes ahead of the deletion that it confirmed: that much of one record's storage.
	slack, err := tariff.Cost(ledger.Usage{Stored: ledger.Times(2350, protocol.FreshnessWindow.Milliseconds())})
	if err != nil {
		t.Fatal(err)
	}
	if reason != ledger.EndedLate {
		slack = 0
	}
	if got.bill.Accepted > want.bill.Accepted+slack {
		t.Errorf("accepted %d msat, honestly it is %d", got.bill.Accepted, want.bill.Accepted)
	}
	if sum := got.bill.Accepted + got.bill.Waiting + got.bill.Disputed; sum < got.bill.Claimed {
		t.Errorf("%+v: the parts do not add up", got.bill)
	}
	if got.bill.Claimed > want.bill.Claimed && got.bill.Disputed == 0 {
		t.Errorf("more is claimed and nothing disputed: %+v, honestly %+v", got.bill, want.bill)
	}
	return got
}

func find(w *world, kind ledger.Kind, n int) int {
	for i, l := range w.lines {
		if l.Kind == kind {
			if n == 0 {
				return i
			}
			n--
		}
	}
	w.t.Fatalf("no such %s", kind)
	return 0
}

func TestBadFaithWriteThatNeverWas(t *testing.T) {
	got := padded(t, ledger.Unknown, func(w *world) []*ledger.Line {
		fake := *w.lines[0]
		fake.Hash[0] ^= 1
		return append(w.lines, &fake)
	})
	if got.bill.Disputed == 0 {
		t.Error("nothing is disputed")
	}
}

// A pull that never was has no signature: not by the reader, or over another root, or to another relay.
func TestBadFaithPullThatNeverWas(t *testing.T) {
	for name, forge := range map[string]func(w *world, e *ledger.Evidence, r *written){
		"signed by the relay": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(relayKey, relayKey.Public(), &protocol.Got{PageID: "x", Root: r.hash}).Bytes()
		},
		"for another relay": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(r.reader, payerKey.Public(), &protocol.Got{PageID: "x", Root: r.hash}).Bytes()
		},
		"of other records": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(r.reader, relayKey.Public(), &protocol.Got{PageID: "x", Root: protocol.Hash{1}}).Bytes()
		},
		"by a forger": func(w *world, e *ledger.Evidence, r *written) {
			got := w.sign(r.reader, relayKey.Public(), &protocol.Got{PageID: "x", Root: r.hash}).Bytes()
			at := len(got) - 3
			got[at] = "01"[1-(got[at]&1)]
			e.Got = got
		},
		"a pull signed by the relay": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(relayKey, relayKey.Public(), riding(r.hash)).Bytes()
		},
		"a pull from another relay": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(r.reader, payerKey.Public(), riding(r.hash)).Bytes()
		},
		"a pull that acknowledges other records": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(r.reader, relayKey.Public(), riding(protocol.Hash{1})).Bytes()
		},
		"a pull that acknowledges nothing": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(r.reader, relayKey.Public(), &protocol.Pull{Query: protocol.Hash{1}}).Bytes()
		},
		"a pull with the page put into it": func(w *world, e *ledger.Evidence, r *written) {
			pull := w.sign(r.reader, relayKey.Public(), &protocol.Pull{Query: protocol.Hash{1}}).Bytes()
			got := w.sign(r.reader, relayKey.Public(), riding(r.hash)).Bytes()
			e.Got = bytes.Replace(got, got[len(got)-130:len(got)-2], pull[len(pull)-130:len(pull)-2], 1)
		},
		"the page out of a pull": func(w *world, e *ledger.Evidence, r *written) {
			got := w.sign(r.reader, relayKey.Public(), riding(r.hash)).Bytes()
			alone := w.sign(r.reader, relayKey.Public(), &protocol.Got{PageID: "x", Root: r.hash}).Bytes()
			e.Got = bytes.Replace(alone, alone[len(alone)-130:len(alone)-2], got[len(got)-130:len(got)-2], 1)
		},
		"another request": func(w *world, e *ledger.Evidence, r *written) {
			e.Got = w.sign(r.reader, relayKey.Public(), &protocol.Targeted{Type: protocol.TypeAccount, Target: "GET /account"}).Bytes()
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := padded(t, ledger.NoEvidence, func(w *world) []*ledger.Line {
				r := w.records[0]
				l := w.line(ledger.KindPull, r)
				l.Evidence = &ledger.Evidence{Index: 0, Records: 1}
				forge(w, l.Evidence, r)
				return moveBefore(w.lines, len(w.lines)-1, find(w, ledger.KindEnd, 0))
			})
			if got.bill.Disputed == 0 {
				t.Error("nothing is disputed")
			}
		})
	}
}

// riding is a pull that acknowledges a page with that one record.
func riding(hash protocol.Hash) *protocol.Pull {
	return &protocol.Pull{Got: &protocol.PageRoot{PageID: "x", Root: hash}, Query: protocol.Hash{1}}
}

func moveBefore(lines []*ledger.Line, from, to int) []*ledger.Line {
	l := lines[from]
	lines = append(lines[:from:from], lines[from+1:]...)
	return append(lines[:to:to], append([]*ledger.Line{l}, lines[to:]...)...)
}

// A pull billed twice has evidence that was used: the same place of the same page.
func TestBadFaithPullTwice(t *testing.T) {
	got := padded(t, ledger.Doubled, func(w *world) []*ledger.Line {
		twice := *w.lines[find(w, ledger.KindPull, 0)]
		return moveBefore(append(w.lines, &twice), len(w.lines), find(w, ledger.KindEnd, 0))
	})
	if got.bill.Disputed == 0 {
		t.Error("nothing is disputed")
	}
}

func TestBadFaithInflatedSize(t *testing.T) {
	padded(t, ledger.Altered, func(w *world) []*ledger.Line {
		for _, l := range w.lines {
			if l.Hash == w.records[2].hash {
				l.Bytes *= 10
			}
		}
		return w.lines
	})
	padded(t, ledger.Altered, func(w *world) []*ledger.Line { // of the pull alone
		w.lines[find(w, ledger.KindPull, 3)].Bytes = 901
		w.lines[find(w, ledger.KindWrite, 2)].MaxPulls = 2
		return w.lines
	})
}

func TestBadFaithInflatedTimes(t *testing.T) {
	padded(t, ledger.Misdated, func(w *world) []*ledger.Line { // stored before it was signed
		for _, l := range w.lines {
			if l.Hash == w.records[0].hash && l.Written != 0 {
				l.Written -= 3_600_000
			}
		}
		return w.lines
	})
	padded(t, ledger.Altered, func(w *world) []*ledger.Line { // for longer than was asked
		for _, l := range w.lines {
			if l.Hash == w.records[2].hash && l.Written != 0 {
				l.Expires *= 2
			}
		}
		return w.lines
	})
	got := padded(t, ledger.EndedLate, func(w *world) []*ledger.Line { // beyond its deletion
		end := w.lines[find(w, ledger.KindEnd, 0)]
		end.Ended = end.Expires
		return w.lines
	})
	if got.bill.Disputed == 0 {
		t.Error("the excess is not disputed")
	}
}

// Lines in another order, or without one, do not bill more: what hangs on the write is refused without it.
func TestBadFaithReorderedOrDropped(t *testing.T) {
	padded(t, ledger.NotWritten, func(w *world) []*ledger.Line {
		return moveBefore(w.lines, find(w, ledger.KindPull, 3), find(w, ledger.KindWrite, 2))
	})
	padded(t, ledger.NotWritten, func(w *world) []*ledger.Line { // an end without the write
		return append(w.lines[:1:1], w.lines[2:]...)
	})
	padded(t, ledger.Doubled, func(w *world) []*ledger.Line { // an end twice, to bill its storage again
		end := *w.lines[find(w, ledger.KindEnd, 0)]
		return append(w.lines, &end)
	})
}

// A record that allows one pull bills one, however often its reader signs.
func TestBadFaithReaderPullsAThousandTimes(t *testing.T) {
	w := newWorld(t)
	r := w.write(0, 1000, 3, 3_600_000)
	w.write(0, 1000, 2000, 3_600_000) // whose reservation the totals are taken from
	for range 1000 {
		w.pull(r)
	}
	got := w.audit(w.lines)
	if got.reasons[ledger.TooMany] != 997 || got.accepted.Pulled != ledger.Times(1000, 3) {
		t.Errorf("%v, %v bytes accepted", got.reasons, got.accepted.Pulled)
	}
}

// A reader who pulled cannot deny it: his signature is the evidence, with or without a receipt.
func TestBadFaithReaderDenies(t *testing.T) {
	w := history(t)
	got := w.audit(w.lines)
	if got.accepted.Pulled != ledger.Times(2*2350+1<<20+900, 1) {
		t.Errorf("%s bytes of pulls are accepted", got.accepted.Pulled)
	}
}

// A relay that rounds up for every line bills totals that its lines do not add up to; there is no place for the price
// of a line in the ledger at all. A thousand small records cost what one large one costs.
func TestBadFaithRoundedUpPerLine(t *testing.T) {
	small, large := newWorld(t), newWorld(t)
	for range 1000 {
		small.write(0, 1, 1, 1000)
	}
	large.write(0, 1000, 1, 1000)
	small.now, large.now = small.now+500, large.now+500
	a, b := small.audit(small.lines), large.audit(large.lines)
	if a.bill != b.bill || a.bill.Accepted < 25 || a.bill.Accepted > 26 {
		t.Errorf("%+v for 1000 records of a byte, %+v for one of 1000 bytes", a.bill, b.bill)
	}
}

// A sender who deletes just before the bill has used what he used: the write, the pulls that were signed before and
// after, and the storage until then.
func TestBadFaithDeletesJustBeforeTheBill(t *testing.T) {
	w := newWorld(t)
	r := w.write(0, 1<<20, 2, 86_400_000)
	w.now += 3_600_000
	r.served++ // under way
	w.end(r, true)
	r.served--
	w.pull(r)
	got := w.audit(w.lines)
	used, err := got.accepted.Used()
	if err != nil || len(got.reasons) != 0 {
		t.Fatal(err, got.reasons)
	}
	if want := (ledger.Usage{Stored: ledger.Times(1<<20, 3_600_000), Moved: ledger.Times(1<<20, 2)}); used != want {
		t.Errorf("%+v, want %+v", used, want)
	}
	if got.bill.Waiting != 0 {
		t.Errorf("%d msat wait for nothing", got.bill.Waiting)
	}
}
