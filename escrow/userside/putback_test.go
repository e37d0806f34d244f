package userside_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow/userside"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// copies takes the file of contracts as a backup does, while it is open.
func (u *user) copies() string {
	u.t.Helper()
	path := filepath.Join(u.t.TempDir(), "copy.db")
	db, err := sqlite.OpenAsIs(u.t.Context(), filepath.Join(u.dir, "contracts.db"))
	if err != nil {
		u.t.Fatal(err)
	}
	defer db.Close()
	if err := db.CopyTo(u.t.Context(), path); err != nil {
		u.t.Fatal(err)
	}
	return path
}

// puts puts a copy in the place of the file of contracts, as a restore does.
func (u *user) puts(path string) {
	u.t.Helper()
	u.wipes()
	data, err := os.ReadFile(path)
	if err != nil {
		u.t.Fatal(err)
	}
	if err := u.store.Close(); err != nil {
		u.t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(filepath.Join(u.dir, "contracts.db"+suffix))
	}
	if err := os.WriteFile(filepath.Join(u.dir, "contracts.db"), data, 0o600); err != nil {
		u.t.Fatal(err)
	}
	u.openStore()
	if err := u.store.PutBack(u.t.Context()); err != nil {
		u.t.Fatal(err)
	}
}

// More was paid after the backup. What comes out of it never signs less than the relay has, and goes on from there.
func TestRestoredContractNeverPaysLess(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	if _, err := u.SetCushion(t.Context(), id, 5000); err != nil {
		t.Fatal(err)
	}
	pay := func(more int64) error {
		_, err := u.Pay(t.Context(), id, openingPrice+btcutil.Amount(more))
		return err
	}
	for _, more := range []int64{300} {
		if err := pay(more); err != nil {
			t.Fatal(err)
		}
	}
	backup := u.copies()
	for _, more := range []int64{500, 800} {
		if err := pay(more); err != nil {
			t.Fatal(err)
		}
	}
	before := u.record(id)
	highest, _ := before.Last()
	u.puts(backup)
	if last, _ := u.record(id).Last(); last.Amount != openingPrice+300 {
		t.Fatalf("the backup has %+v", last)
	}

	// Nothing is signed before the relay was asked: it has 800, and 400 is above what is known here.
	if err := pay(400); err == nil || !strings.Contains(err.Error(), "ask the relay first") {
		t.Errorf("before the relay was asked: %v", err)
	}
	if n := len(u.record(id).Payments); n != 2 {
		t.Errorf("%d states are signed", n)
	}
	if _, err := u.Refresh(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	want(t, pay(400), protocol.CodeWrongAmount)
	want(t, pay(799), protocol.CodeWrongAmount)
	if n := len(u.record(id).Payments); n != 2 {
		t.Errorf("%d states are signed", n)
	}
	if err := pay(900); err != nil {
		t.Fatal(err)
	}
	last, _ := u.record(id).Last()
	if last.Seq <= highest.Seq || last.Amount != openingPrice+900 || !last.Taken {
		t.Errorf("paid %+v after %+v", last, highest)
	}
}

// A backup of the moment before the funding was signed. The funding went through on the other disk; here the exchange is neither
// repeated nor given up, and the deposit comes back at T.
func TestRestoredInTheMiddle(t *testing.T) {
	for _, step := range []userside.Step{userside.StepAnswered, userside.StepKept, userside.StepSigned} {
		u := somebody(t)
		before := u.balance()
		id := u.starts()
		for u.record(id).Step != step {
			if _, err := u.Advance(t.Context(), id, u.wallet); err != nil {
				t.Fatal(err)
			}
		}
		backup := u.copies()
		if _, err := u.advances(id); err != nil {
			t.Fatal(err)
		}
		u.puts(backup)
		if r := u.record(id); r.Opening() || r.Step != userside.StepRestored {
			t.Errorf("%s: %+v", step, r)
		}
		u.relay.refuse = func(string) error { return errCut }
		u.node.Mine(1)
		_ = u.Step(t.Context())
		c, _, _ := u.record(id).Terms()
		u.mineTo(c.Expiry)
		_ = u.Step(t.Context())
		u.node.Mine(1)
		_ = u.Step(t.Context())
		r := u.record(id)
		if r.Confirmed(protocol.TxRefund) == nil {
			t.Fatalf("%s: no refund: %s %+v\n%s", step, r.State, r.Transactions, u.journal(id))
		}
		u.gets(before, 0, r)
	}
}

// One that was only asked for is forgotten: its document, if it came about, can be taken in.
func TestRestoredBeforeTheAnswer(t *testing.T) {
	u := somebody(t)
	id := u.starts()
	backup := u.copies()
	if _, err := u.advances(id); err != nil {
		t.Fatal(err)
	}
	document := u.record(id).Document
	u.puts(backup)
	if all, err := u.store.Contracts(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("%d contracts, %v", len(all), err)
	}
	restored, err := u.Restore(t.Context(), [][]byte{document}, func(protocol.PublicKey) string { return "" })
	if err != nil || len(restored) != 1 || !restored[0].Fresh {
		t.Errorf("%+v, %v", restored, err)
	}
}
