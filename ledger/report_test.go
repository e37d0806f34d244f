package ledger_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// What a relay reports of any history is verified line by line, reports of its parts add up to the whole, and the bill
// that the payer makes of it is that of a model that never saw a line, to the millisatoshi. Some thousand histories.
func TestBillOfRandomHistories(t *testing.T) {
	for range 10 {
		rapid.Check(t, billOfAHistory)
	}
}

func billOfAHistory(t *rapid.T) {
	w := newWorld(t)
	w.live(t, 60)
	var place ledger.Place
	var lines []*ledger.Line
	for rest := w.lines; len(rest) > 0; {
		k := rapid.IntRange(1, len(rest)).Draw(t, "part")
		e, raw := w.report(place, rest[:k])
		read, next, err := verify(e, raw, place)
		if err != nil {
			t.Fatal(err)
		}
		lines, place, rest = append(lines, read...), next, rest[k:]
	}
	got := w.audit(lines)
	if len(got.reasons) != 0 || got.bill.Disputed != 0 {
		t.Fatalf("an honest bill is disputed: %v, %+v", got.reasons, got.bill)
	}
	if got.claimed != place.Totals || got.accepted != place.Totals {
		t.Fatalf("reported %+v\nadded up %+v\naccepted %+v", place.Totals, got.claimed, got.accepted)
	}
	accepted, waiting := w.slow()
	if got.bill.Accepted != accepted || got.bill.Waiting != waiting || got.bill.Claimed != accepted+waiting {
		t.Fatalf("%+v; the model says %d accepted, %d waiting", got.bill, accepted, waiting)
	}
}

// history is a fixed one, with lines of all kinds.
func history(t fataler) *world {
	w := newWorld(t)
	a, b := w.write(0, 2350, 8, 3_600_000), w.write(0, 1<<20, 2, 7_200_000)
	c := w.write(1, 900, 1, 7_200_000)
	w.write(1, 1<<20, 1000, 40*86_400_000) // stays: a false line has reservations to take from
	w.now += 1000
	w.pull(a, b)
	w.pull(a)
	w.pull(c)
	b.served++
	w.now += 1_000_000
	w.end(a, true)
	w.now += 7_000_000
	w.end(b, false)
	w.lapse(b)
	return w
}

// One line is checked against its report without the others.
func TestOneLineAlone(t *testing.T) {
	w := history(t)
	e, raw := w.report(ledger.Place{}, w.lines)
	v, err := ledger.NewVerifier(e, who, ledger.Place{})
	if err != nil {
		t.Fatal(err)
	}
	leaves := make([]protocol.Hash, len(raw))
	for i := range raw {
		leaves[i] = protocol.LineHash(raw[i])
	}
	for i := range raw {
		if l, err := v.CheckLine(raw[i], protocol.MerklePath(leaves, int64(i))); err != nil || l.Seq != int64(i+1) {
			t.Errorf("line %d: %v", i+1, err)
		}
		other := (i + 1) % len(raw)
		if _, err := v.CheckLine(raw[i], protocol.MerklePath(leaves, int64(other))); !errors.Is(err, ledger.ErrReport) {
			t.Errorf("line %d by the path of another: %v", i+1, err)
		}
	}
}

// tamper alters a report or its lines in one way, drawn at random. It is false when nothing changed.
func tamper(t *rapid.T, e *protocol.Envelope, raw [][]byte) (*protocol.Envelope, [][]byte, bool) {
	lines := make([][]byte, len(raw))
	for i := range raw {
		lines[i] = bytes.Clone(raw[i])
	}
	i, k := rapid.IntRange(0, len(lines)-1).Draw(t, "i"), rapid.IntRange(0, len(lines)-1).Draw(t, "k")
	switch rapid.SampledFrom([]string{"flip", "swap", "drop", "repeat", "flip report", "forge report", "edit"}).Draw(t, "how") {
	case "flip":
		at := rapid.IntRange(0, len(lines[i])-1).Draw(t, "at")
		lines[i][at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
	case "swap":
		lines[i], lines[k] = lines[k], lines[i]
		return e, lines, i != k
	case "drop":
		lines = append(lines[:i], lines[i+1:]...)
	case "repeat":
		lines = append(lines[:i+1], lines[i:]...)
	case "edit":
		l, err := ledger.ParseLine(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		l.Bytes++
		if lines[i], err = l.Encode(); err != nil {
			t.Fatal(err)
		}
	case "flip report":
		data := bytes.Clone(e.Bytes())
		data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		forged, err := protocol.ParseEnvelope(data)
		return forged, lines, err == nil
	case "forge report": // the relay's own signature, under other words
		var r protocol.UsageReport
		if err := e.Decode(&r); err != nil {
			t.Fatal(err)
		}
		switch rapid.IntRange(0, 4).Draw(t, "word") {
		case 0:
			r.Totals.Pulled += "0"
		case 1:
			r.Totals.ReservedStored = "0"
		case 2:
			r.Root[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
		case 3:
			r.Last++
		case 4:
			r.Contract[0]++
		}
		forged, err := protocol.SignWith(relayKey, who.Payer, e.Timestamp, &r, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		return forged, lines, true
	}
	return e, lines, true
}

// Ten thousand tampered reports, none accepted.
func TestTamperedReports(t *testing.T) {
	w := history(t)
	back := ledger.Totals{Pulled: ledger.Times(900, 1)}.Wire()
	drop := w.line(ledger.KindDrop, w.records[2])
	drop.Of, drop.Back = int64(find(w, ledger.KindPull, 3)+1), &back
	e, raw := w.report(ledger.Place{}, w.lines)
	if _, _, err := verify(e, raw, ledger.Place{}); err != nil {
		t.Fatal(err)
	}
	tampered := 0
	for tampered < 10_000 {
		rapid.Check(t, func(t *rapid.T) {
			forged, lines, changed := tamper(t, e, raw)
			if !changed {
				return
			}
			tampered++
			if _, _, err := verify(forged, lines, ledger.Place{}); err == nil {
				t.Fatal("a tampered report is accepted")
			}
		})
		if t.Failed() {
			return
		}
	}
}

func TestChain(t *testing.T) {
	w := history(t)
	first, rawFirst := w.report(ledger.Place{}, w.lines[:4])
	_, place, err := verify(first, rawFirst, ledger.Place{})
	if err != nil {
		t.Fatal(err)
	}
	second, rawSecond := w.report(place, w.lines[4:])
	if _, _, err := verify(second, rawSecond, place); err != nil {
		t.Fatal(err)
	}
	elsewhere := place
	elsewhere.Report[0] ^= 1
	for name, before := range map[string]ledger.Place{"left out": {}, "another before": elsewhere} {
		if _, _, err := verify(second, rawSecond, before); !errors.Is(err, ledger.ErrChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := verify(first, rawFirst, place); !errors.Is(err, ledger.ErrChain) {
		t.Errorf("the same report again: %v", err)
	}
	elsewhere = place
	elsewhere.Totals.Pulled = ledger.Times(5, 1)
	if _, _, err := verify(second, rawSecond, elsewhere); !errors.Is(err, ledger.ErrReport) {
		t.Errorf("totals that do not go on from those before: %v", err)
	}
}

// Bad faith: two reports for one period prove it, to anybody; one statement signed twice does not.
func TestBadFaithTwoReports(t *testing.T) {
	w := history(t)
	one, raw := w.report(ledger.Place{}, w.lines[:4])
	_, place, err := verify(one, raw, ledger.Place{})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := w.report(ledger.Place{}, w.lines[:5])
	w.now += 5000
	again, _ := w.report(ledger.Place{}, w.lines[:4])
	next, _ := w.report(place, w.lines[4:])
	if !ledger.Lie(one, other) || !ledger.Lie(other, one) {
		t.Error("two reports with one predecessor are no proof")
	}
	if ledger.Lie(one, again) || ledger.Lie(one, one) || ledger.Lie(one, next) {
		t.Error("an honest relay is proven a liar")
	}
	forged, err := protocol.ParseEnvelope([]byte(strings.Replace(string(other.Bytes()), `"written":"`, `"written":"1`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if ledger.Lie(one, forged) {
		t.Error("a forged report proves a lie")
	}
}

func FuzzParseLine(f *testing.F) {
	w := history(f)
	_, raw := w.report(ledger.Place{}, w.lines)
	for _, data := range raw {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ledger.ParseLine(data)
		if err != nil {
			if !errors.Is(err, ledger.ErrLine) {
				t.Fatalf("a refusal without a name: %v", err)
			}
			return
		}
		again, err := l.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		same, err := ledger.ParseLine(again)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := same.Encode(); err != nil || !bytes.Equal(twice, again) {
			t.Fatalf("%s\n%s", again, twice)
		}
		_, _ = ledger.NewWitness(who.Relay).Check(l)
		_ = new(ledger.Totals).Apply(l)
	})
}
