package escrow

import (
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Weight counts weight units (BIP141): four for a byte of the transaction proper, one for a byte of
// witness.
type Weight int64

// VBytes is the virtual size, rounded up.
func (w Weight) VBytes() int64 { return (int64(w) + 3) / 4 }

// Weights of parts. Signatures count as 72 bytes with their sighash byte, the longest that low-S
// DER has.
const (
	weightBase    Weight = 4*(4+1+1+4) + 2 // version, two counts, locktime; marker and flag
	weightInput   Weight = 4 * (32 + 4 + 1 + 4)
	weightSig     Weight = 1 + 72
	weightP2WPKH  Weight = weightInput + 1 + weightSig + 1 + 33
	weightKeyPath Weight = weightInput + 1 + 1 + 65

	weightP2TROutput Weight = 4 * (8 + 1 + 34) // P2WSH is as long

	weightEscrow = weightInput + 1 + 2*weightSig + 1 + scriptSize   // both sign
	weightRefund = weightInput + 1 + weightSig + 1 + 1 + scriptSize // the user alone
	weightState  = weightInput + 1 + weightSig + 1 + stateScriptSize
)

// weightOutput is the weight of an output with a script of less than 253 bytes.
func weightOutput(pkScript []byte) Weight { return 4 * Weight(8+1+len(pkScript)) }

// weightCoin is the weight of the input that spends a coin, 0 for a type that funds nothing.
func weightCoin(pkScript []byte) Weight {
	switch {
	case txscript.IsPayToWitnessPubKeyHash(pkScript):
		return weightP2WPKH
	case txscript.IsPayToTaproot(pkScript):
		return weightKeyPath
	}
	return 0
}

// weightOf is the weight of a transaction as it stands.
func weightOf(tx *wire.MsgTx) Weight {
	return Weight(3*tx.SerializeSizeStripped() + tx.SerializeSize())
}
