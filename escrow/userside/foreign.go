package userside

import (
	"bytes"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// ReadCoins takes from a PSBT of the user's own wallet the coins that it would spend, and the script of its change: the one
// output that does not go to payout, a script of which many wallets want one to make a PSBT at all. What the outputs are worth
// does not matter: the change is computed anew. Codes are those of escrow.DecodePSBT, wrong_input and wrong_output.
func ReadCoins(p protocol.PSBT, payout protocol.Script) (coins []escrow.Coin, change protocol.Script, err error) {
	packet, err := escrow.DecodePSBT(p)
	if err != nil {
		return nil, nil, err
	}
	for i, in := range packet.UnsignedTx.TxIn {
		previous := packet.Inputs[i].WitnessUtxo
		if previous == nil {
			return nil, nil, protocol.Errorf(protocol.CodeWrongInput, "the input %s has no WITNESS_UTXO: use native SegWit coins", in.PreviousOutPoint)
		}
		coins = append(coins, escrow.Coin{OutPoint: in.PreviousOutPoint, Value: btcutil.Amount(previous.Value), PkScript: previous.PkScript})
	}
	if len(coins) == 0 {
		return nil, nil, protocol.Errorf(protocol.CodeWrongInput, "the PSBT spends no coin")
	}
	for _, out := range packet.UnsignedTx.TxOut {
		if bytes.Equal(out.PkScript, payout) {
			continue
		}
		if change != nil && !bytes.Equal(change, out.PkScript) {
			return nil, nil, protocol.Errorf(protocol.CodeWrongOutput, "the PSBT has more than one output that is not the payout: leave only the change")
		}
		change = out.PkScript
	}
	return coins, change, nil
}
