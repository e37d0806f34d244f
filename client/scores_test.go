package client_test

import (
	"testing"

	"relaymarket/client"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// What audits found is remembered: an honest bill, one that was padded, and a report that cannot be true. Looking again adds
// to the count and not to the history.
func TestAuditScores(t *testing.T) {
	alice, l, write := deceived(t)
	m := l.serve(t)
	score := func() client.AuditScore {
		t.Helper()
		scores, err := alice.AuditScores(t.Context())
		if err != nil || len(scores) != 1 {
			t.Fatalf("%+v, %v", scores, err)
		}
		return scores[m.Relay]
	}
	l.report(t, ledger.Place{}, write)
	alice.audits(m)
	first := score()
	if first.Audits != 1 || first.Contracts != 1 || first.Accepted == 0 || first.Bad() || first.DisputedPercent() != 0 || first.Address != m.Address {
		t.Fatalf("honest: %+v", first)
	}
	l.reports[1] = []byte(`{"lines":0,"more":false}` + "\n")
	alice.audits(m)
	history, err := alice.AuditHistory(t.Context(), m.Contract)
	if err != nil || len(history) != 1 || history[0].Times != 2 || history[0].Lines != 1 {
		t.Fatalf("%+v, %v", history, err)
	}
	l.report(t, ledger.Place{}, write) // it does not follow what was audited
	l.reports[1] = l.reports[0]
	a, err := alice.Audit(t.Context(), m)
	if err != nil || a.Fault == nil {
		t.Fatalf("%+v, %v", a, err)
	}
	if s := score(); s.Faults != 1 || s.Audits != 3 || !s.Bad() || s.Accepted < first.Accepted {
		t.Errorf("%+v", s)
	}

	bob, other, line := deceived(t)
	lie := *line
	lie.Hash[0], lie.From = lie.Hash[0]^1, other.key.Public()
	other.report(t, ledger.Place{}, line, &lie)
	padded := bob.audits(other.serve(t))
	scores, err := bob.AuditScores(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := scores[other.m.Relay]
	if s.Disputed != padded.Bill.Disputed || s.Open != s.Disputed || s.DisputedPercent() < 50 || s.DisputedPercent() > 100 || !s.Bad() {
		t.Errorf("padded: %+v of %+v", s, padded.Bill)
	}
}

func TestDisputedPercent(t *testing.T) {
	for _, c := range []struct {
		accepted, disputed protocol.Msat
		want               int64
	}{{0, 0, 0}, {100, 0, 0}, {99, 1, 1}, {1_000_000, 1, 1}, {0, 1, 100}, {1, 1, 50},
		{ledger.MaxMsat, ledger.MaxMsat, 100}, {1, ledger.MaxMsat, 100}, {ledger.MaxMsat / 2, ledger.MaxMsat / 2, 50}} {
		if got := (client.AuditScore{Accepted: c.accepted, Disputed: c.disputed}).DisputedPercent(); got != c.want {
			t.Errorf("%d of %d: %d%%, want %d", c.disputed, c.accepted, got, c.want)
		}
	}
}
