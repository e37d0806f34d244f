package escrow

import (
	"bytes"
	"encoding/base64"

	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// Bounds of a PSBT of the exchange.
const (
	maxPSBTInputs  = 200
	maxPSBTOutputs = 8
)

// Types of PSBT keys (BIP174, BIP371).
const (
	psbtGlobalTx      = 0x00
	psbtGlobalVersion = 0xfb

	psbtInWitnessUTXO   = 0x01
	psbtInPartialSig    = 0x02
	psbtInSighash       = 0x03
	psbtInWitnessScript = 0x05
	psbtInFinalSig      = 0x07
	psbtInFinalWitness  = 0x08
	psbtInTapKeySig     = 0x13
)

// DecodePSBT reads a PSBT from a stranger. The library allocates by the counts it finds and keeps
// only some of the rules, so this walks the bytes first: sizes within what is there, no key twice in
// a map, the counts of maps, nothing after the end. What the contract has no use for (derivations,
// previous transactions, unknown keys) is dropped. Codes are too_large and bad_psbt.
func DecodePSBT(p protocol.PSBT) (*psbt.Packet, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(p))
	if err != nil {
		return nil, badPSBT("it is not standard base64")
	}
	if len(raw) > protocol.MaxPSBTSize {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "a PSBT has at most %d bytes: leave out previous transactions and derivations", protocol.MaxPSBTSize)
	}
	clean, err := cleanPSBT(raw)
	if err != nil {
		return nil, err
	}
	packet, err := psbt.NewFromRawBytes(bytes.NewReader(clean), false)
	if err != nil {
		return nil, badPSBT("%v", err)
	}
	return packet, nil
}

// EncodePSBT is the wire form of a packet. It fails with code too_large when the other side would
// refuse it.
func EncodePSBT(packet *psbt.Packet) (protocol.PSBT, error) {
	var b bytes.Buffer
	if err := packet.Serialize(&b); err != nil {
		return "", badPSBT("it cannot be written: %v", err)
	}
	if b.Len() > protocol.MaxPSBTSize {
		return "", protocol.Errorf(protocol.CodeTooLarge, "the PSBT has %d bytes, %d are allowed: use fewer inputs", b.Len(), protocol.MaxPSBTSize)
	}
	return protocol.PSBT(base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

func badPSBT(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeBadPSBT, "the PSBT is malformed: "+format, args...)
}

// cleanPSBT checks the structure and copies what the contract uses.
func cleanPSBT(raw []byte) ([]byte, error) {
	const magic = "psbt\xff"
	if !bytes.HasPrefix(raw, []byte(magic)) {
		return nil, badPSBT("it does not start like one of version 0")
	}
	r := psbtReader{byteReader{rest: raw[len(magic):]}, make([]byte, 0, len(raw))}
	r.out = append(r.out, magic...)
	var inputs, outputs int
	hasTx := false
	r.readMap(func(key, value []byte) bool {
		switch {
		case len(key) == 1 && key[0] == psbtGlobalTx:
			hasTx = true
			inputs, outputs = r.countTx(value)
			return true
		case key[0] == psbtGlobalVersion && (len(key) != 1 || !bytes.Equal(value, make([]byte, 4))):
			r.fail("its version is not 0")
		}
		return false
	})
	if r.err == nil && !hasTx {
		r.fail("it has no transaction")
	}
	for range inputs {
		r.readMap(r.keepsInput)
	}
	for range outputs {
		r.readMap(func([]byte, []byte) bool { return false })
	}
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes are left over", len(r.rest))
	}
	return r.out, r.err
}

// psbtReader walks the bytes of a PSBT and copies what is kept of it.
type psbtReader struct {
	byteReader
	out []byte
}

// readMap reads one map to its separator and writes the pairs that keep agrees to.
func (r *psbtReader) readMap(keep func(key, value []byte) bool) {
	seen := make(map[string]struct{})
	for r.err == nil {
		start := r.rest
		key := r.bytes()
		if r.err != nil {
			return
		}
		if len(key) == 0 {
			r.out = append(r.out, 0)
			return
		}
		value := r.bytes()
		if r.err != nil {
			return
		}
		if _, twice := seen[string(key)]; twice {
			r.fail("the key %.20x occurs twice in one map", key)
			return
		}
		seen[string(key)] = struct{}{}
		if keep(key, value) {
			r.out = append(r.out, start[:len(start)-len(r.rest)]...)
		}
	}
}

// keepsInput tells whether the contract uses this pair of an input's map.
func (r *psbtReader) keepsInput(key, value []byte) bool {
	switch key[0] {
	case psbtInPartialSig:
		return len(key) == 1+33
	case psbtInWitnessUTXO:
		// The library takes whatever follows the length for the script.
		if len(value) < 9 || int(value[8]) != len(value)-9 || value[8] >= 0xfd {
			r.fail("a previous output is not an amount and a script")
		}
	case psbtInSighash, psbtInWitnessScript, psbtInFinalSig, psbtInFinalWitness, psbtInTapKeySig:
	default:
		return false
	}
	if len(key) != 1 {
		r.fail("the key %.20x is longer than its type", key)
	}
	return true
}

// countTx walks an unsigned transaction in the old serialization and returns its counts.
func (r *psbtReader) countTx(raw []byte) (inputs, outputs int) {
	t := byteReader{rest: raw}
	t.take(4)
	inputs = t.count()
	if inputs > maxPSBTInputs {
		t.fail("its transaction has %d inputs, %d are allowed", inputs, maxPSBTInputs)
		inputs = 0
	}
	for range inputs {
		t.take(36)
		if len(t.bytes()) > 0 {
			t.fail("an input of its transaction is signed")
		}
		t.take(4)
	}
	outputs = t.count()
	if outputs > maxPSBTOutputs {
		t.fail("its transaction has %d outputs, %d are allowed", outputs, maxPSBTOutputs)
		outputs = 0
	}
	for range outputs {
		t.take(8)
		t.bytes()
	}
	t.take(4)
	if len(t.rest) > 0 {
		t.fail("its transaction has bytes left over")
	}
	if t.err != nil {
		r.err, r.rest = t.err, nil
		return 0, 0
	}
	return inputs, outputs
}

// packetCoins are the inputs of a packet with their previous outputs.
func packetCoins(packet *psbt.Packet) ([]Coin, error) {
	coins := make([]Coin, len(packet.Inputs))
	seen := make(map[wire.OutPoint]struct{}, len(coins))
	for i := range packet.Inputs {
		at := packet.UnsignedTx.TxIn[i].PreviousOutPoint
		if _, twice := seen[at]; twice {
			return nil, protocol.Errorf(protocol.CodeWrongInput, "the input %s occurs twice", at)
		}
		seen[at] = struct{}{}
		previous := packet.Inputs[i].WitnessUtxo
		if previous == nil {
			return nil, protocol.Errorf(protocol.CodeInputAmount, "the input %s has no WITNESS_UTXO: give its previous output", at)
		}
		coins[i] = Coin{OutPoint: at, Value: amountOf(previous), PkScript: previous.PkScript}
		if _, err := sum(coins[i].Value); err != nil {
			return nil, protocol.Errorf(protocol.CodeInputAmount, "the input %s has an amount that cannot be", at)
		}
	}
	return coins, nil
}
