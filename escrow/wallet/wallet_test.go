package wallet_test

import (
	"os"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

const bitcoin = btcutil.Amount(btcutil.SatoshiPerBitcoin)

func TestReceiveThroughReorganizations(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := open(t, n)
	p.wants(0, 0)
	n.Fund(p.address(wallet.P2WPKH), 1*bitcoin)
	n.Fund(p.address(wallet.P2TR), 2*bitcoin)
	p.wants(3*bitcoin, 0)
	n.Mine(4)
	n.Reorg(5) // takes back the second payment
	p.wants(1*bitcoin, 2*bitcoin)
	n.Mine(1)
	p.wants(3*bitcoin, 0)
	_, paid := n.Pay(p.address(wallet.P2TR), 4*bitcoin)
	n.Mine(1)
	p.wants(7*bitcoin, 0)
	n.Reorg(1, n.DoubleSpend(paid, 0))
	// It can never be in a block any more: the wallet asks the node about what is unconfirmed, and forgets it.
	eventually(t, func() bool { p.sync(); return p.balance().Unconfirmed == 0 })
	p.wants(3*bitcoin, 0)
	n.MineTo(p.address(wallet.P2WPKH), 1)
	p.sync()
	if b := p.balance(); b.Immature == 0 || b.Confirmed != 3*bitcoin {
		t.Errorf("a subsidy: %+v", b)
	}
	n.Mine(99)
	p.sync()
	if b := p.balance(); b.Immature != 0 || b.Confirmed <= 3*bitcoin {
		t.Errorf("a subsidy after 100 blocks: %+v", b)
	}
}

// What came while the wallet was closed, and a reorganization in that time.
func TestOpenAgain(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t)
	dir := t.TempDir()
	in := func(c *wallet.Config) { c.Dir = dir }
	p := open(t, n, in)
	a, b := p.address(wallet.P2WPKH), p.address(wallet.P2TR)
	n.Fund(a, 1*bitcoin)
	p.wants(1*bitcoin, 0)
	p.close()
	n.Reorg(1)
	n.Fund(b, 2*bitcoin)
	p = open(t, n, in)
	p.wants(3*bitcoin, 0)
	if again := p.address(wallet.P2WPKH); again.String() == a.String() {
		t.Error("an address was given out twice")
	}
	p.close()

	wrong := config(t, dir)
	wrong.Passphrase = []byte("wrong")
	_, err := wallet.Open(wrong, nodeClient(t, n))
	want(t, err, wallet.ErrPassphrase)
	other := config(t, dir)
	other.Branch = branchOf(2)
	_, err = wallet.Open(other, nodeClient(t, n))
	want(t, err, wallet.ErrOtherSeed)
	none := config(t, t.TempDir())
	none.Passphrase = nil
	_, err = wallet.Open(none, nodeClient(t, n))
	want(t, err, wallet.ErrPassphrase)
	p = open(t, n, in)
	_, err = wallet.Open(config(t, dir), nodeClient(t, n))
	want(t, err, wallet.ErrInUse)
	p.wants(3*bitcoin, 0)
}

// The words alone bring the coins back, also those at addresses far apart.
func TestRestoreFromSeed(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := open(t, n)
	for i := range 24 {
		kind := wallet.P2WPKH
		if i%2 == 0 {
			kind = wallet.P2TR
		}
		a := p.address(kind)
		switch {
		case i == 23: // dearer than the others, so that it is not the coin that is spent below
			n.Fund(a, 2*bitcoin)
		case i%8 == 0:
			n.Fund(a, 1*bitcoin)
		}
	}
	p.wants(5*bitcoin, 0)
	if _, err := p.Send(t.Context(), wallet.SendRequest{Key: "1", To: open(t, n, func(c *wallet.Config) { c.Branch = branchOf(3) }).address(wallet.P2TR), Amount: bitcoin / 2, Feerate: 2_000}); err != nil {
		t.Fatal(err)
	}
	n.Mine(1)
	p.sync()
	before := p.balance()
	p.close()
	again := open(t, n, func(c *wallet.Config) { c.Lookahead = 15 })
	again.sync()
	if after := again.balance(); after != before {
		t.Errorf("%+v, it was %+v", after, before)
	}
	near := open(t, n) // looks five addresses ahead: the coin at the twelfth P2WPKH address is too far
	near.sync()
	if after := near.balance(); after.Confirmed >= before.Confirmed {
		t.Errorf("found with five addresses ahead: %+v", after)
	}
	late := open(t, n, func(c *wallet.Config) { c.Birthday, c.Lookahead = time.Now(), 15 })
	late.sync()
	if after := late.balance(); after != before {
		t.Errorf("with a birthday: %+v, it was %+v", after, before)
	}
}

func TestContractKeyIsOfTheSeed(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p, q := open(t, n), open(t, n, func(c *wallet.Config) { c.Branch = branchOf(2) })
	var one, two protocol.ContractID
	one[0], two[0] = 1, 2
	seen := make(map[string]bool)
	for _, w := range []*person{p, q} {
		for _, id := range []protocol.ContractID{one, two} {
			key, err := w.ContractKey(id)
			if err != nil {
				t.Fatal(err)
			}
			again, err := w.ContractKey(id)
			if err != nil || !again.Key.Equals(&key.Key) {
				t.Errorf("another key the second time, %v", err)
			}
			seen[string(key.Serialize())] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d keys of two contracts of two owners", len(seen))
	}
}

// The wallet opens without a node, gives addresses, and catches up when the node is back.
func TestNodeDownAndBack(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t)
	n.Stop()
	p := open(t, n)
	a := p.address(wallet.P2TR)
	want(t, p.AwaitSync(t.Context()), errUnreachable)
	n.Restart()
	n.Fund(a, 1*bitcoin)
	p.wants(1*bitcoin, 0)
	n.Stop()
	b := p.address(wallet.P2WPKH)
	tx, err := p.Send(t.Context(), wallet.SendRequest{Key: "rent", To: b, Amount: bitcoin / 4, Feerate: 1_000})
	if err != nil {
		t.Fatalf("a payment while the node is down: %v", err)
	}
	if got := p.balance(); got.Confirmed != 0 || got.Unconfirmed == 0 {
		t.Errorf("%+v", got)
	}
	n.Restart()
	eventually(t, func() bool { return n.InMempool(tx.TxHash()) })
	n.Mine(1)
	p.sync()
	if got := p.balance(); got.Unconfirmed != 0 || got.Confirmed < bitcoin-1_000 {
		t.Errorf("the payment was not sent again: %+v", got)
	}
}

// Without the passphrase the file tells no private key, and its mode lets nobody else read it.
func TestFileIsPrivate(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	dir := t.TempDir() + "/deep/er"
	p := open(t, n, func(c *wallet.Config) { c.Dir = dir })
	p.close()
	info, err := os.Stat(dir + "/wallet.db")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
