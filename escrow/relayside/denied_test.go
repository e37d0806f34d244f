package relayside_test

import (
	"context"
	"errors"
	"testing"

	"relaymarket/protocol"
)

// Whom the operator denies is offered no contract, before the chain is asked for anything; what is offered already can be signed, and whoever is
// not denied is served. When the lists cannot be read, nobody is.
func TestDeniedPayer(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	h.crash()
	denied := map[protocol.PublicKey]bool{}
	away := errors.New("the lists are away")
	var fault error
	h.denies = func(_ context.Context, payer protocol.PublicKey) (bool, error) { return denied[payer], fault }
	h.start()
	good, bad := h.user(), h.user()
	coin, _ := good.coin(150_000)
	badCoin, _ := bad.coin(150_000)
	offered := bad.plan(100_000, 1500, badCoin)
	offered.offer(nil)
	if err := offered.open(nil); err != nil {
		t.Fatal(err)
	}
	denied[bad.key.Public()] = true
	again := bad.plan(100_000, 1500, badCoin)
	again.offer(nil)
	wantCode(t, again.open(nil), protocol.CodeDenied)
	if h.count(`SELECT count(*) FROM contract_openings`) != 1 {
		t.Error("a denied payer's opening is kept")
	}
	offered.witness(nil)
	if _, err := offered.send(); err != nil {
		t.Errorf("what was offered before: %v", err)
	}
	d := good.plan(100_000, 1500, coin)
	d.offer(nil)
	fault = away
	if err := d.open(nil); !errors.Is(err, away) {
		t.Errorf("with the lists away: %v", err)
	}
	fault = nil
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
}
