package main

import (
	"context"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow/relayside"
	"relaymarket/ledger"
)

// A contract from its opening to its end: traffic in three parts, as of a day's morning, noon and evening, each audited and paid by
// itself under a stored policy, and the rest given back. What the relay earned, what the user spent, what the ledger comes
// to and what is on the chain agree to the satoshi.
func TestADayOfTraffic(t *testing.T) {
	bitcoin, node, alice, asOperator := operatedMarket(t)
	before := alice.balance()
	opened := alice.opens(bitcoin, node)
	id := opened.ID
	contract, err := contractID(id)
	if err != nil {
		t.Fatal(err)
	}
	bitcoin.Mine(6) // full credit
	node.Follows(t, bitcoin)
	alice.runs("relays", "add", node.URL)
	bob := user(t)
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	alice.stdin = bob.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "bob")
	alice.runs("contract", "policy", "--pay", "auto", "--limit", "50000", "--cushion", "0")

	paid := opened.OpeningPrice
	for part, pieces := range []int{2, 3, 1} {
		for range pieces {
			alice.stdin = strings.Repeat("traffic of a day ", 20_000)
			alice.runs("send", "bob", "--ttl", "1h", "-")
		}
		bob.runs("inbox")
		var sent struct{ Messages []struct{ ID string } }
		alice.json(&sent, "outbox", "--limit", "1")
		alice.runs("rm", sent.Messages[0].ID)
		node.Posted(t, contract)
		if part == 0 { // nobody looked yet: whoever watches audits and pays
			_, errs, code := alice.types("contract", "watch", "--once")
			now := alice.contract(id).Paid
			if code != 0 || !strings.Contains(errs, "audited") || !strings.Contains(errs, "paid ") || now <= paid {
				t.Fatalf("watch: exit %d, %d paid\n%s", code, now, errs)
			}
			paid = now
			continue
		}
		var audits auditResult
		alice.json(&audits, "audit", "--pay", "policy")
		a := audits.Audits[0]
		if a.PaidSat == 0 || a.DisputedMsat != "0" || a.AskSat != 0 || a.Told != nil {
			t.Fatalf("part %d: %+v", part, a)
		}
		paid += a.PaidSat
	}
	// What is stored no longer reserves no more: then the relay is owed what was used, and nothing else.
	var rest struct{ Messages []struct{ ID string } }
	alice.json(&rest, "outbox")
	for _, m := range rest.Messages {
		alice.types("rm", m.ID)
	}
	bill := node.Posted(t, contract)
	var last auditResult
	alice.json(&last, "audit", "--pay", "policy")
	paid += last.Audits[0].PaidSat
	item := alice.contract(id)
	if item.Paid != paid || last.Audits[0].DisputedMsat != "0" || last.Audits[0].WaitingMsat != "0" {
		t.Fatalf("paid %d, the contract says %d: %+v", paid, item.Paid, last)
	}
	used, err := bill.Totals.Reserved()
	if err != nil {
		t.Fatal(err)
	}
	cost, err := (ledger.Prices{Storage: 10_000_000, Bandwidth: 10_000_000}).Cost(used)
	if err != nil || opened.OpeningPrice+int64(ledger.Sat(cost)) != paid {
		t.Fatalf("the ledger comes to %d msat and %d sat, %d are paid, %v", cost, opened.OpeningPrice, paid, err)
	}

	alice.runs("contract", "close", id, "--yes")
	bitcoin.Mine(6)
	item = alice.reaches(id, "closed")
	fees := btcutil.Amount(0)
	for _, tx := range item.Transactions {
		fees += btcutil.Amount(tx.Fee)
	}
	if spent := before - alice.balance(); spent != btcutil.Amount(paid)+fees {
		t.Errorf("%d sat were spent: %d paid, %d of fees", int64(spent), paid, int64(fees))
	}
	asOperator(func(ctx context.Context, m *relayside.Manager) error {
		r, err := m.Revenue(ctx)
		if err == nil && (int64(r.Settled) != paid || r.Live != 0 || r.Unpaid != 0) {
			t.Errorf("the relay has %+v, %d were paid", r, paid)
		}
		return err
	})
}
