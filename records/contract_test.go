package records_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
	"relaymarket/records"
)

// dear makes the records of tests cost something: 24 kB-days and a few kilobytes moved are some thousand msat.
var dear = ledger.Prices{Storage: 100_000_000, Bandwidth: 400_000_000}

func contractID(n int) (id protocol.ContractID) {
	copy(id[:], fmt.Sprintf("contract %d", n))
	return id
}

// inTx runs what a contract's manager does in a transaction of his.
func (h *house) inTx(do func(pgx.Tx) error) error {
	return h.db.Tx(h.t.Context(), do)
}

// contract opens one with credit.
func (h *house) contract(n int, payer *protocol.PrivateKey, credit protocol.Msat, writers ...*protocol.PrivateKey) {
	h.t.Helper()
	o := books.Opening{ID: contractID(n), Payer: payer.Public(), Prices: dear}
	for _, w := range writers {
		o.Writers = append(o.Writers, w.Public())
	}
	err := h.inTx(func(tx pgx.Tx) error {
		if err := h.books.OpenContract(h.t.Context(), tx, o); err != nil {
			return err
		}
		return h.books.SetCredit(h.t.Context(), tx, o.Payer, o.ID, credit)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) owed(n int, payer *protocol.PrivateKey) books.ContractUse {
	h.t.Helper()
	use, err := h.books.Owed(h.t.Context(), h.db.Pool(), payer.Public(), contractID(n))
	if err != nil {
		h.t.Fatal(err)
	}
	return use
}

// A contract is charged for what it reserves, and gets back exactly what was not used: at a delete, at the last
// pull, at the expiry, and nothing for the relay's grace after them.
func TestContractPaysForWhatWasUsed(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 31, 23, 0, 0, 0, time.UTC)) // a month ends meanwhile: it means nothing to a contract
	alice, bob := key(t), key(t)
	h.contract(1, alice, 1<<50)
	life := func(d time.Duration) int64 { return d.Milliseconds() }
	var want ledger.Usage
	add := func(stored, moved int64) {
		want.Stored, _ = want.Stored.Plus(ledger.Times(stored, 1))
		want.Moved, _ = want.Moved.Plus(ledger.Times(moved, 1))
	}
	check := func(when string) {
		t.Helper()
		if use := h.owed(1, alice); use.Used != want {
			t.Fatalf("%s: %v byte-ms and %v bytes, want %v and %v", when, use.Used.Stored, use.Used.Moved, want.Stored, want.Moved)
		}
		h.balanced()
	}
	deleted := h.compose(alice, bob.Public(), "deleted", pulls(3), ttl(h, 10*day))
	usedUp := h.compose(alice, bob.Public(), "used-up", pulls(1), ttl(h, 10*day))
	expired := h.compose(alice, bob.Public(), "expired", pulls(5), ttl(h, 2*day))
	a, b, c := deleted.Envelope.Size(), usedUp.Envelope.Size(), expired.Envelope.Size()
	for _, out := range h.write(deleted, usedUp, expired) {
		if out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	add(a*life(10*day), 4*a)
	add(b*life(10*day), 2*b)
	add(c*life(2*day), 6*c)
	check("reserved")

	h.advance(3 * time.Hour)
	r := &reader{h: h, key: bob}
	if page, err := r.pull(t.Context(), 10, alice.Public()); err != nil || page.Header.Records != 3 {
		t.Fatalf("%+v %v", page, err)
	}
	check("a pull was reserved before")
	h.advance(time.Hour)
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: alice.Public(), Receiver: bob.Public(), ID: "deleted"}); err != nil {
		t.Fatal(err)
	}
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = ledger.Usage{}
	add(a*life(4*time.Hour), 2*a) // written, pulled once
	add(b*life(3*time.Hour), 2*b) // up to its only pull
	add(c*life(2*day), 6*c)
	check("deleted and used up")

	h.advance(3 * day)
	if err := h.books.Post(t.Context()); err != nil { // no row goes before its write is in the ledger
		t.Fatal(err)
	}
	if err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = ledger.Usage{}
	add(a*life(4*time.Hour), 2*a)
	add(b*life(3*time.Hour), 2*b)
	add(c*life(2*day), 2*c) // four pulls were never made
	check("expired")
	cost, err := dear.Cost(want)
	if use := h.owed(1, alice); err != nil || use.Cost != cost || cost == 0 {
		t.Errorf("it costs %d msat, want %d; %v", use.Cost, cost, err)
	}
}

// The last millisatoshi of credit is taken, and not one more, by one statement for all as by judging each.
func TestCreditIsExact(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	alice, bob := key(t), key(t)
	in := h.compose(alice, bob.Public(), "first", pulls(3), ttl(h, 100*time.Hour))
	cost, err := dear.Cost(ledger.Reserved(in.Envelope.Size(), 3, h.clock(), in.Write.Expires.Time()))
	if err != nil || cost < 1000 {
		t.Fatalf("%d %v", cost, err)
	}
	h.contract(1, alice, cost-1)
	wantCode(t, h.write(in)[0].Err, protocol.CodePaymentDue)
	// Two together are more than the credit, so each is judged: one fits.
	if err := h.inTx(func(tx pgx.Tx) error {
		return h.books.SetCredit(t.Context(), tx, alice.Public(), contractID(1), cost)
	}); err != nil {
		t.Fatal(err)
	}
	out := h.write(in, h.compose(alice, bob.Public(), "second", pulls(3), ttl(h, 100*time.Hour)))
	if out[0].Err != nil {
		t.Fatal(out[0].Err)
	}
	wantCode(t, out[1].Err, protocol.CodePaymentDue)
	if use := h.owed(1, alice); use.Cost != cost || use.Credit != cost {
		t.Errorf("%+v", use)
	}
	if out := h.write(in)[0]; out.Err != nil || !out.Replayed {
		t.Errorf("a repeat is free: %+v", out)
	}
	// With less credit than is used, what is stored stays, and comes back when it ends.
	if err := h.inTx(func(tx pgx.Tx) error {
		return h.books.SetCredit(t.Context(), tx, alice.Public(), contractID(1), -5)
	}); err != nil {
		t.Fatal(err)
	}
	r := &reader{h: h, key: bob}
	if page, err := r.pull(t.Context(), 10, alice.Public()); err != nil || page.Header.Records != 1 {
		t.Errorf("%+v %v", page, err)
	}
}

// Whatever many writers of one contract do at once, on two processes, its cost is never over its credit, and its
// counters are what the table of records says.
func TestCreditUnderConcurrency(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	other := &house{t: t, url: h.url, relay: h.relay, offset: h.offset, start: h.start} // another process
	other.open(records.DefaultLimits())
	contracts := 0
	rapid.Check(t, func(t *rapid.T) {
		contracts++
		id := contracts
		payer, laptop, phone, bob := key(h.t), key(h.t), key(h.t), key(h.t)
		credit := protocol.Msat(rapid.Int64Range(0, 3_000_000).Draw(t, "credit"))
		h.contract(id, payer, credit, laptop, phone)
		var group sync.WaitGroup
		var mu sync.Mutex
		refused := 0
		for w, writer := range []*protocol.PrivateKey{payer, laptop, phone} {
			for k, house := range []*house{h, other} {
				sizes := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 12).Draw(t, "sizes")
				most := rapid.Int64Range(1, 9).Draw(t, "pulls")
				group.Go(func() {
					for i, size := range sizes {
						record := protocol.RecordID(fmt.Sprintf("r-%d-%d-%d", w, k, i))
						in := house.compose(writer, bob.Public(), string(record), pulls(most), content(strings.Repeat("aGVs", size)))
						out := house.write(in)[0]
						if out.Err != nil {
							mu.Lock()
							refused++
							mu.Unlock()
							continue
						}
						if i%4 == 3 {
							if err := house.store.Delete(h.t.Context(), protocol.Path{Sender: writer.Public(), Receiver: bob.Public(), ID: record}); err != nil {
								h.t.Error(err)
							}
						}
						if use := house.owed(id, payer); use.Cost > use.Credit {
							h.t.Errorf("%d msat of %d are used", use.Cost, use.Credit)
						}
					}
				})
			}
		}
		group.Wait()
		h.countersMatch(id, payer)
	})
}

// countersMatch asserts that the contract's counters are those of its records: what live ones reserve, and what ended ones
// used. The house's clock stands still: what was deleted was stored for no time, and not pulled.
func (h *house) countersMatch(id int, payer *protocol.PrivateKey) {
	h.t.Helper()
	account := payer.Public()
	var stored, moved string
	if err := h.db.Pool().QueryRow(h.t.Context(), `
		SELECT coalesce(sum(CASE state WHEN 0 THEN bytes::numeric * (expires - written) ELSE 0 END), 0)::text,
		  coalesce(sum(CASE state WHEN 0 THEN bytes::numeric * (1 + max_pulls) ELSE bytes END), 0)::text
		FROM records WHERE account = $1`, account[:]).Scan(&stored, &moved); err != nil {
		h.t.Fatal(err)
	}
	if use := h.owed(id, payer); use.Used.Stored.String() != stored || use.Used.Moved.String() != moved {
		h.t.Errorf("the account counts %s byte-ms and %s bytes, its records %s and %s", use.Used.Stored, use.Used.Moved, stored, moved)
	}
}

// accountOf is which account a stored record was charged to.
func (h *house) accountOf(sender *protocol.PrivateKey, id string) (account protocol.PublicKey) {
	h.t.Helper()
	k := sender.Public()
	var raw []byte
	if err := h.db.Pool().QueryRow(h.t.Context(), `SELECT account FROM records WHERE sender = $1 AND id = $2`, k[:], id).Scan(&raw); err != nil {
		h.t.Fatal(err)
	}
	return protocol.PublicKey(raw)
}

// A key that a contract lists writes on it, as often as it likes and in one batch with the payer, until it has an
// account of its own, or is listed no more.
func TestWritersOfAContract(t *testing.T) {
	h := newHouse(t)
	payer, laptop, bob := key(t), key(t), key(t)
	wantCode(t, h.write(h.compose(laptop, bob.Public(), "early"))[0].Err, protocol.CodeNoAccount)
	h.contract(1, payer, 1<<50, laptop)
	for round := range 3 { // the first is judged, the others known
		out := h.write(h.compose(laptop, bob.Public(), fmt.Sprint("a", round)), h.compose(payer, bob.Public(), fmt.Sprint("a", round)),
			h.compose(laptop, bob.Public(), fmt.Sprint("b", round)))
		for _, o := range out {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		if got := h.accountOf(laptop, fmt.Sprint("b", round)); got != payer.Public() {
			t.Fatalf("charged to %s", got)
		}
	}
	h.countersMatch(1, payer)

	h.grant(laptop, 1<<30, 1<<30)
	if out := h.write(h.compose(laptop, bob.Public(), "own")); out[0].Err != nil || h.accountOf(laptop, "own") != laptop.Public() {
		t.Errorf("a key's own account goes first: %v, charged to %s", out[0].Err, h.accountOf(laptop, "own"))
	}
	if err := h.books.Revoke(t.Context(), laptop.Public()); err != nil {
		t.Fatal(err)
	}
	if out := h.write(h.compose(laptop, bob.Public(), "again")); out[0].Err != nil || h.accountOf(laptop, "again") != payer.Public() {
		t.Errorf("without one, the contract pays: %v, charged to %s", out[0].Err, h.accountOf(laptop, "again"))
	}
	h.balanced()

	if err := h.inTx(func(tx pgx.Tx) error {
		return h.books.CloseContract(t.Context(), tx, payer.Public(), contractID(1))
	}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*protocol.PrivateKey{laptop, payer} {
		wantCode(t, h.write(h.compose(k, bob.Public(), "late"))[0].Err, protocol.CodeNoAccount)
	}
	r := &reader{h: h, key: bob}
	if page, err := r.pull(t.Context(), 100, laptop.Public(), payer.Public()); err != nil || page.Header.Records != 11 {
		t.Errorf("what is stored stays readable: %+v %v", page, err)
	}
}

// A writer who signs a contract of his own writes on his payer's until its funding is in a block.
func TestWriterWithAPendingContract(t *testing.T) {
	h := newHouse(t)
	payer, laptop, bob := key(t), key(t), key(t)
	h.contract(1, payer, 1<<50, laptop)
	open := func(n int, payer *protocol.PrivateKey, pending bool) {
		t.Helper()
		if err := h.inTx(func(tx pgx.Tx) error {
			return h.books.OpenContract(t.Context(), tx, books.Opening{ID: contractID(n), Payer: payer.Public(), Prices: dear, Pending: pending})
		}); err != nil {
			t.Fatal(err)
		}
	}
	write := func(id string, by *protocol.PrivateKey) {
		t.Helper()
		if out := h.write(h.compose(laptop, bob.Public(), id)); out[0].Err != nil || h.accountOf(laptop, id) != by.Public() {
			t.Errorf("%s: %v, charged to %s", id, out[0].Err, h.accountOf(laptop, id))
		}
	}
	write("before", payer)
	for round := range 2 {
		open(2, laptop, true)
		write(fmt.Sprint("pending", round), payer)
	}
	open(2, laptop, false)
	wantCode(t, h.write(h.compose(laptop, bob.Public(), "no-credit"))[0].Err, protocol.CodePaymentDue)
	if err := h.inTx(func(tx pgx.Tx) error {
		return h.books.SetCredit(t.Context(), tx, laptop.Public(), contractID(2), 1<<50)
	}); err != nil {
		t.Fatal(err)
	}
	write("own", laptop)
	h.countersMatch(2, laptop)

	open(3, bob, true) // nobody else pays for him
	wantCode(t, h.write(h.compose(bob, bob.Public(), "early"))[0].Err, protocol.CodePaymentDue)
	h.balanced()
}

// A grant that is revoked while a contract is in its place does not come back after it, nor does one that was revoked before; the
// contract goes on.
func TestGrantRevokedUnderAContract(t *testing.T) {
	h := newHouse(t)
	for n, when := range []string{"never", "before", "under"} {
		payer, bob := key(t), key(t)
		h.grant(payer, 1<<30, 1<<30)
		revoke := func(at string) {
			t.Helper()
			if when != at {
				return
			}
			if err := h.books.Revoke(t.Context(), payer.Public()); err != nil {
				t.Fatal(err)
			}
		}
		revoke("before")
		h.contract(n, payer, 1<<50)
		revoke("under")
		if out := h.write(h.compose(payer, bob.Public(), "paid")); out[0].Err != nil {
			t.Fatalf("%s: %v", when, out[0].Err)
		}
		h.countersMatch(n, payer)
		if err := h.inTx(func(tx pgx.Tx) error {
			return h.books.CloseContract(t.Context(), tx, payer.Public(), contractID(n))
		}); err != nil {
			t.Fatal(err)
		}
		if out := h.write(h.compose(payer, bob.Public(), "granted")); when == "never" && out[0].Err != nil {
			t.Errorf("the grant is not in force again: %v", out[0].Err)
		} else if when != "never" {
			wantCode(t, out[0].Err, protocol.CodeNoAccount)
		}
		account, err := h.books.Get(t.Context(), payer.Public())
		if err != nil || account.Kind != books.KindGrant || account.Revoked != (when != "never") {
			t.Errorf("%s: %+v, %v", when, account, err)
		}
	}
	payer := key(t)
	h.contract(3, payer, 1<<50)
	wantCode(t, h.books.Revoke(t.Context(), payer.Public()), protocol.CodeNotFound)
	h.balanced()
}

// Whom a contract lists is an account holder: he has a card, and admits others on the contract's cost.
func TestWriterAdmits(t *testing.T) {
	h := newHouse(t)
	payer, laptop, friend := key(t), key(t), key(t)
	h.contract(1, payer, 1<<50, laptop)
	if err := h.books.SetAdmitted(t.Context(), laptop.Public(), []protocol.Admitted{{Key: friend.Public(), Bytes: 1 << 20, Records: 1}}); err != nil {
		t.Fatal(err)
	}
	if out := h.write(h.compose(friend, laptop.Public(), "hello")); out[0].Err != nil || h.accountOf(friend, "hello") != payer.Public() {
		t.Fatalf("%v, charged to %s", out[0].Err, h.accountOf(friend, "hello"))
	}
	wantCode(t, h.write(h.compose(friend, laptop.Public(), "second"))[0].Err, protocol.CodeQuotaAdmitted)
	h.countersMatch(1, payer)
	account, err := h.books.Get(t.Context(), laptop.Public())
	if err != nil || account.Key != payer.Public() || len(account.Admitted) != 1 || account.Admitted[0].UsedRecords != 1 {
		t.Fatalf("%+v %v", account, err)
	}
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: friend.Public(), Receiver: laptop.Public(), ID: "hello"}); err != nil {
		t.Fatal(err)
	}
	if out := h.write(h.compose(friend, laptop.Public(), "third")); out[0].Err != nil {
		t.Fatal(out[0].Err)
	}
	seal, err := protocol.NewSealingPrivateKey([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	card, err := protocol.Sign(laptop, laptop.Public(), h.now(),
		&protocol.Identity{Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{seal.Public().Item()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.PutCard(t.Context(), card); err != nil {
		t.Error(err)
	}
}

// A contract that ends or stops taking refuses writes with its own code; a renewed one starts its count anew, and
// gets nothing back for what was charged before it.
func TestContractEndsAndIsRenewed(t *testing.T) {
	h := newStillHouse(t, time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC))
	payer, laptop, bob := key(t), key(t), key(t)
	h.contract(1, payer, 1<<50, laptop)
	for _, o := range h.write(h.compose(payer, bob.Public(), "one"), h.compose(laptop, bob.Public(), "one")) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	var final books.ContractUse
	if err := h.inTx(func(tx pgx.Tx) (err error) {
		if err := h.books.StopTaking(t.Context(), tx, payer.Public(), contractID(1)); err != nil {
			return err
		}
		final, err = h.books.Owed(t.Context(), tx, payer.Public(), contractID(1))
		return err
	}); err != nil || final.Taking || final.Cost == 0 {
		t.Fatalf("%+v %v", final, err)
	}
	for _, k := range []*protocol.PrivateKey{payer, laptop} {
		wantCode(t, h.write(h.compose(k, bob.Public(), "two"))[0].Err, protocol.CodeContractEnded)
	}
	if err := h.books.Put(t.Context(), books.Grant{Key: payer.Public(), LastDay: "2027-01-01"}); err == nil {
		t.Error("a grant took the place of a contract that is not settled")
	}

	renewed := books.Opening{ID: contractID(2), Payer: payer.Public(), Prices: dear}
	open := func() error {
		return h.inTx(func(tx pgx.Tx) error { return h.books.OpenContract(t.Context(), tx, renewed) })
	}
	wantCode(t, open(), protocol.CodeConflict)
	first := contractID(1)
	renewed.Renews = &first
	for range 2 { // a repeat changes nothing
		if err := open(); err != nil {
			t.Fatal(err)
		}
		if err := h.inTx(func(tx pgx.Tx) error {
			return h.books.SetCredit(t.Context(), tx, payer.Public(), contractID(2), 1<<40)
		}); err != nil {
			t.Fatal(err)
		}
		if use := h.owed(2, payer); use.Credit != 1<<40 || !use.Taking {
			t.Fatalf("%+v", use)
		}
		h.write(h.compose(payer, bob.Public(), "three"))
	}
	if err := h.inTx(func(tx pgx.Tx) error {
		return h.books.StopTaking(t.Context(), tx, payer.Public(), contractID(1))
	}); !errors.Is(err, books.ErrNotInForce) {
		t.Errorf("the contract that was renewed stops its successor: %v", err)
	}
	before := h.owed(2, payer)
	if before.Cost == 0 || before.Cost >= final.Cost {
		t.Errorf("the renewed contract owes %d, the one before owed %d", before.Cost, final.Cost)
	}
	// The clock of this process stood still: only their order tells the records of the two contracts apart.
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: payer.Public(), Receiver: bob.Public(), ID: "one"}); err != nil {
		t.Fatal(err)
	}
	if after := h.owed(2, payer); after.Used != before.Used {
		t.Errorf("a record of the contract before gave back to this one: %+v, was %+v", after, before)
	}
	if err := h.store.Delete(t.Context(), protocol.Path{Sender: payer.Public(), Receiver: bob.Public(), ID: "three"}); err != nil {
		t.Fatal(err)
	}
	if after := h.owed(2, payer); after.Used.Stored != (ledger.Quantity{}) || after.Used.Moved == (ledger.Quantity{}) {
		t.Errorf("%+v", after)
	}
	wantCode(t, h.write(h.compose(laptop, bob.Public(), "two"))[0].Err, protocol.CodeNoAccount) // not listed by the new one
}
