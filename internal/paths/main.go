// Command paths walks every way that a contract can go on a real Bitcoin node, mines each transaction, and writes them down.
//
//	go run ./internal/paths [-out out/transactions.jsonl] [-append]
//
// Each line of the file is a final transaction with the outputs that it spends:
//
//	{"name", "hex", "prev": [{"hash", "index", "value", "script"}]}
//
// hash is a transaction id as it is displayed, value is in satoshi, script is the previous output script in hex; prev is in the order of the
// inputs. Another implementation can judge each of them with nothing else: all inputs are P2WPKH or P2WSH (BIP141, BIP143). Standard
// output has a table of sizes and fees. The node runs with the policy of real networks; a path that it does not take ends
// the program with exit status 1.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
)

func main() {
	out := flag.String("out", "out/transactions.jsonl", "file that the transactions are written to")
	more := flag.Bool("append", false, "add to the file instead of beginning it anew")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *out, *more, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "paths:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string, more bool, table io.Writer) error {
	steps, err := walk(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	how := os.O_TRUNC
	if more {
		how = os.O_APPEND
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|how, 0o644)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if err := json.NewEncoder(f).Encode(lineOf(s)); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	t := tabwriter.NewWriter(table, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "transaction\tvB\tfee, sat\tsat per 1000 vB\tinputs\toutputs\tblock\t")
	for _, s := range steps {
		size, fee := s.Tx.VSize(), int64(s.Tx.Fee())
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", s.Name, size, fee, fee*1000/size, len(s.Tx.TxIn), len(s.Tx.TxOut), s.Height)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(table, "%d transactions, each mined by btcd with --rejectnonstd; written to %s\n", len(steps), file)
	return err
}

type line struct {
	Name string `json:"name"`
	Hex  string `json:"hex"`
	Prev []prev `json:"prev"`
}

type prev struct {
	Hash   string `json:"hash"`
	Index  uint32 `json:"index"`
	Value  int64  `json:"value"`
	Script string `json:"script"`
}

func lineOf(s step) line {
	l := line{Name: s.Name, Hex: hex.EncodeToString(s.Tx.Bytes())}
	for i, in := range s.Tx.TxIn {
		out := s.Tx.Prev[i]
		l.Prev = append(l.Prev, prev{Hash: in.PreviousOutPoint.Hash.String(), Index: in.PreviousOutPoint.Index, Value: out.Value, Script: hex.EncodeToString(out.PkScript)})
	}
	return l
}
