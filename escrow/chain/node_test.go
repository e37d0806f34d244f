package chain_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow/chain"
	"relaymarket/internal/leakcheck"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func config(t *testing.T, n *regtest.Test) chain.Config {
	t.Helper()
	cert, err := n.Cert()
	if err != nil {
		t.Fatal(err)
	}
	return chain.Config{
		Network: protocol.Regtest, Host: n.Host(), User: regtest.User, Password: regtest.Password,
		Plain: n.Plain(), Certificate: cert,
	}
}

func open(t *testing.T, cfg chain.Config, now func() time.Time) *chain.Client {
	t.Helper()
	c, err := chain.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func client(t *testing.T, n *regtest.Test) *chain.Client {
	t.Helper()
	return open(t, config(t, n), time.Now)
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
}

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

// Both ways to connect, and what a coin and a transaction are through their life.
func TestLifeOfACoin(t *testing.T) {
	for name, option := range map[string]func(*regtest.Config){"TLS": func(*regtest.Config) {}, "plain": regtest.Plain} {
		t.Run(name, func(t *testing.T) {
			n := regtest.Start(t, option)
			c := client(t, n)
			to := someAddress(t, 7)
			script, err := txscript.PayToAddrScript(to)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := n.Pay(to, 123_456_789)
			for confirmations := range int64(3) {
				coin, err := c.Output(t.Context(), out)
				if err != nil || coin.Amount != 123_456_789 || string(coin.Script) != string(script) || coin.Coinbase || coin.Confirmations != confirmations {
					t.Fatalf("%+v, %v", coin, err)
				}
				tx, err := c.Transaction(t.Context(), out.Hash)
				if err != nil || tx.Msg.TxHash() != out.Hash || tx.Confirmations != confirmations || (tx.Block == chainhash.Hash{}) != (confirmations == 0) {
					t.Fatalf("%+v, %v", tx, err)
				}
				n.Mine(1)
			}
			_, err = c.Output(t.Context(), wire.OutPoint{Hash: out.Hash, Index: 9})
			want(t, err, chain.ErrNotFound)
			_, err = c.Transaction(t.Context(), chainhash.Hash{1})
			want(t, err, chain.ErrNotFound)
			tip, err := c.Tip(t.Context())
			if err != nil || int(tip.Height) != n.Height() {
				t.Errorf("tip %v, %v", tip, err)
			}
			block, err := c.Block(t.Context(), tip.Hash)
			if err != nil {
				t.Fatal(err)
			}
			coin, err := c.Output(t.Context(), wire.OutPoint{Hash: block.Transactions[0].TxHash()})
			if err != nil || !coin.Coinbase {
				t.Errorf("%+v, %v", coin, err)
			}
			_, err = c.Block(t.Context(), chainhash.Hash{1})
			want(t, err, chain.ErrNotFound)
			_, err = c.BlockAt(t.Context(), tip.Height+1)
			want(t, err, chain.ErrNotFound)
		})
	}
}

func TestFeerateIsBounded(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	rate, err := client(t, n).Feerate(t.Context(), 3)
	if err != nil || rate != protocol.MinContractFeerate {
		t.Errorf("%d, %v", rate, err)
	}
	cfg := config(t, n)
	cfg.FeeFloor, cfg.FeeCeiling = 5_000, 6_000
	rate, err = open(t, cfg, time.Now).Feerate(t.Context(), 3)
	if err != nil || rate != 5_000 {
		t.Errorf("%d, %v", rate, err)
	}
	// Blocks full of transactions at 14 sat per vB make btcd estimate that.
	for range 30 {
		for i := range 10 {
			n.Pay(someAddress(t, byte(i)), btcutil.SatoshiPerBitcoin/10)
		}
		n.Mine(1)
	}
	cfg.FeeFloor, cfg.FeeCeiling = 0, 0
	rate, err = open(t, cfg, time.Now).Feerate(t.Context(), 3)
	if err != nil || rate < 10_000 || rate > 20_000 {
		t.Errorf("%d, %v", rate, err)
	}
	cfg.FeeCeiling = 6_000
	rate, err = open(t, cfg, time.Now).Feerate(t.Context(), 3)
	if err != nil || rate != 6_000 {
		t.Errorf("%d, %v", rate, err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := chain.Config{Network: protocol.Regtest, Host: "127.0.0.1:1", User: "u", Password: "p"}
	for name, spoil := range map[string]func(*chain.Config){
		"network":          func(c *chain.Config) { c.Network = "moon" },
		"host":             func(c *chain.Config) { c.Host = "localhost" },
		"login":            func(c *chain.Config) { c.Password = "" },
		"floor over":       func(c *chain.Config) { c.FeeFloor, c.FeeCeiling = 3_000, 2_000 },
		"floor too low":    func(c *chain.Config) { c.FeeFloor = 999 },
		"ceiling too high": func(c *chain.Config) { c.FeeCeiling = protocol.MaxContractFeerate + 1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := chain.New(cfg, time.Now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := chain.New(good, time.Now); err != nil {
		t.Error(err)
	}
}

// A node that is down, comes back, hangs, or refuses the login is an error in time, and nothing has to be done after it.
func TestNodeDownAndBack(t *testing.T) {
	n := regtest.Start(t)
	cfg := config(t, n)
	cfg.Timeout = 2 * time.Minute // nothing here may wait for that
	c := open(t, cfg, time.Now)
	before, err := c.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	start := time.Now()
	_, err = c.Tip(t.Context())
	want(t, err, chain.ErrUnreachable)
	want(t, c.Stale(t.Context()), chain.ErrUnreachable)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("a node that is down was waited for %v", took)
	}
	n.Restart()
	after, err := c.Tip(t.Context())
	if err != nil || after.BlockID != before.BlockID {
		t.Errorf("%v after %v, %v", after, before, err)
	}
	resume, err := n.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	start = time.Now()
	_, err = c.Tip(ctx)
	want(t, err, chain.ErrUnreachable)
	want(t, err, context.DeadlineExceeded)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the context was not kept: %v", took)
	}
	if err := resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Tip(t.Context()); err != nil {
		t.Error(err)
	}
	cookie := filepath.Join(t.TempDir(), ".cookie")
	if err := os.WriteFile(cookie, []byte(cfg.User+":"+cfg.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	by := cfg
	by.User, by.Password, by.CookieFile = "", "", cookie
	if _, err := open(t, by, time.Now).Tip(t.Context()); err != nil {
		t.Errorf("by a cookie: %v", err)
	}
	cfg.Password = "wrong"
	_, err = open(t, cfg, time.Now).Tip(t.Context())
	want(t, err, chain.ErrUnreachable)
	cfg = config(t, n)
	cfg.Network = protocol.Signet
	_, err = open(t, cfg, time.Now).Tip(t.Context())
	want(t, err, chain.ErrNetwork)
	cfg = config(t, n)
	cfg.Certificate = nil
	_, err = open(t, cfg, time.Now).Tip(t.Context())
	want(t, err, chain.ErrUnreachable)
}

func TestStale(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	var ahead time.Duration
	clock := func() time.Time { return time.Now().Add(ahead) }
	cfg := config(t, n)
	ahead = 1000 * time.Hour
	if err := open(t, cfg, clock).Stale(t.Context()); err != nil {
		t.Errorf("on regtest blocks come when they are wanted: %v", err)
	}
	cfg.StaleAfter = chain.DefaultStaleAfter
	c := open(t, cfg, clock)
	want(t, c.Stale(t.Context()), chain.ErrStale)
	ahead = chain.DefaultStaleAfter - 10*time.Minute
	n.Mine(1)
	if err := c.Stale(t.Context()); err != nil {
		t.Error(err)
	}
}
