package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/client/doctor"
	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
)

// killed runs a command and kills it, as power cuts do, once its standard error has a line with this text.
func (s *terminal) killed(text string, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	seen := false
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), text) {
			seen = true
			if err := cmd.Process.Kill(); err != nil {
				s.t.Fatal(err)
			}
			break
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !seen || !errors.As(err, &exit) || exit.Exited() {
		s.t.Fatalf("relay %s: not killed at %q: %v\n%s", strings.Join(args, " "), text, err, said.String())
	}
}

// closes closes a contract. The relay may see the funding's block a moment later than its user does.
func (s *terminal) closes(id string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, errs, code := s.types("contract", "close", id, "--yes")
		if code == 0 {
			return
		}
		if !behind(errs) || time.Now().After(deadline) {
			s.t.Fatalf("close: exit %d\n%s", code, errs)
		}
	}
}

// behind tells of a refusal whether the relay has yet to see blocks that are there.
func behind(refusal string) bool {
	for _, words := range []string{"in no block", "is funding", "does not see the chain"} {
		if strings.Contains(refusal, words) {
			return true
		}
	}
	return false
}

// only is the id of the one contract that is not over.
func (s *terminal) only() contractItem {
	s.t.Helper()
	var list struct{ Contracts []contractItem }
	s.json(&list, "contract", "list")
	if len(list.Contracts) != 1 {
		s.t.Fatalf("%d contracts: %+v", len(list.Contracts), list.Contracts)
	}
	return list.Contracts[0]
}

// The program is killed at each step that is on disk, and goes on from there.
func TestKilledWhileOpening(t *testing.T) {
	bitcoin, node, alice := market(t)
	for _, at := range []string{"asking the relay", "Backing up", "Signing the funding", "Giving the relay the signatures", "Waiting for the next block"} {
		t.Run(at, func(t *testing.T) {
			before := alice.balance()
			node.Follows(t, bitcoin)
			alice.killed(at, "contract", "open", node.URL, "--deposit", "100000", "--yes")
			item := alice.only()
			alice.runs("contract", "resume", item.ID, "--wait", "0")
			bitcoin.Mine(1)
			alice.reaches(item.ID, "active")
			alice.closes(item.ID)
			bitcoin.Mine(100)
			item = alice.reaches(item.ID, "archived")
			fees := btcutil.Amount(0)
			for _, tx := range item.Transactions {
				fees += btcutil.Amount(tx.Fee)
			}
			if spent := before - alice.balance(); spent != testnode.OpeningPrice+fees {
				t.Errorf("%d sat were spent, of them %d fees", spent, fees)
			}
		})
	}
}

// The relay is gone and so is the laptop. The words and a backup, from a file or from another relay, get the deposit back.
func TestLaptopGone(t *testing.T) {
	bitcoin := regtest.Start(t, regtest.Plain)
	node := testnode.Start(t, testnode.Options{Setup: testnode.Contracts(t, bitcoin.Node)})
	other := testnode.Start(t, testnode.Options{})
	alice := shell(t)
	var made initialResult
	alice.json(&made, "init")
	other.Grant(t, alice.key())
	alice.runs("relays", "add", other.URL)
	alice.connects(bitcoin)
	alice.earns(bitcoin, btcutil.SatoshiPerBitcoin/100)
	id := alice.opens(bitcoin, node, "--days", "6").ID
	found := alice.examined(exitFailed)
	for check, want := range map[string]doctor.Level{"node": doctor.OK, "contract": doctor.Warn, "backup": doctor.Fail} { // it ends within a week; and money without a backup
		if worst(found[check]) != want {
			t.Errorf("doctor: %s is %+v", check, found[check])
		}
	}
	backup := filepath.Join(t.TempDir(), "copy")
	if err := os.Rename(filepath.Join(alice.dir, backupFile), backup); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(alice.dir); err != nil {
		t.Fatal(err)
	}
	node.Stop()

	again := shell(t)
	for _, args := range [][]string{{"restore", "--relay", other.URL}, {"restore", "--file", backup}} {
		again = shell(t)
		again.stdin = made.Words
		again.runs("init", "--restore")
		again.connects(bitcoin)
		if out, errs, _ := again.types(args...); !strings.Contains(out, "1 of them new here") {
			t.Fatalf("%v says\n%s%s", args, out, errs)
		}
		if item := again.only(); item.ID != id || item.State != "active" {
			t.Errorf("%v gives %+v", args, item)
		}
	}
	if _, errs, code := again.types("contract", "refund", id, "--yes"); code != exitFailed || !strings.Contains(errs, "too early") {
		t.Errorf("a refund before its time: exit %d\n%s", code, errs)
	}
	bitcoin.Mine(6*144 + 12)
	again.runs("contract", "refund", id, "--yes")
	bitcoin.Mine(1)
	item := again.reaches(id, "settling")
	if len(item.Transactions) != 2 || item.Transactions[1].Kind != "refund" && item.Transactions[0].Kind != "refund" {
		t.Errorf("%+v", item.Transactions)
	}
}

func TestRenewTyped(t *testing.T) {
	bitcoin, node, alice := market(t)
	old := alice.opens(bitcoin, node).ID
	alice.runs("relays", "add", node.URL)
	alice.runs("contract", "pay", old, "250", "--yes")
	var next contractItem
	if _, errs, code := alice.types("contract", "renew", old, "--wait", "0", "--yes"); code != exitFailed || !strings.Contains(errs, "renew it in 5 blocks") {
		t.Errorf("renewed at once: exit %d\n%s", code, errs)
	}
	bitcoin.Mine(5)
	if _, errs, code := alice.types("contract", "renew", old); code != exitUsage || !strings.Contains(errs, "is not given back") {
		t.Errorf("renewing without a terminal: exit %d\n%s", code, errs)
	}
	for deadline := time.Now().Add(patience); ; {
		out, errs, code := alice.types("contract", "renew", old, "--wait", "0", "--yes", "--json")
		if code == 0 {
			if err := json.Unmarshal([]byte(out), &next); err != nil {
				t.Fatal(err)
			}
			break
		}
		if !strings.Contains(errs, "renew it in") && !behind(errs) || time.Now().After(deadline) {
			t.Fatalf("renew: exit %d\n%s", code, errs)
		}
	}
	if item := alice.contract(old); item.State != "renewing" || item.RenewedBy == nil || *item.RenewedBy != next.ID {
		t.Errorf("the old contract: %+v", item)
	}
	for _, args := range [][]string{{"contract", "renew", old, "--yes"}, {"contract", "close", old, "--yes"}} {
		if _, errs, code := alice.types(args...); code != exitFailed || !strings.Contains(errs, "being renewed") || !strings.Contains(errs, next.ID[:8]) {
			t.Errorf("%v while it is renewed: exit %d\n%s", args, code, errs)
		}
	}
	if _, errs, code := alice.types("contract", "open", node.URL, "--deposit", "50000", "--yes"); code != exitFailed || !strings.Contains(errs, "relay contract renew") {
		t.Errorf("a second contract with the relay: exit %d\n%s", code, errs)
	}
	if out := alice.runs("contract", "resume", old); !strings.Contains(out, "being renewed") {
		t.Errorf("resumed: %s", out)
	}
	alice.runs("account") // and nothing stops meanwhile
	bitcoin.Mine(6)
	alice.reaches(next.ID, "active")
	alice.reaches(old, "closed")
}

// purse is a wallet of the user's own: one key, one coin.
type purse struct {
	key    *btcec.PrivateKey
	script []byte
	coin   wire.OutPoint
	value  btcutil.Amount
}

func newPurse(t *testing.T, bitcoin *regtest.Test, value btcutil.Amount) *purse {
	t.Helper()
	key, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	a, err := address.NewAddressWitnessPubKeyHash(address.Hash160(key.PubKey().SerializeCompressed()), &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	script, err := txscript.PayToAddrScript(a)
	if err != nil {
		t.Fatal(err)
	}
	return &purse{key: key, script: script, coin: bitcoin.Fund(a, value), value: value}
}

func (p *purse) address(t *testing.T) string {
	t.Helper()
	_, addresses, _, err := txscript.ExtractPkScriptAddrs(p.script, &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	return addresses[0].EncodeAddress()
}

// offer is a PSBT that spends the coin to itself.
func (p *purse) offer(t *testing.T, file string) {
	t.Helper()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: p.coin})
	tx.AddTxOut(wire.NewTxOut(int64(p.value)-1000, p.script))
	packet, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		t.Fatal(err)
	}
	packet.Inputs[0].WitnessUtxo = wire.NewTxOut(int64(p.value), p.script)
	p.write(t, packet, file)
}

func (p *purse) write(t *testing.T, packet *psbt.Packet, file string) {
	t.Helper()
	var b bytes.Buffer
	if err := packet.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sign signs the input in a PSBT, and leaves it to others to finalize.
func (p *purse) sign(t *testing.T, in, out string) {
	t.Helper()
	data, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	packet, err := psbt.NewFromRawBytes(bytes.NewReader(data), false)
	if err != nil {
		t.Fatal(err)
	}
	fetcher := txscript.NewCannedPrevOutputFetcher(p.script, int64(p.value))
	witness, err := txscript.WitnessSignature(packet.UnsignedTx, txscript.NewTxSigHashes(packet.UnsignedTx, fetcher), 0, int64(p.value),
		p.script, txscript.SigHashAll, p.key, true)
	if err != nil {
		t.Fatal(err)
	}
	packet.Inputs[0].PartialSigs = []*psbt.PartialSig{{PubKey: witness[1], Signature: witness[0]}}
	p.write(t, packet, out)
}

// The coins are in the user's own wallet, which makes a PSBT and signs one; relay never has its keys.
func TestOwnWallet(t *testing.T) {
	bitcoin := regtest.Start(t, regtest.Plain)
	node := testnode.Start(t, testnode.Options{Setup: testnode.Contracts(t, bitcoin.Node)})
	alice := user(t)
	alice.connects(bitcoin)
	own := newPurse(t, bitcoin, 500_000)
	node.OpensContracts(t)
	node.Follows(t, bitcoin)
	dir := t.TempDir()
	offer, funding, signed := filepath.Join(dir, "offer"), filepath.Join(dir, "funding"), filepath.Join(dir, "signed")
	own.offer(t, offer)
	if out := alice.runs("contract", "open", node.URL, "--deposit", "100000", "--payout", own.address(t), "--psbt-in", offer,
		"--psbt-out", funding, "--yes"); !strings.Contains(out, "relay contract resume") {
		t.Errorf("open says\n%s", out)
	}
	id := alice.only().ID
	if _, errs, code := alice.types("contract", "resume", id, "--psbt-in", funding); code != exitFailed || !strings.Contains(errs, "not signed") {
		t.Errorf("with nothing signed: exit %d\n%s", code, errs)
	}
	own.sign(t, funding, signed)
	alice.runs("contract", "resume", id, "--psbt-in", signed, "--wait", "0")
	bitcoin.Mine(1)
	item := alice.reaches(id, "active")
	alice.closes(id)
	bitcoin.Mine(1)
	item = alice.reaches(id, "settling")
	if len(item.Transactions) != 2 {
		t.Errorf("%+v", item.Transactions)
	}
	if b := alice.balance(); b != 0 {
		t.Errorf("%d sat went to a wallet that was not asked for", b)
	}
}

// A relay that vanished before it answered: given up, and nothing is locked.
func TestGivenUp(t *testing.T) {
	_, node, alice := market(t)
	before := alice.balance()
	// It never answers: a relay that does would have it go on until the signal comes.
	silent := instead(t, node, "/contracts", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then it is noticed that nobody waits any more
		<-r.Context().Done()
	})
	alice.killed("asking the relay", "contract", "open", silent.URL, "--deposit", "100000", "--yes")
	silent.Close()
	node.Stop()
	id := alice.only().ID
	if _, errs, code := alice.types("contract", "resume", id); code != exitFailed || !strings.Contains(errs, "relay contract close "+id[:8]) {
		t.Errorf("resume: exit %d\n%s", code, errs)
	}
	alice.runs("contract", "close", id, "--yes")
	var b balanceLine
	alice.json(&b, "wallet", "balance")
	if b.Leased != 0 || btcutil.Amount(b.Confirmed) != before {
		t.Errorf("%+v", b)
	}
}

// Listening looks after contracts on the side, and says what it did.
func TestListenWatches(t *testing.T) {
	bitcoin, node, alice := market(t)
	id := alice.opens(bitcoin, node).ID
	alice.runs("relays", "add", node.URL)
	alice.closes(id)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := alice.command(ctx, "listen")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bitcoin.Mine(1)
	said := ""
	for lines := bufio.NewScanner(stderr); !strings.Contains(said, "Closed by transaction") && lines.Scan(); {
		said += lines.Text() + "\n"
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("listen: %v", err)
	}
	if !strings.Contains(said, "Contract "+id[:8]+": Closed by transaction") {
		t.Errorf("listen says\n%s", said)
	}
}

func TestWronglyTypedMoney(t *testing.T) {
	_, node, alice := market(t)
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"wallet connect nonsense --rpc-password-file x", exitUsage, "http://host:port"},
		{"wallet connect http://127.0.0.1:1", exitUsage, "rpc-password-file"},
		{"wallet connect http://me:secret@127.0.0.1:1 --rpc-password-file x", exitUsage, "out of the URL"},
		{"wallet connect http://127.0.0.1:1 --network moon --rpc-password-file x", exitUsage, "mainnet"},
		{"wallet send nonsense 1000 --yes", exitUsage, "no address"},
		{"wallet send bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080 lots --yes", exitUsage, "satoshi"},
		{"wallet send bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080 99999999999 --yes", exitFailed, "relay wallet balance"},
		{"wallet blance", exitUsage, "balance"},
		{"contract open " + node.URL, exitUsage, "deposit"},
		{"contract open " + node.URL + " --deposit ten", exitUsage, "satoshi"},
		{"contract open " + node.URL + " --deposit 500 --yes", exitFailed, "10000"},
		{"contract open " + node.URL + " --deposit 100000 --days 1000", exitUsage, "--days"},
		{"contract open " + node.URL + " --deposit 100000 --days 5", exitUsage, "--days is 6 to 182"},
		{"contract open " + node.URL + " --deposit 2100000000000000 --yes", exitFailed, "too large"},
		{"contract open " + node.URL + " --deposit 90000000 --yes", exitFailed, "sat are wanted"},
		{"contract bump 00", exitFailed, "relay contract list"},
		{"contract bump 00 --feerate 0", exitUsage, "--feerate"},
		{"contract open " + node.URL + " --deposit 100000 --feerate 0.5", exitUsage, "--feerate"},
		{"contract open " + node.URL + " --deposit 100000 --cushion 99500 --yes", exitFailed, "deposit"},
		{"contract open http://127.0.0.1:1 --deposit 100000 --yes", exitFailed, "no answer"},
		{"contract pay 00 5 --yes", exitFailed, "relay contract list"},
		{"contract shw", exitUsage, "show"},
		{"contract show zz", exitFailed, "no such contract"},
		{"restore --file /nowhere", exitFailed, "no file"},
		{"restore", exitFailed, "--file"},
	} {
		t.Run(test.args, func(t *testing.T) {
			out, errs, code := alice.types(strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(errs, test.says) || strings.Contains(errs, "panic") {
				t.Errorf("exit %d, want %d\n%s%s", code, test.code, out, errs)
			}
		})
	}
	bob := user(t)
	if _, errs, code := bob.types("wallet", "balance"); code != exitFailed || !strings.Contains(errs, "relay wallet connect") {
		t.Errorf("without a node: exit %d\n%s", code, errs)
	}
}

// One pays for what two write: the other has agreed to it, in writing.
func TestOnePaysForTwo(t *testing.T) {
	bitcoin, node, alice := market(t)
	bob := user(t)
	out, errs, code := bob.types("contract", "consent", node.URL, "--payer", alice.key().Bech32())
	id := strings.TrimSpace(strings.TrimPrefix(errs, "Contract id: "))
	if code != 0 || len(id) != 64 {
		t.Fatalf("consent: exit %d\n%s%s", code, out, errs)
	}
	consent := filepath.Join(t.TempDir(), "consent")
	if err := os.WriteFile(consent, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := alice.types("contract", "open", node.URL, "--deposit", "100000", "--wait", "0", "--yes", "--writer", consent); code != exitFailed || !strings.Contains(errs, "consent") {
		t.Errorf("consent to another contract: exit %d\n%s", code, errs)
	}
	if _, errs, code := bob.types("relays", "add", node.URL); code != exitFailed || !strings.Contains(errs, "relay contract open") {
		t.Errorf("before the contract: exit %d\n%s", code, errs)
	}
	if item := alice.opens(bitcoin, node, "--id", id, "--writer", consent); item.ID != id {
		t.Fatalf("%+v", item)
	}
	for deadline := time.Now().Add(patience); ; {
		if _, errs, code = bob.types("relays", "add", node.URL); code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("bob writes: exit %d\n%s", code, errs)
		}
	}
}

// Credit that runs low is paid by the way, as far as the policy's cushion goes, or without one the contract's, and then the user is
// asked; a file is given up for now.
func TestPaidByTheWay(t *testing.T) {
	bitcoin := regtest.Start(t, regtest.Plain)
	setup := testnode.Contracts(t, bitcoin.Node)
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		setup(c)
		// A small message, with the eight pulls that it reserves, comes to some 500 sat.
		c.Bitcoin.Offer.BandwidthMsatPerGB, c.Bitcoin.Offer.StorageMsatPerGBDay = 24_000_000_000, 0
	}})
	alice := user(t)
	alice.connects(bitcoin)
	alice.earns(bitcoin, btcutil.SatoshiPerBitcoin/10)
	id := alice.opens(bitcoin, node).ID
	bitcoin.Mine(5)
	for deadline := time.Now().Add(patience); ; {
		// Six deep in the relay's eyes too, the whole credit is there.
		_, errs, code := alice.types("relays", "add", node.URL)
		if code == 0 && strings.Contains(alice.runs("account", "--json"), fmt.Sprintf(`"creditMsat": "%d000"`, alice.contract(id).CreditLimit)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(errs, alice.runs("account", "--json"))
		}
	}
	alice.stdin = alice.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "me")
	sent := 0
	sends := func(says string) contractItem {
		t.Helper()
		for ; sent < 10; sent++ {
			_, errs, code := alice.types("send", "me", "a small message", "--patience", "10s")
			if code == 0 {
				continue
			}
			if !strings.Contains(errs, says) {
				t.Errorf("after %d messages: exit %d\n%s", sent, code, errs)
			}
			break
		}
		return alice.contract(id)
	}
	alice.runs("contract", "policy", id, "--pay", "auto", "--limit", "20000", "--cushion", "100")
	if item := sends("relay audit " + id[:8]); item.Paid != testnode.OpeningPrice+100 || item.Allowance <= item.Paid {
		t.Errorf("with a policy of a smaller cushion than the contract's: %+v", item)
	}
	alice.runs("contract", "policy", id, "--forget")
	item := sends("relay contract pay")
	if sent < 1 || sent > 4 || item.Paid <= testnode.OpeningPrice || item.Paid > item.Allowance {
		t.Errorf("%d messages for %+v", sent, item)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 20_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := alice.types("send", "me", "--file", file, "--patience", "3s"); code != exitFailed || !strings.Contains(errs, "relay contract pay") {
		t.Errorf("a file that is not paid for is not given up: exit %d\n%s", code, errs)
	}
	if now := alice.contract(id).Paid; now != item.Paid {
		t.Errorf("paid %d, %d before", now, item.Paid)
	}
	alice.runs("contract", "pay", id, "3000", "--accept", "5000", "--yes")
	alice.runs("send", "me", "another one") // and those that waited
}
