package escrow

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
)

// TestSizes prints the size and the fee of every path and holds them to within 5 % of what a
// prototype had mined on a node.
func TestSizes(t *testing.T) {
	d := plain(t)
	at := d.outpoint(t)
	u := Unsettled{d.contract, at, d.payment(t, 1, 30_000)}
	settlement, err := Settle([]Unsettled{u}, nil, d.contract.RelayScript, testFeerate)
	if err != nil {
		t.Fatal(err)
	}
	if err := SignSettlement(settlement, 0, u, d.relayKey); err != nil {
		t.Fatal(err)
	}
	refund, err := Refund(d.contract, at, d.contract.UserScript, testFeerate, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := Identify(d.contract, at, settlement.MsgTx)
	sweep, err := Sweep(d.contract, *s.State, s.Left, d.contract.UserScript, testFeerate, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	estimate, err := EstimateFees(d.contract, testFeerate)
	if err != nil {
		t.Fatal(err)
	}
	userShare, relayShare := d.funding.Fees()
	for _, path := range []struct {
		name     string
		tx       *Tx
		known    int64 // vB
		estimate btcutil.Amount
	}{
		{"funding, two P2WPKH inputs, three outputs", d.fund(t), 252, userShare + relayShare},
		{"unilateral settlement", settlement, 182, estimate.Settlement},
		{"cooperative close", d.close(t, 30_000), 170, estimate.Closing},
		{"refund", refund, 121, estimate.Refund},
		{"sweep of a settlement", sweep, 111, estimate.Sweep},
	} {
		size, fee := path.tx.VSize(), path.tx.Fee()
		t.Logf("%-42s %4d vB (about %d)  %4d satoshi at %d sat per 1000 vB, estimated %d", path.name, size, path.known, fee, int64(testFeerate), path.estimate)
		if off := size - path.known; off*20 > path.known || off*20 < -path.known {
			t.Errorf("%s has %d vB, more than 5 %% from %d", path.name, size, path.known)
		}
		if fee < path.estimate-3 || fee > path.estimate+3 {
			t.Errorf("%s pays %d satoshi, %d were estimated", path.name, fee, path.estimate)
		}
		if actual := testFeerate.Fee(weightOf(path.tx.MsgTx)); fee < actual || fee > actual+actual/20 {
			t.Errorf("%s pays %d satoshi, its size is worth %d", path.name, fee, actual)
		}
	}
	t.Logf("of the funding the user pays %d, the relay %d", userShare, relayShare)
	if estimate.Funding != userShare {
		t.Errorf("the user's share of the funding is %d, %d were estimated", userShare, estimate.Funding)
	}
}

// What one settlement of several contracts would save: docs/decisions/settlements-one-by-one.md has these figures.
func TestSizesOfBatches(t *testing.T) {
	var all []Unsettled
	var keys []*deal
	for _, batch := range []struct {
		n     int
		known int64 // vB, paid to P2TR as the relay's are
	}{{1, 194}, {2, 334}, {10, 1453}} {
		n, known := batch.n, batch.known
		for len(all) < n {
			d := newDeal(t, string(rune('a'+len(all))), func(*deal) {})
			all, keys = append(all, Unsettled{d.contract, d.outpoint(t), d.payment(t, 1, 30_000)}), append(keys, d)
		}
		tx, err := Settle(all[:n], nil, p2tr(testKey("wallet")), testFeerate)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := SignSettlement(tx, i, all[i], keys[i].relayKey); err != nil {
				t.Fatal(err)
			}
		}
		size := tx.VSize()
		t.Logf("a settlement of %2d contracts has %4d vB, %d each", n, size, size/int64(n))
		if off := size - known; off*100 > known || off*100 < -known {
			t.Errorf("it has %d vB, more than 1 %% from %d", size, known)
		}
	}
}

func (d *deal) close(t testing.TB, amount btcutil.Amount) *Tx {
	t.Helper()
	closing, err := NewClosing(d.contract, amount, User, testFeerate)
	if err != nil {
		t.Fatal(err)
	}
	user, err := SignClosing(d.contract, d.outpoint(t), closing, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	relay, err := SignClosing(d.contract, d.outpoint(t), closing, d.relayKey)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := FinishClosing(d.contract, d.outpoint(t), closing, user, relay)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}
