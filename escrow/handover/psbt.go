package handover

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// MaxFile is the largest PSBT that is read, in bytes: wallets put whole previous transactions into it.
const MaxFile = 8 << 20

// ErrPSBT says that a file or text is not a PSBT that this program can take.
var ErrPSBT = errors.New("not a usable PSBT")

// WritePSBT writes the file that other wallets open, binary as BIP174 has it, 0600. An earlier one is replaced in one step.
func WritePSBT(path string, p protocol.PSBT) error {
	raw, err := base64.StdEncoding.DecodeString(string(p))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPSBT, err)
	}
	next, err := os.CreateTemp(filepath.Dir(path), ".psbt-*")
	if err != nil {
		return err
	}
	_, err = next.Write(raw)
	err = errors.Join(err, next.Close())
	if err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return nil
}

// ReadPSBT reads what a wallet gave back, binary or base64 with any white space. Signatures of P2WPKH and of P2TR key paths
// are finalized, and what the contract has no use for is left out, so that it fits into a message. Whether it is the
// right transaction, and signed by all, is escrow's to say. Errors: ErrPSBT.
func ReadPSBT(r io.Reader) (protocol.PSBT, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return "", err
	}
	if len(raw) > MaxFile {
		return "", fmt.Errorf("%w: it is larger than %d bytes", ErrPSBT, MaxFile)
	}
	if !bytes.HasPrefix(raw, []byte("psbt\xff")) {
		text := strings.Join(strings.Fields(string(raw)), "")
		if raw, err = base64.StdEncoding.DecodeString(text); err != nil {
			return "", fmt.Errorf("%w: it is neither a PSBT file nor base64: export the PSBT from the wallet again", ErrPSBT)
		}
	}
	packet, err := psbt.NewFromRawBytes(bytes.NewReader(raw), false)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPSBT, err)
	}
	for i := range packet.Inputs {
		input, err := reduce(packet.UnsignedTx.TxIn[i].PreviousOutPoint, &packet.Inputs[i])
		if err != nil {
			return "", fmt.Errorf("%w: input %d: %w", ErrPSBT, i, err)
		}
		packet.Inputs[i] = input
	}
	packet.Outputs = make([]psbt.POutput, len(packet.Outputs))
	packet.XPubs, packet.Unknowns = nil, nil
	return escrow.EncodePSBT(packet)
}

// reduce keeps the previous output and the signature.
func reduce(coin wire.OutPoint, in *psbt.PInput) (psbt.PInput, error) {
	kept := psbt.PInput{
		WitnessUtxo: in.WitnessUtxo, PartialSigs: in.PartialSigs, SighashType: in.SighashType,
		WitnessScript: in.WitnessScript, TaprootKeySpendSig: in.TaprootKeySpendSig,
		FinalScriptSig: in.FinalScriptSig, FinalScriptWitness: in.FinalScriptWitness,
	}
	if whole := in.NonWitnessUtxo; whole != nil && kept.WitnessUtxo == nil {
		if whole.TxHash() != coin.Hash || uint64(coin.Index) >= uint64(len(whole.TxOut)) {
			return kept, errors.New("the previous transaction is another one")
		}
		kept.WitnessUtxo = whole.TxOut[coin.Index]
	}
	if kept.WitnessUtxo == nil {
		return kept, errors.New("the previous output is missing")
	}
	if len(kept.FinalScriptWitness) > 0 {
		return kept, nil
	}
	var witness wire.TxWitness
	switch script := kept.WitnessUtxo.PkScript; {
	case txscript.IsPayToWitnessPubKeyHash(script) && len(kept.PartialSigs) == 1:
		witness = wire.TxWitness{kept.PartialSigs[0].Signature, kept.PartialSigs[0].PubKey}
	case txscript.IsPayToTaproot(script) && len(kept.TaprootKeySpendSig) > 0:
		witness = wire.TxWitness{kept.TaprootKeySpendSig}
	default:
		return kept, nil
	}
	// BIP174: a finalized input has nothing else left of its signatures.
	kept.PartialSigs, kept.TaprootKeySpendSig, kept.SighashType = nil, nil, 0
	kept.FinalScriptWitness = escrow.EncodeWitness(witness)
	return kept, nil
}
