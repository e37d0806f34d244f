package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/handover"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// readPSBT reads a PSBT file of another wallet, in base64 or binary: what contracts take of it, and all of it.
func readPSBT(file string) (p protocol.PSBT, whole []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	var copied bytes.Buffer
	if p, err = handover.ReadPSBT(io.TeeReader(f, &copied)); err != nil {
		return "", nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, copied.Bytes(), nil
}

// contractID reads an id, or draws one.
func contractID(typed string) (id protocol.ContractID, err error) {
	if typed == "" {
		return userside.NewID(rand.Reader)
	}
	return id, id.UnmarshalText([]byte(typed))
}

// writeFunding writes the funding for the user's own wallet to sign, with what that wallet said of its inputs: from which
// keys they are derived. The relay has no use for that and was not told.
func (p *program) writeFunding(r *userside.Record, file string, given []byte) error {
	packet, err := escrow.DecodePSBT(r.PSBT)
	if err != nil {
		return err
	}
	if given != nil {
		if err := addDerivations(packet, given); err != nil {
			return err
		}
	}
	text, err := packet.B64Encode()
	if err != nil {
		return err
	}
	if file == "" {
		return fmt.Errorf("the funding waits for your own wallet: give --psbt-out FILE to get it, or --psbt-in FILE with it signed")
	}
	if err := handover.WritePSBT(file, protocol.PSBT(text)); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{"contract": contractJSON(r), "psbt": file})
	}
	return p.say("Wrote %s. Sign it with your wallet, soon, and run: relay contract resume %s --psbt-in SIGNED-FILE\n", file, r.ID.Short())
}

// addDerivations copies the derivations of the inputs of a PSBT to the same inputs of another.
func addDerivations(packet *psbt.Packet, given []byte) error {
	binary := bytes.HasPrefix(given, []byte("psbt\xff"))
	theirs, err := psbt.NewFromRawBytes(bytes.NewReader(bytes.TrimSpace(given)), !binary)
	if err != nil {
		return err
	}
	known := map[wire.OutPoint]psbt.PInput{}
	for i, in := range theirs.UnsignedTx.TxIn {
		known[in.PreviousOutPoint] = theirs.Inputs[i]
	}
	for i, in := range packet.UnsignedTx.TxIn {
		if from, ok := known[in.PreviousOutPoint]; ok {
			to := &packet.Inputs[i]
			to.Bip32Derivation, to.TaprootBip32Derivation, to.TaprootInternalKey = from.Bip32Derivation, from.TaprootBip32Derivation, from.TaprootInternalKey
		}
	}
	return nil
}
