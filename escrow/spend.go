package escrow

import (
	"bytes"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// Spend is what a transaction that spends an escrow turned out to be.
type Spend struct {
	Kind   string         // [protocol.TxSettlement], TxRefund, TxClosing or TxRenewal
	Input  int            // which input spends the escrow
	Amount btcutil.Amount // A of a settlement, else 0
	State  *wire.OutPoint // what a settlement left to the user, see [Sweep]
	Left   btcutil.Amount // the amount of it, P − A
}

// Identify tells what a transaction of the chain or the mempool does with the escrow; false if it
// does not spend it. Both sides judge by witness and outputs, not by what they remember: the other
// side, or an older copy of oneself, may have made it. Whatever both signed and is no settlement is
// a closing; the caller knows which of those is the funding of a successor.
func Identify(c *Contract, funding wire.OutPoint, tx *wire.MsgTx) (Spend, bool) {
	for i, in := range tx.TxIn {
		if in.PreviousOutPoint != funding {
			continue
		}
		s := Spend{Kind: protocol.TxClosing, Input: i}
		if w := in.Witness; len(w) == 3 && len(w[0]) == 0 {
			s.Kind = protocol.TxRefund
			return s, true
		}
		script, err := c.StatePkScript()
		if err == nil && i < len(tx.TxOut) && bytes.Equal(tx.TxOut[i].PkScript, script) {
			s.Kind, s.Left = protocol.TxSettlement, amountOf(tx.TxOut[i])
			s.Amount = c.Deposit - s.Left
			s.State = &wire.OutPoint{Hash: tx.TxHash(), Index: uint32(i)}
		}
		return s, true
	}
	return Spend{}, false
}
