package regtest

import (
	"context"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Test is a node of one test, which ends when anything fails.
type Test struct {
	*Node
	t testing.TB
}

// Start gives a test a node of its own, on a new chain of [FirstBlocks] blocks. It takes half a second, and the node ends
// with the test.
func Start(t testing.TB, options ...func(*Config)) *Test {
	t.Helper()
	cfg := Config{Dir: t.TempDir()}
	for _, o := range options {
		o(&cfg)
	}
	n, err := Launch(t.Context(), cfg)
	if err != nil {
		t.Fatalf("regtest: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Errorf("regtest: %v", err)
		}
	})
	return &Test{Node: n, t: t}
}

// Plain is an option of [Start]: RPC without TLS.
func Plain(cfg *Config) { cfg.Plain = true }

func (n *Test) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("regtest: %v", err)
	}
}

// Height is [Node.Height].
func (n *Test) Height() int {
	n.t.Helper()
	height, err := n.Node.Height()
	n.check(err)
	return height
}

// Mine is [Node.Mine].
func (n *Test) Mine(count int) []*chainhash.Hash {
	n.t.Helper()
	hashes, err := n.Node.Mine(count)
	n.check(err)
	return hashes
}

// MineTo is [Node.MineTo].
func (n *Test) MineTo(to address.Address, count int) []*chainhash.Hash {
	n.t.Helper()
	hashes, err := n.Node.MineTo(to, count)
	n.check(err)
	return hashes
}

// MineWith is [Node.MineWith].
func (n *Test) MineWith(txs ...*wire.MsgTx) *chainhash.Hash {
	n.t.Helper()
	hash, err := n.Node.MineWith(txs...)
	n.check(err)
	return hash
}

// Reorg is [Node.Reorg].
func (n *Test) Reorg(depth int, txs ...*wire.MsgTx) []*chainhash.Hash {
	n.t.Helper()
	hashes, err := n.Node.Reorg(depth, txs...)
	n.check(err)
	return hashes
}

// Invalidate is [Node.Invalidate].
func (n *Test) Invalidate(depth int) {
	n.t.Helper()
	n.check(n.Node.Invalidate(depth))
}

// Fund is [Node.Fund].
func (n *Test) Fund(to address.Address, amount btcutil.Amount) wire.OutPoint {
	n.t.Helper()
	out, err := n.Node.Fund(to, amount)
	n.check(err)
	return out
}

// Pay is [Node.Pay].
func (n *Test) Pay(to address.Address, amount btcutil.Amount) (wire.OutPoint, *wire.MsgTx) {
	n.t.Helper()
	out, tx, err := n.Node.Pay(to, amount)
	n.check(err)
	return out, tx
}

// PayScript is [Node.PayScript].
func (n *Test) PayScript(script []byte, amount btcutil.Amount) (wire.OutPoint, *wire.MsgTx) {
	n.t.Helper()
	out, tx, err := n.Node.PayScript(script, amount)
	n.check(err)
	return out, tx
}

// DoubleSpend is [Node.DoubleSpend].
func (n *Test) DoubleSpend(paid *wire.MsgTx, extraFee btcutil.Amount) *wire.MsgTx {
	n.t.Helper()
	tx, err := n.Node.DoubleSpend(paid, extraFee)
	n.check(err)
	return tx
}

// Send puts a transaction into the mempool, which has to accept it.
func (n *Test) Send(tx *wire.MsgTx) chainhash.Hash {
	n.t.Helper()
	rpc, err := n.RPC()
	n.check(err)
	hash, err := rpc.SendRawTransaction(tx, true)
	n.check(err)
	return *hash
}

// Transaction is [Node.Transaction].
func (n *Test) Transaction(id chainhash.Hash) *wire.MsgTx {
	n.t.Helper()
	tx, err := n.Node.Transaction(id)
	n.check(err)
	return tx
}

// InMempool tells whether a transaction waits to be mined.
func (n *Test) InMempool(id chainhash.Hash) bool {
	n.t.Helper()
	rpc, err := n.RPC()
	n.check(err)
	waiting, err := rpc.GetRawMempool()
	n.check(err)
	for _, hash := range waiting {
		if *hash == id {
			return true
		}
	}
	return false
}

// Stop is [Node.Stop]: the backend goes down.
func (n *Test) Stop() {
	n.t.Helper()
	n.check(n.Node.Stop(n.t.Context()))
}

// Restart is [Node.Restart]: the backend comes back.
func (n *Test) Restart() {
	n.t.Helper()
	n.check(n.Node.Restart(n.t.Context()))
}

// SignAsMiner is [Node.SignAsMiner].
func (n *Test) SignAsMiner(tx *wire.MsgTx) {
	n.t.Helper()
	n.check(n.Node.SignAsMiner(tx))
}
