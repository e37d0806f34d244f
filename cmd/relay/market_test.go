package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	relaybook "relaymarket/broadcast/market"
	"relaymarket/broadcast/publisher"
	"relaymarket/client"
	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// marketHub is a relay that is a hub.
func marketHub(t *testing.T) *testnode.Node {
	t.Helper()
	return testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Market = relaynode.Market{Network: protocol.Regtest, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
	}})
}

// offers announces what a relay would ask for contracts.
func offers(t *testing.T, n, hub *testnode.Node, seq, storage int64) {
	t.Helper()
	now := protocol.TimestampOf(time.Now())
	e, err := broadcast.Prover{}.Announce(t.Context(), n.Secret, now, &protocol.Announcement{Addresses: []string{n.URL}, Network: protocol.Regtest,
		Hubs:   []string{hub.HubURL},
		Terms:  []protocol.Terms{{Type: "contract", Payment: true, Contact: "who \x1b[31mknows"}},
		Limits: protocol.Limits{RecordBytes: 1 << 20, LifetimeMs: 30 * 86_400_000, MaxPulls: 10}, Seq: seq, ValidUntil: now.Add(time.Hour),
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: storage, BandwidthMsatPerGB: 50_000, OpeningPrice: 5000, MinPrepay: 50_000}}, 8)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	to, err := publisher.Dial(ctx, protocol.Regtest, hub.HubURL, feed.Access{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hub takes it", func() bool {
		receipt, err := to.Announce(ctx, e.Bytes())
		return err == nil && receipt.Taken
	})
}

// shownMarket is relay market --json.
type shownMarket struct {
	Network string      `json:"network"`
	Known   int         `json:"known"`
	Relays  []offerItem `json:"relays"`
}

// A newcomer names a hub, sees who is there and what he would cost, sees it again without any hub, and hears of a change.
func TestMarketStory(t *testing.T) {
	hub := marketHub(t)
	cheap, dear := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	offers(t, dear, hub, 1, 9000)
	offers(t, cheap, hub, 1, 1000)
	alice := shell(t)
	if _, errs, code := alice.types("market"); code != exitFailed || !strings.Contains(errs, "relay init") {
		t.Errorf("without keys: %d %s", code, errs)
	}
	alice.runs("init")
	if _, errs, code := alice.types("market"); code != exitFailed || !strings.Contains(errs, "relay hubs add") {
		t.Errorf("without a hub: %d %s", code, errs)
	}
	if out := alice.runs("hubs", "list"); !strings.Contains(out, "no hub yet") {
		t.Errorf("hubs list says %s", out)
	}
	for _, bad := range []string{"nats://host", "tls://a:b@host:1", "ftp://x", "https://x/y"} {
		if _, errs, code := alice.types("hubs", "add", bad); code != exitUsage || errs == "" {
			t.Errorf("%s: %d %s", bad, code, errs)
		}
	}
	alice.runs("hubs", "add", "--network", "regtest", hub.URL)
	var got shownMarket
	eventually(t, "all three are there", func() bool {
		alice.json(&got, "market", "--kept", "1GB", "--moved", "2GB", "--probe")
		return got.Known == 3
	})
	if got.Network != "regtest" || len(got.Relays) != 3 || got.Relays[0].Key != cheap.Key.String() || *got.Relays[0].SatPerMonth != 5130 ||
		*got.Relays[1].SatPerMonth != 5370 || got.Relays[2].SatPerMonth != nil {
		t.Fatalf("the market is %+v", got)
	}
	for _, r := range got.Relays {
		if r.Probe == nil || r.Probe.Error != nil || r.Probe.Microseconds <= 0 {
			t.Errorf("%s is probed: %+v", r.Addresses, r.Probe)
		}
	}
	out := alice.runs("market")
	if !strings.Contains(out, cheap.URL) || strings.Contains(out, "\x1b") || !strings.Contains(out, "3 of 3 relays on regtest") || !strings.Contains(out, "an example") {
		t.Errorf("market says\n%s", out)
	}
	if out := alice.runs("market", "--best", "1", "--offline"); !strings.Contains(out, cheap.URL) || strings.Contains(out, dear.URL) {
		t.Errorf("the best is\n%s", out)
	}
	if out := alice.runs("market", "show", cheap.URL, "--probe"); !strings.Contains(out, cheap.Key.Bech32()) || !strings.Contains(out, "1 sat for a GB stored for a day") ||
		!strings.Contains(out, "it is this relay") || strings.Contains(out, "\x1b") {
		t.Errorf("show says\n%s", out)
	}
	if out := alice.runs("hubs", "list"); !strings.Contains(out, hub.URL) || !strings.Contains(out, "not yours:\n  "+hub.HubURL) {
		t.Errorf("hubs list says\n%s", out)
	}

	// A friend learns of her hub from her card.
	cheap.Grant(t, alice.key())
	alice.runs("relays", "add", cheap.URL)
	bob := user(t)
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	if out := bob.runs("hubs", "list"); !strings.Contains(out, "not yours:\n  "+hub.URL) {
		t.Errorf("a friend's hubs list says\n%s", out)
	}

	alice.runs("hubs", "add", hub.HubURL)
	alice.runs("hubs", "rm", hub.URL)
	watched(t, alice, func() { offers(t, cheap, hub, 2, 2000) }, cheap)

	hub.Stop()
	if out, errs, code := alice.types("market"); code != exitFailed || !strings.Contains(errs, hub.HubURL) || !strings.Contains(out, dear.URL) {
		t.Errorf("with no hub there: %d %s\n%s", code, errs, out)
	}
	alice.json(&got, "market", "--offline", "--kept", "1GB", "--moved", "2GB", "--most", "5200")
	if len(got.Relays) != 1 || *got.Relays[0].SatPerMonth != 5160 {
		t.Errorf("offline the market is %+v", got)
	}
	if _, errs, code := alice.types("market", "show", "https://nobody.example", "--offline"); code != exitFailed || !strings.Contains(errs, "relay market") {
		t.Errorf("nobody: %d %s", code, errs)
	}
}

// watched follows the market while something is done, and expects to hear of a relay's new price.
func watched(t *testing.T, s *terminal, do func(), relay *testnode.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := s.command(ctx, "market", "watch", "--json", "--network", "regtest")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer cancel()
	do()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("watch says nothing: %v", err)
	}
	var change struct {
		Hub string `json:"hub"`
		offerItem
	}
	if err := json.Unmarshal([]byte(line), &change); err != nil || change.Key != relay.Key.String() || change.Contracts == nil ||
		change.Contracts.StorageMsatPerGBDay != 2000 || change.Seq != 2 || !strings.HasPrefix(change.Hub, "nats://") {
		t.Errorf("watch says %s %v", line, err)
	}
}

// A relay that makes contracts is found in the market, at the prices that it then asks, and rented on what it announced there.
func TestRentFromTheMarket(t *testing.T) {
	bitcoin := regtest.Start(t, regtest.Plain)
	contracts := testnode.Contracts(t, bitcoin.Node)
	hub := marketHub(t)
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		contracts(c)
		c.Market = relaynode.Market{Network: protocol.Regtest, Hubs: []string{hub.HubURL}}
	}})
	alice := user(t)
	alice.connects(bitcoin)
	alice.earns(bitcoin, btcutil.SatoshiPerBitcoin/10)
	node.OpensContracts(t)
	node.Follows(t, bitcoin)
	alice.runs("hubs", "add", hub.HubURL) // the network is that of the Bitcoin node
	var got shownMarket
	eventually(t, "it is in the market", func() bool {
		alice.json(&got, "market", "--best", "1", "--kept", "1MB", "--moved", "1MB")
		return len(got.Relays) == 1
	})
	// A MB at 10,000 sat for a GB: 300 sat for thirty days, 10 sat moved, and the opening price.
	offer := got.Relays[0]
	if offer.Key != node.Key.String() || *offer.SatPerMonth != 300+10+testnode.OpeningPrice || offer.Addresses[0] != node.URL {
		t.Fatalf("the best is %+v", offer)
	}
	defer mines(bitcoin)()
	if out := alice.runs("contract", "open", offer.Addresses[0], "--deposit", "100000", "--yes"); !strings.Contains(out, "is one of your relays") {
		t.Errorf("open says\n%s", out)
	}
	var list struct{ Contracts []contractItem }
	alice.json(&list, "contract", "list")
	if len(list.Contracts) != 1 || list.Contracts[0].Relay != node.Key.String() {
		t.Errorf("%+v", list)
	}

	alice.runs("audit")
	alice.json(&got, "market")
	for _, r := range got.Relays {
		if audited := r.Key == node.Key.String(); audited != (r.Audits != nil) || audited && r.Audits.Audits != 1 {
			t.Errorf("after an audit the market has %+v", r)
		}
	}
	if out := alice.runs("market", "show", node.URL); !strings.Contains(out, "1, all right") {
		t.Errorf("show says\n%s", out)
	}
}

// Relays whose bills were wrong are shown as that, and are not among the best unless they are wanted.
func TestCaughtRelays(t *testing.T) {
	keys := [3]protocol.PublicKey{{1}, {2}, {3}}
	var listings []relaybook.Listing
	for i, key := range keys {
		listings = append(listings, relaybook.Listing{Offer: &broadcast.Offer{Relay: key, Announcement: &protocol.Announcement{
			Addresses: []string{fmt.Sprintf("https://relay.test%d", i)}, Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: int64(i)}}}})
	}
	v := &view{profile: relaybook.DefaultProfile(), scores: map[protocol.PublicKey]client.AuditScore{
		keys[0]: {Audits: 3, Accepted: 900, Disputed: 100}, keys[1]: {Audits: 2, Accepted: 5}, keys[2]: {Audits: 1, Faults: 1}}}
	for i, want := range []string{"3, 10 % WRONG", "2, all right", "1, LIED"} {
		if got := auditsText(v.row(listings[i]).score); got != want {
			t.Errorf("relay %d: %s", i, got)
		}
	}
	var errs bytes.Buffer
	p := &program{err: &errs}
	for _, c := range []struct {
		o    marketOptions
		want []protocol.PublicKey
	}{{marketOptions{best: 3}, keys[1:2]}, {marketOptions{best: 3, caught: true}, keys[:]}, {marketOptions{}, keys[:]}} {
		var want relaybook.Want
		if c.o.best > 0 {
			want.Not = p.caught(&c.o, v, listings)
		}
		var got []protocol.PublicKey
		for _, r := range choose(listings, &c.o, v, want) {
			got = append(got, r.Relay)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v", c.o, got)
		}
	}
	if text := errs.String(); strings.Count(text, "2 relays left out") != 1 {
		t.Errorf("it is said: %s", text)
	}
}

// Terms are told in words, and flags name those that are wanted.
func TestMarketTerms(t *testing.T) {
	terms := []protocol.Terms{{Type: protocol.TermsContract, Payment: true, Contact: "ops"},
		{Type: protocol.TermsVolunteer, Topic: "weather", Ads: true, StoredBytes: 2_000_000, MovedBytes: 5_000_000, Days: 30},
		{Type: protocol.TermsVolunteer, Topic: protocol.AnyTopic, Plaintext: true}, {Type: protocol.TermsVolunteer}}
	if got := termsText(terms); got != "contract, volunteer (weather) with ads, volunteer (a topic) with plaintext, volunteer" {
		t.Errorf("in a cell: %s", got)
	}
	for i, want := range []string{"contract, ask ops", "volunteer (weather) with ads: 2.0 MB stored, 5.0 MB moved a month, for 30 days, for nothing",
		"volunteer (a topic) with plaintext, for nothing", "volunteer, for nothing"} {
		if got := oneTerms(terms[i]); got != want {
			t.Errorf("in words: %s", got)
		}
	}
	mine := []protocol.Wish{{Type: protocol.TermsVolunteer, Topic: "cats"}}
	for _, c := range []struct {
		o    marketOptions
		want int // wishes; -1: refused
	}{{marketOptions{}, 0}, {marketOptions{terms: []string{"mine", "contract"}}, 2}, {marketOptions{terms: []string{"volunteer"}, topic: "weather"}, 1},
		{marketOptions{terms: []string{"gift"}}, -1}, {marketOptions{topic: "weather"}, -1}, {marketOptions{terms: []string{"volunteer"}, topic: "a b"}, -1}} {
		wishes, err := c.o.wanted(mine)
		if (err != nil) != (c.want < 0) || err == nil && len(wishes) != c.want {
			t.Errorf("%+v: %v, %v", c.o, wishes, err)
		}
	}
}
