package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// What is written is judged as another implementation would: from the file alone.
func TestEveryPathIsMinedAndWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out", "transactions.jsonl")
	var table bytes.Buffer
	if err := run(t.Context(), file, false, &table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	names := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		names[l.Name] = true
		if err := judge(l); err != nil {
			t.Errorf("%s: %v", l.Name, err)
		}
		l.Prev[0].Value++
		if judge(l) == nil {
			t.Errorf("%s: its signatures do not commit to the amount", l.Name)
		}
	}
	for _, kind := range []string{"funding", "settlement", "sweep", "cooperative refund", "payment request", "refund by", "renewal", "settlement of two", "replaced", "cancelled"} {
		found := false
		for name := range names {
			found = found || strings.Contains(name, kind)
		}
		if !found {
			t.Errorf("there is no %s among %v", kind, names)
		}
	}
}

// judge runs every input through the script engine.
func judge(l line) error {
	raw, err := hex.DecodeString(l.Hex)
	if err != nil {
		return err
	}
	var tx wire.MsgTx
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		return err
	}
	outs := map[wire.OutPoint]*wire.TxOut{}
	for _, p := range l.Prev {
		hash, err := chainhash.NewHashFromStr(p.Hash)
		if err != nil {
			return err
		}
		script, err := hex.DecodeString(p.Script)
		if err != nil {
			return err
		}
		outs[wire.OutPoint{Hash: *hash, Index: p.Index}] = wire.NewTxOut(p.Value, script)
	}
	fetcher := txscript.NewMultiPrevOutFetcher(outs)
	hashes := txscript.NewTxSigHashes(&tx, fetcher)
	for i, in := range tx.TxIn {
		out := fetcher.FetchPrevOutput(in.PreviousOutPoint)
		engine, err := txscript.NewEngine(out.PkScript, &tx, i, txscript.StandardVerifyFlags, nil, hashes, out.Value, fetcher)
		if err != nil {
			return err
		}
		if err := engine.Execute(); err != nil {
			return err
		}
	}
	return nil
}
