package userside_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// repack changes the funding in a relay's answer.
func repack(t *testing.T, change func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut) func(*protocol.ContractServerInputs) {
	return func(a *protocol.ContractServerInputs) {
		t.Helper()
		packet, err := escrow.DecodePSBT(a.PSBT)
		if err != nil {
			t.Fatal(err)
		}
		var prev []*wire.TxOut
		for _, in := range packet.Inputs {
			prev = append(prev, in.WitnessUtxo)
		}
		prev = change(packet.UnsignedTx, prev)
		packet.Inputs = packet.Inputs[:0]
		for _, out := range prev {
			packet.Inputs = append(packet.Inputs, escrowInput(out))
		}
		for len(packet.Outputs) < len(packet.UnsignedTx.TxOut) {
			packet.Outputs = append(packet.Outputs, packet.Outputs[0])
		}
		packet.Outputs = packet.Outputs[:len(packet.UnsignedTx.TxOut)]
		if a.PSBT, err = escrow.EncodePSBT(packet); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a relay answers wrongly to the first message has its code; nothing is signed, and the coins are free.
func TestWrongInputs(t *testing.T) {
	u := somebody(t)
	amount := func(n btcutil.Amount) *btcutil.Amount { return &n }
	for name, test := range map[string]struct {
		alter func(*protocol.ContractServerInputs)
		code  protocol.Code
	}{
		"another contract":  {func(a *protocol.ContractServerInputs) { a.Contract[0] ^= 1 }, protocol.CodeMismatch},
		"another expiry":    {func(a *protocol.ContractServerInputs) { a.Expiry += 144 }, protocol.CodeContractExpiry},
		"a dearer opening":  {func(a *protocol.ContractServerInputs) { a.OpeningPrice++ }, protocol.CodeTerms},
		"less credit":       {func(a *protocol.ContractServerInputs) { a.CreditLimit-- }, protocol.CodeTerms},
		"dearer storage":    {func(a *protocol.ContractServerInputs) { a.StorageMsatPerGBDay++ }, protocol.CodeTerms},
		"dearer traffic":    {func(a *protocol.ContractServerInputs) { a.BandwidthMsatPerGB++ }, protocol.CodeTerms},
		"a bond it has not": {func(a *protocol.ContractServerInputs) { a.Bond = 1000 }, protocol.CodeTerms},
		"our own key":       {func(a *protocol.ContractServerInputs) { a.RelayKey = u.contractKeyOf(a.Contract) }, protocol.CodeInvalidValue},
		"another key":       {func(a *protocol.ContractServerInputs) { a.RelayKey = u.contractKeyOf(protocol.ContractID{1}) }, protocol.CodeWrongScript},
		"a payout of rubbish": {func(a *protocol.ContractServerInputs) {
			a.RelayScript = make(protocol.Script, 22)
			a.RelayScript[0] = 0x6a
		}, protocol.CodeWrongScript},
		"a renewal of nothing": {func(a *protocol.ContractServerInputs) { a.RenewsAmount = amount(5) }, ""},
		"no PSBT":              {func(a *protocol.ContractServerInputs) { a.PSBT = "AAAA" }, protocol.CodeBadPSBT},
		"less in the escrow": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxOut[0].Value--
			return in
		}), protocol.CodeWrongAmount},
		"an escrow of its own": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxOut[0].PkScript[10] ^= 1
			return in
		}), protocol.CodeWrongScript},
		"our change taken": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxOut[1].Value -= 1000
			return in
		}), protocol.CodeWrongOutput},
		"our change left out": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxOut = tx.TxOut[:1]
			return in
		}), protocol.CodeWrongOutput},
		"outputs of its own": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxOut = append(tx.TxOut, tx.TxOut[1], tx.TxOut[1])
			return in
		}), protocol.CodeWrongOutput},
		"a locktime": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.LockTime = 1
			return in
		}), protocol.CodeWrongLocktime},
		"a final sequence": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxIn[0].Sequence = wire.MaxTxInSequenceNum
			return in
		}), protocol.CodeWrongSequence},
		"our input swapped": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.TxIn[0].PreviousOutPoint.Index ^= 1
			return in
		}), protocol.CodeWrongInput},
		"our input for more": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			return []*wire.TxOut{wire.NewTxOut(in[0].Value+1, in[0].PkScript)}
		}), protocol.CodeInputAmount},
		"a coin that is none": {func(a *protocol.ContractServerInputs) { u.addCoin(t, a, chainhash.Hash{7}) }, protocol.CodeInputSpent},
		"a coin in no block": {func(a *protocol.ContractServerInputs) {
			coin, _ := u.node.PayScript(a.RelayScript, 50_000)
			u.addCoin(t, a, coin.Hash)
		}, protocol.CodeInputUnconfirmed},
		"a coin of less": {func(a *protocol.ContractServerInputs) {
			coin, _ := u.node.PayScript(a.RelayScript, 40_000)
			u.node.Mine(1)
			u.addCoin(t, a, coin.Hash)
		}, protocol.CodeInputAmount},
		"a nested coin": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: chainhash.Hash{7}}, Sequence: wire.MaxTxInSequenceNum - 2})
			nested := append(append([]byte{0xa9, 0x14}, make([]byte, 20)...), 0x87) // P2SH
			return append(in, wire.NewTxOut(50_000, nested))
		}), protocol.CodeInputType},
		"our input twice": {repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
			tx.AddTxIn(tx.TxIn[0])
			return append(in, in[0])
		}), protocol.CodeWrongInput},
		"a PSBT of 2 MB": {func(a *protocol.ContractServerInputs) {
			a.PSBT += protocol.PSBT(strings.Repeat("A", 2<<20))
		}, protocol.CodeTooLarge},
		"a key twice": {func(a *protocol.ContractServerInputs) {
			raw, err := base64.StdEncoding.DecodeString(string(a.PSBT))
			if err != nil {
				t.Fatal(err)
			}
			const magic = 5
			twice := []byte{1, 0x77, 0, 1, 0x77, 0} // a key of one byte and no value
			a.PSBT = protocol.PSBT(base64.StdEncoding.EncodeToString(slices.Insert(raw, magic, twice...)))
		}, protocol.CodeBadPSBT},
	} {
		t.Run(name, func(t *testing.T) {
			u.relay.inputs = test.alter
			defer func() { u.relay.inputs = nil }()
			id := u.starts()
			_, err := u.advances(id)
			if test.code == "" { // more than was asked for, and no harm
				if err != nil {
					t.Fatal(err)
				}
				u.node.Mine(1)
				return
			}
			if !errors.Is(err, test.code) {
				t.Fatalf("got %v, want the code %s", err, test.code)
			}
			r := u.record(id)
			if r.Step != userside.StepOver || r.State != escrow.Abandoned || len(r.Payments) != 0 {
				t.Errorf("the contract is %s at the step %s, with %d states", r.State, r.Step, len(r.Payments))
			}
			if r.Fault == "" || !strings.Contains(u.journal(id), "does not come about") {
				t.Errorf("the user is not told: %q", r.Fault)
			}
			u.free()
		})
	}
}

// After the signatures are out, a wrong answer costs a transaction, and no deposit.
func TestWrongAfterSigned(t *testing.T) {
	u := somebody(t)
	for name, test := range map[string]struct {
		told   func(*protocol.ContractStatus)
		refuse func(what string) error
		code   protocol.Code
	}{
		"another contract":      {told: func(s *protocol.ContractStatus) { s.Contract[0] ^= 1 }, code: protocol.CodeMismatch},
		"a funding of nobody's": {told: func(s *protocol.ContractStatus) { s.Funding.Tx = otherTx() }, code: protocol.CodeWrongInput},
		"rubbish":               {told: func(s *protocol.ContractStatus) { s.Funding.Tx = []byte{1, 2, 3} }, code: protocol.CodeMalformed},
		"refused": {refuse: func(what string) error {
			if what == "signed" {
				return protocol.Errorf(protocol.CodeFundingEnded, "too late")
			}
			return nil
		}, code: protocol.CodeFundingEnded},
	} {
		t.Run(name, func(t *testing.T) {
			before := u.balance()
			u.relay.told, u.relay.refuse = test.told, test.refuse
			id := u.starts()
			_, err := u.advances(id)
			if !errors.Is(err, test.code) {
				t.Fatalf("got %v, want the code %s", err, test.code)
			}
			u.node.Mine(1)
			u.steps()
			u.is(id, escrow.Abandoned)
			u.adds(id, before, 0)
		})
	}
}

// A relay that takes the signatures and never shows the funding: the user may go on asking, and has a way out at any time.
func TestNeverFunded(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	u.relay.told = func(s *protocol.ContractStatus) { s.Funding = nil }
	id := u.starts()
	for range 2 { // open, and resume
		_, err := u.advances(id)
		want(t, err, userside.ErrUnfunded)
		if r := u.is(id, escrow.FundingSent); r.Step != userside.StepSigned {
			t.Fatalf("step %s", r.Step)
		}
	}
	want(t, u.Step(t.Context()), userside.ErrUnfunded)
	if _, err := u.Cancel(t.Context(), id, u.wallet, 0); err != nil {
		t.Fatal(err)
	}
	u.steps() // it is not asked for any more
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Abandoned)
	u.adds(id, before, 0)
}

// A relay that denies a payment is not believed, and the payment is not signed again under another number.
func TestDeniedPayment(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	u.relay.told = func(s *protocol.ContractStatus) { s.Seq, s.Amount = 0, openingPrice }
	_, err := u.Pay(t.Context(), id, openingPrice+100)
	want(t, err, protocol.CodeStateOrder)
	u.relay.told = nil
	if _, err := u.Pay(t.Context(), id, openingPrice+100); err != nil {
		t.Fatal(err)
	}
	r := u.record(id)
	if last, _ := r.Last(); len(r.Payments) != 2 || last.Seq != 1 || !last.Taken {
		t.Errorf("%+v", r.Payments)
	}
}

// A closing signature that is false is named, and changes nothing.
func TestFalseClosing(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	u.relay.request(id, openingPrice+10)
	u.relay.told = func(s *protocol.ContractStatus) { s.Closing.Amount = openingPrice }
	_, err := u.Refresh(t.Context(), id)
	want(t, err, protocol.CodeContractSignature)
	u.is(id, escrow.Active)
}

// A relay that asks for more than is allowed gets what is allowed, and the user is told.
func TestDue(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	u.relay.contracts[id].due = openingPrice + 100_000
	u.now = u.now.Add(askAgain)
	u.steps()
	if last, _ := u.record(id).Last(); last.Amount != openingPrice+creditLimit {
		t.Errorf("%d sat were paid", last.Amount)
	}
	u.now = u.now.Add(askAgain)
	want(t, u.Step(t.Context()), userside.ErrCushion)
	if last, _ := u.record(id).Last(); last.Amount != openingPrice+creditLimit {
		t.Errorf("%d sat were paid", last.Amount)
	}
}

// What the user risks by default is not for the relay to choose.
func TestUsualCushion(t *testing.T) {
	u := somebody(t)
	for _, test := range []struct{ opening, credit, deposit, want btcutil.Amount }{
		{1000, 800, 100_000, 800},
		{1000, 90_000, 200_000, 1000},
		{90_000, 90_000, 200_000, 2000},
	} {
		d := u.draft(func(w *userside.Wish) {
			w.Deposit = test.deposit
			w.Announcement = u.relay.announcement(func(a *protocol.Announcement) {
				a.Contracts.OpeningPrice, a.Contracts.CreditLimit = test.opening, test.credit
			})
		})
		if d.Quote.Cushion != test.want || d.Record.Cushion != test.want {
			t.Errorf("of %+v the cushion is %d", test, int64(d.Quote.Cushion))
		}
		if err := u.Discard(t.Context(), d, u.wallet); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOfferNotTaken(t *testing.T) {
	u := somebody(t)
	for name, test := range map[string]struct {
		change func(*userside.Wish)
		code   protocol.Code
	}{
		"no contracts": {func(w *userside.Wish) {
			w.Announcement = u.relay.announcement(func(a *protocol.Announcement) { a.Contracts, a.Network = nil, "" })
		}, protocol.CodeTerms},
		"another network": {func(w *userside.Wish) {
			w.Announcement = u.relay.announcement(func(a *protocol.Announcement) { a.Network = protocol.Mainnet })
		}, protocol.CodeNetwork},
		"too little":      {func(w *userside.Wish) { w.Deposit = 9999 }, protocol.CodeWrongAmount},
		"too short":       {func(w *userside.Wish) { w.Lifetime = 100 }, protocol.CodeContractExpiry},
		"too long":        {func(w *userside.Wish) { w.Lifetime = 1 << 20 }, protocol.CodeContractExpiry},
		"no feerate":      {func(w *userside.Wish) { w.Feerate = 10 }, protocol.CodeFeerate},
		"an absurd one":   {func(w *userside.Wish) { w.Feerate = 10_000_000 }, protocol.CodeFeerate},
		"all of it spent": {func(w *userside.Wish) { w.Cushion = new(btcutil.Amount); *w.Cushion = w.Deposit }, protocol.CodeWrongAmount},
	} {
		t.Run(name, func(t *testing.T) {
			w := userside.Wish{Announcement: u.relay.announcement(nil), Address: "http://127.0.0.1:1", Deposit: deposit, Feerate: 2000}
			test.change(&w)
			if d, err := u.Draft(t.Context(), w, u.wallet); !errors.Is(err, test.code) {
				t.Errorf("got %v %v, want the code %s", d, err, test.code)
			}
			u.free()
		})
	}
}
