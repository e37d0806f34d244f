package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
)

// bitcoinFolder is a relay's folder that is set up for a node, without a seed.
func bitcoinFolder(t *testing.T, node *regtest.Test) string {
	t.Helper()
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	password := filepath.Join(dir, "rpc.password")
	if err := os.WriteFile(password, []byte(regtest.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeConfig(t, dir, `
bitcoin-rpc = "`+node.Host()+`"
bitcoin-network = "regtest"
bitcoin-user = "`+regtest.User+`"
bitcoin-password-file = "`+password+`"
bitcoin-certificate = "`+node.CertFile()+`"
bond-percent = 5
`)
	return dir
}

func walletView(t *testing.T, args ...string) (v relaynode.WalletView) {
	t.Helper()
	got := command(t, append([]string{"wallet", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || got.code != 0 {
		t.Fatalf("exit code %d: %s%s", got.code, got.out, got.err)
	}
	return v
}

// An operator draws a seed, is paid, looks at the wallet while the relay runs and while it does not, pays out of it, and has
// it again elsewhere from its words.
func TestWallet(t *testing.T) {
	node := regtest.Start(t)
	dir := bitcoinFolder(t, node)
	dsn := testpg.New(t)
	if got := command(t, "serve", "--dir", dir, "--database-url", dsn); got.code != exitFailed || !strings.Contains(got.err, "relayd wallet init") {
		t.Fatalf("without a seed: exit code %d: %s", got.code, got.err)
	}
	if got := command(t, "wallet", "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	if got := command(t, "wallet", "init", "--dir", dir); got.code != exitFailed || !strings.Contains(got.err, "never overwritten") {
		t.Errorf("a second seed: exit code %d: %s", got.code, got.err)
	}
	if info, err := os.Stat(filepath.Join(dir, "bitcoin.words")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	before := walletView(t, "--dir", dir) // the relay does not run
	if before.Confirmed != 0 || before.Network != "regtest" {
		t.Errorf("%+v", before)
	}
	p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: dsn})
	operator := []string{"--dir", dir, "--operator-listen", strings.TrimPrefix(p.OperatorURL, "http://")}
	if running := walletView(t, operator...); running.Address != before.Address {
		t.Errorf("the running relay's address is %s, was %s", running.Address, before.Address)
	}
	if code, _ := status(t, p.OperatorURL+"/wallet"); code != http.StatusUnauthorized {
		t.Errorf("whoever asks is told: %d", code)
	}
	to, err := address.DecodeAddress(before.Address, &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	node.Fund(to, 1_000_000)
	await := func(what string, want func(relaynode.WalletView) bool) relaynode.WalletView {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			v := walletView(t, operator...)
			if want(v) {
				return v
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, v)
			}
		}
	}
	funded := await("paid in", func(v relaynode.WalletView) bool { return v.Confirmed == 1_000_000 })
	if funded.Address == before.Address {
		t.Error("an address that was paid to is shown again")
	}
	if got := command(t, append([]string{"wallet"}, operator...)...); got.code != 0 || !strings.Contains(got.out, "1000000 sat") || !strings.Contains(got.out, "█") {
		t.Errorf("exit code %d: %s%s", got.code, got.out, got.err)
	}

	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, metrics := status(t, p.OperatorURL+"/metrics")
		if strings.Contains(metrics, "\nrelaymarket_chain_up 1\n") && strings.Contains(metrics, "\nrelaymarket_contracts_half_open 0\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no contracts among the metrics:\n%s", metrics)
		}
	}

	// Out again, to the node's miner, who is anybody.
	somebody := "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080" // BIP173's example key
	sent := command(t, append([]string{"wallet", "send", somebody, "300000", "--feerate", "2000"}, operator...)...)
	if sent.code != 0 || len(strings.TrimSpace(sent.out)) != 64 {
		t.Fatalf("exit code %d: %s%s", sent.code, sent.out, sent.err)
	}
	node.Mine(1)
	after := await("paid out", func(v relaynode.WalletView) bool { return v.Confirmed < 1_000_000 && v.Unconfirmed == 0 })
	if fee := 1_000_000 - 300_000 - after.Confirmed; fee < 200 || fee > 600 {
		t.Errorf("the fee was %d satoshi", fee)
	}
	if got := command(t, append([]string{"wallet", "send", "nowhere", "all", "--feerate", "2000"}, operator...)...); got.code != exitFailed {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	backup := backedUp(t, append([]string{filepath.Join(t.TempDir(), "backup"), "--database-url", dsn, "--rehearse-in", filepath.Dir(dir)}, operator...)...)
	if code := p.Terminate(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.Log())
	}

	// A copy that was made while the wallet was open is the wallet, and says where the node's certificate was.
	copied := testnode.Folder(t)
	if got := command(t, "restore", backup.Backup, "--dir", copied, "--database-url", testpg.New(t)); got.code != 0 ||
		!strings.Contains(got.out, "bitcoin-certificate was "+node.CertFile()) || !strings.Contains(got.out, "bitcoin-password-file was ") {
		t.Fatalf("restore: exit code %d: %s%s", got.code, got.out, got.err)
	}
	if info, err := os.Stat(filepath.Join(copied, "wallet", "regtest", "wallet.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the wallet: %v %v", info, err)
	}
	if v := walletView(t, "--dir", copied); v.Confirmed != after.Confirmed || v.Address != after.Address {
		t.Errorf("from the backup: %+v, want %+v", v, after)
	}

	// The words are the wallet.
	words := command(t, "wallet", "words", "--dir", dir)
	elsewhere := bitcoinFolder(t, node)
	restore := testnode.Command(t, "wallet", "init", "--restore", "--dir", elsewhere)
	restore.Stdin = strings.NewReader(words.out)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if v := walletView(t, "--dir", elsewhere); v.Confirmed != after.Confirmed {
		t.Errorf("from the words: %d satoshi, want %d", v.Confirmed, after.Confirmed)
	}
}

// The commands on contracts read the database whether the relay runs or not, and say what there is not.
func TestContractsCommands(t *testing.T) {
	node := regtest.Start(t)
	dir := bitcoinFolder(t, node)
	if got := command(t, "wallet", "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	base := []string{"--dir", dir, "--database-url", testpg.New(t)}
	if got := command(t, append([]string{"contracts", "list"}, base...)...); got.code != 0 || !strings.Contains(got.out, "0 contracts, 0 live") {
		t.Errorf("exit code %d: %s%s", got.code, got.out, got.err)
	}
	none := strings.Repeat("00", 32)
	for _, name := range []string{"show", "settle", "request", "export"} {
		if got := command(t, append([]string{"contracts", name, none}, base...)...); got.code != exitFailed || !strings.Contains(got.err, "not_found") {
			t.Errorf("%s: exit code %d: %s%s", name, got.code, got.out, got.err)
		}
		if got := command(t, append([]string{"contracts", name, "12"}, base...)...); got.code != exitUsage {
			t.Errorf("%s of no id: exit code %d: %s", name, got.code, got.err)
		}
	}
	plain := testnode.Folder(t)
	if got := command(t, "init", "--dir", plain); got.code != 0 {
		t.Fatal(got.err)
	}
	if got := command(t, "contracts", "list", "--dir", plain); got.code != exitFailed || !strings.Contains(got.err, "bitcoin-rpc") {
		t.Errorf("without a node: exit code %d: %s", got.code, got.err)
	}
}

func TestBitcoinSettings(t *testing.T) {
	login := "bitcoin-rpc = \"127.0.0.1:1\"\nbitcoin-password-file = \"/x\"\n"
	for name, test := range map[string]struct{ file, says string }{
		"no login":        {`bitcoin-rpc = "127.0.0.1:1"`, "wants a login"},
		"two logins":      {login + `bitcoin-cookie-file = "/y"`, "one of them"},
		"no host":         {`bitcoin-rpc = ":8334"`, "names no host"},
		"network":         {login + `bitcoin-network = "testnet3"`, "regtest"},
		"certificate":     {login + "bitcoin-tls = false\nbitcoin-certificate = \"/c\"", "set one of the two"},
		"floor":           {login + "feerate-floor = 3000\nfeerate-ceiling = 2000", "not above the ceiling"},
		"least deposit":   {login + "opening-price = 5000\nmin-deposit = 5999", "min-deposit"},
		"too short":       {login + "shortest-contract = 863", "864 to 26280"},
		"too long":        {login + "longest-contract = 26281", "864 to 26280"},
		"lengths":         {login + "shortest-contract = 2000\nlongest-contract = 1999", "not above the longest"},
		"bond":            {login + "bond-percent = 101", "0 to 100"},
		"price":           {login + "storage-price = -1", "0 to"},
		"neither yes nor": {login + `contracts = "maybe"`, "neither yes nor no"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeConfig(t, dir, test.file)
			if got := relayd(t, nil, "config", "--dir", dir); got.code != exitUsage || !strings.Contains(got.err, test.says) {
				t.Errorf("exit code %d: %s", got.code, got.err)
			}
		})
	}
}
