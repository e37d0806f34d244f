package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// ledgerOf is a relay's folder and database with three contracts: 1 in force, 2 that disputes something, 3 settled up.
func ledgerOf(t *testing.T) []string {
	t.Helper()
	at := []string{"--dir", testnode.Folder(t), "--database-url", testpg.New(t)}
	if got := relayd(t, nil, "init", "--dir", at[1]); got.code != 0 {
		t.Fatal(got.err)
	}
	if got := relayd(t, nil, append([]string{"accounts"}, at...)...); got.code != 0 || !strings.Contains(got.out, "no such contract") {
		t.Fatalf("without contracts: %d %s%s", got.code, got.out, got.err)
	}
	conn, err := pgx.Connect(t.Context(), at[3])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for n := byte(1); n <= 3; n++ {
		id, payer := bytes.Repeat([]byte{n}, 32), payerKey(t, n)
		if _, err := conn.Exec(t.Context(), `INSERT INTO bills (contract, payer, storage_price, bandwidth_price, closed, disputed_moved) VALUES ($1, $2, 1000000000, 1000000000, $3, $4)`,
			id, payer, n > 1, map[byte]int64{2: 700}[n]); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		`INSERT INTO accounts (key, kind, quota_stored, quota_moved, last_day, contract, bill, credit, bandwidth_price, used_moved) SELECT payer, 'contract', 0, 0, '0001-01-01', contract, id, 10000000, 1000000000, 2500500 FROM bills WHERE id = 1`,
		`INSERT INTO ledger_entries VALUES (1, '2026-05-01', 'usage', 3000500, -2000000, -1000500, 0, 0, 0), (1, '2026-05-01', 'payment', -500000, 0, 0, 500000, 0, 0),
		  (1, '2026-05-03', 'usage', 0, -500000, 500000, 0, 0, 0), (1, '2026-05-03', 'refusal', -1000, 0, 0, 0, 1000, 0),
		  (2, '2026-05-02', 'usage', 2000000, -2000000, 0, 0, 0, 0),
		  (3, '2026-05-01', 'usage', 7000, -7000, 0, 0, 0, 0), (3, '2026-05-02', 'payment', -7000, 0, 0, 7000, 0, 0)`,
		`INSERT INTO ledger_refusals VALUES (1, 3, 'pull', 'no_evidence', 0, 1000, true, 1777766400000), (2, 1, 'write', 'unknown', 86400000, 400, false, 1777680000000), (2, 5, 'pull', 'doubled', 0, 300, false, 1777766400000)`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

func payerKey(t *testing.T, n byte) []byte {
	t.Helper()
	k, err := protocol.NewPrivateKey([32]byte{31: n})
	if err != nil {
		t.Fatal(err)
	}
	public := k.Public()
	return public[:]
}

// columns are the fields of each line of a table, the spaces of which do not matter.
func columns(out string) [][]string {
	var rows [][]string
	for line := range strings.Lines(out) {
		rows = append(rows, regexp.MustCompile(`\s{2,}`).Split(strings.TrimSpace(line), -1))
	}
	return rows
}

// An operator sees who owes what, who disputes what, and what each day and contract brought.
func TestAccountsAndRevenue(t *testing.T) {
	at := ledgerOf(t)
	run := func(args ...string) string {
		t.Helper()
		got := relayd(t, nil, append(args, at...)...)
		if got.code != 0 {
			t.Fatalf("%v: %d %s", args, got.code, got.err)
		}
		return got.out
	}
	contract := func(n int) string { return strings.Repeat(fmt.Sprintf("%02x", n), 32) }
	table := columns(run("accounts"))
	if len(table) != 3 || fmt.Sprint(table[1][2:]) != "[3000.500 500 1 0 2499.500 7499.500 0]" || fmt.Sprint(table[2][2:]) != "[2000 0 0 0 2000 ended 0.700]" {
		t.Errorf("%q", table)
	}
	if out := columns(run("accounts", "--all")); len(out) != 4 {
		t.Errorf("%q", out)
	}
	if out := columns(run("accounts", "--disputed")); len(out) != 2 || out[1][0] != contract(2) {
		t.Errorf("%q", out)
	}
	var one statementJSON
	if err := json.Unmarshal([]byte(run("accounts", contract(1), "--json")), &one); err != nil || one.Owed != 2_499_500 || one.Reserved != 500_500 ||
		one.Billed != one.Paid+one.WrittenOff+one.CarriedOn+one.Owed || *one.CreditLeft != 7_499_500 {
		t.Errorf("%+v %v", one, err)
	}
	if out := columns(run("accounts", "--payer", one.Payer.Bech32())); len(out) != 2 {
		t.Errorf("%q", out)
	}
	if out := columns(run("refusals", contract(2))); len(out) != 3 || fmt.Sprint(out[1]) != "[1 write unknown 86400000 400 disputed 2026-05-02]" {
		t.Errorf("%q", out)
	}
	if out := run("refusals", contract(1), "--json"); !strings.Contains(out, `"state":"dropped"`) {
		t.Errorf("%s", out)
	}
	read := func(args ...string) [][]string {
		t.Helper()
		rows, err := csv.NewReader(strings.NewReader(run(append([]string{"revenue", "--csv"}, args...)...))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	byDay := fmt.Sprint(read("--by", "day")[1:])
	if want := "[[2026-05-01 2007000 500000 0 0 2507500] [2026-05-02 2000000 7000 0 401 4500500] [2026-05-03 500000 0 1000 300 4499500]]"; byDay != want {
		t.Errorf("by day %s, want %s", byDay, want)
	}
	byContract := read("--by", "contract", "--from", "2026-05-02", "--to", "2026-05-02")
	if len(byContract) != 4 || fmt.Sprint(byContract[1][2:], byContract[2][2:], byContract[3][2:]) != "[0 0 0 0 2500500] [0 7000 0 0 0] [2000000 0 0 401 2000000]" {
		t.Errorf("by contract %q", byContract)
	}
	if rows := read("--from", "2026-05-03"); len(rows) != 3 || fmt.Sprint(rows[1][3:]) != "[500000 0 1000 0 2499500]" {
		t.Errorf("both %q", rows)
	}
	if out := run("revenue"); !strings.Contains(out, "Earned: 4507 sat. Paid: 507 sat. Written off: 1 sat. Disputed: 0.701 sat.") {
		t.Errorf("%s", out)
	}
	for _, args := range [][]string{{"accounts", "1f"}, {"accounts", "--payer", "ann"}, {"revenue", "--by", "week"}, {"revenue", "--from", "May"},
		{"revenue", "--from", "2026-05-03", "--to", "2026-05-02"}, {"revenue", "--csv", "--json"}, {"refusals"}} {
		if got := relayd(t, nil, append(args, at...)...); got.code != exitUsage {
			t.Errorf("%v: exit code %d: %s", args, got.code, got.err)
		}
	}
}
