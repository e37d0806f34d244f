package handover_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/handover"
	"relaymarket/protocol"
)

// signed is what a wallet gives back: two coins, P2WPKH and P2TR, with whole previous transactions, derivations, and
// signatures that are not finalized. finished is the transaction that it means.
func signed(t *testing.T) (packet *psbt.Packet, finished *wire.MsgTx) {
	t.Helper()
	key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{7}, 32))
	pub := key.PubKey().SerializeCompressed()
	wpkh := append([]byte{txscript.OP_0, 20}, address.Hash160(pub)...)
	tr, err := txscript.PayToTaprootScript(txscript.ComputeTaprootKeyNoScript(key.PubKey()))
	if err != nil {
		t.Fatal(err)
	}
	before := wire.NewMsgTx(2)
	before.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 3}, nil, nil))
	before.AddTxOut(wire.NewTxOut(70_000, wpkh))
	before.AddTxOut(wire.NewTxOut(80_000, tr))
	for range 200 { // a payment to many, as exchanges make
		before.AddTxOut(wire.NewTxOut(90_000, make([]byte, 500)))
	}
	tx := wire.NewMsgTx(2)
	coins := make(map[wire.OutPoint]*wire.TxOut)
	for i := range 2 {
		op := wire.OutPoint{Hash: before.TxHash(), Index: uint32(i)}
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: op, Sequence: wire.MaxTxInSequenceNum - 2})
		coins[op] = before.TxOut[i]
	}
	tx.AddTxOut(wire.NewTxOut(140_000, wpkh))
	packet, err = psbt.NewFromUnsignedTx(tx)
	if err != nil {
		t.Fatal(err)
	}
	hashes := txscript.NewTxSigHashes(tx, txscript.NewMultiPrevOutFetcher(coins))
	finished = tx.Copy()
	first, err := txscript.WitnessSignature(tx, hashes, 0, 70_000, wpkh, txscript.SigHashAll, key, true)
	if err != nil {
		t.Fatal(err)
	}
	second, err := txscript.TaprootWitnessSignature(tx, hashes, 1, 80_000, tr, txscript.SigHashDefault, key)
	if err != nil {
		t.Fatal(err)
	}
	finished.TxIn[0].Witness, finished.TxIn[1].Witness = first, second
	packet.Inputs[0].NonWitnessUtxo = before
	packet.Inputs[0].PartialSigs = []*psbt.PartialSig{{PubKey: pub, Signature: first[0]}}
	packet.Inputs[0].SighashType = txscript.SigHashAll
	packet.Inputs[0].Bip32Derivation = []*psbt.Bip32Derivation{{PubKey: pub, Bip32Path: []uint32{84, 0, 0}}}
	packet.Inputs[1].WitnessUtxo = before.TxOut[1]
	packet.Inputs[1].TaprootKeySpendSig = second[0]
	return packet, finished
}

func serialize(t *testing.T, packet *psbt.Packet) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := packet.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadPSBT(t *testing.T) {
	packet, finished := signed(t)
	raw := serialize(t, packet)
	text := base64.StdEncoding.EncodeToString(raw)
	for name, form := range map[string]string{
		"binary": string(raw), "base64": text, "base64 in lines": "\n" + text[:64] + "\r\n  " + text[64:] + "\n",
	} {
		p, err := handover.ReadPSBT(strings.NewReader(form))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(p) > 1_500 {
			t.Errorf("%s: %d characters are left", name, len(p))
		}
		read, err := escrow.DecodePSBT(p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tx, err := psbt.Extract(read)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tx.WitnessHash() != finished.WitnessHash() {
			t.Errorf("%s: another transaction", name)
		}
	}
}

func TestReadPSBTRefuses(t *testing.T) {
	good := func() *psbt.Packet { p, _ := signed(t); return p }
	other := good()
	other.Inputs[0].NonWitnessUtxo.LockTime = 9
	missing := good()
	missing.Inputs[0].NonWitnessUtxo = nil
	for name, raw := range map[string][]byte{
		"nothing":                      nil,
		"text":                         []byte("hello"),
		"cut":                          serialize(t, good())[:300],
		"another previous transaction": serialize(t, other),
		"no previous output":           serialize(t, missing),
		"too large":                    append([]byte("psbt\xff"), make([]byte, handover.MaxFile)...),
	} {
		if _, err := handover.ReadPSBT(bytes.NewReader(raw)); !errors.Is(err, handover.ErrPSBT) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	if _, err := handover.ReadPSBT(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// An input that is not signed stays so: another may sign it.
func TestReadPSBTUnsigned(t *testing.T) {
	packet, _ := signed(t)
	packet.Inputs[1].TaprootKeySpendSig = nil
	p, err := handover.ReadPSBT(bytes.NewReader(serialize(t, packet)))
	if err != nil {
		t.Fatal(err)
	}
	read, err := escrow.DecodePSBT(p)
	if err != nil || read.Inputs[0].FinalScriptWitness == nil || read.Inputs[1].FinalScriptWitness != nil {
		t.Errorf("%+v, %v", read, err)
	}
}

func TestWritePSBT(t *testing.T) {
	packet, _ := signed(t)
	p, err := handover.ReadPSBT(bytes.NewReader(serialize(t, packet)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "funding.psbt")
	for range 2 {
		if err := handover.WritePSBT(path, p); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again, err := handover.ReadPSBT(file)
	if err != nil || again != p {
		t.Errorf("another one comes back: %v", err)
	}
	if err := handover.WritePSBT(path, protocol.PSBT("*")); !errors.Is(err, handover.ErrPSBT) {
		t.Errorf("%v", err)
	}
	if err := handover.WritePSBT(filepath.Join(dir, "no", "such"), p); err == nil {
		t.Error("written to a folder that is not there")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPaymentLink(t *testing.T) {
	to, err := address.NewAddressWitnessPubKeyHash(make([]byte, 20), &chaincfg.MainNetParams)
	if err != nil {
		t.Fatal(err)
	}
	base := "bitcoin:" + to.EncodeAddress()
	for _, c := range []struct {
		amount btcutil.Amount
		label  string
		want   string
	}{
		{0, "", ""},
		{1, "", "?amount=0.00000001"},
		{20_30_000_000, "", "?amount=20.3"},
		{100_000_000, "Luke & Leia+1", "?amount=1&label=Luke%20%26%20Leia%2B1"},
		{0, "ö", "?label=%C3%B6"},
		{btcutil.MaxSatoshi, "", "?amount=21000000"},
	} {
		if got := handover.PaymentLink(to, c.amount, c.label); got != base+c.want {
			t.Errorf("%s, want %s", got, base+c.want)
		}
	}
	var qr bytes.Buffer
	handover.WriteQR(&qr, base)
	if lines := strings.Count(qr.String(), "\n"); lines < 15 || lines > 40 {
		t.Errorf("a code of %d lines", lines)
	}
}
