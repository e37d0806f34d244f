package escrow

import (
	"bytes"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// OfferPSBT is the user's part as it travels in a contractOpen: his inputs and his change, nothing
// else.
func OfferPSBT(part Part) (protocol.PSBT, error) {
	t := &Tx{MsgTx: wire.NewMsgTx(txVersion)}
	for _, coin := range part.Coins {
		t.addInput(coin.OutPoint, coin.Output(), sequenceReplaceable)
	}
	if part.Change != nil {
		t.AddTxOut(part.Change)
	}
	packet, err := psbt.NewFromUnsignedTx(t.MsgTx)
	if err != nil {
		return "", badPSBT("%v", err)
	}
	for i := range packet.Inputs {
		packet.Inputs[i].WitnessUtxo = t.Prev[i]
	}
	return EncodePSBT(packet)
}

// ParseOffer reads the user's part from a contractOpen. The coins have the amounts and scripts that
// the PSBT claims: ask the chain, and [CheckCoins].
func ParseOffer(p protocol.PSBT) (Part, error) {
	packet, err := DecodePSBT(p)
	if err != nil {
		return Part{}, err
	}
	if err := checkTemplate(packet.UnsignedTx); err != nil {
		return Part{}, err
	}
	var part Part
	if part.Coins, err = packetCoins(packet); err != nil {
		return Part{}, err
	}
	switch len(packet.UnsignedTx.TxOut) {
	case 0:
	case 1:
		part.Change = packet.UnsignedTx.TxOut[0]
	default:
		return Part{}, protocol.Errorf(protocol.CodeWrongOutput, "an offer has one output at most, the change")
	}
	return part, part.validate(User)
}

// checkTemplate checks what every transaction of the exchange has in common.
func checkTemplate(tx *wire.MsgTx) error {
	if tx.Version != txVersion || tx.LockTime != 0 {
		return protocol.Errorf(protocol.CodeWrongLocktime, "the transaction has version %d and locktime %d, it needs %d and 0", tx.Version, tx.LockTime, txVersion)
	}
	for _, in := range tx.TxIn {
		if in.Sequence != sequenceReplaceable {
			return protocol.Errorf(protocol.CodeWrongSequence, "the input %s has the sequence %08x, it needs %08x", in.PreviousOutPoint, in.Sequence, sequenceReplaceable)
		}
	}
	return nil
}

func (p Part) validate(side Side) error {
	if len(p.Coins) > MaxPartInputs {
		return protocol.Errorf(protocol.CodeWrongInput, "the %s spends %d coins, %d are allowed: join some first", side, len(p.Coins), MaxPartInputs)
	}
	for _, coin := range p.Coins {
		if err := coin.checkType(); err != nil {
			return err
		}
	}
	if p.Change == nil {
		return nil
	}
	script := protocol.Script(p.Change.PkScript)
	if err := script.Validate(); err != nil {
		return err
	}
	if _, err := sum(amountOf(p.Change)); err != nil {
		return err
	}
	if amountOf(p.Change) < script.Dust() {
		return protocol.Errorf(protocol.CodeDust, "the %s's change of %d satoshi is below %d", side, p.Change.Value, int64(script.Dust()))
	}
	return nil
}

// Validate checks the funding against itself, for either side before it signs: the contract, types
// of inputs, no input twice, no dust, and that each side brings exactly its part and its share of
// the fee, give or take a change too small to pay out.
func (f *Funding) Validate() error {
	if err := f.Contract.Validate(); err != nil {
		return err
	}
	if err := f.Feerate.Validate(); err != nil {
		return err
	}
	if err := f.validateRenewal(); err != nil {
		return err
	}
	if err := f.User.validate(User); err != nil {
		return err
	}
	if err := f.Relay.validate(Relay); err != nil {
		return err
	}
	seen := make(map[wire.OutPoint]struct{})
	if f.Renewal != nil {
		seen[f.Renewal.Funding] = struct{}{}
	}
	for _, coin := range slices.Concat(f.User.Coins, f.Relay.Coins) {
		if _, twice := seen[coin.OutPoint]; twice {
			return protocol.Errorf(protocol.CodeWrongInput, "the input %s occurs twice", coin.OutPoint)
		}
		seen[coin.OutPoint] = struct{}{}
	}
	if len(seen) == 0 {
		return protocol.Errorf(protocol.CodeWrongInput, "the funding has no input")
	}
	if err := f.validateShare(User, f.User.Change); err != nil {
		return err
	}
	return f.validateShare(Relay, f.Relay.Change)
}

func (f *Funding) validateRenewal() error {
	r := f.Renewal
	if (r == nil) != (f.Contract.Renews == nil) {
		return protocol.Errorf(protocol.CodeWrongInput, "a contract that renews another spends the other's escrow, no other does")
	}
	if r == nil {
		return nil
	}
	if r.Contract.ID != *f.Contract.Renews || r.Contract.Network != f.Contract.Network ||
		r.Contract.User != f.Contract.User || r.Contract.Relay != f.Contract.Relay {
		return protocol.Errorf(protocol.CodeWrongInput, "the contract renews another than the escrow it spends, or between other parties")
	}
	if err := r.Contract.Validate(); err != nil {
		return err
	}
	return r.Contract.CheckAmount(r.Amount)
}

// validateShare checks that what a side brings, less its change, is its part and its share of the
// fee. What is over must be too small to be worth an output.
func (f *Funding) validateShare(side Side, change *wire.TxOut) error {
	missing, err := f.Missing(side)
	if err != nil {
		return err
	}
	over := -missing
	if change != nil {
		over -= amountOf(change)
	}
	need := f.Contract.Deposit
	if side == Relay {
		need = f.Contract.Bond
	}
	user, relay := f.Fees()
	share := user
	if side == Relay {
		share = relay
	}
	switch {
	case over < -share:
		return protocol.Errorf(protocol.CodeWrongAmount, "the %s brings %d satoshi less than its part of %d", side, int64(-over-share), int64(need))
	case over < 0:
		return protocol.Errorf(protocol.CodeFeerate, "the %s's share of the fee lacks %d satoshi at %d sat per 1000 vB", side, int64(-over), int64(f.Feerate))
	case over > f.slack():
		return protocol.Errorf(protocol.CodeFeerate, "the %s would give %d satoshi too much to the fee: add a change output", side, int64(over))
	}
	return nil
}

// slack is the most that a side may give beyond its share: what a change output would have cost,
// and the dust that it may not be.
func (f *Funding) slack() btcutil.Amount {
	return f.Feerate.Fee(weightP2TROutput) + protocol.DustP2TR + 1
}

// CheckRelayShare refuses a feerate at which the relay's share of the fee is more than the opening
// price. The user names the feerate: without this he could burn more of the relay's coins than
// opening the contract earns it. It is for the relay to ask; the user does not mind.
func (f *Funding) CheckRelayShare() error {
	if _, share := f.Fees(); share > f.Contract.OpeningPrice {
		return protocol.Errorf(protocol.CodeFeerate, "at %d sat per 1000 vB the relay's inputs cost %d satoshi of fee, more than the opening price of %d: take a lower feerate",
			int64(f.Feerate), int64(share), int64(f.Contract.OpeningPrice))
	}
	return nil
}

// VerifyFunding reads the whole funding that the relay proposes and checks it against what the user
// knows: the contract, the feerate, his own part exactly as he offered it, the old escrow if this
// renews one. What is left is the relay's part. The user then asks the chain for the relay's coins
// ([CheckCoins]), keeps the backup, and signs. The relay reads its own proposal back with it.
func VerifyFunding(p protocol.PSBT, c *Contract, feerate Feerate, user Part, renewal *Renewal) (*Funding, error) {
	packet, err := DecodePSBT(p)
	if err != nil {
		return nil, err
	}
	tx := packet.UnsignedTx
	if err := checkTemplate(tx); err != nil {
		return nil, err
	}
	coins, err := packetCoins(packet)
	if err != nil {
		return nil, err
	}
	f := &Funding{Contract: c, Feerate: feerate, User: user, Renewal: renewal}
	if coins, err = f.cutInputs(coins); err != nil {
		return nil, err
	}
	f.Relay.Coins = coins
	if err := f.cutOutputs(tx.TxOut); err != nil {
		return nil, err
	}
	return f, f.Validate()
}

// cutInputs checks the inputs before the relay's, and returns the relay's.
func (f *Funding) cutInputs(coins []Coin) ([]Coin, error) {
	var expected []Coin
	if f.Renewal != nil {
		old, err := f.Renewal.Contract.Output()
		if err != nil {
			return nil, err
		}
		expected = append(expected, Coin{OutPoint: f.Renewal.Funding, Value: amountOf(old), PkScript: old.PkScript})
	}
	expected = append(expected, f.User.Coins...)
	if len(coins) < len(expected) {
		return nil, protocol.Errorf(protocol.CodeWrongInput, "the funding has %d inputs, %d were offered", len(coins), len(expected))
	}
	for i, want := range expected {
		got := coins[i]
		if got.OutPoint != want.OutPoint {
			return nil, protocol.Errorf(protocol.CodeWrongInput, "input %d is %s instead of %s", i, got.OutPoint, want.OutPoint)
		}
		if got.Value != want.Value || !bytes.Equal(got.PkScript, want.PkScript) {
			return nil, protocol.Errorf(protocol.CodeInputAmount, "input %d has another amount or script than offered", i)
		}
	}
	return coins[len(expected):], nil
}

// cutOutputs checks escrow and change, and takes what is left for the relay's output.
func (f *Funding) cutOutputs(outputs []*wire.TxOut) error {
	escrow, err := f.Contract.Output()
	if err != nil {
		return err
	}
	expected := []*wire.TxOut{escrow}
	if f.User.Change != nil {
		expected = append(expected, f.User.Change)
	}
	if len(outputs) < len(expected) || len(outputs) > len(expected)+1 {
		return protocol.Errorf(protocol.CodeWrongOutput, "the funding has %d outputs instead of %d or one more", len(outputs), len(expected))
	}
	for i, want := range expected {
		got := outputs[i]
		if i == 0 && !bytes.Equal(got.PkScript, want.PkScript) {
			return protocol.Errorf(protocol.CodeWrongScript, "output 0 is not to the escrow script of the contract")
		}
		if i == 0 && got.Value != want.Value {
			return protocol.Errorf(protocol.CodeWrongAmount, "the escrow has %d satoshi instead of %d", got.Value, want.Value)
		}
		if got.Value != want.Value || !bytes.Equal(got.PkScript, want.PkScript) {
			return protocol.Errorf(protocol.CodeWrongOutput, "output %d is not the user's change", i)
		}
	}
	if len(outputs) > len(expected) {
		f.Relay.Change = outputs[len(expected)]
	}
	return nil
}
