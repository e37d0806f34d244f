package escrow

import (
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// MaxPartInputs bounds what one side may spend in a funding, so that the whole stays far below the
// size of a PSBT of the exchange and of a transaction that nodes relay.
const MaxPartInputs = 50

// Part is what one side brings to a funding and takes from it.
type Part struct {
	Coins  []Coin
	Change *wire.TxOut // nil: none
}

// Renewal is the old escrow that a funding spends as its input 0.
type Renewal struct {
	Contract *Contract
	Funding  wire.OutPoint
	Amount   btcutil.Amount // A of the old contract, which goes to the relay together with its bond
}

// Funding is a funding transaction: what both sides put in, and the escrow that comes out.
//
//	inputs:  [the old escrow,] the user's coins, the relay's coins      all with sequence fffffffd
//	outputs: the escrow, [the user's change,] [the relay's output]      version 2, locktime 0
//
// Each side pays for the weight of its own inputs and change, the user for all the rest, at the
// feerate that the user asked for. A renewal's output to the relay counts among the rest.
type Funding struct {
	Contract *Contract
	Feerate  Feerate
	User     Part
	Relay    Part
	Renewal  *Renewal // nil for a first contract
}

// Outpoint is where the escrow of this funding will be. It is known before anybody signs, because
// native inputs leave nothing of the txid open.
func (f *Funding) Outpoint() (wire.OutPoint, error) {
	tx, err := f.Tx()
	if err != nil {
		return wire.OutPoint{}, err
	}
	return wire.OutPoint{Hash: tx.TxHash(), Index: 0}, nil
}

// Tx is the unsigned funding transaction.
func (f *Funding) Tx() (*Tx, error) {
	escrow, err := f.Contract.Output()
	if err != nil {
		return nil, err
	}
	t := &Tx{MsgTx: wire.NewMsgTx(txVersion)}
	if f.Renewal != nil {
		old, err := f.Renewal.Contract.Output()
		if err != nil {
			return nil, err
		}
		t.addInput(f.Renewal.Funding, old, sequenceReplaceable)
	}
	for _, coin := range slices.Concat(f.User.Coins, f.Relay.Coins) {
		t.addInput(coin.OutPoint, coin.Output(), sequenceReplaceable)
	}
	t.AddTxOut(escrow)
	for _, change := range []*wire.TxOut{f.User.Change, f.Relay.Change} {
		if change != nil {
			t.AddTxOut(wire.NewTxOut(change.Value, slices.Clone(change.PkScript)))
		}
	}
	return t, nil
}

// Packet is the unsigned funding as a PSBT, every input with its WITNESS_UTXO.
func (f *Funding) Packet() (*psbt.Packet, error) {
	t, err := f.Tx()
	if err != nil {
		return nil, err
	}
	packet, err := psbt.NewFromUnsignedTx(t.MsgTx)
	if err != nil {
		return nil, badPSBT("%v", err)
	}
	for i := range packet.Inputs {
		packet.Inputs[i].WitnessUtxo = t.Prev[i]
	}
	if f.Renewal != nil {
		script, err := f.Renewal.Contract.Script()
		if err != nil {
			return nil, err
		}
		packet.Inputs[0].WitnessScript = script
	}
	return packet, nil
}

// PSBT is the packet in its wire form.
func (f *Funding) PSBT() (protocol.PSBT, error) {
	packet, err := f.Packet()
	if err != nil {
		return "", err
	}
	return EncodePSBT(packet)
}

// weights of the two shares of the fee. In a renewal the relay's one output carries what the user
// owes: he pays for it as if it were P2TR, because he makes his change before he knows its script,
// or whether it is there.
func (f *Funding) weights() (user, relay Weight) {
	user = weightBase + weightP2TROutput // the escrow's script is as long
	for _, coin := range f.User.Coins {
		user += weightCoin(coin.PkScript)
	}
	if f.User.Change != nil {
		user += weightOutput(f.User.Change.PkScript)
	}
	for _, coin := range f.Relay.Coins {
		relay += weightCoin(coin.PkScript)
	}
	switch {
	case f.Renewal != nil:
		user += weightEscrow + weightP2TROutput
	case f.Relay.Change != nil:
		relay += weightOutput(f.Relay.Change.PkScript)
	}
	return user, relay
}

// Weight estimates the weight of the signed transaction, at most a P2TR output too high.
func (f *Funding) Weight() Weight {
	user, relay := f.weights()
	return user + relay
}

// Fees are the two shares of the fee at the agreed feerate, each rounded up.
func (f *Funding) Fees() (user, relay btcutil.Amount) {
	u, r := f.weights()
	return f.Feerate.Fee(u), f.Feerate.Fee(r)
}

// brought is what a side puts into the funding besides its change: its coins and its part of the
// old escrow.
func (f *Funding) brought(side Side) (btcutil.Amount, error) {
	coins := f.User.Coins
	if side == Relay {
		coins = f.Relay.Coins
	}
	amounts := make([]btcutil.Amount, 0, len(coins)+1)
	for _, coin := range coins {
		amounts = append(amounts, coin.Value)
	}
	if r := f.Renewal; r != nil {
		if side == User {
			amounts = append(amounts, r.Contract.Deposit-r.Amount)
		} else {
			amounts = append(amounts, r.Contract.Bond+r.Amount)
		}
	}
	return sum(amounts...)
}

// Missing is how much more the side must bring at present, its share of the fee included; 0 or less
// if it has enough. A coin added costs its own weight: see [Funding.InputCost].
func (f *Funding) Missing(side Side) (btcutil.Amount, error) {
	have, err := f.brought(side)
	if err != nil {
		return 0, err
	}
	user, relay := f.Fees()
	if side == Relay {
		return f.Contract.Bond + relay - have, nil
	}
	return f.Contract.Deposit + user - have, nil
}

// InputCost is what one more input with this previous script costs at the feerate.
func (f *Funding) InputCost(pkScript []byte) btcutil.Amount {
	return f.Feerate.Fee(weightCoin(pkScript)) + 1 // shares are rounded once, not per input
}

// SetChange gives the side an output to this script with all that it brought beyond its part and
// its share of the fee; below dust there is none, and the rest goes to the fee. The error has code
// wrong_amount when the side has not brought enough.
func (f *Funding) SetChange(side Side, script protocol.Script) error {
	if err := script.Validate(); err != nil {
		return err
	}
	part := &f.User
	if side == Relay {
		part = &f.Relay
	}
	part.Change = wire.NewTxOut(0, script)
	missing, err := f.Missing(side)
	if err != nil {
		return err
	}
	if -missing >= script.Dust() {
		part.Change.Value = int64(-missing)
		return nil
	}
	part.Change = nil
	if missing, err = f.Missing(side); err != nil {
		return err
	}
	if missing > 0 {
		return protocol.Errorf(protocol.CodeWrongAmount, "the %s's inputs lack %d satoshi: add a coin", side, int64(missing))
	}
	return nil
}

func amountOf(out *wire.TxOut) btcutil.Amount { return btcutil.Amount(out.Value) }
