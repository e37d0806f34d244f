package escrow

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// TestTransactionVectors judges the transactions that other implementations are given to judge:
// every line is valid as it stands, and none is when a byte of it is another.
func TestTransactionVectors(t *testing.T) {
	file, err := os.Open("testdata/transactions.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	names := map[string]bool{}
	native := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Name, Hex string
			Prev      []struct {
				Hash   string
				Index  uint32
				Value  int64
				Script string
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(line.Hex)
		if err != nil || names[line.Name] || line.Name == "" {
			t.Fatalf("%q stands twice, or is no hex: %v", line.Name, err)
		}
		names[line.Name] = true
		msg, err := DecodeTx(raw)
		if err != nil || len(msg.TxIn) != len(line.Prev) {
			t.Fatalf("%s: %v", line.Name, err)
		}
		tx := &Tx{MsgTx: msg}
		allNative := true
		for i, prev := range line.Prev {
			hash, err := chainhash.NewHashFromStr(prev.Hash)
			if err != nil || msg.TxIn[i].PreviousOutPoint != (wire.OutPoint{Hash: *hash, Index: prev.Index}) {
				t.Fatalf("%s: input %d is %s (%v)", line.Name, i, msg.TxIn[i].PreviousOutPoint, err)
			}
			script, err := hex.DecodeString(prev.Script)
			if err != nil {
				t.Fatal(err)
			}
			tx.Prev = append(tx.Prev, wire.NewTxOut(prev.Value, script))
			allNative = allNative && txscript.IsPayToWitnessPubKeyHash(script)
		}
		if allNative {
			native++
		}
		checkTx(t, line.Name, tx, MinFeerate)
		msg.TxOut[0].Value--
		if tx.Verify() == nil {
			t.Errorf("%s: nobody signed its first output", line.Name)
		}
	}
	if err := lines.Err(); err != nil || len(names) < 30 || native < 12 {
		t.Errorf("%d transactions, %d of P2WPKH inputs alone (%v)", len(names), native, err)
	}
}
