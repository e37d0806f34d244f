package ledger_test

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

func TestDecide(t *testing.T) {
	auto := ledger.Policy{Mode: ledger.PayAuto, Limit: 1000, Cushion: 100}
	ask, never := auto, auto
	ask.Mode, never.Mode = ledger.PayAsk, ledger.PayNever
	daily := auto
	daily.Daily = 150
	at := func(paid btcutil.Amount, accepted protocol.Msat, due btcutil.Amount) ledger.Paying {
		return ledger.Paying{Opening: 500, Paid: paid, Most: 5000, Accepted: accepted, Due: due}
	}
	for _, c := range []struct {
		name   string
		policy ledger.Policy
		at     ledger.Paying
		want   ledger.Decision
	}{
		{"the first cushion", auto, at(500, 0, 0), ledger.Decision{Pay: 600}},
		{"enough is left", auto, at(600, 49_999, 0), ledger.Decision{Pay: 650}},
		{"more than half is left", auto, at(600, 48_999, 0), ledger.Decision{}},
		{"the relay asks", auto, at(600, 10_000, 605), ledger.Decision{Pay: 610}},
		{"it asks for more than was accepted", auto, at(600, 10_000, 900), ledger.Decision{Pay: 610, Short: 290}},
		{"rounded up once", auto, at(500, 1, 0), ledger.Decision{Pay: 601}},
		{"beyond the limit", auto, at(1400, 1_000_000, 0), ledger.Decision{Pay: 1500, Ask: 1600}},
		{"at the limit", auto, at(1500, 1_000_000, 0), ledger.Decision{Ask: 1600}},
		{"all that the contract has", auto, at(500, 9_000_000, 0), ledger.Decision{Pay: 1500, Ask: 5000}},
		{"paid before", auto, at(700, 10_000, 0), ledger.Decision{}},
		{"what is left of the day", daily, ledger.Paying{Opening: 500, Paid: 900, Today: 130, Most: 5000, Accepted: 600_000}, ledger.Decision{Pay: 920, Ask: 1200}},
		{"nothing is left of the day", daily, ledger.Paying{Opening: 500, Paid: 900, Today: 200, Most: 5000, Accepted: 600_000}, ledger.Decision{Ask: 1200}},
		{"the day allows more than the limit", daily, ledger.Paying{Opening: 500, Paid: 1450, Most: 5000, Accepted: 1_000_000}, ledger.Decision{Pay: 1500, Ask: 1600}},
		{"ask", ask, at(500, 200_000, 0), ledger.Decision{Ask: 800}},
		{"never", never, at(500, 200_000, 700), ledger.Decision{Short: 200}},
	} {
		if got := c.policy.Decide(c.at); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Whatever happened, nothing is paid beyond what was accepted and the cushion, the limit, and what there is; and A never falls.
func TestDecideIsBounded(t *testing.T) {
	amount := rapid.Map(rapid.Int64Range(0, 1_000_000), func(n int64) btcutil.Amount { return btcutil.Amount(n) })
	rapid.Check(t, func(t *rapid.T) {
		p := ledger.Policy{Mode: rapid.SampledFrom([]ledger.Mode{ledger.PayAuto, ledger.PayAsk, ledger.PayNever}).Draw(t, "mode"),
			Limit: amount.Draw(t, "limit"), Daily: amount.Draw(t, "daily"), Cushion: amount.Draw(t, "cushion")}
		s := ledger.Paying{Opening: amount.Draw(t, "opening"), Paid: amount.Draw(t, "paid"), Today: amount.Draw(t, "today"), Most: amount.Draw(t, "most"),
			Accepted: protocol.Msat(rapid.Int64Range(0, 1_000_000_000).Draw(t, "accepted")), Due: amount.Draw(t, "due")}
		d := p.Decide(s)
		most := min(s.Opening+ledger.Sat(s.Accepted)+p.Cushion, s.Most)
		if d.Pay > most || d.Ask > most || d.Pay > s.Opening+p.Limit || p.Daily > 0 && d.Pay > s.Paid && s.Today+d.Pay-s.Paid > max(p.Daily, s.Today) || d.Pay != 0 && (d.Pay <= s.Paid || p.Mode != ledger.PayAuto) ||
			d.Ask != 0 && (d.Ask <= max(s.Paid, d.Pay) || p.Mode == ledger.PayNever) {
			t.Fatalf("%+v of %+v: %+v", p, s, d)
		}
		if got := max(d.Pay, d.Ask, s.Paid) + d.Short; got < s.Due {
			t.Fatalf("%d satoshi are due, %+v tells of %d", s.Due, d, got)
		}
	})
	for _, p := range []ledger.Policy{{}, {Mode: "yes"}, {Mode: ledger.PayAuto, Limit: -1}, {Mode: ledger.PayAsk, Cushion: btcutil.MaxSatoshi + 1}} {
		if p.Validate() == nil {
			t.Errorf("%+v is valid", p)
		}
	}
}
