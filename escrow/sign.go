package escrow

import (
	"bytes"
	"fmt"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/txscript/v2"

	"relaymarket/protocol"
)

// Sighash types. States are signed by the user so that the relay may add inputs and outputs, and
// with them the fee, but not touch the pair of the escrow and what the user gets.
const (
	sighashAll   = txscript.SigHashAll                                   // 0x01
	sighashState = txscript.SigHashSingle | txscript.SigHashAnyOneCanPay // 0x83
)

// sign signs one P2WSH input (BIP143) and returns low-S DER (RFC 6979, BIP146) and the sighash byte.
func (t *Tx) sign(i int, witnessScript []byte, sighash txscript.SigHashType, key *btcec.PrivateKey) (protocol.ContractSignature, error) {
	digest, err := t.digest(i, witnessScript, sighash)
	if err != nil {
		return nil, err
	}
	return append(ecdsa.Sign(key, digest).Serialize(), byte(sighash)), nil
}

func (t *Tx) digest(i int, witnessScript []byte, sighash txscript.SigHashType) ([]byte, error) {
	// Without its own output an input signed SINGLE would sign the hash of nothing.
	if i >= len(t.TxIn) || sighash&^txscript.SigHashAnyOneCanPay == txscript.SigHashSingle && i >= len(t.TxOut) {
		return nil, fmt.Errorf("sign input %d of a transaction with %d inputs and %d outputs", i, len(t.TxIn), len(t.TxOut))
	}
	digest, err := txscript.CalcWitnessSigHash(witnessScript, txscript.NewTxSigHashes(t.MsgTx, t.fetcher()),
		sighash, t.MsgTx, i, t.Prev[i].Value)
	if err != nil {
		return nil, fmt.Errorf("signature hash of input %d: %w", i, err)
	}
	return digest, nil
}

// checkSignature judges a signature of one P2WSH input: the sighash byte, strict DER, low S, and the
// signature itself. Codes are wrong_sighash and contract_signature.
func (t *Tx) checkSignature(i int, witnessScript []byte, sighash txscript.SigHashType, by protocol.ContractKey, sig protocol.ContractSignature) error {
	if err := sig.Validate(); err != nil {
		return err
	}
	der, last := sig[:len(sig)-1], sig[len(sig)-1]
	if last != byte(sighash) {
		return protocol.Errorf(protocol.CodeWrongSighash, "the signature has sighash %02x, this needs %02x", last, byte(sighash))
	}
	parsed, err := ecdsa.ParseDERSignature(der)
	// The parser takes more than nodes relay; the serializer writes strict, low-S DER only.
	if err != nil || !bytes.Equal(parsed.Serialize(), der) {
		return protocol.Errorf(protocol.CodeContractSignature, "the signature is not strict, low-S DER")
	}
	key, err := btcec.ParsePubKey(by[:])
	if err != nil {
		return protocol.Errorf(protocol.CodeContractSignature, "%s is no key", by)
	}
	digest, err := t.digest(i, witnessScript, sighash)
	if err != nil {
		return err
	}
	if !parsed.Verify(digest, key) {
		return protocol.Errorf(protocol.CodeContractSignature, "the signature is not by %s over this transaction", by)
	}
	return nil
}
