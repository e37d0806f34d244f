package main

import (
	"database/sql"
	"encoding/csv"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
)

type auditResult struct{ Audits []auditItem }

// A bill is audited, shown in all its forms, and paid by itself within the limit; the relay's count, the payments and the
// audit agree.
func TestAuditAndPay(t *testing.T) {
	bitcoin, node, alice := market(t)
	if out := alice.runs("audit"); !strings.Contains(out, "You have no contract") {
		t.Errorf("without a contract: %s", out)
	}
	id := alice.opens(bitcoin, node).ID
	bitcoin.Mine(6) // full credit
	node.Follows(t, bitcoin)
	alice.runs("relays", "add", node.URL)
	alice.stdin = alice.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "=me")
	alice.stdin = ""

	for range 3 {
		alice.runs("send", "=me", strings.Repeat("a message that costs something ", 1000))
	}
	alice.runs("inbox")
	var first auditResult
	fresh := int64(0)
	for deadline := time.Now().Add(patience); ; { // the ledger is written behind
		first = auditResult{}
		alice.json(&first, "audit", id[:8])
		for _, a := range first.Audits {
			fresh += a.New
		}
		if fresh == 6 || time.Now().After(deadline) {
			break
		}
	}
	a := first.Audits[0]
	if len(first.Audits) != 1 || a.Contract != id || a.DisputedMsat != "0" || a.Lines != 6 || fresh != 6 || len(a.Friends) != 1 || a.Friends[0].Pulls != 3 {
		t.Fatalf("%+v", first)
	}
	accepted := msatOf(t, a.AcceptedMsat)
	if accepted == 0 || msatOf(t, a.WaitingMsat) == 0 || accepted+msatOf(t, a.WaitingMsat) != msatOf(t, a.ClaimedMsat) {
		t.Errorf("%+v", a)
	}
	if out := alice.runs("audit"); !strings.Contains(out, "accepted") || !strings.Contains(out, "=me") {
		t.Errorf("audit says\n%s", out)
	}
	if out := alice.runs("audit", "--friend", "=me", "--offline"); strings.Count(out, "stored") < 3 {
		t.Errorf("by record:\n%s", out)
	}
	rows, err := csv.NewReader(strings.NewReader(alice.runs("audit", "--csv", "--offline"))).ReadAll()
	if err != nil || len(rows) != 4 || rows[1][6] != "'=me" {
		t.Errorf("%q, %v", rows, err)
	}

	alice.runs("contract", "pay", id, "0", "--cushion", "0", "--yes")
	if _, errs, code := alice.types("audit", "--pay", "sometimes"); code != exitUsage {
		t.Errorf("exit %d, %s", code, errs)
	}
	var paid auditResult
	alice.json(&paid, "audit", "--pay", "auto", "--limit", "50000")
	want := (msatOf(t, paid.Audits[0].AcceptedMsat) + 999) / 1000
	item := alice.contract(id)
	if paid.Audits[0].PaidSat != want || item.Paid != item.OpeningPrice+want {
		t.Errorf("paid %d of %d, the contract says %d", paid.Audits[0].PaidSat, want, item.Paid-item.OpeningPrice)
	}
	var again auditResult
	alice.json(&again, "audit", "--pay", "auto", "--limit", "50000")
	if again.Audits[0].PaidSat > 1 {
		t.Errorf("paid twice: %+v", again.Audits[0])
	}
	alice.doubts(node, id)
}

// doubts audits lines in her own name of which this folder knows nothing, as after a restore: they wait, are refused after three days,
// and the relay is told of them only when --dispute is typed.
func (s *terminal) doubts(node *testnode.Node, id string) {
	s.t.Helper()
	contract, err := contractID(id)
	if err != nil {
		s.t.Fatal(err)
	}
	pads(s.t, node, contract, 2, s.key())
	if a := s.audits(); a.Unsaid != 2 || a.DisputedMsat != "0" || a.Told != nil {
		s.t.Fatalf("unknown lines: %+v, told %+v", a, a.Told)
	}
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "state.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = db.ExecContext(s.t.Context(), `UPDATE refused SET audited = audited - ? WHERE raw IS NOT NULL`, client.WaitForWriters.Milliseconds())
	if err := errors.Join(err, db.Close()); err != nil {
		s.t.Fatal(err)
	}
	a := s.audits()
	if a.Unsaid != 0 || a.Untold != 2 || a.DisputedMsat == "0" || a.Told != nil || a.Named != 0 {
		s.t.Fatalf("after three days: %+v, told %+v", a, a.Told)
	}
	if out := s.runs("audit", "--close-on-dispute"); !strings.Contains(out, "Not named to the relay") || strings.Contains(out, "being ended") {
		s.t.Errorf("audit says\n%s", out)
	}
	if a = s.audits("--dispute"); a.Untold != 0 || a.Told == nil || a.Told.Lines != 2 {
		s.t.Errorf("asked for: %+v, told %+v", a, a.Told)
	}
}

func msatOf(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
