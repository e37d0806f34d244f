package wallet_test

import (
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
)

func TestSend(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 3)
	twin := open(t, n, func(c *wallet.Config) { c.Lookahead = 20 }) // on another machine, from the same words
	twin.wants(6*bitcoin, 0)
	q := open(t, n, func(c *wallet.Config) { c.Branch = branchOf(2) })
	to := q.address(wallet.P2TR)
	pay := wallet.SendRequest{Key: "rent", To: to, Amount: 2*bitcoin + bitcoin/2, Feerate: 3_000}
	tx, err := p.Send(t.Context(), pay)
	if err != nil {
		t.Fatal(err)
	}
	if b := p.balance(); b.Confirmed != 3*bitcoin || b.Unconfirmed == 0 {
		t.Errorf("%+v", b)
	}
	_, err = p.Fund(t.Context(), request("change", p.balance().Confirmed))
	want(t, err, wallet.ErrFunds) // change that is in no block funds nothing
	again, err := p.Send(t.Context(), pay)
	if err != nil || again.TxHash() != tx.TxHash() {
		t.Errorf("sent twice: %v", err)
	}
	other := pay
	other.Amount++
	_, err = p.Send(t.Context(), other)
	want(t, err, wallet.ErrRequest)
	n.Mine(1)
	q.wants(pay.Amount, 0)
	p.sync()
	fee := 6*bitcoin - pay.Amount - p.balance().Confirmed
	size := btcutil.Amount((tx.SerializeSizeStripped()*3 + tx.SerializeSize() + 3) / 4)
	if fee < 3*size || fee > 3*size+10 {
		t.Errorf("a fee of %d for %d vB at 3 sat", int64(fee), int64(size))
	}
	if again, err = p.Send(t.Context(), pay); err != nil || again.TxHash() != tx.TxHash() {
		t.Errorf("in a block: %v", err)
	}
	own := p.address(wallet.P2WPKH)
	if _, err := p.Send(t.Context(), wallet.SendRequest{Key: "to myself", To: own, Amount: bitcoin / 8, Feerate: 1_000}); err != nil {
		t.Fatal(err)
	}
	if b := p.balance(); b.Confirmed+b.Unconfirmed < 6*bitcoin-pay.Amount-fee-1_000 {
		t.Errorf("what one pays to oneself is one's own: %+v", b)
	}
	n.Mine(1)
	p.sync()
	// Everything, and then nothing is left.
	all, err := p.Send(t.Context(), wallet.SendRequest{Key: "all", To: to, Feerate: 1_000, All: true})
	if err != nil || len(all.TxOut) != 1 {
		t.Fatalf("%v", err)
	}
	n.Mine(1)
	p.wants(0, 0)
	twin.wants(0, 0)
	q.wants(pay.Amount+btcutil.Amount(all.TxOut[0].Value), 0)
}

func TestSendRefusals(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 1)
	to := p.address(wallet.P2WPKH)
	mainnet, err := address.NewAddressWitnessPubKeyHash(make([]byte, 20), &chaincfg.MainNetParams)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]wallet.SendRequest{
		"no key":          {To: to, Amount: bitcoin / 2, Feerate: 1_000},
		"no address":      {Key: "k", Amount: bitcoin / 2, Feerate: 1_000},
		"another network": {Key: "k", To: mainnet, Amount: bitcoin / 2, Feerate: 1_000},
		"dust":            {Key: "k", To: to, Amount: 293, Feerate: 1_000},
		"nothing":         {Key: "k", To: to, Feerate: 1_000},
	} {
		if _, err := p.Send(t.Context(), r); err == nil {
			t.Errorf("%s: sent", name)
		} else {
			want(t, err, wallet.ErrRequest)
		}
	}
	_, err = p.Send(t.Context(), wallet.SendRequest{Key: "k", To: to, Amount: bitcoin, Feerate: 1_000})
	want(t, err, wallet.ErrFunds)
	if b := p.balance(); b.Confirmed != bitcoin || b.Leased != 0 {
		t.Errorf("%+v", b)
	}
}

// Somebody else with the same seed was faster: the node refuses, and the wallet does not count on it.
func TestPublishConflict(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 1)
	twin := open(t, n)
	twin.sync()
	f, g := p.fund(request("a", bitcoin/2)), twin.fund(request("a", bitcoin/4))
	mine, theirs := draft(t, f, bitcoin/2), draft(t, g, bitcoin/4)
	if err := p.SignFunding(t.Context(), "a", mine); err != nil {
		t.Fatal(err)
	}
	if err := twin.SignFunding(t.Context(), "a", theirs); err != nil {
		t.Fatal(err)
	}
	if err := twin.Publish(t.Context(), extract(t, theirs)); err != nil {
		t.Fatal(err)
	}
	n.Mine(1)
	want(t, p.Publish(t.Context(), extract(t, mine)), chain.ErrConflict)
	p.sync()
	p.wants(btcutil.Amount(theirs.UnsignedTx.TxOut[1].Value), 0)
}
