package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/escrow/relayside"
	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
)

// market is a Bitcoin node, a relay that makes contracts, and a user whose wallet has money.
func market(t *testing.T) (*regtest.Test, *testnode.Node, *terminal) {
	t.Helper()
	bitcoin, node, alice, _ := operatedMarket(t)
	return bitcoin, node, alice
}

// asOperator looks into the contracts of a relay that runs, as relayd's commands do beside relayd serve.
type asOperator func(func(context.Context, *relayside.Manager) error)

// operatedMarket is a market of whose relay the test is the operator, too.
func operatedMarket(t *testing.T) (*regtest.Test, *testnode.Node, *terminal, asOperator) {
	t.Helper()
	bitcoin := regtest.Start(t, regtest.Plain)
	var config relaynode.Bitcoin
	contracts := testnode.Contracts(t, bitcoin.Node)
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		contracts(c)
		config = c.Bitcoin
	}})
	alice := user(t)
	alice.connects(bitcoin)
	alice.earns(bitcoin, btcutil.SatoshiPerBitcoin/10)
	node.OpensContracts(t)
	node.Follows(t, bitcoin)
	return bitcoin, node, alice, func(do func(context.Context, *relayside.Manager) error) {
		t.Helper()
		database := relaynode.Database{URL: node.DSN, Connections: 4}
		if err := relaynode.WithContracts(t.Context(), database, node.Secret, config, slog.New(slog.DiscardHandler), do); err != nil {
			t.Error(err)
		}
	}
}

// connects names the Bitcoin node.
func (s *terminal) connects(bitcoin *regtest.Test) {
	s.t.Helper()
	password := filepath.Join(s.t.TempDir(), "rpc")
	if err := os.WriteFile(password, []byte(regtest.Password+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.runs("wallet", "connect", "http://"+bitcoin.Host(), "--network", "regtest", "--rpc-user", regtest.User,
		"--rpc-password-file", password)
}

// earns pays to a new address of the wallet.
func (s *terminal) earns(bitcoin *regtest.Test, amount btcutil.Amount) {
	s.t.Helper()
	var got struct{ Address, Link string }
	s.json(&got, "wallet", "address", "--amount", "5000000")
	if got.Link != "bitcoin:"+got.Address+"?amount=0.05" {
		s.t.Errorf("link %s", got.Link)
	}
	a, err := address.DecodeAddress(got.Address, &chaincfg.RegressionNetParams)
	if err != nil {
		s.t.Fatal(err)
	}
	bitcoin.Fund(a, amount)
}

func (s *terminal) balance() btcutil.Amount {
	s.t.Helper()
	return btcutil.Amount(s.money().Confirmed)
}

// money is what is in the wallet.
func (s *terminal) money() (b balanceLine) {
	s.t.Helper()
	s.json(&b, "wallet", "balance")
	return b
}

// contract is a contract as it is shown.
func (s *terminal) contract(id string) contractItem {
	s.t.Helper()
	var item contractItem
	s.json(&item, "contract", "show", id)
	return item
}

// reaches waits for a state.
func (s *terminal) reaches(id, state string) contractItem {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		item := s.contract(id)
		if item.State == state {
			return item
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the contract is %s, not %s: %+v", item.State, state, item)
		}
	}
}

// opens opens a contract, and returns when its relay has seen its first block, too, and takes what is written under it.
func (s *terminal) opens(bitcoin *regtest.Test, node *testnode.Node, args ...string) contractItem {
	s.t.Helper()
	node.OpensContracts(s.t)
	node.Follows(s.t, bitcoin)
	var item contractItem
	s.json(&item, append([]string{"contract", "open", node.URL, "--deposit", "100000", "--wait", "0", "--yes"}, args...)...)
	if item.State != "funding" {
		s.t.Fatalf("opened: %+v", item)
	}
	bitcoin.Mine(1)
	node.Follows(s.t, bitcoin)
	return s.reaches(item.ID, "active")
}

// waitSent waits for a transaction in the mempool: a block that comes before it is empty, and no other may follow.
func waitSent(t *testing.T, bitcoin *regtest.Test) {
	t.Helper()
	rpc, err := bitcoin.RPC()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a transaction is sent", func() bool {
		waiting, err := rpc.GetRawMempool()
		if err != nil {
			t.Fatal(err)
		}
		return len(waiting) > 0
	})
}

// mines has somebody mine a block every two seconds, until rest is called. A command may take longer than that on a busy
// machine until what it sent can be in a block.
func mines(bitcoin *regtest.Test) (rest func()) {
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-over:
				return
			case <-time.After(2 * time.Second):
				bitcoin.Mine(1)
			}
		}
	}()
	return func() { close(over); <-stopped }
}

// From nothing to the first paid message, to the rest of the deposit back: the whole story, typed.
func TestPaidMessages(t *testing.T) {
	bitcoin, node, alice := market(t)
	before := alice.balance()
	_, errs, code := alice.types("relays", "add", node.URL)
	if code != exitFailed || !strings.Contains(errs, "relay contract open "+node.URL+" --deposit 100000") {
		t.Fatalf("without a contract: exit %d\n%s", code, errs)
	}
	_, errs, code = alice.types("contract", "open", node.URL, "--deposit", "100000")
	if code != exitUsage || !strings.Contains(errs, "You can lose") || !strings.Contains(errs, "--yes") {
		t.Errorf("without a terminal: exit %d\n%s", code, errs)
	}
	rest := mines(bitcoin)
	began := time.Now()
	out := alice.runs("contract", "open", node.URL, "--deposit", "100000", "--yes")
	rest()
	t.Logf("contract open took %v, some seconds of them waiting for a block:\n%s", time.Since(began), out)
	if !strings.Contains(out, "is one of your relays") {
		t.Errorf("open says\n%s", out)
	}
	alice.stdin = alice.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "me")
	alice.stdin = ""
	alice.runs("send", "me", "the first paid message")
	t.Logf("from contract open to the first paid message: %v", time.Since(began))

	var list struct{ Contracts []contractItem }
	alice.json(&list, "contract", "list")
	if len(list.Contracts) != 1 {
		t.Fatalf("%+v", list)
	}
	id := list.Contracts[0].ID
	out = alice.runs("contract", "pay", id[:8], "300", "--yes")
	if !strings.Contains(out, "Paid 300 sat") {
		t.Errorf("pay says\n%s", out)
	}
	if _, errs, code := alice.types("contract", "pay", id, "50000", "--yes"); code != exitFailed || !strings.Contains(errs, "--accept") {
		t.Errorf("a payment far ahead: exit %d\n%s", code, errs)
	}
	if _, errs, code := alice.types("contract", "refund", id, "--yes"); code != exitFailed || !strings.Contains(errs, "too early") {
		t.Errorf("a refund before its time: exit %d\n%s", code, errs)
	}
	if _, errs, code := alice.types("contract", "close", id); code != exitUsage || !strings.Contains(errs, "is not given back") {
		t.Errorf("closing without a terminal: exit %d\n%s", code, errs)
	}
	alice.runs("contract", "close", id, "--yes")
	bitcoin.Mine(1)
	item := alice.reaches(id, "settling")
	bitcoin.Mine(5)
	alice.reaches(id, "closed")
	spent := before - alice.balance()
	fees := btcutil.Amount(0)
	for _, tx := range item.Transactions {
		fees += btcutil.Amount(tx.Fee)
	}
	if spent != 1300+fees {
		t.Errorf("%v was spent: 1300 paid, %v of fees", spent, fees)
	}
}

func TestWalletSend(t *testing.T) {
	bitcoin, _, alice := market(t)
	before := alice.balance()
	to := newPurse(t, bitcoin, 10_000)
	var sent struct{ TxID string }
	alice.json(&sent, "wallet", "send", to.address(t), "50,000", "--feerate", "2.5", "--yes")
	if len(sent.TxID) != 64 {
		t.Errorf("%+v", sent)
	}
	bitcoin.Mine(1)
	fee := before - alice.balance() - 50_000
	if fee < 250 || fee > 500 {
		t.Errorf("a fee of %d sat at 2.5 sat/vB", fee)
	}
	alice.runs("wallet", "send", to.address(t), "all", "--feerate", "1", "--yes")
	bitcoin.Mine(1)
	if rest := alice.balance(); rest != 0 {
		t.Errorf("%d sat are left", rest)
	}
	if out := alice.runs("wallet", "address", "--amount", "1000", "--qr"); !strings.Contains(out, "█") || !strings.Contains(out, "?amount=0.00001\n") {
		t.Errorf("the address is shown as\n%s", out)
	}
}
