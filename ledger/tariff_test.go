package ledger_test

import (
	"errors"
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

// The figures that an operator has in mind when he sets a price.
func TestCost(t *testing.T) {
	prices := ledger.Prices{Storage: 40_000, Bandwidth: 25_000}
	day := int64(ledger.Day)
	for _, c := range []struct {
		name         string
		bytes, pulls int64
		life         int64 // ms
		want         protocol.Msat
	}{
		{"a GB for a day, written only", 1e9, 0, day, 40_000 + 25_000},
		{"half a GB for two days, pulled once", 5e8, 1, 2 * day, 40_000 + 25_000},
		{"nothing stored", 1e9, 0, 0, 25_000},
		{"one byte for a millisecond", 1, 0, 1, 1},
		{"a record of 2,350 bytes for 30 days, eight pulls", 2350, 8, 30 * day, 4}, // 2.82 + 0.52875
	} {
		got, err := prices.Cost(ledger.Reserved(c.bytes, c.pulls, at(0), at(c.life)))
		if err != nil || got != c.want {
			t.Errorf("%s: %d msat, %v; want %d", c.name, got, err, c.want)
		}
	}
}

func prices() *rapid.Generator[ledger.Prices] {
	return rapid.Custom(func(t *rapid.T) ledger.Prices {
		price := rapid.OneOf(rapid.Int64Range(0, 1_000_000), rapid.Int64Range(0, int64(ledger.MaxPrice)))
		return ledger.Prices{Storage: protocol.Msat(price.Draw(t, "storage")), Bandwidth: protocol.Msat(price.Draw(t, "bandwidth"))}
	})
}

type lease struct{ bytes, pulls, written, expires, ended, left int64 }

func leases() *rapid.Generator[lease] {
	return rapid.Custom(func(t *rapid.T) lease {
		l := lease{bytes: rapid.Int64Range(1, 8<<20).Draw(t, "bytes"), pulls: rapid.Int64Range(1, 1_000_000).Draw(t, "pulls"),
			written: rapid.Int64Range(0, 1<<45).Draw(t, "written")}
		l.expires = l.written + rapid.Int64Range(0, 100*366*ledger.Day).Draw(t, "life")
		l.ended = rapid.Int64Range(l.written-1000, l.expires).Draw(t, "ended")
		l.left = rapid.Int64Range(0, l.pulls).Draw(t, "left")
		return l
	})
}

func (l lease) reserved() ledger.Usage {
	return ledger.Reserved(l.bytes, l.pulls, at(l.written), at(l.expires))
}

func (l lease) unused() ledger.Usage {
	return ledger.Unused(l.bytes, l.left, at(l.written), at(l.ended), at(l.expires))
}

// The cost of a total is the exact quotient rounded up, by less than one msat, whatever the sizes.
func TestCostIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, total := prices().Draw(t, "prices"), ledger.Usage{}
		exact := new(big.Rat)
		for _, l := range rapid.SliceOfN(leases(), 0, 20).Draw(t, "leases") {
			var err error
			if total, err = total.Plus(l.reserved()); err != nil {
				t.Fatal(err)
			}
			exact.Add(exact, product(l.bytes, l.expires-l.written, int64(p.Storage), ledger.GB*ledger.Day))
			exact.Add(exact, product(l.bytes, 1+l.pulls, int64(p.Bandwidth), ledger.GB))
		}
		got, err := p.Cost(total)
		if exact.Cmp(rat(int64(ledger.MaxMsat), 1)) > 0 {
			if !errors.Is(err, ledger.ErrOverflow) {
				t.Fatalf("a cost of %s msat: %d, %v", exact.FloatString(0), got, err)
			}
			return
		}
		over := new(big.Rat).Sub(rat(int64(got), 1), exact)
		if err != nil || over.Sign() < 0 || over.Cmp(rat(1, 1)) >= 0 {
			t.Fatalf("%d msat for %s: %v", got, exact.FloatString(6), err)
		}
	})
}

func rat(a, b int64) *big.Rat { return big.NewRat(a, b) }

func product(a, b, c, divisor int64) *big.Rat {
	n := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
	return new(big.Rat).SetFrac(n.Mul(n, big.NewInt(c)), big.NewInt(divisor))
}

// What comes back is never more than was taken, and what is left does not depend on the order of events.
func TestUnusedIsWithinReserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(leases(), 1, 20).Draw(t, "leases")
		var together, one ledger.Usage
		for _, l := range list {
			left, ok := l.reserved().Minus(l.unused())
			if !ok {
				t.Fatalf("of %+v more comes back than it took", l)
			}
			one, _ = one.Plus(left)
			together, _ = together.Plus(l.reserved())
		}
		for _, l := range list {
			var ok bool
			if together, ok = together.Minus(l.unused()); !ok {
				t.Fatal("the total went below 0")
			}
		}
		if together != one {
			t.Fatalf("%v and %v", together, one)
		}
	})
}

// A quantity is arithmetic on integers below 2^128, and its text is theirs.
func TestQuantity(t *testing.T) {
	most := new(big.Int).Lsh(big.NewInt(1), 128)
	draw := func(t *rapid.T, name string) (ledger.Quantity, *big.Int) {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, name))
		var q ledger.Quantity
		if err := q.UnmarshalText([]byte(n.String())); err != nil || q.String() != n.String() {
			t.Fatalf("%s became %s: %v", n, q, err)
		}
		return q, n
	}
	rapid.Check(t, func(t *rapid.T) {
		q, a := draw(t, "q")
		r, b := draw(t, "r")
		if sum, ok := q.Plus(r); ok != (new(big.Int).Add(a, b).Cmp(most) < 0) || ok && sum.String() != new(big.Int).Add(a, b).String() {
			t.Fatalf("%s + %s = %s, %v", q, r, sum, ok)
		}
		if d, ok := q.Minus(r); ok != (a.Cmp(b) >= 0) || ok && d.String() != new(big.Int).Sub(a, b).String() {
			t.Fatalf("%s − %s = %s, %v", q, r, d, ok)
		}
		if n, ok := q.Int64(); ok != a.IsInt64() || ok && n != a.Int64() {
			t.Fatalf("%s as int64: %d, %v", q, n, ok)
		}
	})
	for _, text := range []string{"", "-1", "+1", "01", "1.0", "1e3", "0x10", " 1", most.String()} {
		var q ledger.Quantity
		if err := q.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %s", text, q)
		}
	}
}

// Satoshi are rounded up once, and nothing that is not money becomes it.
func TestSatoshi(t *testing.T) {
	for msat, want := range map[protocol.Msat]int64{0: 0, 1: 1, 999: 1, 1000: 1, 1001: 2, -1: 0, -1000: -1, -1001: -1} {
		if got := ledger.Sat(msat); int64(got) != want {
			t.Errorf("%d msat are %d sat, want %d", msat, got, want)
		}
	}
	if _, err := ledger.MsatOf(math.MaxInt64); err == nil {
		t.Error("more satoshi than there are were taken")
	}
	if m, err := ledger.MsatOf(21e14); err != nil || m != 21e17 {
		t.Errorf("%d, %v", m, err)
	}
	for _, p := range []ledger.Prices{{Storage: -1}, {Bandwidth: -1}, {Storage: ledger.MaxPrice + 1}} {
		if p.Validate() == nil {
			t.Errorf("%+v is valid", p)
		}
	}
}
