package testnode

import (
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"

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
