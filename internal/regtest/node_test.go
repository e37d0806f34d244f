package regtest_test

import (
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/internal/regtest"
)

func someAddress(t *testing.T, b byte) address.Address {
	t.Helper()
	hash := make([]byte, 20)
	hash[0] = b
	a, err := address.NewAddressWitnessPubKeyHash(hash, &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFundAndReorg(t *testing.T) {
	for _, depth := range []int{1, 3, 6} {
		n := regtest.Start(t)
		if h := n.Height(); h != regtest.FirstBlocks {
			t.Fatalf("height %d", h)
		}
		out := n.Fund(someAddress(t, 1), btcutil.SatoshiPerBitcoin)
		n.Mine(depth - 1)
		before := n.Height()
		n.Reorg(depth)
		if h := n.Height(); h != before+1 {
			t.Fatalf("height %d after %d", h, before)
		}
		if !n.InMempool(out.Hash) {
			t.Fatal("the payment is not back in the mempool")
		}
		n.Mine(1)
		if n.InMempool(out.Hash) {
			t.Fatal("the payment was not mined again")
		}
	}
}

// A payment that is double spent in a reorganization is gone for good.
func TestDoubleSpend(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	out, paid := n.Pay(someAddress(t, 1), 50_000)
	n.Mine(2)
	other := n.DoubleSpend(paid, 0)
	n.Reorg(2, other)
	if n.InMempool(out.Hash) {
		t.Error("the payment is in the mempool beside its double spend")
	}
	if got := n.Transaction(other.TxHash()); got.TxHash() != other.TxHash() {
		t.Error("another transaction")
	}
	// In the mempool, a replacement has to pay more.
	out, paid = n.Pay(someAddress(t, 2), 50_000)
	n.Send(n.DoubleSpend(paid, 5_000))
	if n.InMempool(out.Hash) {
		t.Error("the payment was not replaced")
	}
}

func TestStopAndRestart(t *testing.T) {
	n := regtest.Start(t)
	out := n.Fund(someAddress(t, 1), 3*50*btcutil.SatoshiPerBitcoin)
	host, pid := n.Host(), n.PID()
	n.Stop()
	if _, err := n.RPC(); err == nil {
		t.Error("a stopped node answers")
	}
	n.Restart()
	if n.Host() != host || n.PID() == pid {
		t.Errorf("at %s after %s, process %d after %d", n.Host(), host, n.PID(), pid)
	}
	if got := n.Transaction(out.Hash).TxOut[0].Value; got != 150*btcutil.SatoshiPerBitcoin {
		t.Errorf("a coin of %d", got)
	}
	// The miner's money is found again.
	n.Fund(someAddress(t, 2), 60*btcutil.SatoshiPerBitcoin)
	height := n.Height()
	if err := n.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Restart()
	n.MineTo(someAddress(t, 3), 2)
	if h := n.Height(); h != height+2 {
		t.Errorf("height %d after %d", h, height)
	}
	n.Invalidate(1)
	if h := n.Height(); h != height+1 {
		t.Errorf("height %d", h)
	}
}

// The miner's money lasts for many payments.
func TestManyPayments(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	for i := range 60 {
		n.Pay(someAddress(t, byte(i)), btcutil.SatoshiPerBitcoin/2)
		if i%10 == 0 {
			n.Mine(1)
		}
	}
}
