package escrow

import (
	"flag"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"pgregory.net/rapid"

	"relaymarket/protocol"
)

// prepared is a signed funding that every story starts from, and what need not be signed or judged
// again in each.
type prepared struct {
	deal   *deal
	tx     *Tx
	first  Payment
	refund *Tx
	valid  map[chainhash.Hash]bool
}

// story is one random history of a contract, played to its end; it returns what broke.
func story(t *rapid.T, p prepared, r rules) []string {
	w := newWorld(p, r)
	switch rapid.SampledFrom([]string{"false user", "false relay", "both honest"}).Draw(t, "sides") {
	case "false user":
		w.userHonest = false
	case "false relay":
		w.relayHonest = false
	}
	w.cushion = btcutil.Amount(rapid.IntRange(0, 1_000).Draw(t, "cushion"))
	reorgs := 0
	actions := map[string]func(){
		"serve": func() { w.serve(rapid.SampledFrom([]int64{2_000_000, 1, 999_999, 300_001, 5_000_000}).Draw(t, "msat")) },
		"pay": func() {
			crashes := []string{"", "before it is durable", "", "after it is durable", "before it arrives"}
			amount := w.owed() + rapid.SampledFrom([]btcutil.Amount{9_000, -3_000, 0, -9_000, 2_500, -1, 1, 90_000}).Draw(t, "more or less")
			if rapid.IntRange(0, 4).Draw(t, "anything") == 4 {
				amount = btcutil.Amount(rapid.IntRange(0, 101_000).Draw(t, "amount"))
			}
			w.pay(amount, rapid.SampledFrom(crashes).Draw(t, "crash"))
		},
		"mine": func() {
			delay := uint32(rapid.SampledFrom([]int{0, 0, 1, 20, maxDelay}).Draw(t, "delay"))
			first := rapid.SampledFrom([]Side{User, Relay}).Draw(t, "first")
			for range rapid.SampledFrom([]int{6, 1, 3, 1, 50, 200}).Draw(t, "blocks") {
				w.step(delay, first)
			}
		},
		"reorg": func() {
			if reorgs++; reorgs <= maxReorgs && w.state != Archived {
				w.reorganize(rapid.IntRange(1, int(FullCredit)-1).Draw(t, "depth"))
			}
		},
		"restart":         func() { w.restart() },
		"double spend":    func() { w.doubleSpend() },
		"request payment": func() { w.requestPayment() },
		"request refund":  func() { w.requestRefund(btcutil.Amount(rapid.IntRange(0, 99_000).Draw(t, "refund"))) },
		"use a released closing": func() {
			if len(w.released) > 0 && !w.userHonest {
				w.broadcast(User, "released", w.released[0])
			}
		},
		"refund now": func() { w.refund() },
		"settle now": func() {
			if !w.offline && w.escrowOpen() {
				w.event(SettlementStarted)
				w.settle(testFeerate)
			}
		},
		"relay gone": func() { w.offline = w.offline || rapid.IntRange(0, 9).Draw(t, "really") == 0 },
	}
	// What is drawn more often stands first.
	names := []string{"serve", "pay", "mine", "serve", "pay", "mine", "request payment", "use a released closing", "reorg",
		"restart", "double spend", "request refund", "refund now", "settle now", "relay gone"}
	for range rapid.IntRange(5, 60).Draw(t, "length") {
		actions[rapid.SampledFrom(names).Draw(t, "action")]()
		if len(w.faults) > 0 {
			return w.faults
		}
	}
	w.end(uint32(rapid.IntRange(0, maxDelay).Draw(t, "last delay")), rapid.SampledFrom([]Side{User, Relay}).Draw(t, "last first"))
	return w.faults
}

// end plays the contract out: both sides do what their rules say, the false side what serves it.
func (w *world) end(delay uint32, first Side) {
	if !w.userHonest {
		w.pay(w.contract.OpeningPrice, "") // what if the relay took that?
	}
	for w.tip < w.contract.Expiry+2*maxDelay+uint32(ArchiveDepth) && len(w.faults) == 0 {
		if !w.userHonest && w.tip+1 >= w.contract.Expiry && w.tip%25 == 0 {
			w.refund()
		}
		if w.relayHonest && !w.offline && !w.userHonest && len(w.released) > 0 && w.tip%100 == 0 {
			w.broadcast(User, "released", w.released[0])
		}
		if !w.relayHonest && !w.offline && w.escrowOpen() && w.tip%100 == 0 {
			w.settle(testFeerate)
		}
		w.step(delay, first)
	}
	w.judge()
}

// judge holds the end of a story to the bounds.
func (w *world) judge() {
	user, relay := w.scripts(User), w.scripts(Relay)
	var before [2]btcutil.Amount
	for _, c := range w.funding.User.Coins {
		before[0] += c.Value
	}
	for _, c := range w.funding.Relay.Coins {
		before[1] += c.Value
	}
	after := [2]btcutil.Amount{w.wealth(user...), w.wealth(relay...)}
	var escrow btcutil.Amount
	if w.escrowOpen() {
		escrow = w.contract.Value()
	}
	if sum := after[0] + after[1] + escrow + w.fees(); sum != before[0]+before[1] {
		w.fault("%d satoshi went in, %d came out with the fees", before[0]+before[1], sum)
	}
	if escrow > 0 && w.userHonest {
		w.fault("the escrow is locked %d blocks after T", w.tip-w.contract.Expiry)
	}
	fees := w.feesOf()
	if w.userHonest {
		bound, err := UserLoss(w.contract, w.cushion, fees.User)
		w.must("bound", err)
		if lost := before[0] - after[0] - btcutil.Amount(w.served/1000); lost > bound {
			w.fault("the user loses %d, the bound is %d", lost, bound)
		}
	}
	if w.relayHonest {
		bound, err := RelayLoss(w.contract, fees.Relay)
		if w.offline {
			bound, err = RelayLossUnsettled(w.contract, w.durable.Amount, fees.Relay)
		}
		w.must("bound", err)
		if lost := w.owed() - w.contract.OpeningPrice - (after[1] - before[1]); lost > bound {
			w.fault("the relay loses %d, the bound is %d", lost, bound)
		}
	}
}

// feesOf splits the fees of the chain by who paid them, dust that was left out included.
func (w *world) feesOf() (fees Costs) {
	if funding, _ := w.find(w.at.Hash); funding != nil {
		fees.User += w.funding.User.Coins[0].Value - amountOf(w.funding.User.Change) - w.contract.Deposit
		fees.Relay += w.funding.Relay.Coins[0].Value - amountOf(w.funding.Relay.Change) - w.contract.Bond
	} else if w.double != nil {
		fees.User += w.double.Fee()
	}
	end, _ := w.spender(w.at)
	if end == nil {
		return fees
	}
	s, _ := Identify(w.contract, w.at, end.MsgTx)
	switch s.Kind {
	case protocol.TxSettlement:
		fees.Relay += end.Fee()
	case protocol.TxRefund:
		fees.User += end.Fee()
	default:
		if w.closing != nil && w.closing.Asked == Relay {
			fees.Relay += end.Fee()
		} else {
			fees.User += end.Fee()
		}
	}
	return fees
}

func prepareStory(t testing.TB) prepared {
	t.Helper()
	d := plain(t)
	refund, err := Refund(d.contract, d.outpoint(t), d.contract.UserScript, testFeerate, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	return prepared{d, d.fund(t), d.payment(t, 0, d.contract.OpeningPrice), refund, map[chainhash.Hash]bool{}}
}

// TestBounds plays random histories with both sides honest or either false, with crashes, double
// spends, delays and reorganizations: nobody honest loses more than the bounds say, no satoshi is
// made or lost, and nothing is locked for good. A thousand of them, unless -rapid.checks says more.
func TestBounds(t *testing.T) {
	p := prepareStory(t)
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("1000"); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }()
	}
	rapid.Check(t, func(t *rapid.T) {
		if faults := story(t, p, goodRules); len(faults) > 0 {
			t.Fatal(strings.Join(faults, "\n"))
		}
	})
}

// TestBrokenRulesAreCaught is the control: with one rule broken the same histories find a loss.
func TestBrokenRulesAreCaught(t *testing.T) {
	p := prepareStory(t)
	for name, broken := range map[string]struct {
		change func(*rules)
		loser  string
	}{
		"settlement margin zero":               {func(r *rules) { r.margin = 0 }, "the relay loses"},
		"credit before the payment is durable": {func(r *rules) { r.creditBeforeDisk = true }, "the relay loses"},
		"credit before the funding is deep":    {func(r *rules) { r.creditUnconfirmed = true }, "the relay loses"},
		"serving after a closing is released":  {func(r *rules) { r.serveAfterClosing = true }, "the relay loses"},
		"taking payments that fall":            {func(r *rules) { r.takesFalling = true }, "the relay loses"},
		"serving without a limit":              {func(r *rules) { r.serveWithoutLimit = true }, "the relay loses"},
	} {
		t.Run(name, func(t *testing.T) {
			r := goodRules
			broken.change(&r)
			play := rapid.Custom(func(t *rapid.T) []string { return story(t, p, r) })
			const most = 2_000
			for seed := range most {
				if faults := play.Example(seed); len(faults) > 0 {
					if !strings.HasPrefix(faults[0], broken.loser) {
						t.Fatalf("it is found for another reason: %v", faults)
					}
					t.Logf("history %d: %s", seed, faults[0])
					return
				}
			}
			t.Errorf("%d histories do not find it", most)
		})
	}
}
