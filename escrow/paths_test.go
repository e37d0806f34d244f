package escrow

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

func TestFundingIsSignedByBoth(t *testing.T) {
	for name, change := range map[string]func(*deal){
		"P2WPKH": func(*deal) {},
		"P2TR": func(d *deal) {
			d.funding.User.Coins[0].PkScript, d.funding.Relay.Coins[0].PkScript = p2tr(d.userCoin), p2tr(d.relayCoin)
		},
		"mixed":           func(d *deal) { d.funding.Relay.Coins[0].PkScript = p2tr(d.relayCoin) },
		"no bond":         func(d *deal) { d.contract.Bond, d.funding.Relay.Coins = 0, nil },
		"no user change":  func(d *deal) { d.funding.User.Coins[0].Value = 100_600 },
		"no relay change": func(d *deal) { d.funding.Relay.Coins[0].Value = 10_300 },
		"three coins": func(d *deal) {
			d.funding.User.Coins = append(d.funding.User.Coins, coin("b", p2wpkh(d.userCoin), 5_000), coin("c", p2tr(d.userCoin), 7_000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeal(t, "plain", change)
			tx := d.fund(t)
			checkTx(t, "funding", tx, testFeerate)
			if at := d.outpoint(t); at.Hash != tx.TxHash() {
				t.Error("signing changed the txid")
			}
			if err := CheckFundingTx(d.contract, d.outpoint(t), tx.MsgTx); err != nil {
				t.Error(err)
			}
			if over := tx.Fee() - testFeerate.Fee(weightOf(tx.MsgTx)); over > 2*d.funding.slack() {
				t.Errorf("the fee is %d satoshi above the feerate", over)
			}
		})
	}
}

func TestRelayWithoutACoinFundsNothing(t *testing.T) {
	d := newDeal(t, "plain", func(*deal) {})
	d.funding.Relay = Part{}
	wantCode(t, d.funding.Validate(), protocol.CodeWrongAmount)
	missing, err := d.funding.Missing(Relay)
	if err != nil || missing != d.contract.Bond {
		t.Errorf("%d satoshi are missing, %v", missing, err)
	}
}

// A user who names an absurd feerate must not burn the relay's coins with it.
func TestRelayShareIsBounded(t *testing.T) {
	for rate, code := range map[Feerate]protocol.Code{testFeerate: "", 20_000: "", 21_000: protocol.CodeFeerate, MaxFeerate: protocol.CodeFeerate} {
		d := newDeal(t, "plain", func(d *deal) {
			d.funding.Feerate = rate
			d.funding.User.Coins[0].Value, d.funding.Relay.Coins[0].Value = 1_000_000, 1_000_000
		})
		wantCode(t, d.funding.Validate(), "")
		wantCode(t, d.funding.CheckRelayShare(), code)
	}
	d := newDeal(t, "plain", func(d *deal) {
		d.contract.Bond, d.contract.OpeningPrice, d.funding.Relay = 0, 0, Part{}
		d.funding.Feerate, d.funding.User.Coins[0].Value = MaxFeerate, 1_000_000
	})
	wantCode(t, d.funding.CheckRelayShare(), "") // nothing of its own is in it
}

func TestSettlement(t *testing.T) {
	d := plain(t)
	for _, amount := range []btcutil.Amount{2_000, 50_000, 99_000} {
		u := Unsettled{d.contract, d.outpoint(t), d.payment(t, 1, amount)}
		tx, err := Settle([]Unsettled{u}, nil, d.contract.RelayScript, testFeerate)
		if err != nil {
			t.Fatal(err)
		}
		if err := SignSettlement(tx, 0, u, d.relayKey); err != nil {
			t.Fatal(err)
		}
		checkTx(t, "settlement", tx, testFeerate)
		if got := btcutil.Amount(tx.TxOut[0].Value); got != d.contract.Deposit-amount {
			t.Errorf("the user gets %d", got)
		}
		if got := btcutil.Amount(tx.TxOut[1].Value) + tx.Fee(); got != amount+d.contract.Bond {
			t.Errorf("the relay gets %d with the fee", got)
		}
		s, ok := Identify(d.contract, d.outpoint(t), tx.MsgTx)
		if !ok || s.Kind != protocol.TxSettlement || s.Amount != amount || s.Left != d.contract.Deposit-amount {
			t.Errorf("it is taken for %+v", s)
		}
		sweep, err := Sweep(d.contract, *s.State, s.Left, d.contract.UserScript, MinFeerate, d.userKey)
		if err != nil {
			t.Fatal(err)
		}
		checkTx(t, "sweep", sweep, MinFeerate)
		sweep.TxIn[0].Sequence = 0
		wantCode(t, sweep.Verify(), protocol.CodeContractSignature) // unconfirmed
	}
}

// A settlement of several contracts, with coins of the relay for the fee.
func TestSettlementOfMany(t *testing.T) {
	var all []Unsettled
	var keys []*deal
	for _, name := range []string{"a", "b", "c"} {
		d := newDeal(t, name, func(d *deal) { d.contract.Bond, d.funding.Relay.Coins = 0, nil })
		all = append(all, Unsettled{d.contract, d.outpoint(t), d.payment(t, 0, 2_000)})
		keys = append(keys, d)
	}
	wallet := testKey("wallet")
	_, err := Settle(all, nil, p2tr(wallet), 200_000)
	wantCode(t, err, protocol.CodeWrongAmount)
	extra := []Coin{coin("fee", p2tr(wallet), 300_000)}
	tx, err := Settle(all, extra, p2tr(wallet), 200_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if err := SignSettlement(tx, i, all[i], keys[i].relayKey); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, tx.Verify(), protocol.CodeContractSignature) // the wallet's coin is not signed
	tx.TxIn[3].Witness = walletWitness(t, tx, 3, sighashAll, wallet)
	checkTx(t, "settlement", tx, 200_000)
	if len(tx.TxOut) != 4 {
		t.Errorf("it has %d outputs", len(tx.TxOut))
	}
	wantCode(t, SignSettlement(tx, 1, all[0], keys[0].relayKey), protocol.CodeWrongInput)
	wantCode(t, SignSettlement(tx, 0, all[0], keys[1].relayKey), protocol.CodeContractSignature)
	_, err = Settle(nil, nil, p2tr(wallet), 1000)
	wantCode(t, err, protocol.CodeInvalidValue)
}

// What the user signed for a state, the relay can only use with the state's output beside it and
// without a locktime: never for a refund to itself.
func TestStateSignatureIsGoodForNothingElse(t *testing.T) {
	d := plain(t)
	u := Unsettled{d.contract, d.outpoint(t), d.payment(t, 1, 5_000)}
	for name, change := range map[string]func(*wire.MsgTx){
		"user's output smaller": func(tx *wire.MsgTx) { tx.TxOut[0].Value-- },
		"user's output moved":   func(tx *wire.MsgTx) { tx.TxOut[0], tx.TxOut[1] = tx.TxOut[1], tx.TxOut[0] },
		"another script":        func(tx *wire.MsgTx) { tx.TxOut[0].PkScript = d.contract.RelayScript },
		"locktime":              func(tx *wire.MsgTx) { tx.LockTime = d.contract.Expiry },
		"version":               func(tx *wire.MsgTx) { tx.Version = 1 },
		"sequence":              func(tx *wire.MsgTx) { tx.TxIn[0].Sequence = wire.MaxTxInSequenceNum - 1 },
	} {
		tx, err := Settle([]Unsettled{u}, nil, d.contract.RelayScript, testFeerate)
		if err != nil {
			t.Fatal(err)
		}
		change(tx.MsgTx)
		script, err := d.contract.Script()
		if err != nil {
			t.Fatal(err)
		}
		sig, err := tx.sign(0, script, sighashAll, d.relayKey)
		if err != nil {
			t.Fatal(err)
		}
		tx.TxIn[0].Witness = bothSign(u.Payment.Signature, sig, script)
		if tx.Verify() == nil {
			t.Errorf("%s: it spends", name)
		}
		tx.TxIn[0].Witness = wire.TxWitness{nil, u.Payment.Signature, script}
		if tx.Verify() == nil {
			t.Errorf("%s: it spends without the relay", name)
		}
	}
}

func TestClosing(t *testing.T) {
	for _, c := range []struct {
		name                string
		bond, amount        btcutil.Amount
		asked               Side
		outputs             int
		userGets, relayGets btcutil.Amount // fee taken out
	}{
		{"cooperative refund", 10_000, 30_000, User, 2, 70_000 - 340, 40_000},
		{"payment request", 10_000, 30_000, Relay, 2, 70_000, 40_000 - 340},
		{"the user's rest is dust", 0, 99_000, User, 1, 0, 99_000},
		{"the relay's rest is dust", 0, 500, Relay, 1, 99_500, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeal(t, "plain", func(d *deal) { d.contract.Bond, d.contract.OpeningPrice = c.bond, 500 })
			feerate := testFeerate
			if c.outputs == 1 && c.asked == User {
				feerate = 4_500
			}
			closing, err := NewClosing(d.contract, c.amount, c.asked, feerate)
			if err != nil {
				t.Fatal(err)
			}
			at := d.outpoint(t)
			user, err := SignClosing(d.contract, at, closing, d.userKey)
			if err != nil {
				t.Fatal(err)
			}
			relay, err := SignClosing(d.contract, at, closing, d.relayKey)
			if err != nil {
				t.Fatal(err)
			}
			wantCode(t, VerifyClosing(d.contract, at, closing, User, user), "")
			wantCode(t, VerifyClosing(d.contract, at, closing, Relay, relay), "")
			wantCode(t, VerifyClosing(d.contract, at, closing, User, relay), protocol.CodeContractSignature)
			tx, err := FinishClosing(d.contract, at, closing, user, relay)
			if err != nil {
				t.Fatal(err)
			}
			checkTx(t, c.name, tx, feerate)
			got := map[string]btcutil.Amount{}
			for _, out := range tx.TxOut {
				got[string(out.PkScript)] = btcutil.Amount(out.Value)
			}
			if len(tx.TxOut) != c.outputs || got[string(d.contract.UserScript)] != c.userGets || got[string(d.contract.RelayScript)] != c.relayGets {
				t.Errorf("%d outputs, user %d, relay %d", len(tx.TxOut), got[string(d.contract.UserScript)], got[string(d.contract.RelayScript)])
			}
			if s, ok := Identify(d.contract, at, tx.MsgTx); !ok || s.Kind != protocol.TxClosing {
				t.Errorf("it is taken for %+v", s)
			}
		})
	}
}

func TestRefund(t *testing.T) {
	d := plain(t)
	for _, payTo := range []protocol.Script{d.contract.UserScript, p2tr(d.userCoin)} {
		tx, err := Refund(d.contract, d.outpoint(t), payTo, testFeerate, d.userKey)
		if err != nil {
			t.Fatal(err)
		}
		checkTx(t, "refund", tx, testFeerate)
		if tx.LockTime != d.contract.Expiry || btcutil.Amount(tx.TxOut[0].Value)+tx.Fee() != d.contract.Value() {
			t.Errorf("locktime %d, output %d", tx.LockTime, tx.TxOut[0].Value)
		}
		if s, ok := Identify(d.contract, d.outpoint(t), tx.MsgTx); !ok || s.Kind != protocol.TxRefund {
			t.Errorf("it is taken for %+v", s)
		}
	}
	// A block too early, by the relay's key, or final whatever the locktime: none of them spends.
	early := *d.contract
	early.Expiry--
	_, err := Refund(&early, d.outpoint(t), d.contract.UserScript, testFeerate, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := Refund(d.contract, d.outpoint(t), d.contract.UserScript, testFeerate, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	script, err := d.contract.Script()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wire.MsgTx){
		"a block early":     func(tx *wire.MsgTx) { tx.LockTime-- },
		"final sequence":    func(tx *wire.MsgTx) { tx.TxIn[0].Sequence = wire.MaxTxInSequenceNum },
		"a time, no height": func(tx *wire.MsgTx) { tx.LockTime = txscript.LockTimeThreshold },
	} {
		forged := &Tx{MsgTx: tx.Copy(), Prev: tx.Prev}
		change(forged.MsgTx)
		sig, err := forged.sign(0, script, sighashAll, d.userKey)
		if err != nil {
			t.Fatal(err)
		}
		forged.TxIn[0].Witness = wire.TxWitness{nil, sig, script}
		if forged.Verify() == nil {
			t.Errorf("%s: it spends", name)
		}
	}
	_, err = Refund(d.contract, d.outpoint(t), d.contract.UserScript, testFeerate, d.relayKey)
	wantCode(t, err, protocol.CodeContractSignature)
	_, err = Refund(d.contract, d.outpoint(t), d.contract.UserScript, MaxFeerate, d.userKey)
	wantCode(t, err, protocol.CodeDust)
	if _, ok := Identify(d.contract, wire.OutPoint{}, tx.MsgTx); ok {
		t.Error("it spends an escrow that it does not")
	}
}

func TestRenewal(t *testing.T) {
	for name, change := range map[string]func(*deal){
		"the user adds a coin": func(*deal) {},
		"out of the old alone": func(d *deal) { d.contract.Deposit, d.funding.User.Coins = 50_000, nil },
		"no bond":              func(d *deal) { d.contract.Bond, d.funding.Relay.Coins = 0, nil },
		"the bond rolls over":  func(d *deal) { d.funding.Relay.Coins = nil },
	} {
		t.Run(name, func(t *testing.T) {
			old := newDeal(t, "old", func(*deal) {})
			d := newDeal(t, "new", func(d *deal) {
				d.contract.Renews, d.contract.Expiry = &old.contract.ID, 14_000
				d.funding.Renewal = &Renewal{Contract: old.contract, Funding: old.outpoint(t), Amount: 40_000}
				change(d)
			})
			signed := d.userSigned(t, sighashAll)
			packet, err := d.funding.MergeUser(signed)
			if err != nil {
				t.Fatal(err)
			}
			walletSign(t, packet, sighashAll, d.relayCoin)
			tx, err := d.funding.Finish(packet, old.relayKey)
			if err != nil {
				t.Fatal(err)
			}
			checkTx(t, "renewal", tx, testFeerate)
			relayGot := -d.contract.Bond
			if out := d.funding.Relay.Change; out != nil {
				relayGot += btcutil.Amount(out.Value)
			}
			relayGot += d.contract.Bond * 2
			for _, c := range d.funding.Relay.Coins {
				relayGot -= c.Value
			}
			_, share := d.funding.Fees()
			if relayGot+share != 40_000+old.contract.Bond {
				t.Errorf("the relay is paid %d and %d of fees, not %d", relayGot, share, 40_000+old.contract.Bond)
			}
			_, err = d.funding.Finish(packet, d.relayKey)
			wantCode(t, err, protocol.CodeContractSignature)
			_, err = d.funding.Finish(packet, nil)
			wantCode(t, err, protocol.CodeContractSignature)
		})
	}
}
