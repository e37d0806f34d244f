package relayside_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// bent is a PSBT with a change.
func bent(t *testing.T, p protocol.PSBT, change func(*psbt.Packet)) protocol.PSBT {
	t.Helper()
	packet, err := escrow.DecodePSBT(p)
	if err != nil {
		t.Fatal(err)
	}
	change(packet)
	text, err := escrow.EncodePSBT(packet)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// keyTwice is a PSBT whose first map has a key twice.
func keyTwice(t *testing.T, p protocol.PSBT) protocol.PSBT {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(string(p))
	if err != nil {
		t.Fatal(err)
	}
	twice := []byte{2, 0xfc, 1, 0} // two bytes of key, none of value
	return protocol.PSBT(base64.StdEncoding.EncodeToString(bytes.Join([][]byte{raw[:5], twice, twice, raw[5:]}, nil)))
}

// huge is 2 MB of a PSBT.
func huge() protocol.PSBT { return protocol.PSBT(bytes.Repeat([]byte{'A'}, 2<<20)) }

func addOutput(p *psbt.Packet, value int64, script []byte) {
	p.UnsignedTx.AddTxOut(wire.NewTxOut(value, script))
	p.Outputs = append(p.Outputs, psbt.POutput{})
}

func addInput(p *psbt.Packet, at wire.OutPoint) {
	in := wire.NewTxIn(&at, nil, nil)
	in.Sequence = 0xfffffffd
	p.UnsignedTx.AddTxIn(in)
	p.Inputs = append(p.Inputs, psbt.PInput{WitnessUtxo: p.Inputs[0].WitnessUtxo})
}

// p2sh is an output script that no payout may have, and of an input that is nested.
func p2sh() []byte {
	return append(append([]byte{txscript.OP_HASH160, 20}, make([]byte, 20)...), txscript.OP_EQUAL)
}

// mutation is a change of a message that the relay refuses.
type mutation struct {
	name string
	code protocol.Code
	bend func(*psbt.Packet)
}

// Every mutation of the opening is refused with its code, and leaves no opening behind; as it should be, it is answered.
func TestOpeningMutations(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	u := h.user()
	coin, _ := u.coin(80_000)
	second, _ := u.coin(80_000)
	right := u.plan(100_000, 1500, coin, second)
	right.offer(nil)
	try := func(name string, code protocol.Code, asked *protocol.ContractOpen) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			asked.PSBT = protocol.PSBT(bytes.Clone([]byte(asked.PSBT)))
			// As a request is taken: what its own shape forbids never comes to the contracts.
			err := asked.Validate()
			if err == nil {
				_, err = h.manager.Open(t.Context(), u.envelope(asked), asked)
			}
			wantCode(t, err, code)
		})
	}
	for _, m := range []mutation{
		{"nested input", protocol.CodeInputType, func(p *psbt.Packet) { p.Inputs[0].WitnessUtxo.PkScript = p2sh() }},
		{"foreign input", protocol.CodeInputSpent, func(p *psbt.Packet) { p.UnsignedTx.TxIn[0].PreviousOutPoint.Index += 7 }},
		{"input twice", protocol.CodeWrongInput, func(p *psbt.Packet) { addInput(p, coin.OutPoint) }},
		{"swapped inputs", protocol.CodeInputAmount, func(p *psbt.Packet) { // each is said to be what the other is
			p.Inputs[0].WitnessUtxo.Value, p.Inputs[1].WitnessUtxo.Value = p.Inputs[1].WitnessUtxo.Value+1, p.Inputs[0].WitnessUtxo.Value-1
		}},
		{"previous amount above", protocol.CodeInputAmount, func(p *psbt.Packet) {
			p.Inputs[0].WitnessUtxo.Value += 1_000
			p.UnsignedTx.TxOut[0].Value += 1_000
		}},
		{"previous script", protocol.CodeInputAmount, func(p *psbt.Packet) { p.Inputs[0].WitnessUtxo.PkScript = p2wpkh(bitcoinKey(t)) }},
		{"no previous output", protocol.CodeInputAmount, func(p *psbt.Packet) { p.Inputs[0].WitnessUtxo = nil }},
		{"more than there is", protocol.CodeWrongAmount, func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value += 100_000 }},
		{"no fee", protocol.CodeFeerate, func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value += 300 }},
		{"extra output", protocol.CodeWrongOutput, func(p *psbt.Packet) { addOutput(p, 1_000, p2wpkh(u.coins)) }},
		{"dust", protocol.CodeDust, func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value = 293 }},
		{"change to P2SH", protocol.CodeWrongScript, func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].PkScript = p2sh() }},
		{"locktime", protocol.CodeWrongLocktime, func(p *psbt.Packet) { p.UnsignedTx.LockTime = 1 }},
		{"version", protocol.CodeWrongLocktime, func(p *psbt.Packet) { p.UnsignedTx.Version = 1 }},
		{"sequence", protocol.CodeWrongSequence, func(p *psbt.Packet) { p.UnsignedTx.TxIn[0].Sequence = wire.MaxTxInSequenceNum }},
	} {
		asked := *right.asked
		asked.PSBT = bent(t, asked.PSBT, m.bend)
		try(m.name, m.code, &asked)
	}
	for name, c := range map[string]struct {
		code  protocol.Code
		spoil func(*protocol.ContractOpen)
	}{
		"a key twice":       {protocol.CodeBadPSBT, func(r *protocol.ContractOpen) { r.PSBT = keyTwice(t, r.PSBT) }},
		"2 MB":              {protocol.CodeTooLarge, func(r *protocol.ContractOpen) { r.PSBT = huge() }},
		"feerate 0":         {protocol.CodeFeerate, func(r *protocol.ContractOpen) { r.Feerate = 0 }},
		"feerate 10,000":    {protocol.CodeFeerate, func(r *protocol.ContractOpen) { r.Feerate = 10_000_000 }},
		"payout to P2SH":    {protocol.CodeWrongScript, func(r *protocol.ContractOpen) { r.UserScript = p2sh() }},
		"no key":            {protocol.CodeInvalidValue, func(r *protocol.ContractOpen) { r.UserKey = protocol.ContractKey{} }},
		"less than c0":      {protocol.CodeWrongAmount, func(r *protocol.ContractOpen) { r.Deposit = 5_000 }},
		"another's consent": {protocol.CodeConsent, func(r *protocol.ContractOpen) { r.Writers = h.consent(identity(t), r.Contract, h.key.Public()) }},
	} {
		asked := *right.asked
		c.spoil(&asked)
		try(name, c.code, &asked)
	}
	if n := h.count(`SELECT (SELECT count(*) FROM contract_openings) + (SELECT count(*) FROM contract_coins WHERE contract IS NOT NULL)`); n != 0 {
		t.Fatalf("refused openings left %d rows", n)
	}
	if err := right.open(nil); err != nil {
		t.Fatal(err)
	}
}

// consent is a writer's to be paid for by somebody.
func (h *house) consent(writer *protocol.PrivateKey, id protocol.ContractID, payer protocol.PublicKey) []protocol.ContractWriter {
	h.t.Helper()
	consent, err := protocol.Sign(writer, h.key.Public(), h.now(), &protocol.ContractConsent{Contract: id, Payer: payer})
	if err != nil {
		h.t.Fatal(err)
	}
	return []protocol.ContractWriter{{Key: writer.Public(), Consent: consent.Bytes()}}
}

// Every mutation of what the user signs is refused with its code, and leaves coins and accounts free; right, it is taken.
func TestSignedMutations(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	u, other := h.user(), h.user()
	coin, _ := u.coin(80_000)
	second, _ := u.coin(80_000)
	theirs, _ := other.coin(150_000)
	d, foreign := u.plan(100_000, 1500, coin, second), other.plan(100_000, 1500, theirs)
	for _, d := range []*deal{d, foreign} {
		d.offer(nil)
		if err := d.open(nil); err != nil {
			t.Fatal(err)
		}
		d.witness(nil)
	}
	right := *d.signed
	resigned := func(sighash txscript.SigHashType) func(*psbt.Packet) {
		return func(p *psbt.Packet) {
			tx, err := d.funding.Tx()
			if err != nil {
				t.Fatal(err)
			}
			coins := make(map[wire.OutPoint]*wire.TxOut)
			for i, in := range tx.TxIn {
				coins[in.PreviousOutPoint] = tx.Prev[i]
			}
			w, err := txscript.WitnessSignature(tx.MsgTx, txscript.NewTxSigHashes(tx.MsgTx, txscript.NewMultiPrevOutFetcher(coins)), 0,
				tx.Prev[0].Value, tx.Prev[0].PkScript, sighash, u.coins, true)
			if err != nil {
				t.Fatal(err)
			}
			p.Inputs[0].FinalScriptWitness = escrow.EncodeWitness(w)
		}
	}
	try := func(name string, code protocol.Code, wrong protocol.ContractClientSigned) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			err := wrong.Validate()
			if err == nil {
				_, err = h.manager.Signed(t.Context(), u.envelope(&wrong), &wrong)
			}
			wantCode(t, err, code)
		})
	}
	for _, m := range []mutation{
		{"swapped inputs", protocol.CodeWrongInput, func(p *psbt.Packet) {
			in := p.UnsignedTx.TxIn
			in[0], in[1] = in[1], in[0]
			p.Inputs[0], p.Inputs[1] = p.Inputs[1], p.Inputs[0]
		}},
		{"witnesses swapped", protocol.CodeContractSignature, func(p *psbt.Packet) {
			p.Inputs[0].FinalScriptWitness, p.Inputs[1].FinalScriptWitness = p.Inputs[1].FinalScriptWitness, p.Inputs[0].FinalScriptWitness
		}},
		{"foreign input", protocol.CodeWrongInput, func(p *psbt.Packet) { p.UnsignedTx.TxIn[0].PreviousOutPoint = theirs.OutPoint }},
		{"an input more", protocol.CodeWrongInput, func(p *psbt.Packet) { addInput(p, theirs.OutPoint) }},
		{"signature script", protocol.CodeInputType, func(p *psbt.Packet) { p.Inputs[0].FinalScriptSig = []byte{1, 1} }},
		{"escrow to another script", protocol.CodeWrongOutput, func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].PkScript = p2wpkh(u.coins) }},
		{"escrow smaller", protocol.CodeWrongOutput, func(p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value-- }},
		{"change larger", protocol.CodeWrongOutput, func(p *psbt.Packet) { p.UnsignedTx.TxOut[1].Value++ }},
		{"relay's output to the user", protocol.CodeWrongOutput, func(p *psbt.Packet) { p.UnsignedTx.TxOut[2].PkScript = p2wpkh(u.coins) }},
		{"extra output", protocol.CodeWrongOutput, func(p *psbt.Packet) { addOutput(p, 1_000, p2wpkh(u.coins)) }},
		{"locktime", protocol.CodeWrongLocktime, func(p *psbt.Packet) { p.UnsignedTx.LockTime = 1 }},
		{"sequence", protocol.CodeWrongSequence, func(p *psbt.Packet) { p.UnsignedTx.TxIn[0].Sequence++ }},
		{"sighash NONE", protocol.CodeWrongSighash, resigned(txscript.SigHashNone)},
		{"sighash SINGLE", protocol.CodeWrongSighash, resigned(txscript.SigHashSingle)},
		{"sighash ALL|ANYONECANPAY", protocol.CodeWrongSighash, resigned(txscript.SigHashAll | txscript.SigHashAnyOneCanPay)},
	} {
		wrong := right
		wrong.PSBT = bent(t, right.PSBT, m.bend)
		try(m.name, m.code, wrong)
	}
	for name, c := range map[string]struct {
		code  protocol.Code
		spoil func(*protocol.ContractClientSigned)
	}{
		"a key twice":           {protocol.CodeBadPSBT, func(r *protocol.ContractClientSigned) { r.PSBT = keyTwice(t, r.PSBT) }},
		"2 MB":                  {protocol.CodeTooLarge, func(r *protocol.ContractClientSigned) { r.PSBT = huge() }},
		"another contract's":    {protocol.CodeWrongInput, func(r *protocol.ContractClientSigned) { r.PSBT = foreign.signed.PSBT }},
		"another's state":       {protocol.CodeContractSignature, func(r *protocol.ContractClientSigned) { r.Signature = foreign.signed.Signature }},
		"state 1":               {protocol.CodeStateOrder, func(r *protocol.ContractClientSigned) { r.Seq = 1 }},
		"more than c0":          {protocol.CodeWrongAmount, func(r *protocol.ContractClientSigned) { r.Amount, r.Signature = 5_001, d.state(5_001) }},
		"a closing's signature": {protocol.CodeWrongSighash, func(r *protocol.ContractClientSigned) { r.Signature = d.refundRequest(5_000, 400).Signature }},
	} {
		wrong := right
		c.spoil(&wrong)
		try(name, c.code, wrong)
	}
	if n := h.count(`SELECT (SELECT count(*) FROM contracts) + (SELECT count(*) FROM contract_coins WHERE contract IS NOT NULL) + (SELECT count(*) FROM accounts)`); n != 0 {
		t.Fatalf("refused signatures left %d rows", n)
	}
	if _, err := foreign.send(); err != nil { // the relay's only coin is free
		t.Fatal(err)
	}
	h.inMempool(foreign.out.Hash)
	_, err := d.send()
	wantCode(t, err, protocol.CodeFundingEnded)
}

// Every mutation of a payment and of a closing is refused with its code and changes nothing; what goes by them is taken afterwards.
func TestPaymentMutations(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	d := h.user().active(100_000, 1500)
	for i, amount := range []btcutil.Amount{6_000, 7_000} {
		if _, err := d.pay(amount, nil); err != nil {
			t.Fatal(i, err)
		}
	}
	all := append(protocol.ContractSignature(nil), d.state(8_000)...)
	all[len(all)-1] = byte(txscript.SigHashAll)
	for name, c := range map[string]struct {
		code protocol.Code
		seq  int64
		a    btcutil.Amount
		sig  protocol.ContractSignature
	}{
		"sequence again":     {protocol.CodeConflict, 2, 8_000, d.state(8_000)},
		"sequence before":    {protocol.CodeConflict, 1, 8_000, d.state(8_000)},
		"sequence 0":         {protocol.CodeStateOrder, 0, 8_000, d.state(8_000)},
		"amount falls":       {protocol.CodeWrongAmount, 3, 6_999, d.state(6_999)},
		"above the escrow":   {protocol.CodeWrongAmount, 3, 99_001, d.state(99_000)},
		"negative":           {protocol.CodeWrongAmount, 3, -1, d.state(8_000)},
		"another amount's":   {protocol.CodeContractSignature, 3, 8_000, d.state(8_001)},
		"sighash ALL":        {protocol.CodeWrongSighash, 3, 8_000, all},
		"no signature":       {protocol.CodeContractSignature, 3, 8_000, nil},
		"a byte of it":       {protocol.CodeContractSignature, 3, 8_000, d.state(8_000)[:1]},
		"a flipped bit":      {protocol.CodeContractSignature, 3, 8_000, flipped(d.state(8_000))},
		"a closing's, again": {protocol.CodeWrongSighash, 3, 8_000, d.refundRequest(8_000, 400).Signature},
	} {
		p := &protocol.ContractPayment{Contract: d.id, Seq: c.seq, Amount: c.a, Signature: c.sig}
		err := p.Validate()
		if err == nil {
			_, err = h.manager.Pay(t.Context(), d.u.envelope(p), p)
		}
		if wantCode(t, err, c.code); t.Failed() {
			t.Fatal(name)
		}
	}
	if s := d.status(); s.Seq != 2 || s.Amount != 7_000 {
		t.Fatalf("refused payments changed it to %+v", s)
	}
	if s, err := d.pay(8_000, nil); err != nil || s.Amount != 8_000 {
		t.Fatalf("%+v, %v", s, err)
	}
}

func flipped(sig protocol.ContractSignature) protocol.ContractSignature {
	sig = append(protocol.ContractSignature(nil), sig...)
	sig[20] ^= 1
	return sig
}
