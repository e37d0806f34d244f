package escrow

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// A wallet asks what is missing, adds a coin, and asks again: it never asks for less than it needs.
func TestMissingAndInputCost(t *testing.T) {
	d := plain(t)
	f := &Funding{Contract: d.contract, Feerate: testFeerate}
	missing, err := f.Missing(User)
	if err != nil || missing <= d.contract.Deposit {
		t.Fatalf("%d satoshi are missing (%v)", missing, err)
	}
	for name, script := range map[string]protocol.Script{"P2WPKH": p2wpkh(d.userCoin), "P2TR": p2tr(d.userCoin)} {
		f.User.Coins = []Coin{coin(name, script, missing+f.InputCost(script))}
		left, err := f.Missing(User)
		if err != nil || left > 0 || left < -2 {
			t.Errorf("%s: with the coin asked for, %d are missing (%v)", name, left, err)
		}
		if err := f.SetChange(User, p2wpkh(d.userCoin)); err != nil || f.User.Change != nil {
			t.Errorf("%s: there is change of nothing (%v)", name, err)
		}
		f.User.Coins[0].Value -= 10
		wantCode(t, f.SetChange(User, p2wpkh(d.userCoin)), protocol.CodeWrongAmount)
	}
	wantCode(t, f.SetChange(User, p2sh()), protocol.CodeWrongScript)
	f.User.Coins[0].Value = -1
	wantCode(t, f.SetChange(User, p2wpkh(d.userCoin)), protocol.CodeWrongAmount)
}

// Every builder refuses what it cannot build on, before it signs.
func TestBuildersRefuse(t *testing.T) {
	d := plain(t)
	at := d.outpoint(t)
	good := Unsettled{d.contract, at, d.payment(t, 1, 30_000)}
	falseState := good
	falseState.Payment.Amount++
	broken := *d.contract
	broken.Deposit = -1
	payTo := d.contract.UserScript
	for name, c := range map[string]struct {
		do   func() error
		code protocol.Code
	}{
		"settlement at feerate 0": {func() error { _, err := Settle([]Unsettled{good}, nil, payTo, 0); return err }, protocol.CodeFeerate},
		"settlement at 10,000":    {func() error { _, err := Settle([]Unsettled{good}, nil, payTo, 10_000_000); return err }, protocol.CodeFeerate},
		"settlement to P2SH":      {func() error { _, err := Settle([]Unsettled{good}, nil, p2sh(), testFeerate); return err }, protocol.CodeWrongScript},
		"settlement of a false state": {func() error {
			_, err := Settle([]Unsettled{falseState}, nil, payTo, testFeerate)
			return err
		}, protocol.CodeContractSignature},
		"settlement with a nested coin": {func() error {
			_, err := Settle([]Unsettled{good}, []Coin{coin("x", p2sh(), 1_000)}, payTo, testFeerate)
			return err
		}, protocol.CodeInputType},
		"settlement with a negative coin": {func() error {
			_, err := Settle([]Unsettled{good}, []Coin{coin("x", p2tr(d.relayCoin), -1_000)}, payTo, testFeerate)
			return err
		}, protocol.CodeWrongAmount},
		"settlement of 101":      {func() error { _, err := Settle(make([]Unsettled, 101), nil, payTo, testFeerate); return err }, protocol.CodeInvalidValue},
		"refund at feerate 0":    {func() error { _, err := Refund(d.contract, at, payTo, 0, d.userKey); return err }, protocol.CodeFeerate},
		"refund to P2SH":         {func() error { _, err := Refund(d.contract, at, p2sh(), testFeerate, d.userKey); return err }, protocol.CodeWrongScript},
		"refund of no contract":  {func() error { _, err := Refund(&broken, at, payTo, testFeerate, d.userKey); return err }, protocol.CodeWrongAmount},
		"sweep by another key":   {func() error { _, err := Sweep(d.contract, at, 70_000, payTo, testFeerate, d.relayKey); return err }, protocol.CodeContractSignature},
		"sweep of dust":          {func() error { _, err := Sweep(d.contract, at, 1_000, payTo, 10_000, d.userKey); return err }, protocol.CodeDust},
		"sweep of less than 0":   {func() error { _, err := Sweep(d.contract, at, -1, payTo, testFeerate, d.userKey); return err }, protocol.CodeWrongAmount},
		"state of no contract":   {func() error { _, err := StateTx(&broken, at, 30_000); return err }, protocol.CodeWrongAmount},
		"closing of no contract": {func() error { _, err := SignClosing(&broken, at, Closing{30_000, 340, User}, d.userKey); return err }, protocol.CodeWrongAmount},
		"estimate at feerate 0":  {func() error { _, err := EstimateFees(d.contract, 0); return err }, protocol.CodeFeerate},
		"renewal of nothing":     {func() error { return d.funding.AddRenewalSignature(mustPacket(t, d), d.userKey) }, protocol.CodeWrongInput},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, c.do(), c.code) })
	}
	old := good
	signed, err := Settle([]Unsettled{good}, nil, payTo, testFeerate)
	if err != nil {
		t.Fatal(err)
	}
	signed.LockTime = d.contract.Expiry
	wantCode(t, SignSettlement(signed, 0, old, d.relayKey), protocol.CodeWrongLocktime) // rule 1
}

func TestFundingsThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*deal)
		code   protocol.Code
	}{
		"no input at all": {func(d *deal) { d.funding.User, d.funding.Relay = Part{}, Part{} }, protocol.CodeWrongInput},
		"feerate 0":       {func(d *deal) { d.funding.Feerate = 0 }, protocol.CodeFeerate},
		"feerate 10,000":  {func(d *deal) { d.funding.Feerate = 10_000_000 }, protocol.CodeFeerate},
		"bad contract":    {func(d *deal) { d.contract.Expiry = 0 }, protocol.CodeContractExpiry},
		"one coin twice":  {func(d *deal) { d.funding.Relay.Coins[0].OutPoint = d.funding.User.Coins[0].OutPoint }, protocol.CodeWrongInput},
		"nested":          {func(d *deal) { d.funding.User.Coins[0].PkScript = p2sh() }, protocol.CodeInputType},
		"coins of all bitcoin twice": {func(d *deal) {
			d.funding.User.Coins = append(d.funding.User.Coins, coin("x", p2wpkh(d.userCoin), btcutil.MaxSatoshi))
		}, protocol.CodeWrongAmount},
	} {
		t.Run(name, func(t *testing.T) {
			d := plain(t)
			c.change(d)
			wantCode(t, d.funding.Validate(), c.code)
		})
	}
	d := plain(t)
	packet := mustPacket(t, d)
	walletSign(t, packet, sighashAll, d.userCoin)
	_, err := d.funding.Finish(packet, nil)
	wantCode(t, err, protocol.CodeContractSignature) // the relay's own input is not signed
	packet.UnsignedTx.TxOut[0].Value--
	_, err = d.funding.Finish(packet, nil)
	wantCode(t, err, protocol.CodeWrongOutput)
	wantCode(t, CheckFundingTx(d.contract, d.outpoint(t), wire.NewMsgTx(2)), protocol.CodeWrongInput)
}
