package userside_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

var errCut = errors.New("the reply was cut")

// once fails the nth message of a name.
func once(name string) func(string) error {
	done := false
	return func(what string) error {
		if what == name && !done {
			done = true
			return errCut
		}
		return nil
	}
}

// restarts ends the program and starts it again on the same disk.
func (u *user) restarts() {
	u.t.Helper()
	if err := u.store.Close(); err != nil {
		u.t.Fatal(err)
	}
	u.openStore()
}

// persisted checks what has to be on disk before the step that was reached.
func (u *user) persisted(id protocol.ContractID) {
	u.t.Helper()
	r := u.record(id)
	order := []userside.Step{userside.StepDrawn, userside.StepAnswered, userside.StepKept, userside.StepSigned, userside.StepTaken}
	at := slices.Index(order, r.Step)
	if at >= 2 {
		documents, err := userside.ReadBackup(filepath.Join(u.dir, "contracts.backup"), u.key)
		if err != nil || len(documents) == 0 {
			u.t.Errorf("at the step %s the backup has %d documents, %v", r.Step, len(documents), err)
		}
	}
	if at < 3 && len(r.Payments) > 0 || at >= 3 && (len(r.Payments) == 0 || r.Payments[0].Amount != openingPrice) {
		u.t.Errorf("at the step %s there are %d states", r.Step, len(r.Payments))
	}
	for i, p := range r.Payments {
		if i > 0 && (p.Seq <= r.Payments[i-1].Seq || p.Amount < r.Payments[i-1].Amount) {
			u.t.Errorf("states %+v", r.Payments)
		}
	}
}

// The program ends after each step, and each message is lost on its way there or back: each time the contract comes about,
// is paid and closed, once, and to the satoshi.
func TestEndsAnywhere(t *testing.T) {
	u := somebody(t)
	for _, name := range []string{"open", "signed", "pay", "refund", "status"} {
		for _, back := range []bool{false, true} {
			title := name + " lost"
			if back {
				title = "answer to " + title
			}
			t.Run(title, func(t *testing.T) {
				before := u.balance()
				if u.relay.refuse = once(name); back {
					u.relay.refuse, u.relay.late = nil, once(name)
				}
				id := u.lives()
				u.adds(id, before, openingPrice+300)
				u.free()
				if n := len(u.relay.contracts[id].txs); n != 1 {
					t.Errorf("%d closings", n)
				}
			})
		}
	}
}

// lives takes a contract from its beginning to its end, with a restart after each step.
func (u *user) lives() protocol.ContractID {
	u.t.Helper()
	id := u.starts()
	for u.record(id).Opening() {
		u.restarts()
		u.persisted(id)
		if _, err := u.Advance(u.t.Context(), id, u.wallet); err != nil && !errors.Is(err, errCut) {
			u.t.Fatal(err)
		}
	}
	u.node.Mine(1)
	u.repeats(func() error { return u.Step(u.t.Context()) })
	u.is(id, escrow.Active)
	u.repeats(func() error { _, err := u.Pay(u.t.Context(), id, openingPrice+300); return err })
	u.persisted(id)
	u.repeats(func() error { _, err := u.Refresh(u.t.Context(), id); return err })
	u.repeats(func() error { _, err := u.Close(u.t.Context(), id, openingPrice+300, 1000); return err })
	u.node.Mine(6)
	u.repeats(func() error { return u.Step(u.t.Context()) })
	u.is(id, escrow.Closed)
	return id
}

// repeats does something until it succeeds, with a restart before each try.
func (u *user) repeats(do func() error) {
	u.t.Helper()
	for range 3 {
		u.restarts()
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, errCut) {
			u.t.Fatal(err)
		}
	}
	u.t.Fatal("it does not succeed")
}

// The funding's block is replaced: it comes back in another, or a coin of it is spent elsewhere and it never does.
func TestReorganized(t *testing.T) {
	u := somebody(t)
	for _, depth := range []int{1, 3, 6} {
		id := u.opens()
		u.node.Mine(depth - 1)
		u.steps()
		u.node.Reorg(depth)
		u.steps()
		u.is(id, escrow.FundingSent)
		if _, err := u.Pay(t.Context(), id, openingPrice+50); err != nil {
			t.Fatal(err)
		}
		u.node.Mine(1)
		u.steps()
		u.is(id, escrow.Active)

		before := u.balance()
		settlement := u.relay.settle(id)
		u.node.Mine(depth)
		u.steps()
		u.node.Reorg(depth)
		u.steps()
		if r := u.is(id, escrow.Settling); r.Confirmed(protocol.TxSettlement) != nil {
			t.Errorf("after a reorganization by %d the settlement is in a block", depth)
		}
		// btcd leaves the sweep in its mempool, where it is too early by a block, and would mine both for ever.
		u.node.MineWith(settlement.MsgTx)
		u.steps()
		u.node.Mine(7)
		u.steps()
		r := u.is(id, escrow.Closed)
		if gained := u.balance() - before; gained != deposit-openingPrice-50-r.Confirmed(protocol.TxSweep).Fee {
			t.Errorf("%d sat came back", gained)
		}
	}
}

func TestReorganizedAndDoubleSpent(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	id := u.starts()
	if _, err := u.advances(id); err != nil {
		t.Fatal(err)
	}
	cancel := u.cancelOf(id)
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Active)
	u.node.Reorg(1, cancel)
	u.steps()
	r := u.is(id, escrow.Abandoned)
	if r.Confirmed(protocol.TxCancel) == nil || r.Confirmed(protocol.TxFunding) != nil {
		t.Errorf("%+v", r.Transactions)
	}
	if u.balance() >= before {
		t.Error("the cancelling transaction paid no fee: the test proves nothing")
	}
}

// The block of a renewal is replaced: the old contract is renewing again, and serves on if the renewal can never happen.
func TestRenewalReorganized(t *testing.T) {
	for _, depth := range []int{1, 6} { // settling, closed
		u := somebody(t)
		old := u.opens()
		u.node.Mine(5)
		u.steps()
		r, err := u.Open(t.Context(), u.draft(func(w *userside.Wish) { w.Renews, w.Deposit = &old, deposit+50_000 }))
		if err != nil {
			t.Fatal(err)
		}
		next := r.ID
		if _, err := u.advances(next); err != nil {
			t.Fatal(err)
		}
		cancel := u.cancelOf(next)
		u.node.Mine(depth)
		u.steps()
		u.is(next, escrow.Active)
		u.node.Reorg(depth)
		u.steps()
		u.is(old, escrow.Renewing)
		u.is(next, escrow.FundingSent)
		if _, err := u.Pay(t.Context(), old, openingPrice+50); err != nil {
			t.Fatal(err)
		}
		u.node.Mine(1)
		u.steps()
		if r := u.is(old, escrow.Settling); r.Confirmed(protocol.TxRenewal) == nil {
			t.Errorf("%+v", r.Transactions)
		}
		u.node.Reorg(1, cancel)
		u.steps()
		u.is(next, escrow.Abandoned)
		if r := u.is(old, escrow.Active); r.Renewed != nil {
			t.Error("it is renewed by a contract that can never be funded")
		}
		if _, err := u.Pay(t.Context(), old, openingPrice+60); err != nil {
			t.Error(err)
		}
	}
}

// A reorganization deeper than what is remembered: everything is looked at anew.
func TestReorganizedTooDeep(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	u.node.Mine(chain.Depth + 5)
	u.steps()
	u.node.Reorg(chain.Depth + 10)
	u.steps()
	if r := u.record(id); r.Confirmed(protocol.TxFunding) != nil || r.State != escrow.FundingSent {
		t.Errorf("the contract is %s with %+v", r.State, r.Transactions)
	}
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Active)
}

// Laptop and relay are both gone. Words and backup file get the deposit back: at T, or what a settlement left.
func TestRestore(t *testing.T) {
	for _, settled := range []bool{false, true} {
		u := somebody(t)
		before := u.balance()
		kept := &memory{}
		u.keeper = kept
		u.restarts()
		id := u.opens()
		c, _, _ := u.record(id).Terms()
		if _, err := u.Pay(t.Context(), id, openingPrice+300); err != nil {
			t.Fatal(err)
		}
		backup, err := os.ReadFile(filepath.Join(u.dir, "contracts.backup"))
		if err != nil {
			t.Fatal(err)
		}
		if settled {
			u.relay.settle(id)
			u.node.Mine(3)
		}
		u.relay.refuse = func(string) error { return errCut }

		// A new disk, the same words.
		u.wipes()
		file := filepath.Join(u.dir, "old.backup")
		if err := os.WriteFile(file, backup, 0o600); err != nil {
			t.Fatal(err)
		}
		documents, err := userside.ReadBackup(file, u.key)
		if err != nil {
			t.Fatal(err)
		}
		if kept.documents == nil {
			t.Fatal("nothing was kept elsewhere")
		}
		const day = 24 * time.Hour
		if slow := time.Duration(escrow.MinLifetime) * 12 * time.Minute; kept.until.Before(u.now.Add(slow + 60*day)) {
			t.Errorf("it is kept until %v, which slow blocks outlive", kept.until)
		}
		documents = append(documents, kept.documents...) // the same contract, without the whole funding
		restored, err := u.Restore(t.Context(), documents, func(protocol.PublicKey) string { return "" })
		if err != nil || len(restored) != 2 || !restored[0].Fresh || restored[1].Fresh || restored[0].Err != nil {
			t.Fatalf("%+v %v", restored, err)
		}
		_ = u.Step(t.Context()) // the relay is gone: that is said
		if settled {
			u.node.Mine(1)
			_ = u.Step(t.Context())
			r := u.is(id, escrow.Settling)
			if r.Confirmed(protocol.TxSweep) == nil {
				t.Fatalf("nothing was swept\n%s", u.journal(id))
			}
			u.gets(before, openingPrice+300, r)
			continue
		}
		u.is(id, escrow.Active)
		u.mineTo(c.Expiry)
		_ = u.Step(t.Context())
		u.node.Mine(1)
		u.steps()
		r := u.is(id, escrow.Settling)
		if r.Confirmed(protocol.TxRefund) == nil {
			t.Fatalf("%+v", r.Transactions)
		}
		u.gets(before, 0, r)
	}
}

// A folder that knows less does not take from the backup what it does not know, and the file that was there before is kept.
func TestBackupOnlyGrows(t *testing.T) {
	u := somebody(t)
	file := filepath.Join(u.dir, "contracts.backup")
	first := u.starts()
	for u.record(first).Step != userside.StepKept {
		if _, err := u.Advance(t.Context(), first, u.wallet); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	document := u.record(first).Document
	u.wipes() // the contracts are gone; the file is not
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	second := u.starts()
	if _, err := u.advances(second); err != nil {
		t.Fatal(err)
	}
	check := func(name string, want ...[]byte) {
		t.Helper()
		got, err := userside.ReadBackup(name, u.key)
		slices.SortFunc(got, bytes.Compare)
		slices.SortFunc(want, bytes.Compare)
		if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s has %d documents, want %d; %v", filepath.Base(name), len(got), len(want), err)
		}
	}
	check(file, document, u.record(second).Document)
	check(file+".1", document)

	// What is over is not kept for ever; what is no backup is not overwritten.
	if _, err := u.Restore(t.Context(), [][]byte{document}, func(protocol.PublicKey) string { return "" }); err != nil {
		t.Fatal(err)
	}
	check(file, u.record(second).Document, u.record(first).Document)
	for name, test := range map[string]struct {
		data string
		want error
	}{
		"diary":           {"dear diary", userside.ErrBackup},
		"somebody else's": {strings.Replace(string(old), u.key.String(), protocol.PublicKey{1}.String(), 1), userside.ErrOwner},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(test.data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := u.store.ExportBackup(t.Context(), path); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != test.data {
			t.Errorf("%s was overwritten, %v", name, err)
		}
	}
}

// Documents of others, of other words and of other networks are refused by name.
func TestRestoreWrong(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	document := u.record(id).Document
	other := somebody(t)
	for name, test := range map[string]struct {
		document []byte
		want     error
	}{
		"rubbish":         {[]byte("{}"), protocol.CodeMalformed},
		"somebody else's": {document, userside.ErrOwner},
	} {
		restored, err := other.Restore(t.Context(), [][]byte{test.document}, func(protocol.PublicKey) string { return "" })
		if err != nil || len(restored) != 1 || !errors.Is(restored[0].Err, test.want) {
			t.Errorf("%s: %+v, %v", name, restored, err)
		}
	}
	u.owner = 5 // other words, the same identity: no such thing, but a file may say so
	u.wipes()
	restored, err := u.Restore(t.Context(), [][]byte{document}, func(protocol.PublicKey) string { return "" })
	if err != nil || len(restored) != 1 || !errors.Is(restored[0].Err, userside.ErrSeed) {
		t.Errorf("%+v, %v", restored, err)
	}
}

// Two programs look after one file at once: what happened is told once, and each transaction is made once.
func TestTwoProcesses(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	one := u.Manager
	u.openStore()
	two := u.Manager
	u.relay.settle(id)
	for range 8 {
		u.node.Mine(1)
		var group errgroup.Group
		for _, m := range []*userside.Manager{one, two} {
			group.Go(func() error { return m.Step(t.Context()) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	r := u.is(id, escrow.Closed)
	text := u.journal(id)
	for _, once := range []string{"The relay settled", "What the settlement left is yours", "The contract is closed"} {
		if strings.Count(text, once) != 1 {
			t.Errorf("%q is told %d times\n%s", once, strings.Count(text, once), text)
		}
	}
	if r.Confirmed(protocol.TxSweep) == nil {
		t.Errorf("%+v", r.Transactions)
	}
}

// The relay lost its disk and goes on with an older backup: it is shown the highest state again, by watching and by paying.
func TestRelayRestored(t *testing.T) {
	for name, again := range map[string]func(*user, protocol.ContractID) error{
		"watched": func(u *user, _ protocol.ContractID) error { return u.Step(t.Context()) },
		"paid": func(u *user, id protocol.ContractID) error {
			if _, err := u.Refresh(t.Context(), id); err != nil {
				return err
			}
			_, err := u.Pay(t.Context(), id, openingPrice)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := somebody(t)
			id := u.opens()
			if _, err := u.Pay(t.Context(), id, openingPrice+100); err != nil {
				t.Fatal(err)
			}
			held := u.relay.contracts[id]
			backup := held.highest
			if _, err := u.Pay(t.Context(), id, openingPrice+300); err != nil {
				t.Fatal(err)
			}
			held.highest = backup
			u.now = u.now.Add(askAgain)
			if err := again(u, id); err != nil {
				t.Fatal(err)
			}
			last, _ := u.record(id).Last()
			if held.highest.Seq != 2 || held.highest.Amount != openingPrice+300 || !last.Taken || len(u.record(id).Payments) != 3 {
				t.Errorf("the relay has %d sat in state %d; %+v", held.highest.Amount, held.highest.Seq, u.record(id).Payments)
			}
		})
	}
}

// A node that is away, or behind, is said, and nothing is lost by it.
func TestNodeAway(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	u.node.Stop()
	want(t, u.Step(t.Context()), chain.ErrUnreachable)
	if _, err := u.Pay(t.Context(), id, openingPrice+100); err != nil {
		t.Errorf("a payment needs no chain: %v", err)
	}
	u.node.Restart()
	u.steps()
	u.relay.settle(id)
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Settling)
}
