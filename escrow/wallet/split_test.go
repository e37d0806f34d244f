package wallet_test

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
)

// One coin becomes three and change; each of the three is just enough for the funding it was made for, and the fee is what was told.
func TestSplit(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 1)
	const deposit = 100_000
	missing, err := fundingOf(t, p, deposit).Missing(escrow.User)
	if err != nil {
		t.Fatal(err)
	}
	r := wallet.SplitRequest{Key: "s", Parts: []btcutil.Amount{missing, missing, missing}, Feerate: 2_000, For: leased}
	fee, err := p.SplitFee(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fund(t.Context(), request("other", 1000)); err == nil {
		t.Error("the coin to be split is not leased")
	}
	tx, err := p.Split(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.Split(t.Context(), r); err != nil || again.TxHash() != tx.TxHash() {
		t.Errorf("asked again it is %v, %v", again, err)
	}
	if len(tx.TxOut) != 4 {
		t.Fatalf("%d outputs", len(tx.TxOut))
	}
	p.wants(0, bitcoin-fee)
	if _, err := p.Fund(t.Context(), request("early", missing)); err == nil {
		t.Error("a coin that is in no block is offered")
	}
	n.Mine(1)
	p.wants(bitcoin-fee, 0)
	for _, key := range []string{"1", "2", "3"} {
		funds := p.fund(request(key, missing))
		if len(funds.Coins) != 1 || funds.Coins[0].OutPoint.Hash != tx.TxHash() || funds.Coins[0].Value > deposit+2000 {
			t.Errorf("contract %s gets %+v", key, funds.Coins)
		}
	}
	if fee < 300 || fee > 700 {
		t.Errorf("%d sat of fee at 2 sat/vB", int64(fee))
	}
}

func TestSplitRefusals(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 1)
	for name, c := range map[string]struct {
		parts []btcutil.Amount
		err   error
	}{
		"no part":      {nil, wallet.ErrRequest},
		"nothing":      {[]btcutil.Amount{1000, 0}, wallet.ErrRequest},
		"negative":     {[]btcutil.Amount{1000, -1000}, wallet.ErrRequest},
		"all there is": {[]btcutil.Amount{bitcoin / 2, bitcoin / 2}, wallet.ErrFunds},
		"far too much": {[]btcutil.Amount{btcutil.MaxSatoshi, btcutil.MaxSatoshi}, wallet.ErrRequest},
	} {
		_, err := p.Split(t.Context(), wallet.SplitRequest{Key: name, Parts: c.parts, Feerate: 2_000, For: leased})
		t.Run(name, func(t *testing.T) { want(t, err, c.err) })
	}
	if _, err := p.Split(t.Context(), wallet.SplitRequest{Parts: []btcutil.Amount{1000}, Feerate: 2_000, For: leased}); err == nil {
		t.Error("a split without a key")
	}
	p.wants(bitcoin, 0)
}
