package wallet_test

import (
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
)

// Who chose his coin by himself gets it to himself, before those it was only shown to.
func TestKeep(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	now := time.Now()
	p := rich(t, n, 1, func(c *wallet.Config) { c.Clock = func() time.Time { return now } })
	shown := request("shown", bitcoin/2)
	shown.Shared, shown.For = true, time.Minute // by the test's clock
	f := p.fund(shown)
	coin := []wire.OutPoint{f.Coins[0].OutPoint}
	if err := p.Keep(t.Context(), "contract", coin, time.Minute); err != nil {
		t.Fatal(err)
	}
	packet := draft(t, f, bitcoin/2)
	want(t, p.SignFunding(t.Context(), "shown", packet), wallet.ErrNotLeased)
	_, err := p.Fund(t.Context(), request("other", 1_000))
	want(t, err, wallet.ErrFunds)
	want(t, p.Keep(t.Context(), "other", coin, time.Minute), wallet.ErrNotLeased)
	now = now.Add(50 * time.Second)
	if err := p.Keep(t.Context(), "contract", coin, time.Minute); err != nil {
		t.Fatalf("prolong: %v", err)
	}
	now = now.Add(50 * time.Second)
	want(t, p.Keep(t.Context(), "other", coin, time.Minute), wallet.ErrNotLeased)
	if err := p.SignFunding(t.Context(), "contract", packet); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), extract(t, packet)); err != nil {
		t.Fatal(err)
	}
	want(t, p.Keep(t.Context(), "contract", coin, time.Minute), wallet.ErrSpent)
	for _, bad := range []func() error{
		func() error { return p.Keep(t.Context(), "", coin, time.Minute) },
		func() error { return p.Keep(t.Context(), "k", nil, time.Minute) },
		func() error { return p.Keep(t.Context(), "k", coin, 0) },
		func() error {
			return p.Keep(t.Context(), "k", make([]wire.OutPoint, escrow.MaxPartInputs+1), time.Minute)
		},
	} {
		want(t, bad(), wallet.ErrRequest)
	}
}
