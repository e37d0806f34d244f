package wallet_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/leakcheck"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == spender {
		os.Exit(spendForEver(os.Args[2:]))
	}
	leakcheck.Main(m)
}

// patience is for what comes about by itself. It bounds only a test that fails.
const patience = 5 * time.Minute

// branchOf is the Bitcoin branch of a made-up owner.
func branchOf(owner byte) *hdkeychain.ExtendedKey {
	key, err := hdkeychain.NewMaster(bytes.Repeat([]byte{owner}, 32), &chaincfg.MainNetParams)
	if err != nil {
		panic(err)
	}
	return key
}

func nodeClient(t *testing.T, n *regtest.Test) *chain.Client {
	t.Helper()
	cert, err := n.Cert()
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.New(chain.Config{
		Network: protocol.Regtest, Host: n.Host(), User: regtest.User, Password: regtest.Password,
		Plain: n.Plain(), Certificate: cert, Timeout: patience,
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func config(t *testing.T, dir string) wallet.Config {
	t.Helper()
	return wallet.Config{
		Dir: dir, Network: protocol.Regtest, Branch: branchOf(1), Passphrase: []byte("right"),
		Log: slog.New(slog.DiscardHandler), Poll: 20 * time.Millisecond, ScryptN: wallet.FastScryptN, Lookahead: 5,
	}
}

// person is a wallet that runs until the test ends or close is called.
type person struct {
	*wallet.Wallet
	t     *testing.T
	close func()
}

func open(t *testing.T, n *regtest.Test, edit ...func(*wallet.Config)) *person {
	t.Helper()
	cfg := config(t, t.TempDir())
	for _, e := range edit {
		e(&cfg)
	}
	w, err := wallet.Open(cfg, nodeClient(t, n))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(context.Background()) }()
	closed := false
	p := &person{Wallet: w, t: t}
	p.close = func() {
		if closed {
			return
		}
		closed = true
		if err := errors.Join(w.Close(), <-done); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(p.close)
	return p
}

func (p *person) sync() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := p.AwaitSync(ctx); err != nil {
		p.t.Fatalf("synchronize: %v", err)
	}
}

func (p *person) address(kind wallet.Kind) address.Address {
	p.t.Helper()
	a, err := p.NewAddress(p.t.Context(), kind)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func (p *person) balance() wallet.Balance {
	p.t.Helper()
	b, err := p.Balance(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *person) fund(r wallet.FundRequest) wallet.Funds {
	p.t.Helper()
	f, err := p.Fund(p.t.Context(), r)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func (p *person) wants(confirmed, unconfirmed btcutil.Amount) {
	p.t.Helper()
	p.sync()
	b := p.balance()
	if b.Confirmed != confirmed || b.Unconfirmed != unconfirmed {
		p.t.Errorf("balance %+v, want %v confirmed and %v not", b, confirmed, unconfirmed)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
}

func eventually(t *testing.T, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !what(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to it")
		}
	}
}
