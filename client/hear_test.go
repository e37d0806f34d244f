package client_test

import (
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/ledger"
)

// An audit asks for the writers' word itself: whoever only pays and audits has it.
func TestAuditAsksForTheWritersWord(t *testing.T) {
	now := time.Now()
	payer, one, _, friend, node, m := household(t, func() time.Time { return now })
	one.says(friend, "from one")
	node.Posted(t, m.Contract)
	if a := payer.audits(m); a.Unsaid == 0 {
		t.Fatalf("before he told: %+v", a)
	}
	one.syncs() // tells
	now = now.Add(client.WaitForWriters + time.Minute)
	for deadline := time.Now().Add(patience); ; { // what he pulls meanwhile is posted behind him
		posted := node.Posted(t, m.Contract)
		a := payer.audits(m)
		if a.Bill.Disputed != 0 || a.Unsaid != 0 {
			t.Fatalf("%+v", a)
		}
		if a.Accepted == posted.Totals {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v\nposted %+v", a, posted)
		}
	}
}

// While a relay on which a writer's word may lie does not answer, the lines in his name wait on.
func TestLinesWaitForARelayThatIsAway(t *testing.T) {
	alice, l, write := deceived(t)
	now := time.Now()
	home := testnode.Start(t, testnode.Options{})
	restored := alice.later(&now).joins(home)
	restored.befriends(restored)
	place := l.report(t, ledger.Place{}, write)
	l.reports[place.Last] = []byte(`{"lines":0,"more":false}` + "\n")
	m := l.serve(t)
	restored.audits(m)
	home.Stop()
	now = now.Add(client.WaitForWriters + time.Minute)
	if a := restored.audits(m); a.Unsaid != 1 || a.Bill.Disputed != 0 {
		t.Errorf("while it is away: %+v", a)
	}
	home.Restart()
	if a := restored.audits(m); a.Unsaid != 0 || a.Untold != 1 {
		t.Errorf("when it is back: %+v", a)
	}
}
