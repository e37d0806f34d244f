package escrow

import (
	"bytes"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// signRenewal signs the old escrow, input 0, with SIGHASH_ALL.
func (f *Funding) signRenewal(key *btcec.PrivateKey) (protocol.ContractSignature, error) {
	t, script, err := f.renewalInput()
	if err != nil {
		return nil, err
	}
	return t.sign(0, script, sighashAll, key)
}

func (f *Funding) renewalInput() (*Tx, []byte, error) {
	if f.Renewal == nil {
		return nil, nil, protocol.Errorf(protocol.CodeWrongInput, "this funding renews no contract")
	}
	t, err := f.Tx()
	if err != nil {
		return nil, nil, err
	}
	script, err := f.Renewal.Contract.Script()
	return t, script, err
}

// AddRenewalSignature puts the user's signature of the old escrow into the packet, as the
// PARTIAL_SIG of input 0. The key is that of the old contract.
func (f *Funding) AddRenewalSignature(packet *psbt.Packet, key *btcec.PrivateKey) error {
	if err := f.checkSame(packet); err != nil {
		return err
	}
	sig, err := f.signRenewal(key)
	if err != nil {
		return err
	}
	of := KeyOf(key)
	if of != f.Renewal.Contract.UserKey {
		return protocol.Errorf(protocol.CodeContractSignature, "the key is not the user's of contract %s", f.Renewal.Contract.ID)
	}
	packet.Inputs[0].PartialSigs = []*psbt.PartialSig{{PubKey: of[:], Signature: sig}}
	return nil
}

// MergeUser takes the user's witnesses out of the packet that he returned, and nothing else: the
// transaction must be this funding's, each of his inputs finalized and validly signed over all of
// it, the old escrow too. The packet that it returns is for the relay's wallet to sign. Codes are
// bad_psbt, wrong_input, wrong_output, wrong_locktime, wrong_sighash and contract_signature.
func (f *Funding) MergeUser(signed protocol.PSBT) (*psbt.Packet, error) {
	theirs, err := DecodePSBT(signed)
	if err != nil {
		return nil, err
	}
	if err := f.checkSame(theirs); err != nil {
		return nil, err
	}
	packet, err := f.Packet()
	if err != nil {
		return nil, err
	}
	first := 0
	if f.Renewal != nil {
		first = 1
		if err := f.mergeRenewal(packet, theirs); err != nil {
			return nil, err
		}
	}
	t, err := f.Tx()
	if err != nil {
		return nil, err
	}
	for i := first; i < first+len(f.User.Coins); i++ {
		if err := t.finish(i, &theirs.Inputs[i]); err != nil {
			return nil, err
		}
		packet.Inputs[i].FinalScriptWitness = theirs.Inputs[i].FinalScriptWitness
	}
	return packet, nil
}

func (f *Funding) mergeRenewal(packet, theirs *psbt.Packet) error {
	t, script, err := f.renewalInput()
	if err != nil {
		return err
	}
	key := f.Renewal.Contract.UserKey
	for _, partial := range theirs.Inputs[0].PartialSigs {
		if bytes.Equal(partial.PubKey, key[:]) {
			packet.Inputs[0].PartialSigs = []*psbt.PartialSig{partial}
			return t.checkSignature(0, script, sighashAll, key, partial.Signature)
		}
	}
	return protocol.Errorf(protocol.CodeContractSignature, "input 0, the renewed escrow, lacks the signature of %s", key)
}

// checkSame refuses a packet whose transaction is not this funding's.
func (f *Funding) checkSame(packet *psbt.Packet) error {
	t, err := f.Tx()
	if err != nil {
		return err
	}
	theirs := packet.UnsignedTx
	if theirs.TxHash() == t.TxHash() {
		return nil
	}
	if err := checkTemplate(theirs); err != nil {
		return err
	}
	if len(theirs.TxIn) != len(t.TxIn) {
		return protocol.Errorf(protocol.CodeWrongInput, "the transaction has %d inputs, the funding %d", len(theirs.TxIn), len(t.TxIn))
	}
	for i, in := range theirs.TxIn {
		if in.PreviousOutPoint != t.TxIn[i].PreviousOutPoint {
			return protocol.Errorf(protocol.CodeWrongInput, "input %d is %s instead of %s", i, in.PreviousOutPoint, t.TxIn[i].PreviousOutPoint)
		}
	}
	return protocol.Errorf(protocol.CodeWrongOutput, "the outputs are not the funding's")
}

// finish sets the final witness of a wallet's input and judges it. It must sign the whole
// transaction: what only signs a part could be taken into another one.
func (t *Tx) finish(i int, in *psbt.PInput) error {
	at := t.TxIn[i].PreviousOutPoint
	if len(in.FinalScriptSig) > 0 {
		return protocol.Errorf(protocol.CodeInputType, "the input %s has a signature script, a native one has none", at)
	}
	witness, err := decodeWitness(in.FinalScriptWitness)
	if err != nil {
		return err
	}
	sighash := byte(sighashAll)
	switch pkScript := t.Prev[i].PkScript; {
	case len(witness) == 0:
		return protocol.Errorf(protocol.CodeContractSignature, "the input %s is not signed: finalize it in the PSBT", at)
	case txscript.IsPayToWitnessPubKeyHash(pkScript) && len(witness) == 2 && len(witness[0]) > 0:
		sighash = witness[0][len(witness[0])-1]
	case txscript.IsPayToTaproot(pkScript) && len(witness) == 1 && len(witness[0]) == 64: // SIGHASH_DEFAULT
	case txscript.IsPayToTaproot(pkScript) && len(witness) == 1 && len(witness[0]) == 65:
		sighash = witness[0][64]
	default:
		return protocol.Errorf(protocol.CodeContractSignature, "the witness of %s is not that of P2WPKH or a P2TR key path", at)
	}
	if sighash != byte(sighashAll) {
		return protocol.Errorf(protocol.CodeWrongSighash, "the signature of %s has sighash %02x, it needs %02x", at, sighash, byte(sighashAll))
	}
	t.TxIn[i].Witness = witness
	return t.verifyInput(i)
}

// decodeWitness reads a witness stack (BIP141) of few, small elements.
func decodeWitness(raw []byte) (wire.TxWitness, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	r := byteReader{rest: raw}
	n := r.size()
	if n > 4 {
		return nil, badPSBT("a witness has %d elements", n)
	}
	witness := make(wire.TxWitness, 0, n)
	for range n {
		element := r.bytes()
		if len(element) > txscript.MaxScriptElementSize {
			return nil, badPSBT("a witness has an element of %d bytes", len(element))
		}
		witness = append(witness, bytes.Clone(element))
	}
	if len(r.rest) > 0 {
		r.fail("a witness has bytes left over")
	}
	return witness, r.err
}

// Finish is the relay's last step: it signs the old escrow of a renewal with relayKey (nil without
// one), takes every witness out of the packet and judges the whole by the rules of standard
// transactions. The relay makes the result durable before it broadcasts it.
func (f *Funding) Finish(packet *psbt.Packet, relayKey *btcec.PrivateKey) (*Tx, error) {
	if err := f.checkSame(packet); err != nil {
		return nil, err
	}
	t, err := f.Tx()
	if err != nil {
		return nil, err
	}
	first := 0
	if f.Renewal != nil {
		first = 1
		if err := f.finishRenewal(t, packet, relayKey); err != nil {
			return nil, err
		}
	}
	for i := first; i < len(t.TxIn); i++ {
		if err := t.finish(i, &packet.Inputs[i]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (f *Funding) finishRenewal(t *Tx, packet *psbt.Packet, relayKey *btcec.PrivateKey) error {
	if len(packet.Inputs[0].PartialSigs) != 1 {
		return protocol.Errorf(protocol.CodeContractSignature, "the renewed escrow lacks the user's signature")
	}
	if relayKey == nil {
		return protocol.Errorf(protocol.CodeContractSignature, "the renewed escrow needs the relay's key")
	}
	script, err := f.Renewal.Contract.Script()
	if err != nil {
		return err
	}
	relaySig, err := t.sign(0, script, sighashAll, relayKey)
	if err != nil {
		return err
	}
	t.TxIn[0].Witness = bothSign(packet.Inputs[0].PartialSigs[0].Signature, relaySig, script)
	return t.verifyInput(0)
}

// bothSign is the witness by which user and relay spend the escrow together. The script checks the
// user's signature first, so it is last on the stack.
func bothSign(user, relay protocol.ContractSignature, script []byte) wire.TxWitness {
	return wire.TxWitness{bytes.Clone(relay), bytes.Clone(user), script}
}

// EncodeWitness is a witness stack as a PSBT carries it (FINAL_SCRIPTWITNESS, BIP174).
func EncodeWitness(witness wire.TxWitness) []byte {
	out := appendSize(nil, len(witness))
	for _, element := range witness {
		out = append(appendSize(out, len(element)), element...)
	}
	return out
}
