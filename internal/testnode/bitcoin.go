package testnode

import (
	"context"
	"fmt"
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
				Plain: bitcoin.Plain(), Certificate: cert, Timeout: 30 * time.Second},
			Branch: branch, Birthday: time.Now(), Wallet: dir,
			Offer: &protocol.ContractOffer{StorageMsatPerGBDay: 10_000_000, BandwidthMsatPerGB: 10_000_000, OpeningPrice: OpeningPrice,
				CreditLimit: CreditLimit, MinPrepay: 10_000},
			Limits: relayside.Limits{Poll: 50 * time.Millisecond, Resend: time.Second},
		}
	}
}

// OpensContracts returns when the relay's wallet is ready for the first contract.
func (n *Node) OpensContracts(t testing.TB) {
	t.Helper()
	n.waits(t, "its wallet is not ready", `SELECT EXISTS (SELECT FROM contract_payout)`)
}

// waits returns when a question to the relay's database is answered with yes.
func (n *Node) waits(t testing.TB, otherwise string, question string, arguments ...any) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), n.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(10 * time.Millisecond) {
		var yes bool
		if err := db.QueryRow(t.Context(), question, arguments...).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the relay: " + otherwise)
		}
	}
}

// Follows returns when the relay has seen the newest block of the node.
func (n *Node) Follows(t testing.TB, bitcoin *regtest.Test) {
	t.Helper()
	want := bitcoin.Height()
	n.waits(t, fmt.Sprintf("it has not seen the block %d", want), `SELECT coalesce(max(height), 0) >= $1 FROM contract_blocks`, want)
}
