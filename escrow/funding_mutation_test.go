package escrow

import (
	"testing"

	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// p2sh is the script of a nested input, which would leave the txid open.
func p2sh() protocol.Script {
	return append(append(protocol.Script{0xa9, 20}, make([]byte, 20)...), 0x87)
}

// offers are the ways in which a user's offer can be wrong.
var offers = map[string]struct {
	change func(*deal, *psbt.Packet)
	code   protocol.Code
}{
	"as it should be": {func(*deal, *psbt.Packet) {}, ""},
	"nested input":    {func(_ *deal, p *psbt.Packet) { p.Inputs[0].WitnessUtxo.PkScript = p2sh() }, protocol.CodeInputType},
	"P2WSH input": {func(d *deal, p *psbt.Packet) {
		p.Inputs[0].WitnessUtxo.PkScript, _ = d.contract.PkScript()
	}, protocol.CodeInputType},
	"legacy input": {func(_ *deal, p *psbt.Packet) {
		p.Inputs[0].WitnessUtxo.PkScript = append(append([]byte{0x76, 0xa9, 20}, make([]byte, 20)...), 0x88, 0xac)
	}, protocol.CodeInputType},
	"no previous output":    {func(_ *deal, p *psbt.Packet) { p.Inputs[0].WitnessUtxo = nil }, protocol.CodeInputAmount},
	"negative previous":     {func(_ *deal, p *psbt.Packet) { p.Inputs[0].WitnessUtxo.Value = -1 }, protocol.CodeInputAmount},
	"previous of 2^62":      {func(_ *deal, p *psbt.Packet) { p.Inputs[0].WitnessUtxo.Value = 1 << 62 }, protocol.CodeInputAmount},
	"version":               {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.Version = 1 }, protocol.CodeWrongLocktime},
	"locktime":              {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.LockTime = 1 }, protocol.CodeWrongLocktime},
	"final sequence":        {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxIn[0].Sequence = wire.MaxTxInSequenceNum }, protocol.CodeWrongSequence},
	"relative lock":         {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxIn[0].Sequence = 1 }, protocol.CodeWrongSequence},
	"dust change":           {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value = 293 }, protocol.CodeDust},
	"negative change":       {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value = -5 }, protocol.CodeWrongAmount},
	"change above bitcoin":  {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxOut[0].Value = 1 << 62 }, protocol.CodeWrongAmount},
	"change to P2SH":        {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxOut[0].PkScript = p2sh() }, protocol.CodeWrongScript},
	"change that is data":   {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxOut[0].PkScript = []byte{0x6a, 1, 1} }, protocol.CodeWrongScript},
	"the same input twice":  {func(_ *deal, p *psbt.Packet) { addInput(p, p.UnsignedTx.TxIn[0].PreviousOutPoint) }, protocol.CodeWrongInput},
	"a second output":       {func(_ *deal, p *psbt.Packet) { addOutput(p, p.UnsignedTx.TxOut[0].PkScript) }, protocol.CodeWrongOutput},
	"51 inputs":             {func(_ *deal, p *psbt.Packet) { addInputs(p, MaxPartInputs) }, protocol.CodeWrongInput},
	"201 inputs":            {func(_ *deal, p *psbt.Packet) { addInputs(p, maxPSBTInputs) }, protocol.CodeBadPSBT},
	"9 outputs":             {func(_ *deal, p *psbt.Packet) { addOutputs(p, maxPSBTOutputs) }, protocol.CodeBadPSBT},
	"a wallet's own fields": {func(_ *deal, p *psbt.Packet) { p.Inputs[0].RedeemScript = []byte{1} }, ""},
}

func addInput(p *psbt.Packet, at wire.OutPoint) {
	in := wire.NewTxIn(&at, nil, nil)
	in.Sequence = sequenceReplaceable
	p.UnsignedTx.AddTxIn(in)
	p.Inputs = append(p.Inputs, psbt.PInput{WitnessUtxo: p.Inputs[0].WitnessUtxo})
}

func addInputs(p *psbt.Packet, n int) {
	for i := range n {
		addInput(p, wire.OutPoint{Index: uint32(100 + i)})
	}
}

func addOutput(p *psbt.Packet, script []byte) {
	p.UnsignedTx.AddTxOut(wire.NewTxOut(1_000, script))
	p.Outputs = append(p.Outputs, psbt.POutput{})
}

func addOutputs(p *psbt.Packet, n int) {
	for range n {
		addOutput(p, p.UnsignedTx.TxOut[0].PkScript)
	}
}

func TestOfferMutations(t *testing.T) {
	for name, c := range offers {
		t.Run(name, func(t *testing.T) {
			d := plain(t)
			offer, err := OfferPSBT(d.funding.User)
			if err != nil {
				t.Fatal(err)
			}
			packet, err := DecodePSBT(offer)
			if err != nil {
				t.Fatal(err)
			}
			c.change(d, packet)
			text, err := EncodePSBT(packet)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseOffer(text)
			wantCode(t, err, c.code)
		})
	}
}

// What a relay may propose: every change of the funding that the user would sign.
func TestFundingMutations(t *testing.T) {
	out := func(i int, change func(*wire.TxOut)) func(*deal, *psbt.Packet) {
		return func(_ *deal, p *psbt.Packet) { change(p.UnsignedTx.TxOut[i]) }
	}
	swapInputs := func(_ *deal, p *psbt.Packet) {
		p.UnsignedTx.TxIn[0], p.UnsignedTx.TxIn[1] = p.UnsignedTx.TxIn[1], p.UnsignedTx.TxIn[0]
		p.Inputs[0], p.Inputs[1] = p.Inputs[1], p.Inputs[0]
	}
	for name, c := range map[string]struct {
		change func(*deal, *psbt.Packet)
		code   protocol.Code
	}{
		"as it should be":           {func(*deal, *psbt.Packet) {}, ""},
		"swapped inputs":            {swapInputs, protocol.CodeWrongInput},
		"foreign input":             {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxIn[0].PreviousOutPoint.Index++ }, protocol.CodeWrongInput},
		"user's input missing":      {func(_ *deal, p *psbt.Packet) { cutInputs(p, 1, 2) }, protocol.CodeWrongInput},
		"all inputs missing":        {func(_ *deal, p *psbt.Packet) { cutInputs(p, 0, 0) }, protocol.CodeWrongInput},
		"relay's input missing":     {func(_ *deal, p *psbt.Packet) { cutInputs(p, 0, 1) }, protocol.CodeWrongAmount},
		"user's input again":        {func(_ *deal, p *psbt.Packet) { addInput(p, p.UnsignedTx.TxIn[0].PreviousOutPoint) }, protocol.CodeWrongInput},
		"user's amount":             {func(_ *deal, p *psbt.Packet) { p.Inputs[0].WitnessUtxo.Value++ }, protocol.CodeInputAmount},
		"user's script":             {func(d *deal, p *psbt.Packet) { p.Inputs[0].WitnessUtxo.PkScript = p2wpkh(d.relayCoin) }, protocol.CodeInputAmount},
		"relay's nested input":      {func(_ *deal, p *psbt.Packet) { p.Inputs[1].WitnessUtxo.PkScript = p2sh() }, protocol.CodeInputType},
		"relay's amount above":      {func(_ *deal, p *psbt.Packet) { p.Inputs[1].WitnessUtxo.Value += 20_000 }, protocol.CodeFeerate},
		"relay's amount below":      {func(_ *deal, p *psbt.Packet) { p.Inputs[1].WitnessUtxo.Value -= 1 }, protocol.CodeFeerate},
		"relay brings too little":   {func(_ *deal, p *psbt.Packet) { p.Inputs[1].WitnessUtxo.Value -= 5_000 }, protocol.CodeWrongAmount},
		"previous outputs overflow": {func(_ *deal, p *psbt.Packet) { p.Inputs[1].WitnessUtxo.Value = 2_100_000_000_000_000 + 1 }, protocol.CodeInputAmount},
		"escrow to another script":  {out(0, func(o *wire.TxOut) { o.PkScript[5] ^= 1 }), protocol.CodeWrongScript},
		"escrow smaller":            {out(0, func(o *wire.TxOut) { o.Value-- }), protocol.CodeWrongAmount},
		"escrow larger":             {out(0, func(o *wire.TxOut) { o.Value++ }), protocol.CodeWrongAmount},
		"change smaller":            {out(1, func(o *wire.TxOut) { o.Value-- }), protocol.CodeWrongOutput},
		"change to the relay":       {func(d *deal, p *psbt.Packet) { p.UnsignedTx.TxOut[1].PkScript = p2wpkh(d.relayCoin) }, protocol.CodeWrongOutput},
		"relay takes more":          {out(2, func(o *wire.TxOut) { o.Value += 5_000 }), protocol.CodeWrongAmount},
		"relay pays no fee":         {out(2, func(o *wire.TxOut) { o.Value += 10 }), protocol.CodeFeerate},
		"relay burns its coins":     {out(2, func(o *wire.TxOut) { o.Value -= 2_000 }), protocol.CodeFeerate},
		"relay's change is dust":    {out(2, func(o *wire.TxOut) { o.Value = 200 }), protocol.CodeDust},
		"relay's change to P2SH":    {out(2, func(o *wire.TxOut) { o.PkScript = p2sh() }), protocol.CodeWrongScript},
		"outputs swapped": {func(_ *deal, p *psbt.Packet) {
			p.UnsignedTx.TxOut[0], p.UnsignedTx.TxOut[1] = p.UnsignedTx.TxOut[1], p.UnsignedTx.TxOut[0]
		}, protocol.CodeWrongScript},
		"extra output": {func(d *deal, p *psbt.Packet) { addOutput(p, p2wpkh(d.relayCoin)) }, protocol.CodeWrongOutput},
		"change missing": {func(_ *deal, p *psbt.Packet) {
			p.UnsignedTx.TxOut = p.UnsignedTx.TxOut[:1]
			p.Outputs = p.Outputs[:1]
		}, protocol.CodeWrongOutput},
		"locktime":        {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.LockTime = 500 }, protocol.CodeWrongLocktime},
		"version":         {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.Version = 3 }, protocol.CodeWrongLocktime},
		"sequence":        {func(_ *deal, p *psbt.Packet) { p.UnsignedTx.TxIn[1].Sequence-- }, protocol.CodeWrongSequence},
		"no WITNESS_UTXO": {func(_ *deal, p *psbt.Packet) { p.Inputs[1].WitnessUtxo = nil }, protocol.CodeInputAmount},
		"another contract's script": {func(_ *deal, p *psbt.Packet) {
			p.UnsignedTx.TxOut[0].PkScript, _ = newDeal(t, "other", func(*deal) {}).contract.PkScript()
		}, protocol.CodeWrongScript},
	} {
		t.Run(name, func(t *testing.T) {
			d := plain(t)
			packet, err := d.funding.Packet()
			if err != nil {
				t.Fatal(err)
			}
			clonePrevious(packet)
			c.change(d, packet)
			text, err := EncodePSBT(packet)
			if err != nil {
				t.Fatal(err)
			}
			f, err := VerifyFunding(text, d.contract, testFeerate, d.funding.User, nil)
			wantCode(t, err, c.code)
			if err == nil {
				if again, err := f.PSBT(); err != nil || again != text {
					t.Errorf("what was read is not what was written (%v)", err)
				}
			}
		})
	}
}

// clonePrevious lets a test bend the previous outputs of a packet without those of the deal.
func clonePrevious(p *psbt.Packet) {
	for i := range p.Inputs {
		previous := *p.Inputs[i].WitnessUtxo
		p.Inputs[i].WitnessUtxo = &previous
	}
}

func cutInputs(p *psbt.Packet, from, to int) {
	p.UnsignedTx.TxIn, p.Inputs = p.UnsignedTx.TxIn[from:to], p.Inputs[from:to]
}

// The chain's word on the other side's inputs.
func TestCheckCoins(t *testing.T) {
	named := coin("a", p2wpkh(testKey("a")), 5_000)
	named.Confirmations = 0 // a PSBT does not say
	for name, c := range map[string]struct {
		change func(*Coin)
		code   protocol.Code
	}{
		"as named":            {func(*Coin) {}, ""},
		"spent":               {func(c *Coin) { c.OutPoint.Index++ }, protocol.CodeInputSpent},
		"less":                {func(c *Coin) { c.Value-- }, protocol.CodeInputAmount},
		"another script":      {func(c *Coin) { c.PkScript = p2tr(testKey("a")) }, protocol.CodeInputAmount},
		"unconfirmed":         {func(c *Coin) { c.Confirmations = 0 }, protocol.CodeInputUnconfirmed},
		"immature reward":     {func(c *Coin) { c.Coinbase, c.Confirmations = true, 99 }, protocol.CodeInputUnconfirmed},
		"mature reward":       {func(c *Coin) { c.Coinbase, c.Confirmations = true, 100 }, ""},
		"just one block deep": {func(c *Coin) { c.Confirmations = 1 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			found := named
			found.Confirmations = 6
			c.change(&found)
			wantCode(t, CheckCoins([]Coin{named}, map[wire.OutPoint]Coin{found.OutPoint: found}), c.code)
		})
	}
}
