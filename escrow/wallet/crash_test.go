package wallet_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

var errUnreachable = chain.ErrUnreachable

// spender is the argument that makes the test binary pay and lease, saying what it did, until it is killed.
const spender = "spend-for-ever"

// rent is what each of its payments is.
const rent = btcutil.Amount(70_000)

// spendForEver takes the node's address, the wallet's folder, whom to pay, and what keys begin with.
func spendForEver(args []string) int {
	fault := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	node, err := chain.New(chain.Config{Network: protocol.Regtest, Host: args[0], User: regtest.User, Password: regtest.Password, Plain: true, Timeout: patience}, time.Now)
	if err != nil {
		return fault(err)
	}
	w, err := wallet.Open(wallet.Config{
		Dir: args[1], Network: protocol.Regtest, Branch: branchOf(1), Passphrase: []byte("right"),
		Log: slog.New(slog.DiscardHandler), Poll: 20 * time.Millisecond, ScryptN: wallet.FastScryptN, Lookahead: 5,
	}, node)
	if err != nil {
		return fault(err)
	}
	to, err := address.DecodeAddress(args[2], &chaincfg.RegressionNetParams)
	if err != nil {
		return fault(err)
	}
	ctx := context.Background()
	go func() { _ = w.Run(ctx) }()
	if err := w.AwaitSync(ctx); err != nil {
		return fault(err)
	}
	for i := 0; ; i++ {
		key := fmt.Sprintf("%s.%d", args[3], i)
		if i%3 == 0 {
			f, err := w.Fund(ctx, wallet.FundRequest{Key: key, Amount: 1_000, Feerate: 1_000, For: time.Hour, Shared: true})
			if err != nil {
				return fault(err)
			}
			fmt.Println("leased", key, strings.Join(outpoints(f), ","))
		}
		fmt.Println("pays", key)
		tx, err := w.Send(ctx, wallet.SendRequest{Key: key, To: to, Amount: rent, Feerate: 1_000})
		if err != nil {
			return fault(err)
		}
		fmt.Println("paid", key, tx.TxHash())
	}
}

// Killed at any instant, the wallet opens again; what it said it did is done, a payment whose end is not known is made once
// when it is asked for again, and a lease is still held.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	dir := t.TempDir()
	in := func(c *wallet.Config) { c.Dir = dir }
	p := rich(t, n, 1, in)
	one := p.address(wallet.P2WPKH)
	for range 200 {
		n.Pay(one, bitcoin/10)
	}
	n.Mine(1)
	p.sync()
	q := open(t, n, func(c *wallet.Config) { c.Branch = branchOf(2) })
	to := q.address(wallet.P2TR)
	p.close()
	payments := 0
	for round := range 6 {
		said := killed(t, n, dir, to.String(), round)
		p := open(t, n, in)
		p.sync()
		for _, line := range said {
			words := strings.Fields(line)
			switch words[0] {
			case "pays":
				payments++
				tx, err := p.Send(t.Context(), wallet.SendRequest{Key: words[1], To: to, Amount: rent, Feerate: 1_000})
				if err != nil {
					t.Fatalf("round %d, %s: %v", round, words[1], err)
				}
				if paid := "paid " + words[1] + " " + tx.TxHash().String(); !contains(said, paid) && contains(said, "paid "+words[1]) {
					t.Errorf("%s was paid with another transaction before", words[1])
				}
				if !n.InMempool(tx.TxHash()) {
					t.Errorf("%s is not on its way", words[1])
				}
			case "leased":
				f := p.fund(wallet.FundRequest{Key: words[1], Amount: 1_000, Feerate: 1_000, For: time.Second, Shared: true})
				if got := strings.Join(outpoints(f), ","); got != words[2] {
					t.Errorf("%s had %s and has %s", words[1], words[2], got)
				}
				if err := p.Release(t.Context(), words[1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		n.Mine(1)
		p.sync()
		p.close()
	}
	if payments < 6 {
		t.Errorf("only %d payments: nothing was tested", payments)
	}
	q.wants(btcutil.Amount(payments)*rent, 0)
}

// contains tells whether a line is there that begins with text.
func contains(lines []string, text string) bool {
	for _, line := range lines {
		if line == text || strings.HasPrefix(line, text+" ") {
			return true
		}
	}
	return false
}

// killed runs the spender until it pays, and for a while longer, and answers what it said.
func killed(t *testing.T, n *regtest.Test, dir, to string, round int) (said []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, spender, n.Host(), dir, to, fmt.Sprint(round))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil && strings.HasPrefix(lines.Text(), "pays ") {
			kill = time.AfterFunc(time.Duration(10+23*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
		said = append(said, lines.Text())
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("round %d: the spender ended by itself: %v", round, err)
	}
	if kill != nil {
		kill.Stop()
	}
	return said
}
