package userside_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// Who dies between reserving coins and writing the contract down leaves a lease that nothing names. The next one to open the
// wallet gives it back, and no other.
func TestReclaimsDrafts(t *testing.T) {
	u := somebody(t)
	kept := u.starts()
	lost := u.draft(nil)
	u.restarts()
	// Longer than a draft's: a relay may have signatures of it, whatever became of this disk's word on that.
	if _, err := u.wallet.Fund(t.Context(), wallet.FundRequest{Key: "contract/" + strings.Repeat("ab", 32), Amount: 1000, Feerate: 1000, For: 24 * time.Hour}); !errors.Is(err, wallet.ErrFunds) {
		t.Fatalf("both coins are leased, and there is another: %v", err)
	}
	if n, err := u.Reclaim(t.Context(), u.wallet); n != 1 || err != nil {
		t.Fatalf("%d leases of drafts, %v", n, err)
	}
	left, err := u.wallet.Leases(t.Context())
	if err != nil || len(left) != 1 || left[0].Key != "contract/"+kept.String() {
		t.Errorf("after the draft %s was lost: %+v, %v", lost.Record.ID, left, err)
	}
	if _, err := u.wallet.Fund(t.Context(), wallet.FundRequest{Key: "contract/" + strings.Repeat("ab", 32), Amount: 1000, Feerate: 1000, For: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if n, err := u.Reclaim(t.Context(), u.wallet); n != 0 || err != nil {
		t.Errorf("%d more, %v", n, err)
	}
	if left, err = u.wallet.Leases(t.Context()); err != nil || len(left) != 2 {
		t.Errorf("%+v, %v", left, err)
	}
}

// stale is a node that is behind the network.
type stale struct{ userside.Node }

func (stale) Stale(context.Context) error {
	return fmt.Errorf("%w: its newest block is of yesterday", chain.ErrStale)
}

// On a chain that is not up to date nothing is opened and nothing renewed, and no coin is reserved; what is open is paid and closed.
func TestStaleNode(t *testing.T) {
	u := somebody(t)
	id := u.opens()
	fresh := u.Manager.Node
	u.Manager.Node = stale{fresh}
	w := userside.Wish{Announcement: u.relay.announcement(nil), Address: "http://127.0.0.1:1", Deposit: deposit, Feerate: 2000}
	_, err := u.Draft(t.Context(), w, u.wallet)
	want(t, err, chain.ErrStale)
	w.Renews = &id
	_, err = u.Draft(t.Context(), w, u.wallet)
	want(t, err, chain.ErrStale)
	if leases, err := u.wallet.Leases(t.Context()); err != nil || len(leases) != 1 { // the open contract's, whose coin is spent
		t.Errorf("%+v, %v", leases, err)
	}
	if _, err := u.Pay(t.Context(), id, openingPrice+100); err != nil {
		t.Error(err)
	}
	if _, err := u.Close(t.Context(), id, openingPrice+100, 1000); err != nil {
		t.Error(err)
	}
}

// other is another relay, which looks at how far the contract is when it is given a document.
type other struct {
	u    *user
	err  error // its answer
	seen int
}

func (o *other) KeepContract(_ context.Context, document []byte, _ time.Time, except protocol.PublicKey) error {
	b, err := escrow.ParseBackup(document)
	if err != nil || except != o.u.relay.key.Public() {
		o.u.t.Errorf("kept except on %s: %v", except, err)
		return err
	}
	o.seen++
	if r := o.u.record(b.Contract.ID); r.Step != userside.StepAnswered || len(r.Payments) > 0 || o.u.relay.contracts[b.Contract.ID].tx != nil {
		o.u.t.Errorf("it is kept at the step %s, with %d states signed", r.Step, len(r.Payments))
	}
	return o.err
}

// What a refund needs is left on another relay before anything is signed. Where there is none, the user is told that the file is all
// there is; when none takes it nothing is signed, and the coins are free.
func TestKeptBeforeSigned(t *testing.T) {
	u := somebody(t)
	for _, test := range []struct {
		err  error
		says string
	}{
		{nil, "sealed on another relay"},
		{userside.ErrNoOther, "alone: copy that file to another disk"},
	} {
		keeper := &other{u: u, err: test.err}
		u.Manager.Keeper = keeper
		id := u.opens()
		if text := u.journal(id); keeper.seen != 1 || !strings.Contains(text, test.says) {
			t.Errorf("%v: kept %d times, and the user is told\n%s", test.err, keeper.seen, text)
		}
		if _, err := u.Close(t.Context(), id, openingPrice, 1000); err != nil {
			t.Fatal(err)
		}
		u.node.Mine(1) // the change can be spent again
		u.sync()
	}
	full := errors.New("the other relay is full")
	u.Manager.Keeper = &other{u: u, err: full}
	id := u.starts()
	if _, err := u.advances(id); !errors.Is(err, userside.ErrNotKept) || !errors.Is(err, full) {
		t.Errorf("no other relay takes it: %v", err)
	}
	if r := u.record(id); len(r.Payments) > 0 || u.relay.contracts[id].tx != nil {
		t.Errorf("%d states and a funding are signed for a contract that is kept nowhere else", len(r.Payments))
	}
}
