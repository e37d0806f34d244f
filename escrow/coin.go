package escrow

import (
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

const coinbaseMaturity = 100 // confirmations before the reward of a block can be spent

// Coin is an unspent output. Confirmations and Coinbase are the chain's word; a coin read from a
// PSBT has neither.
type Coin struct {
	OutPoint      wire.OutPoint
	Value         btcutil.Amount
	PkScript      []byte
	Confirmations int64
	Coinbase      bool
}

// Output is the coin as a previous output.
func (c Coin) Output() *wire.TxOut { return wire.NewTxOut(int64(c.Value), c.PkScript) }

// checkType refuses every coin but native P2WPKH (BIP141) and P2TR (BIP341). A nested or legacy
// input would leave the txid open until it is signed, and with it the escrow's outpoint.
func (c Coin) checkType() error {
	if weightCoin(c.PkScript) == 0 {
		return protocol.Errorf(protocol.CodeInputType, "the input %s is neither native P2WPKH nor P2TR: move the coin to a bc1q… or bc1p… address first", c.OutPoint)
	}
	return nil
}

// CheckCoins compares the inputs that the other side named with what the chain has under those
// outpoints; found lacks what is spent or unknown. Codes are input_spent, input_amount and
// input_unconfirmed.
func CheckCoins(named []Coin, found map[wire.OutPoint]Coin) error {
	for _, n := range named {
		f, ok := found[n.OutPoint]
		switch {
		case !ok:
			return protocol.Errorf(protocol.CodeInputSpent, "the input %s is spent, or not on this chain", n.OutPoint)
		case f.Value != n.Value || string(f.PkScript) != string(n.PkScript):
			return protocol.Errorf(protocol.CodeInputAmount, "the input %s has %d satoshi or a script that differ from the PSBT", n.OutPoint, int64(f.Value))
		case f.Confirmations < 1:
			return protocol.Errorf(protocol.CodeInputUnconfirmed, "the input %s is not in a block yet", n.OutPoint)
		case f.Coinbase && f.Confirmations < coinbaseMaturity:
			return protocol.Errorf(protocol.CodeInputUnconfirmed, "the input %s is the reward of a block and needs %d confirmations", n.OutPoint, coinbaseMaturity)
		}
	}
	return nil
}
