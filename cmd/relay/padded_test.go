package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// padBill has the relay bill records that nobody wrote, from $3 to $4, as a dishonest operator would who writes into his own database: tombstones
// like a record that is there, each with an envelope hash of its own and a place of its own, and what they come to on the account. The relay
// posts them and signs the report.
const padBill = `
WITH k AS (UPDATE relay_cursor SET n = n + $2 RETURNING n), like_this AS (
  SELECT r.* FROM records r JOIN bills b ON b.id = r.bill WHERE b.contract = $1 ORDER BY r.n LIMIT 1
), made AS (
  INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, state, bill)
  SELECT k.n - $2 + g, $3, $4, 'padded-' || k.n || '-' || g, l.account, l.bytes, l.timestamp, l.expires, l.written, l.max_pulls,
         l.request_hash, sha256(l.hash || int8send(k.n + g)), 1, l.bill
  FROM k, like_this l, generate_series(1, $2::bigint) g RETURNING account, bytes, expires, written, max_pulls)
UPDATE accounts a SET used_stored = used_stored + m.stored, used_moved = used_moved + m.moved
FROM (SELECT account, sum(bytes::numeric * (expires - written)) AS stored, sum(bytes::numeric * (1 + max_pulls)) AS moved FROM made GROUP BY account) m
WHERE a.key = m.account`

// pads pads the bill of a contract by so many records in somebody's name.
func pads(t *testing.T, node *testnode.Node, contract protocol.ContractID, records int64, from protocol.PublicKey) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), node.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	to := testnode.NewKey(t).Public()
	done, err := db.Exec(t.Context(), padBill, contract[:], records, from[:], to[:])
	if err != nil || done.RowsAffected() != 1 {
		t.Fatalf("%v, %v", done, err)
	}
	node.Posted(t, contract)
}

// Bad faith: a relay pads its bill. The audit names the lines, pays the rest, and tells the relay, which drops them; the bill
// agrees again, and the relay stays known for it. When it pads by more than it writes off, it ends the contract with what it
// was paid.
func TestBadFaithPaddedBill(t *testing.T) {
	bitcoin, node, alice := market(t)
	id := alice.opens(bitcoin, node).ID
	contract, err := contractID(id)
	if err != nil {
		t.Fatal(err)
	}
	bitcoin.Mine(6) // full credit
	node.Follows(t, bitcoin)
	alice.runs("relays", "add", node.URL)
	alice.stdin = alice.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "me")
	alice.stdin = strings.Repeat("what was really sent ", 2000)
	alice.runs("send", "me", "--ttl", "1h", "-")
	alice.runs("contract", "policy", "--pay", "auto", "--limit", "50000", "--cushion", "100")

	stranger := testnode.NewKey(t).Public()
	pads(t, node, contract, 3, stranger)
	a := alice.audits("--pay", "policy")
	if a.DisputedMsat == "0" || len(a.Reasons) != 1 || a.Reasons[0].Reason != "unknown" || a.Reasons[0].Lines != 3 || a.PaidSat == 0 ||
		a.Told == nil || a.Told.Lines != 3 || a.Told.Outcome != string(protocol.RefusalDropped) {
		t.Fatalf("padded: %+v, told %+v", a, a.Told)
	}
	if out := alice.runs("audit", "--offline", "--refused"); strings.Count(out, "unknown") != 4 || strings.Count(out, "dropped") < 3 {
		t.Errorf("refused:\n%s", out)
	}
	for _, c := range []struct{ line, says string }{{"1", "stored"}, {"3", "padded"}} {
		if out := alice.runs("audit", id, "--offline", "--line", c.line); !strings.Contains(out, c.says) {
			t.Errorf("line %s:\n%s", c.line, out)
		}
	}
	if _, errs, code := alice.types("audit", id, "--offline", "--line", "99"); code != exitFailed || !strings.Contains(errs, "4 lines are") {
		t.Errorf("a line that is not there: exit %d\n%s", code, errs)
	}
	node.Posted(t, contract)
	if a = alice.audits(); a.DisputedMsat != "0" || a.Dropped != 3 || a.Named != 0 || a.Told != nil {
		t.Fatalf("dropped: %+v, told %+v", a, a.Told)
	}
	var relays struct{ Relays []relayItem }
	alice.json(&relays, "relays")
	if s := relays.Relays[0].Audits; s == nil || s.Audits != 2 || s.OpenMsat != "0" || s.DisputedMsat == "0" || s.DisputedPercent == 0 {
		t.Errorf("the relay is known for %+v", s)
	}

	pads(t, node, contract, 400, stranger)
	out, errs, code := alice.types("audit", "--pay", "policy")
	if code != 0 || !strings.Contains(out, "ends the contract") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	if out = alice.runs("relays"); !strings.Contains(out, "still in dispute") {
		t.Errorf("relays says\n%s", out)
	}
	paid := alice.contract(id).Paid
	waitSent(t, bitcoin) // the settlement, behind the relay's answer
	bitcoin.Mine(1)
	alice.reaches(id, "settling")
	bitcoin.Mine(6)
	if item := alice.reaches(id, "closed"); item.Paid != paid {
		t.Errorf("it got %d sat, %d were paid", item.Paid, paid)
	}
}

// audits audits the only contract.
func (s *terminal) audits(args ...string) auditItem {
	s.t.Helper()
	var result auditResult
	s.json(&result, append([]string{"audit"}, args...)...)
	if len(result.Audits) != 1 {
		s.t.Fatalf("%+v", result)
	}
	if out, _, _ := s.types("audit", "--offline"); testing.Verbose() {
		s.t.Logf("%v\n%s", args, out)
	}
	return result.Audits[0]
}
