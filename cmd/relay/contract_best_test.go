package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow/userside"
	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// fair is a market of relays that make contracts, the first the cheapest, and a user who knows their hub and has no coin yet.
func fair(t *testing.T, relays int, edit ...func(i int, o *protocol.ContractOffer)) (*regtest.Test, []*testnode.Node, *terminal) {
	t.Helper()
	bitcoin := regtest.Start(t, regtest.Plain)
	hub := marketHub(t)
	nodes := make([]*testnode.Node, relays)
	for i := range nodes {
		contracts := testnode.Contracts(t, bitcoin.Node)
		nodes[i] = testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
			contracts(c)
			c.Bitcoin.Offer.StorageMsatPerGBDay += int64(i) * 1_000_000
			for _, e := range edit {
				e(i, c.Bitcoin.Offer)
			}
			c.Market = relaynode.Market{Network: protocol.Regtest, Hubs: []string{hub.HubURL}}
		}})
	}
	alice := user(t)
	alice.connects(bitcoin)
	alice.runs("hubs", "add", hub.HubURL)
	eventually(t, "all are in the market", func() bool {
		var got shownMarket
		alice.json(&got, "market")
		return got.Known == relays+1 // and the hub
	})
	for _, n := range nodes {
		n.OpensContracts(t)
	}
	return bitcoin, nodes, alice
}

// follow returns when all relays have seen the newest block.
func follow(t *testing.T, bitcoin *regtest.Test, nodes []*testnode.Node) {
	t.Helper()
	for _, n := range nodes {
		n.Follows(t, bitcoin)
	}
}

// profiled are the arguments that rent the best for a small user.
func profiled(args ...string) []string {
	return append([]string{"contract", "open", "--deposit", "100000", "--kept", "1GB", "--moved", "1MB", "--feerate", "2"}, args...)
}

// With one coin two relays are rented: the coin is split, all of it after one question. What is rented is not rented again, and a
// relay that is gone is passed over.
func TestRentTheBest(t *testing.T) {
	bitcoin, nodes, alice := fair(t, 3)
	alice.earns(bitcoin, btcutil.SatoshiPerBitcoin/10)
	follow(t, bitcoin, nodes)
	before := alice.balance()
	_, errs, code := alice.types(profiled("--best", "2")...)
	if code != exitUsage || !strings.Contains(errs, "200,000 sat, 100,000 sat with each") || !strings.Contains(errs, "splitting your coins first") ||
		!strings.Contains(errs, nodes[0].URL) || !strings.Contains(errs, nodes[1].URL) || strings.Contains(errs, nodes[2].URL) {
		t.Errorf("without a terminal: exit %d\n%s", code, errs)
	}
	t.Logf("what is told:\n%s", errs)
	if now := alice.balance(); now != before {
		t.Errorf("%d sat were spent on nothing", before-now)
	}
	rest := mines(bitcoin)
	out := alice.runs(profiled("--best", "2", "--yes")...)
	rest()
	if strings.Count(out, "is one of your relays") != 2 {
		t.Errorf("open says\n%s", out)
	}
	// Each relay has what gets the other's deposit back.
	for i, n := range nodes[:2] {
		if out := alice.runs("restore", "--relay", n.URL); !strings.Contains(out, []string{"1 document", "2 documents"}[i]) {
			t.Errorf("after %s there is: %s", n.URL, out)
		}
	}
	alice.stdin = alice.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "me")
	alice.stdin = ""
	if out := alice.runs("send", "me", "on two relays", "--copies", "2"); !strings.Contains(out, "2 relays") {
		t.Errorf("send says %s", out)
	}

	if _, errs, code := alice.types(profiled("--best", "2", "--yes")...); code != exitFailed || !strings.Contains(errs, "too few relays fit: 1 of 4 relays") {
		t.Errorf("two more: exit %d\n%s", code, errs)
	}
	nodes[2].Stop()
	if _, errs, code := alice.types(profiled("--best", "1", "--yes")...); code != exitFailed || !strings.Contains(errs, nodes[2].URL+" is left out") {
		t.Errorf("one that is gone: exit %d\n%s", code, errs)
	}

	var list struct{ Contracts []contractItem }
	alice.json(&list, "contract", "list")
	var locked, fees int64
	for _, c := range list.Contracts {
		locked += c.Deposit
		for _, tx := range c.Transactions {
			fees += tx.Fee
		}
	}
	bitcoin.Mine(1)
	spent := int64(before - alice.balance())
	if split := spent - locked - fees; len(list.Contracts) != 2 || split <= 0 || split > 1000 {
		t.Errorf("%d sat were spent: %d locked, %d fees of fundings, %d for splitting", spent, locked, fees, split)
	}
}

// Whoever is killed while several contracts are opened goes on with all of them, and rents nothing twice.
func TestKilledWhileOpeningTheBest(t *testing.T) {
	bitcoin, nodes, alice := fair(t, 2)
	alice.earns(bitcoin, btcutil.SatoshiPerBitcoin/10)
	for _, at := range []string{"Your coins are split", "asking the relay", "Giving the relay the signatures", "Waiting for the next block"} {
		t.Run(at, func(t *testing.T) {
			follow(t, bitcoin, nodes)
			alice.killed(at, profiled("--best", "2", "--yes")...)
			if at == "Your coins are split" {
				alice.again(bitcoin)
				return
			}
			if alice.isOpening() {
				if _, errs, code := alice.types(profiled("--best", "2", "--yes")...); code != exitFailed || !strings.Contains(errs, "relay contract resume") {
					t.Errorf("typed again: exit %d\n%s", code, errs)
				}
			}
			var got rentedJSON
			alice.json(&got, "contract", "resume", "--wait", "0")
			if len(got.Contracts) != 2 || len(got.Failed) != 0 {
				t.Fatalf("resumed: %+v", got)
			}
			bitcoin.Mine(1)
			alice.ends(bitcoin, got, nodes)
		})
	}
	var none rentedJSON
	alice.json(&none, "contract", "resume")
	if out := alice.runs("contract", "resume"); !strings.Contains(out, "nothing to go on with") {
		t.Errorf("resume says %s", out)
	}
}

// isOpening tells whether a contract waits for a step of its opening: the program may have gone on until the signal came.
func (s *terminal) isOpening() bool {
	s.t.Helper()
	var list struct{ Contracts []contractItem }
	s.json(&list, "contract", "list")
	return slices.ContainsFunc(list.Contracts, func(c contractItem) bool { return c.Step != string(userside.StepTaken) })
}

// again types what was killed after the split: the coins are waited for, and not split once more.
func (s *terminal) again(bitcoin *regtest.Test) {
	s.t.Helper()
	if _, errs, code := s.types(profiled("--best", "2", "--yes", "--wait", "0")...); code != exitFailed || !strings.Contains(errs, "in no block yet") {
		s.t.Errorf("before the block: exit %d\n%s", code, errs)
	}
	bitcoin.Mine(1)
	var got rentedJSON
	s.json(&got, profiled("--best", "2", "--yes", "--wait", "0")...)
	if len(got.Contracts) != 2 || got.Split != nil {
		s.t.Fatalf("after it: %+v", got)
	}
	bitcoin.Mine(1)
	s.ends(bitcoin, got, nil)
}

// ends sees that the contracts are with different relays, and closes them.
func (s *terminal) ends(bitcoin *regtest.Test, got rentedJSON, nodes []*testnode.Node) {
	s.t.Helper()
	relays := map[string]bool{}
	for _, c := range got.Contracts {
		relays[c.Relay] = true
		s.reaches(c.ID, "active")
		s.closes(c.ID)
	}
	if len(relays) != 2 {
		s.t.Errorf("not two relays: %v", relays)
	}
	for _, n := range nodes {
		if !relays[n.Key.String()] {
			s.t.Errorf("%s is not rented", n.URL)
		}
	}
	bitcoin.Mine(100)
	for _, c := range got.Contracts {
		s.reaches(c.ID, "archived")
	}
}

// One relay that refuses, because it has no coin for the bond that it announces, does not hold up the other.
func TestRentTheBestRefused(t *testing.T) {
	bitcoin, nodes, alice := fair(t, 2, func(i int, o *protocol.ContractOffer) { o.BondPercent = int64(10 * (1 - i)) })
	for range 2 {
		alice.earns(bitcoin, 200_000)
	}
	follow(t, bitcoin, nodes)
	out, errs, code := alice.types(profiled("--best", "2", "--yes", "--wait", "0", "--json", "--feerate", "20")...)
	var got rentedJSON
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: exit %d\n%s", err, code, errs)
	}
	if code != exitPartial || len(got.Contracts) != 1 || got.Contracts[0].Relay != nodes[1].Key.String() || len(got.Failed) != 1 ||
		got.Failed[0].Relay != nodes[0].Key.String() || got.Split != nil || !got.Failed[0].Resume || !strings.Contains(errs, "1 of 2 contracts are open") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
