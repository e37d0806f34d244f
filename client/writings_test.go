package client_test

import (
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// household is a payer, two writers that his contract pays for, and a friend of theirs who has his own relay.
func household(t *testing.T, clock func() time.Time) (payer, one, two, friend *person, node *testnode.Node, m client.Metered) {
	t.Helper()
	node = testnode.Start(t, testnode.Options{})
	his := testnode.Start(t, testnode.Options{})
	payer, one, two, friend = somebody(t), somebody(t), somebody(t), somebody(t).joins(his)
	if clock != nil {
		config := payer.config
		config.Clock = clock
		payer = device(t, config)
	}
	m = client.Metered{Contract: protocol.ContractID(testnode.NewKey(t).Public()), Relay: node.Key, Address: node.URL, Prices: auditPrices}
	opening := books.Opening{ID: m.Contract, Payer: payer.Key(), Prices: auditPrices}
	for _, writer := range []*person{one, two} {
		if _, err := writer.Consent(t.Context(), node.Key, m.Contract, payer.Key()); err != nil {
			t.Fatal(err)
		}
		opening.Writers = append(opening.Writers, writer.Key())
	}
	m.Writers = opening.Writers
	node.Contract(t, opening, 1<<50)
	for _, p := range []*person{payer, one, two} {
		p.adds(node.URL)
	}
	payer.befriends(one, two, friend)
	one.befriends(payer, friend)
	two.befriends(payer, friend)
	friend.befriends(payer, one, two)
	return payer, one, two, friend, node, m
}

// A contract with two consenting writers, audited by who pays: before he has their word, what they wrote waits; with it
// nothing is disputed, and the parts are what the relay counts.
func TestAuditOfWriters(t *testing.T) {
	payer, one, two, friend, node, m := household(t, nil)
	one.says(friend, "from one")
	removed := two.says(friend, "from two")
	payer.says(friend, "from the payer")
	friend.finds("from one", "from two", "from the payer")
	if _, err := two.Remove(t.Context(), removed); err != nil {
		t.Fatal(err)
	}
	node.Posted(t, m.Contract)
	early := payer.audits(m)
	if early.Bill.Disputed != 0 || early.Unsaid == 0 || early.Bill.Waiting == 0 || len(early.Reasons) != 0 {
		t.Fatalf("before they told: %+v", early)
	}
	one.finds() // receipts, and tells the payer
	two.finds()
	payer.finds()
	posted := node.Posted(t, m.Contract)
	a := payer.audits(m)
	if a.Bill.Disputed != 0 || a.Unsaid != 0 || len(a.Reasons) != 0 || a.Accepted != posted.Totals || a.Claimed != posted.Totals {
		t.Fatalf("after they told: %+v\nposted %+v", a, posted)
	}
	if a.Bill.Accepted <= early.Bill.Accepted {
		t.Errorf("accepted %d, then %d", early.Bill.Accepted, a.Bill.Accepted)
	}
	told, err := payer.NameRefused(t.Context(), m)
	if err != nil || told.Lines != 0 {
		t.Errorf("%+v, %v", told, err)
	}
}

// Devices that share a key, each its own friend, tell each other what they wrote once they have heard of each other: either can
// audit the contract of their key.
func TestAuditOfAnotherDevice(t *testing.T) {
	node, his := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	laptop, bob := somebody(t), somebody(t).joins(his)
	tablet := laptop.other()
	m := laptop.rents(node)
	tablet.adds(node.URL)
	for _, device := range []*person{laptop, tablet} {
		device.befriends(laptop, bob)
	}
	bob.befriends(laptop)
	tablet.says(bob, "before they knew of each other")
	tablet.says(laptop, "from the tablet")
	laptop.syncs()
	laptop.says(laptop, "from the laptop")
	bob.syncs()
	tablet.syncs()
	tablet.says(bob, "after")
	tablet.syncs() // tells
	laptop.syncs()
	posted := node.Posted(t, m.Contract)
	a := laptop.audits(m)
	if a.Bill.Disputed != 0 || a.Unsaid != 0 || a.Accepted != posted.Totals {
		t.Errorf("%+v\nposted %+v", a, posted)
	}
	// A relay that came after that is told of as well, though nothing comes from the other device any more.
	tablet.syncs()
	late := testnode.Start(t, testnode.Options{})
	m = laptop.rents(late)
	tablet.adds(late.URL)
	tablet.says(bob, "on both relays")
	tablet.syncs()
	laptop.syncs()
	posted = late.Posted(t, m.Contract)
	if a = laptop.audits(m); a.Bill.Disputed != 0 || a.Unsaid != 0 || a.Lines == 0 || a.Accepted != posted.Totals {
		t.Errorf("on a relay that was added later: %+v\nposted %+v", a, posted)
	}
}

// A device that hears of another only by what that says it wrote tells what it wrote itself.
func TestDevicesThatMetByWritings(t *testing.T) {
	node, his := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	laptop, bob := somebody(t), somebody(t).joins(his)
	tablet := laptop.other()
	m := laptop.rents(node)
	tablet.adds(node.URL)
	for _, device := range []*person{laptop, tablet} {
		device.befriends(laptop, bob)
	}
	tablet.says(bob, "from the tablet")
	tablet.says(laptop, "to the laptop")
	laptop.syncs()
	laptop.says(bob, "from the laptop")
	laptop.syncs() // tells; no message of the laptop's goes to the tablet
	tablet.syncs() // hears
	tablet.syncs() // tells
	laptop.syncs()
	posted := node.Posted(t, m.Contract)
	if a := laptop.audits(m); a.Bill.Disputed != 0 || a.Unsaid != 0 || a.Accepted != posted.Totals {
		t.Errorf("%+v\nposted %+v", a, posted)
	}
}

// Bad faith: a relay bills records in the name of a writer who never wrote them. They wait for his word for three days and are
// refused then. What it bills in the name of somebody who does not write on the account is refused at once.
func TestBadFaithWriterWhoNeverWrote(t *testing.T) {
	start := time.Now()
	now := start
	payer, one, _, friend, node, m := household(t, func() time.Time { return now })
	l := &liar{key: testnode.NewKey(t), payer: payer.Key(), reports: map[int64][]byte{1: []byte(`{"lines":0,"more":false}` + "\n")}}
	m.Relay, m.Contract = l.key.Public(), protocol.ContractID{1}
	l.m = m
	_ = node
	line := func(from *person) *ledger.Line {
		at := protocol.TimestampOf(start)
		return &ledger.Line{Kind: ledger.KindWrite, From: from.Key(), To: friend.Key(), RecordID: "r", Hash: protocol.Hash(testnode.NewKey(t).Public()),
			Bytes: 1000, Written: at, Expires: at + 1000, MaxPulls: 1}
	}
	place := l.report(t, ledger.Place{}, line(one))
	served := l.serve(t)
	if a := payer.audits(served); a.Bill.Disputed != 0 || a.Unsaid != 1 || a.Bill.Waiting == 0 || a.Bill.Accepted != 0 {
		t.Fatalf("%+v", a)
	}
	l.report(t, place, line(friend))
	l.reports[2] = []byte(`{"lines":0,"more":false}` + "\n")
	a := payer.audits(served)
	if a.Unsaid != 1 || len(a.Reasons) != 1 || a.Reasons[0].Reason != ledger.Unknown || a.Reasons[0].Lines != 1 || a.Bill.Disputed == 0 {
		t.Fatalf("%+v", a)
	}
	now = now.Add(client.WaitForWriters + time.Minute)
	late := payer.audits(served)
	if late.Unsaid != 0 || late.Reasons[0].Lines != 2 || late.Bill.Disputed <= a.Bill.Disputed || late.Bill.Accepted != 0 {
		t.Fatalf("%+v", late)
	}
}
