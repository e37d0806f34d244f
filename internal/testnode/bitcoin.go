package testnode

import (
	"context"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow/chain"
	"relaymarket/escrow/relayside"
	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/protocol"
)

// The terms of a relay that makes contracts in tests. A kilobyte written and pulled once costs 20 msat.
const (
	OpeningPrice = 1000 // satoshi
	CreditLimit  = 800  // satoshi
)

// Contracts is an [Options].Setup: the relay makes contracts on the chain of a regtest node, without a bond.
func Contracts(t testing.TB, bitcoin *regtest.Node) func(*relaynode.Config) {
	t.Helper()
	cert, err := bitcoin.Cert()
	if err != nil {
		t.Fatal(err)
	}
	key := NewKey(t).Secret()
	branch, err := hdkeychain.NewMaster(key[:], &chaincfg.MainNetParams)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return func(c *relaynode.Config) {
		c.Bitcoin = relaynode.Bitcoin{
			Node: chain.Config{Network: protocol.Regtest, Host: bitcoin.Host(), User: regtest.User, Password: regtest.Password,
				Plain: bitcoin.Plain(), Certificate: cert, Timeout: 5 * time.Second},
			Branch: branch, Birthday: time.Now(), Wallet: dir,
			Offer: &protocol.ContractOffer{StorageMsatPerGBDay: 10_000_000, BandwidthMsatPerGB: 10_000_000, OpeningPrice: OpeningPrice,
				CreditLimit: CreditLimit, MinPrepay: 10_000},
			Limits: relayside.Limits{Poll: 50 * time.Millisecond, Resend: time.Second},
		}
	}
}

// Follows returns when the relay has seen the newest block of the node.
func (n *Node) Follows(t testing.TB, bitcoin *regtest.Test) {
	t.Helper()
	want := bitcoin.Height()
	db, err := pgx.Connect(t.Context(), n.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(10 * time.Millisecond) {
		var height int
		if err := db.QueryRow(t.Context(), `SELECT coalesce(max(height), 0) FROM contract_blocks`).Scan(&height); err != nil {
			t.Fatal(err)
		}
		if height >= want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay has seen the block %d and not %d", height, want)
		}
	}
}
