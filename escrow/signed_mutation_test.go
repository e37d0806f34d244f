package escrow

import (
	"bytes"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// What a user may return as his signed half of the funding.
func TestSignedFundingMutations(t *testing.T) {
	resign := func(sighash txscript.SigHashType) func(testing.TB, *deal, *psbt.Packet) {
		return func(t testing.TB, d *deal, p *psbt.Packet) { walletSign(t, p, sighash, d.userCoin) }
	}
	bend := func(change func(*psbt.Packet)) func(testing.TB, *deal, *psbt.Packet) {
		return func(_ testing.TB, _ *deal, p *psbt.Packet) { change(p) }
	}
	for name, c := range map[string]struct {
		change func(testing.TB, *deal, *psbt.Packet)
		code   protocol.Code
	}{
		"as it should be":  {bend(func(*psbt.Packet) {}), ""},
		"not signed":       {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptWitness = nil }), protocol.CodeContractSignature},
		"empty witness":    {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptWitness = []byte{0} }), protocol.CodeContractSignature},
		"flipped bit":      {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptWitness[20] ^= 1 }), protocol.CodeContractSignature},
		"signature script": {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptSig = []byte{1, 1} }), protocol.CodeInputType},
		"witness cut":      {bend(func(p *psbt.Packet) { w := &p.Inputs[0].FinalScriptWitness; *w = (*w)[:len(*w)-1] }), protocol.CodeBadPSBT},
		"witness and more": {bend(func(p *psbt.Packet) { w := &p.Inputs[0].FinalScriptWitness; *w = append(*w, 0) }), protocol.CodeBadPSBT},
		"witness of 5":     {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptWitness = []byte{5, 0, 0, 0, 0, 0} }), protocol.CodeBadPSBT},
		"witness of 2^64":  {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptWitness = bytes.Repeat([]byte{0xff}, 9) }), protocol.CodeBadPSBT},
		"witness element 521": {bend(func(p *psbt.Packet) {
			p.Inputs[0].FinalScriptWitness = EncodeWitness(wire.TxWitness{make([]byte, 521), {1}})
		}), protocol.CodeBadPSBT},
		"witness of 3":       {bend(func(p *psbt.Packet) { p.Inputs[0].FinalScriptWitness = EncodeWitness(wire.TxWitness{{1}, {1}, {1}}) }), protocol.CodeContractSignature},
		"sighash NONE":       {resign(txscript.SigHashNone), protocol.CodeWrongSighash},
		"sighash SINGLE":     {resign(txscript.SigHashSingle), protocol.CodeWrongSighash},
		"sighash ALL|ANYONE": {resign(txscript.SigHashAll | txscript.SigHashAnyOneCanPay), protocol.CodeWrongSighash},
		"signed over another amount": {func(t testing.TB, d *deal, p *psbt.Packet) {
			p.Inputs[0].WitnessUtxo.Value++
			walletSign(t, p, sighashAll, d.userCoin)
		}, protocol.CodeContractSignature},
		"by another key": {func(t testing.TB, d *deal, p *psbt.Packet) {
			p.Inputs[0].WitnessUtxo.PkScript = p2wpkh(d.relayCoin)
			walletSign(t, p, sighashAll, d.relayCoin)
		}, protocol.CodeContractSignature},
		"another input":    {bend(func(p *psbt.Packet) { p.UnsignedTx.TxIn[0].PreviousOutPoint.Index++ }), protocol.CodeWrongInput},
		"an input more":    {bend(func(p *psbt.Packet) { addInputs(p, 1) }), protocol.CodeWrongInput},
		"an input less":    {bend(func(p *psbt.Packet) { cutInputs(p, 0, 1) }), protocol.CodeWrongInput},
		"an output less":   {bend(func(p *psbt.Packet) { p.UnsignedTx.TxOut = p.UnsignedTx.TxOut[:2]; p.Outputs = p.Outputs[:2] }), protocol.CodeWrongOutput},
		"an output more":   {bend(func(p *psbt.Packet) { addOutputs(p, 1) }), protocol.CodeWrongOutput},
		"escrow smaller":   {bend(func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value-- }), protocol.CodeWrongOutput},
		"sequence":         {bend(func(p *psbt.Packet) { p.UnsignedTx.TxIn[0].Sequence++ }), protocol.CodeWrongSequence},
		"locktime":         {bend(func(p *psbt.Packet) { p.UnsignedTx.LockTime++ }), protocol.CodeWrongLocktime},
		"version":          {bend(func(p *psbt.Packet) { p.UnsignedTx.Version-- }), protocol.CodeWrongLocktime},
		"previous amounts": {bend(func(p *psbt.Packet) { p.Inputs[1].WitnessUtxo.Value = 7 }), ""}, // the relay uses its own
	} {
		t.Run(name, func(t *testing.T) {
			d := plain(t)
			packet, err := DecodePSBT(d.userSigned(t, sighashAll))
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, d, packet)
			text, err := EncodePSBT(packet)
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.funding.MergeUser(text)
			wantCode(t, err, c.code)
		})
	}
}

// Taproot witnesses: 64 bytes are SIGHASH_DEFAULT, 65 name it; annexes and script paths are none.
func TestTaprootWitnesses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(wire.TxWitness) wire.TxWitness
		code   protocol.Code
	}{
		"as it should be": {func(w wire.TxWitness) wire.TxWitness { return w }, ""},
		"sighash NONE":    {func(w wire.TxWitness) wire.TxWitness { return wire.TxWitness{append(bytes.Clone(w[0]), 2)} }, protocol.CodeWrongSighash},
		"sighash 0":       {func(w wire.TxWitness) wire.TxWitness { return wire.TxWitness{append(bytes.Clone(w[0]), 0)} }, protocol.CodeWrongSighash},
		"annex":           {func(w wire.TxWitness) wire.TxWitness { return append(w, []byte{0x50}) }, protocol.CodeContractSignature},
		"short":           {func(w wire.TxWitness) wire.TxWitness { return wire.TxWitness{w[0][:63]} }, protocol.CodeContractSignature},
		"script path":     {func(wire.TxWitness) wire.TxWitness { return wire.TxWitness{{1}, {0x51}, make([]byte, 33)} }, protocol.CodeContractSignature},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeal(t, "plain", func(d *deal) { d.funding.User.Coins[0].PkScript = p2tr(d.userCoin) })
			packet, err := DecodePSBT(d.userSigned(t, sighashAll))
			if err != nil {
				t.Fatal(err)
			}
			witness, err := decodeWitness(packet.Inputs[0].FinalScriptWitness)
			if err != nil {
				t.Fatal(err)
			}
			packet.Inputs[0].FinalScriptWitness = EncodeWitness(c.change(witness))
			text, err := EncodePSBT(packet)
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.funding.MergeUser(text)
			wantCode(t, err, c.code)
		})
	}
}

// Payment states that a user may send.
func TestPaymentMutations(t *testing.T) {
	d := plain(t)
	other := newDeal(t, "other", func(*deal) {})
	at := d.outpoint(t)
	held := d.payment(t, 3, 20_000)
	good := func(seq int64, amount btcutil.Amount) Payment { return d.payment(t, seq, amount) }
	signedAs := func(sighash txscript.SigHashType) Payment {
		tx, script, err := d.contract.stateAndScript(at, 25_000)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := tx.sign(0, script, sighash, d.userKey)
		if err != nil {
			t.Fatal(err)
		}
		return Payment{4, 25_000, sig}
	}
	bent := func(change func([]byte) []byte) Payment {
		p := good(4, 25_000)
		p.Signature = change(bytes.Clone(p.Signature))
		return p
	}
	for name, c := range map[string]struct {
		next Payment
		code protocol.Code
	}{
		"as it should be":      {good(4, 25_000), ""},
		"the same amount":      {good(4, 20_000), ""},
		"all that can be paid": {good(1<<53-1, 99_000), ""},
		"the same seq":         {good(3, 25_000), protocol.CodeStateOrder},
		"an older seq":         {good(2, 25_000), protocol.CodeStateOrder},
		"falling":              {good(4, 19_999), protocol.CodeWrongAmount},
		"above the escrow":     {Payment{4, 99_001, held.Signature}, protocol.CodeWrongAmount},
		"far above the escrow": {Payment{4, 1 << 62, held.Signature}, protocol.CodeWrongAmount},
		"negative":             {Payment{4, -1, held.Signature}, protocol.CodeWrongAmount},
		"another amount's":     {Payment{4, 25_001, good(4, 25_000).Signature}, protocol.CodeContractSignature},
		"another contract's":   {other.payment(t, 4, 25_000), protocol.CodeContractSignature},
		"sighash ALL":          {signedAs(sighashAll), protocol.CodeWrongSighash},
		"sighash SINGLE":       {signedAs(txscript.SigHashSingle), protocol.CodeWrongSighash},
		"sighash NONE|ANYONE":  {signedAs(txscript.SigHashNone | txscript.SigHashAnyOneCanPay), protocol.CodeWrongSighash},
		"another sighash's":    {bent(func(s []byte) []byte { s[len(s)-1] = 0x01; return s }), protocol.CodeWrongSighash},
		"ALL as SINGLE|ANYONE": {relabel(signedAs(sighashAll)), protocol.CodeContractSignature},
		"flipped":              {bent(func(s []byte) []byte { s[10] ^= 1; return s }), protocol.CodeContractSignature},
		"none":                 {bent(func([]byte) []byte { return nil }), protocol.CodeContractSignature},
		"too long":             {bent(func(s []byte) []byte { return append(s, make([]byte, 10)...) }), protocol.CodeContractSignature},
		"high S":               {bent(highS), protocol.CodeContractSignature},
		"trailing byte in DER": {bent(func(s []byte) []byte { return append(s[:len(s)-1:len(s)-1], 0, 0x83) }), protocol.CodeContractSignature},
		"not DER":              {bent(func(s []byte) []byte { s[0] = 0x31; return s }), protocol.CodeContractSignature},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, VerifyPayment(d.contract, at, held, c.next), c.code) })
	}
	wantCode(t, VerifyOpening(d.contract, at, good(0, 2_000)), "")
	wantCode(t, VerifyOpening(d.contract, at, good(1, 2_000)), protocol.CodeStateOrder)
	wantCode(t, VerifyOpening(d.contract, at, good(0, 2_001)), protocol.CodeWrongAmount)
	wantCode(t, VerifyOpening(d.contract, other.outpoint(t), good(0, 2_000)), protocol.CodeContractSignature)
}

func relabel(p Payment) Payment {
	p.Signature[len(p.Signature)-1] = byte(sighashState)
	return p
}

// highS is the same signature with n − S, as valid by consensus and relayed by nobody.
func highS(sig []byte) []byte {
	r, s := derNumbers(sig)
	high := negate(s)
	out := []byte{0x30, byte(4 + len(r) + len(high)), 0x02, byte(len(r))}
	out = append(append(out, r...), 0x02, byte(len(high)))
	return append(append(out, high...), sig[len(sig)-1])
}

func TestClosingMutations(t *testing.T) {
	d := plain(t)
	other := newDeal(t, "other", func(*deal) {})
	at := d.outpoint(t)
	good := Closing{Amount: 30_000, Fee: 340, Asked: User}
	sig, err := SignClosing(d.contract, at, good, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := SignClosing(other.contract, at, good, other.userKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		closing Closing
		sig     protocol.ContractSignature
		code    protocol.Code
	}{
		"as it should be":      {good, sig, ""},
		"another amount":       {Closing{30_001, 340, User}, sig, protocol.CodeContractSignature},
		"another fee":          {Closing{30_000, 341, User}, sig, protocol.CodeContractSignature},
		"the other pays":       {Closing{30_000, 340, Relay}, sig, protocol.CodeContractSignature},
		"nobody pays":          {Closing{30_000, 340, 0}, sig, protocol.CodeInvalidValue},
		"fee 0":                {Closing{30_000, 0, User}, sig, protocol.CodeFeerate},
		"fee below 1 sat/vB":   {Closing{30_000, 169, User}, sig, protocol.CodeFeerate},
		"fee 10,000 sat/vB":    {Closing{30_000, 1_700_000, User}, sig, protocol.CodeFeerate},
		"fee above the output": {Closing{30_000, 70_001, User}, sig, protocol.CodeFeerate},
		"negative fee":         {Closing{30_000, -340, User}, sig, protocol.CodeFeerate},
		"above the escrow":     {Closing{99_001, 340, User}, sig, protocol.CodeWrongAmount},
		"below the opening":    {Closing{1_999, 340, User}, sig, protocol.CodeWrongAmount},
		"another contract's":   {good, foreign, protocol.CodeContractSignature},
		"a state's signature":  {good, d.payment(t, 1, 30_000).Signature, protocol.CodeWrongSighash},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, VerifyClosing(d.contract, at, c.closing, User, c.sig), c.code) })
	}
	_, err = FinishClosing(d.contract, at, good, sig, sig)
	wantCode(t, err, protocol.CodeContractSignature)
	_, err = FinishClosing(d.contract, at, good, foreign, sig)
	wantCode(t, err, protocol.CodeContractSignature)
	small := newDeal(t, "plain", func(d *deal) {
		d.contract.Deposit, d.contract.Bond, d.contract.OpeningPrice = 1_000, 0, 0
		d.funding.Relay = Part{}
	})
	_, err = ClosingTx(small.contract, at, Closing{0, 800, User})
	wantCode(t, err, protocol.CodeDust)
	large := newDeal(t, "plain", func(d *deal) { d.contract.Deposit, d.funding.User.Coins[0].Value = 10_000_000, 11_000_000 })
	_, err = ClosingTx(large.contract, at, Closing{30_000, 170_000, User})
	wantCode(t, err, "")
	_, err = ClosingTx(large.contract, at, Closing{30_000, 171_000, User}) // he could pay it
	wantCode(t, err, protocol.CodeFeerate)
	for _, rate := range []Feerate{0, 10_000_000} {
		_, err = NewClosing(d.contract, 30_000, User, rate)
		wantCode(t, err, protocol.CodeFeerate)
	}
}

func TestRenewalMutations(t *testing.T) {
	old := newDeal(t, "old", func(*deal) {})
	renewing := func(t *testing.T, change func(*deal)) *deal {
		d := newDeal(t, "new", func(d *deal) {
			d.contract.Renews = &old.contract.ID
			d.funding.Renewal = &Renewal{Contract: old.contract, Funding: old.outpoint(t), Amount: 40_000}
		})
		change(d)
		return d
	}
	stranger := *old.contract
	stranger.User = protocol.PublicKey{9}
	for name, c := range map[string]struct {
		change func(*deal)
		code   protocol.Code
	}{
		"as it should be":   {func(*deal) {}, ""},
		"renews nothing":    {func(d *deal) { d.contract.Renews = nil }, protocol.CodeWrongInput},
		"without the old":   {func(d *deal) { d.funding.Renewal = nil }, protocol.CodeWrongInput},
		"renews another":    {func(d *deal) { d.contract.Renews = &ID{1} }, protocol.CodeWrongInput},
		"of another user":   {func(d *deal) { d.funding.Renewal.Contract = &stranger }, protocol.CodeWrongInput},
		"amount above P":    {func(d *deal) { d.funding.Renewal.Amount = 99_001 }, protocol.CodeWrongAmount},
		"amount below c0":   {func(d *deal) { d.funding.Renewal.Amount = 1_999 }, protocol.CodeWrongAmount},
		"more to the user":  {func(d *deal) { d.funding.User.Change.Value += 5_000 }, protocol.CodeWrongAmount},
		"more to the relay": {func(d *deal) { d.funding.Relay.Change.Value += 5_000 }, protocol.CodeWrongAmount},
		"old as user's coin": {func(d *deal) {
			d.funding.User.Coins = append(d.funding.User.Coins, coin("x", p2wpkh(d.userCoin), 1_000))
			d.funding.User.Coins[1].OutPoint = d.funding.Renewal.Funding
		}, protocol.CodeWrongInput},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, renewing(t, c.change).funding.Validate(), c.code) })
	}
	d := renewing(t, func(*deal) {})
	packet, err := DecodePSBT(d.userSigned(t, sighashAll))
	if err != nil {
		t.Fatal(err)
	}
	packet.Inputs[0].PartialSigs[0].Signature[12] ^= 1
	merge := func() error {
		text, err := EncodePSBT(packet)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.funding.MergeUser(text)
		return err
	}
	wantCode(t, merge(), protocol.CodeContractSignature)
	packet.Inputs[0].PartialSigs = nil
	wantCode(t, merge(), protocol.CodeContractSignature)
	wantCode(t, d.funding.AddRenewalSignature(packet, d.userKey), protocol.CodeContractSignature)
}
