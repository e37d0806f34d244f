package records_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
	"relaymarket/records"
)

// history is one random life of an account, beside its model.
type history struct {
	*rapid.T
	h                  *house
	m                  *model
	owner, friend, bob *protocol.PrivateKey
	sweeper            *pgx.Conn // holds the sweeper's lock but while a step sweeps
	epoch              string
	known              []records.Incoming // writes made so far
	pages              int
	cursor             map[protocol.PublicKey]int64 // bob's, by sender
	senders            []protocol.PublicKey
	contracts          int
}

// The store does what the model says, whatever happens in whatever order: every outcome and code,
// what the account holds and has used, and what is left of every record's pulls.
func TestStoreIsItsModel(t *testing.T) {
	h := newStillHouse(t, time.Date(2031, 1, 15, 12, 0, 0, 0, time.UTC))
	sweeper, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sweeper.Close(context.Background()) })
	holdSweeper(t, sweeper, true)
	var epoch string
	if err := h.db.Pool().QueryRow(t.Context(), `SELECT epoch FROM relay_cursor`).Scan(&epoch); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := &history{T: t, h: h, owner: key(h.t), friend: key(h.t), bob: key(h.t), sweeper: sweeper, epoch: epoch, cursor: map[protocol.PublicKey]int64{}}
		s.m = &model{now: h.clock(), head: h.count(`SELECT n FROM relay_cursor`), rows: map[protocol.Path]*modelRow{},
			owner: s.owner.Public(), friend: s.friend.Public()}
		s.senders = []protocol.PublicKey{s.m.owner, s.m.friend}
		s.grant()
		s.admit()
		steps := []func(){s.write, s.write, s.write, s.write, s.remove, s.pull, s.pull, s.pull, s.again, s.read, s.advance, s.sweep, s.admit, s.grant, s.contract, s.contract}
		for range 20 + s.below(40) {
			steps[s.below(len(steps))]()
			s.compare()
		}
	})
}

// below draws evenly from 0 … n-1: rapid's own ranges prefer the ends, and a history of those
// hardly stores anything.
func (s *history) below(n int) (i int) {
	for range 8 {
		i *= 2
		if rapid.Bool().Draw(s.T, "bit") {
			i++
		}
	}
	return i % n
}

func one[V any](s *history, of ...V) V { return of[s.below(len(of))] }

func holdSweeper(t testing.TB, conn *pgx.Conn, hold bool) {
	t.Helper()
	call := `SELECT pg_advisory_unlock($1)`
	if hold {
		call = `SELECT pg_advisory_lock($1)`
	}
	if _, err := conn.Exec(t.Context(), call, int64(0x72656c61795377)); err != nil {
		t.Fatal(err)
	}
}

func (s *history) want(what string, err error, code protocol.Code) {
	s.Helper()
	if (code == "" && err != nil) || (code != "" && !errors.Is(err, code)) {
		s.Fatalf("%s: got %v, the model says %q", what, err, code)
	}
}

func (s *history) at(n int64) string { return fmt.Sprintf("%s.%d", s.epoch, n) }

// write sends one to four writes at once: new ones, repeats of older ones, and others under their paths.
func (s *history) write() {
	var batch []records.Incoming
	for range 1 + s.below(4) {
		if len(s.known) > 0 && s.below(3) == 0 {
			batch = append(batch, s.sign(one(s, s.known...)))
			continue
		}
		from, to := s.owner, s.bob
		if s.below(3) == 0 {
			from, to = s.friend, s.owner
		}
		in := s.h.compose(from, to.Public(), one(s, "a", "b", "c", "d", "e", "f", "g", "h"),
			pulls(int64(1+s.below(3))),
			ttl(s.h, one(s, -time.Second, time.Hour, 3*time.Hour, 40*time.Hour, 60*24*time.Hour)),
			content(strings.Repeat("A", 4*(1+s.below(100)))))
		in = s.sign(in)
		batch, s.known = append(batch, in), append(s.known, in)
	}
	outcomes := s.h.write(batch...)
	for _, admitted := range []bool{false, true} { // the order in which payers are asked
		for i, in := range batch {
			if e, w := in.Envelope, in.Write; (e.From == s.m.friend) == admitted {
				path := protocol.Path{Sender: e.From, Receiver: e.To, ID: w.RecordID}
				row, replayed, code := s.m.write(path, e.RequestHash(), e.Size(), w.MaxPulls, w.Expires.Time())
				s.want(fmt.Sprint("write ", path.ID), outcomes[i].Err, code)
				if code == "" && (outcomes[i].Cursor != s.at(row.n) || outcomes[i].Replayed != replayed) {
					s.Fatalf("write %s: got %+v, the model says %d, replayed %v", path.ID, outcomes[i], row.n, replayed)
				}
			}
		}
	}
}

// sign signs a write anew, some seconds ago: so old that it is looked up first, or not.
func (s *history) sign(in records.Incoming) records.Incoming {
	by := s.owner
	if in.Envelope.From == s.m.friend {
		by = s.friend
	}
	e, err := protocol.Sign(by, in.Envelope.To, s.h.now().Add(-time.Duration(s.below(7))*time.Second), in.Write)
	if err != nil {
		s.Fatal(err)
	}
	return records.Incoming{Envelope: e, Write: in.Write}
}

func (s *history) path() protocol.Path {
	path := protocol.Path{Sender: s.m.owner, Receiver: s.bob.Public(), ID: "a"}
	if len(s.known) > 0 {
		in := one(s, s.known...)
		path = protocol.Path{Sender: in.Envelope.From, Receiver: in.Envelope.To, ID: in.Write.RecordID}
	}
	return path
}

func (s *history) remove() {
	path := s.path()
	s.want(fmt.Sprint("delete ", path.ID), s.h.store.Delete(s.h.t.Context(), path), s.m.remove(path))
}

// got is bob's acknowledgement of the page that is open, if he gives it.
func (s *history) got() *records.Acknowledgement {
	if s.m.page == nil || s.below(4) == 0 {
		return nil
	}
	var leaves []protocol.Hash
	for _, row := range s.m.page.rows {
		leaves = append(leaves, s.hash(row))
	}
	root := protocol.MerkleRoot(leaves)
	r := &reader{h: s.h, key: s.bob}
	return r.ack(protocol.PageHeader{PageID: s.m.page.id, Root: &root})
}

// hash is that of the envelope which was first under a row's path, and stored.
func (s *history) hash(row *modelRow) (h protocol.Hash) {
	var raw []byte
	err := s.h.db.Pool().QueryRow(s.h.t.Context(), `SELECT substr(hashes, 1 + 32 * (array_position(ns, $1) - 1), 32) FROM pages WHERE $1 = ANY(ns) LIMIT 1`, row.n).Scan(&raw)
	if err != nil {
		s.Fatal(err)
	}
	return protocol.Hash(raw)
}

func (s *history) newPage() protocol.PageID {
	s.pages++
	return protocol.PageID(fmt.Sprint("page-", s.pages))
}

func (s *history) pull() {
	sender := s.m.owner
	request := records.PullRequest{Reader: s.bob.Public(), Senders: s.senders, PageID: s.newPage(), Limit: int64(1 + s.below(4)), Got: s.got()}
	after := int64(0)
	if s.below(2) == 0 && s.cursor[sender] > 0 {
		after = s.cursor[sender]
		at := s.at(after)
		request.After = &at
	}
	page, err := s.h.store.Pull(s.h.t.Context(), request)
	if request.Got != nil {
		s.m.page = nil
	}
	if s.m.page != nil {
		s.want("pull", err, protocol.CodePageOpen)
		return
	}
	s.want("pull", err, "")
	rows, cursor, more := s.m.waiting(request.Reader, sender, after), s.m.head, false
	if int64(len(rows)) > request.Limit {
		rows, more = rows[:request.Limit], true
		cursor = rows[len(rows)-1].n
	}
	if len(rows) > 0 {
		s.m.serve(request.PageID, rows, cursor, more)
	}
	s.cursor[sender] = cursor
	s.comparePage(page, rows, cursor, more)
}

func (s *history) comparePage(page *records.Page, rows []*modelRow, cursor int64, more bool) {
	s.Helper()
	var want []string
	for _, row := range rows {
		if row.ended != "" || !row.expires.After(s.m.now) {
			want = append(want, "gone:"+string(row.path.ID))
		} else {
			want = append(want, string(row.path.ID))
		}
	}
	if got := ids(s.h.t, page); !slices.Equal(got, want) || page.Header.Cursor != s.at(cursor) || page.Header.More != more {
		s.Fatalf("page: got %v %+v, the model says %v %d %v", got, page.Header, want, cursor, more)
	}
}

// again asks for the page that is open.
func (s *history) again() {
	p := s.m.page
	if p == nil {
		return
	}
	page, err := s.h.store.Pull(s.h.t.Context(), records.PullRequest{Reader: s.bob.Public(), Senders: s.senders, PageID: p.id, Limit: 1})
	if p.served == protocol.MaxPageServes {
		s.want("again", err, protocol.CodePageSpent)
		return
	}
	s.want("again", err, "")
	p.served++
	s.comparePage(page, p.rows, p.cursor, p.more)
}

func (s *history) read() {
	path, id := s.path(), s.newPage()
	if path.Receiver != s.bob.Public() {
		return
	}
	code, row := protocol.Code(""), s.m.rows[path]
	switch {
	case s.m.page != nil:
		code = protocol.CodePageOpen
	case row == nil:
		code = protocol.CodeNotFound
	case row.ended != "" || row.left == 0 || !row.expires.After(s.m.now):
		code = protocol.CodeGone
	default:
		s.m.serve(id, []*modelRow{row}, row.n, false)
	}
	_, err := s.h.store.Read(s.h.t.Context(), path, id)
	s.want(fmt.Sprint("read ", path.ID), err, code)
}

func (s *history) advance() {
	d := one(s, time.Second, 5*time.Minute, 10*time.Minute, time.Hour, 25*time.Hour, 0)
	if d == 0 { // to the last hour of the month
		d = max(monthStart(s.m.now.AddDate(0, 0, 32-s.m.now.Day())).Sub(s.m.now)-30*time.Minute, time.Minute)
	}
	s.h.advance(d)
	s.m.now = s.h.clock()
}

func (s *history) sweep() {
	s.want("post", s.h.books.Post(s.h.t.Context()), "") // no row goes before its write is in the ledger
	holdSweeper(s.h.t, s.sweeper, false)
	err := s.h.store.Sweep(s.h.t.Context())
	holdSweeper(s.h.t, s.sweeper, true)
	s.want("sweep", err, "")
	s.m.sweep()
}

func (s *history) admit() {
	var keys []protocol.Admitted
	s.m.admitBytes, s.m.admitRecords = 0, 0
	if s.below(3) > 0 {
		s.m.admitBytes, s.m.admitRecords = one[int64](s, 700, 2000, 100_000), int64(1+s.below(4))
		keys = append(keys, protocol.Admitted{Key: s.m.friend, Bytes: s.m.admitBytes, Records: s.m.admitRecords})
	}
	s.want("admit", s.h.books.SetAdmitted(s.h.t.Context(), s.m.owner, keys), "")
}

// grant changes the grant, or ends it. A contract is in the way of the first; what is revoked under one is not in force again after it.
func (s *history) grant() {
	active, stored, moved := s.below(6) > 0, one[int64](s, 1000, 4000, 100_000), one[int64](s, 4000, 20_000, 1_000_000)
	err := s.h.books.Put(s.h.t.Context(), books.Grant{Key: s.m.owner, QuotaStored: stored, QuotaMoved: moved, LastDay: books.DayOf(s.h.clock().AddDate(1, 0, 0))})
	if s.m.contract != nil {
		s.want("grant", err, protocol.CodeConflict)
		if s.below(2) == 0 {
			s.want("revoke", s.h.books.Revoke(s.h.t.Context(), s.m.owner), "")
			s.m.active = false
		}
		return
	}
	s.want("grant", err, "")
	s.m.active, s.m.closed, s.m.quotaStored, s.m.quotaMoved = active, false, stored, moved
	if !active {
		s.want("revoke", s.h.books.Revoke(s.h.t.Context(), s.m.owner), "")
	}
}

// contract opens, renews, pays, stops or closes one.
func (s *history) contract() {
	ctx, owner := s.h.t.Context(), s.m.owner
	change := func(what string, code protocol.Code, do func(pgx.Tx) error) {
		s.want(what, s.h.inTx(do), code)
	}
	if s.m.contract == nil || s.below(8) == 0 {
		s.contracts++
		o := books.Opening{ID: contractID(s.contracts), Payer: owner, Prices: dear}
		if s.m.contract != nil {
			change("open a second one", protocol.CodeConflict, func(tx pgx.Tx) error { return s.h.books.OpenContract(ctx, tx, o) })
			before := contractID(s.m.contract.n)
			o.Renews = &before
		}
		change("open", "", func(tx pgx.Tx) error { return s.h.books.OpenContract(ctx, tx, o) })
		s.m.open(s.contracts)
	}
	id := contractID(s.m.contract.n)
	switch s.below(8) {
	case 0:
		change("stop", "", func(tx pgx.Tx) error { return s.h.books.StopTaking(ctx, tx, owner, id) })
		s.m.contract.taking = false
	case 1:
		change("start", "", func(tx pgx.Tx) error { return s.h.books.StartTaking(ctx, tx, owner, id) })
		s.m.contract.taking = true
	case 2:
		change("close", "", func(tx pgx.Tx) error { return s.h.books.CloseContract(ctx, tx, owner, id) })
		s.m.contract, s.m.closed = nil, !s.m.active // a grant that was not revoked is in force again
	default:
		credit := one[int64](s, 500, 2_000, 6_000, 1<<40)
		change("pay", "", func(tx pgx.Tx) error { return s.h.books.SetCredit(ctx, tx, owner, id, protocol.Msat(credit)) })
		s.m.contract.credit = credit
	}
}

// compare compares everything that is kept.
func (s *history) compare() {
	s.Helper()
	s.m.roll()
	a, err := s.h.books.Get(s.h.t.Context(), s.m.owner)
	if err != nil {
		s.Fatal(err)
	}
	var admitted []books.AdmittedUse
	if s.m.admitRecords > 0 {
		admitted = []books.AdmittedUse{{Admitted: protocol.Admitted{Key: s.m.friend, Bytes: s.m.admitBytes, Records: s.m.admitRecords},
			UsedBytes: s.m.usedBytes, UsedRecords: s.m.usedRecords}}
	}
	if a.Stored != s.m.stored || a.Moved != s.m.moved || a.Active != s.m.takes() || !slices.Equal(a.Admitted, admitted) {
		s.Fatalf("account: got %+v, the model says stored %d, moved %d, active %v, %+v", a, s.m.stored, s.m.moved, s.m.takes(), admitted)
	}
	s.compareContract(a.Contract)
	for _, box := range []struct{ sender, receiver protocol.PublicKey }{{s.m.owner, s.bob.Public()}, {s.m.friend, s.m.owner}} {
		l, err := s.h.store.List(s.h.t.Context(), records.ListRequest{Sender: box.sender, Receiver: &box.receiver, Limit: 100})
		if err != nil {
			s.Fatal(err)
		}
		var got, want []string
		for _, e := range l.Entries {
			got = append(got, fmt.Sprint(e.Cursor, e.ID, e.Bytes, e.Pulls))
		}
		for _, row := range s.m.waiting(box.receiver, box.sender, 0) {
			want = append(want, fmt.Sprint(s.at(row.n), row.path.ID, row.bytes, row.most-row.left))
		}
		if !slices.Equal(got, want) {
			s.Fatalf("inventory: got %v, the model says %v", got, want)
		}
	}
}

func (s *history) compareContract(c *books.ContractUse) {
	s.Helper()
	if (c == nil) != (s.m.contract == nil) {
		s.Fatalf("contract: got %+v, the model says %+v", c, s.m.contract)
	}
	if c == nil {
		return
	}
	want := s.m.contract
	if c.ID != contractID(want.n) || c.Taking != want.taking || int64(c.Credit) != want.credit || !c.Since.Equal(want.since) ||
		c.Used.Stored.String() != want.stored.String() || c.Used.Moved.String() != want.moved.String() {
		s.Fatalf("contract: got %+v, the model says %+v", c, want)
	}
	over := new(big.Rat).Sub(big.NewRat(int64(c.Cost), 1), want.cost(0, 0))
	if over.Sign() < 0 || over.Cmp(big.NewRat(1, 1)) >= 0 {
		s.Fatalf("it costs %d, the model says %s", c.Cost, want.cost(0, 0).FloatString(6))
	}
}
