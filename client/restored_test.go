package client_test

import (
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// later is another folder with a person's keys and nothing else in it, whose clock is shown by now.
func (p *person) later(now *time.Time) *person {
	p.t.Helper()
	config := p.config
	config.Dir, config.Clock = p.t.TempDir(), func() time.Time { return *now }
	return device(p.t, config)
}

// Who restored his keys, or writes from two folders, has a bill with lines of which this folder knows nothing. They wait, and are refused after
// three days, but they are not named to the relay, which would end the contract: only if that is asked for.
func TestAuditOfAFolderThatKnowsNothing(t *testing.T) {
	alice, l, write := deceived(t)
	now := time.Now()
	restored := alice.later(&now)
	restored.adds(l.m.Address)
	l.outcome = protocol.RefusalClosed
	end := *write
	end.Kind, end.Ended, end.Pulls = ledger.KindEnd, write.Written+1, write.MaxPulls
	end.MaxPulls = 0
	place := l.report(t, ledger.Place{}, write)
	l.reports[place.Last] = []byte(`{"lines":0,"more":false}` + "\n")
	m := l.serve(t)
	a := restored.audits(m)
	if a.Bill.Disputed != 0 || a.Unsaid != 1 || a.Bill.Waiting == 0 {
		t.Fatalf("at first: %+v", a)
	}
	now = now.Add(client.WaitForWriters + time.Minute)
	if a = restored.audits(m); a.Bill.Disputed == 0 || a.Unsaid != 0 || a.Untold != 1 || a.Bill.Accepted != 0 {
		t.Fatalf("after three days: %+v", a)
	}
	// What hangs on a line that was refused in this way is refused with it, and named no more than that.
	place = l.report(t, place, &end)
	l.reports[place.Last] = []byte(`{"lines":0,"more":false}` + "\n")
	if a = restored.audits(m); a.Untold != 2 || a.Unsaid != 0 {
		t.Fatalf("after its end: %+v", a)
	}
	told, err := restored.NameRefused(t.Context(), m)
	if err != nil || told.Lines != 0 || len(l.refused) != 0 {
		t.Fatalf("named: %+v, %v", told, err)
	}
	if told, err = restored.NameAllRefused(t.Context(), m); err != nil || told.Lines != 2 || len(l.refused) != 2 {
		t.Errorf("named when asked for: %+v, %v", told, err)
	}
}
