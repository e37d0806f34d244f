package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"

	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// asBase64 is a PSBT in base64, whether it was given so or in binary.
func asBase64(data []byte) string {
	if bytes.HasPrefix(data, []byte("psbt\xff")) {
		return base64.StdEncoding.EncodeToString(data)
	}
	return string(bytes.TrimSpace(data))
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
func (p *program) writeFunding(r *userside.Record, file, given string) error {
	packet, err := escrow.DecodePSBT(r.PSBT)
	if err != nil {
		return err
	}
	if given != "" {
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
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{"contract": contractJSON(r), "psbt": file})
	}
	return p.say("Wrote %s. Sign it with your wallet, soon, and run: relay contract resume %s --psbt-in SIGNED-FILE\n", file, r.ID.Short())
}

// addDerivations copies the derivations of the inputs of a PSBT to the same inputs of another.
func addDerivations(packet *psbt.Packet, given string) error {
	theirs, err := psbt.NewFromRawBytes(bytes.NewReader([]byte(given)), true)
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
