package escrow

import (
	"crypto/sha256"

	"github.com/btcsuite/btcd/txscript/v2"

	"relaymarket/protocol"
)

// Sizes of the witness scripts in bytes. The expiry takes four for heights from 32,768 to 8,388,607,
// the next 140 years; less below.
const (
	scriptSize      = 34 + 1 + 34 + 1 + 1 + 1 + 4 + 1 + 1
	stateScriptSize = 34 + 1 + 1 + 1
)

// escrowScript is and_v(v:pk(C),or_d(pk(S),after(T))) as miniscript (BIP379) compiles it:
//
//	<C> OP_CHECKSIGVERIFY <S> OP_CHECKSIG OP_IFDUP OP_NOTIF <T> OP_CHECKLOCKTIMEVERIFY OP_ENDIF
func escrowScript(user, relay protocol.ContractKey, expiry uint32) ([]byte, error) {
	return txscript.NewScriptBuilder().
		AddData(user[:]).AddOp(txscript.OP_CHECKSIGVERIFY).
		AddData(relay[:]).AddOp(txscript.OP_CHECKSIG).
		AddOp(txscript.OP_IFDUP).AddOp(txscript.OP_NOTIF).
		AddInt64(int64(expiry)).AddOp(txscript.OP_CHECKLOCKTIMEVERIFY).
		AddOp(txscript.OP_ENDIF).Script()
}

// stateScript is and_v(v:pk(C),older(1)): the user alone, a block later, so that nobody can pin the
// settlement by spending its output unconfirmed.
//
//	<C> OP_CHECKSIGVERIFY 1 OP_CHECKSEQUENCEVERIFY
func stateScript(user protocol.ContractKey) ([]byte, error) {
	return txscript.NewScriptBuilder().
		AddData(user[:]).AddOp(txscript.OP_CHECKSIGVERIFY).
		AddOp(txscript.OP_1).AddOp(txscript.OP_CHECKSEQUENCEVERIFY).Script()
}

// p2wsh is the output script of a witness script: 0 <SHA-256 of the script> (BIP141).
func p2wsh(witnessScript []byte) protocol.Script {
	hash := sha256.Sum256(witnessScript)
	return append(protocol.Script{txscript.OP_0, txscript.OP_DATA_32}, hash[:]...)
}
