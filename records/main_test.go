package records_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"relaymarket/internal/db"
	"relaymarket/internal/testpg"
	"relaymarket/ledger/books"
	"relaymarket/migrations"
	"relaymarket/protocol"
	"relaymarket/records"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// patience bounds what must come to an end by itself.
const patience = 2 * time.Minute

// house is one relay's records on a database of its own, with a clock that tests move.
type house struct {
	sweeps time.Duration // between those that nobody asks for; 0: as usual

	t        testing.TB
	url      string
	db       *db.DB
	books    *books.Store
	store    *records.Store
	relay    *protocol.PrivateKey
	offset   *atomic.Int64 // of the clock, in ms
	start    time.Time     // of a clock that only advance moves; zero: it runs
	backends []int         // of the database that the connections have; nil: not asked yet
}

func newHouse(t testing.TB) *house {
	t.Helper()
	url := testpg.New(t)
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return joinHouse(t, url, key(t), new(atomic.Int64))
}

// joinHouse runs another process's worth of records on the same database.
func joinHouse(t testing.TB, url string, relay *protocol.PrivateKey, offset *atomic.Int64) *house {
	t.Helper()
	return joinWith(t, url, relay, offset, records.DefaultLimits())
}

func joinWith(t testing.TB, url string, relay *protocol.PrivateKey, offset *atomic.Int64, limits records.Limits) *house {
	t.Helper()
	h := &house{t: t, url: url, relay: relay, offset: offset}
	h.open(limits)
	return h
}

// newStillHouse is a house whose clock stands still until it is moved.
func newStillHouse(t testing.TB, at time.Time) *house {
	t.Helper()
	// Its models know of the sweeps that they ask for.
	h := &house{t: t, url: testpg.New(t), relay: key(t), offset: new(atomic.Int64), start: at, sweeps: 24 * time.Hour}
	if err := migrations.Up(t.Context(), h.url); err != nil {
		t.Fatal(err)
	}
	h.open(records.DefaultLimits())
	return h
}

func (h *house) open(limits records.Limits) {
	t := h.t
	t.Helper()
	url := h.url
	var err error
	if h.db, err = db.Open(t.Context(), url, 16); err != nil {
		t.Fatal(err)
	}
	h.books = books.New(books.Config{DB: h.db, Clock: h.clock})
	h.store, err = records.New(t.Context(), records.Config{DB: h.db, Books: h.books, Relay: h.relay.Public(), Clock: h.clock,
		Logger: slog.New(slog.DiscardHandler), Limits: limits, SweepEvery: h.sweeps})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.db.Close()
	})
}

func (h *house) clock() time.Time {
	now := h.start
	if now.IsZero() {
		now = time.Now()
	}
	return now.Add(time.Duration(h.offset.Load()) * time.Millisecond)
}
func (h *house) advance(d time.Duration) {
	h.offset.Add(d.Milliseconds())
}
func (h *house) now() protocol.Timestamp { return protocol.TimestampOf(h.clock()) }

// midMonth moves the clock to where no month ends for a while: what was moved is counted anew then.
func (h *house) midMonth() {
	h.advance(time.Until(time.Date(time.Now().Year()+1, 3, 10, 12, 0, 0, 0, time.UTC)))
}

func key(t testing.TB) *protocol.PrivateKey {
	t.Helper()
	k, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// account makes a key with a generous grant.
func (h *house) account() *protocol.PrivateKey {
	k := key(h.t)
	h.grant(k, 1<<40, 1<<40)
	return k
}

func (h *house) grant(k *protocol.PrivateKey, stored, moved int64) {
	h.t.Helper()
	err := h.books.Put(h.t.Context(), books.Grant{Key: k.Public(), QuotaStored: stored, QuotaMoved: moved, LastDay: books.DayOf(h.clock().AddDate(1, 0, 0))})
	if err != nil {
		h.t.Fatal(err)
	}
}

type option func(*protocol.Write)

func pulls(n int64) option { return func(w *protocol.Write) { w.MaxPulls = n } }
func ttl(h *house, d time.Duration) option {
	return func(w *protocol.Write) { w.Expires = h.now().Add(d) }
}
func content(c string) option { return func(w *protocol.Write) { w.Content = c } }

// compose signs a write, as a client would.
func (h *house) compose(from *protocol.PrivateKey, to protocol.PublicKey, id string, options ...option) records.Incoming {
	h.t.Helper()
	w := &protocol.Write{Relay: h.relay.Public(), RecordID: protocol.RecordID(id), Expires: h.now().Add(24 * time.Hour), MaxPulls: 8, Content: "aGVsbG8="}
	for _, o := range options {
		o(w)
	}
	e, err := protocol.Sign(from, to, h.now(), w)
	if err != nil {
		h.t.Fatal(err)
	}
	return records.Incoming{Envelope: e, Write: w}
}

func (h *house) write(in ...records.Incoming) []records.Outcome {
	h.t.Helper()
	return h.store.Write(h.t.Context(), in)
}

// mustWrite writes one record and returns its cursor.
func (h *house) mustWrite(in records.Incoming) string {
	h.t.Helper()
	out := h.write(in)[0]
	if out.Err != nil {
		h.t.Fatal(out.Err)
	}
	return out.Cursor
}

// reader pulls as a well-behaved client does: it acknowledges each page before the next.
type reader struct {
	h     *house
	key   *protocol.PrivateKey
	after *string
	open  *protocol.PageHeader
	pages int
}

func (r *reader) ack(h protocol.PageHeader) *records.Acknowledgement {
	e, err := protocol.Sign(r.key, r.h.relay.Public(), r.h.now(), &protocol.Got{PageID: h.PageID, Root: *h.Root})
	if err != nil {
		r.h.t.Fatal(err)
	}
	return &records.Acknowledgement{Envelope: e, PageID: h.PageID, Root: *h.Root}
}

// riding is the acknowledgement in the pull of the next page.
func (r *reader) riding(h protocol.PageHeader) *records.Acknowledgement {
	e, err := protocol.Sign(r.key, r.h.relay.Public(), r.h.now(), &protocol.Pull{Got: &protocol.PageRoot{PageID: h.PageID, Root: *h.Root}})
	if err != nil {
		r.h.t.Fatal(err)
	}
	return &records.Acknowledgement{Envelope: e, PageID: h.PageID, Root: *h.Root}
}

func (r *reader) request(limit int64, senders ...protocol.PublicKey) records.PullRequest {
	r.pages++
	req := records.PullRequest{Reader: r.key.Public(), Senders: senders, After: r.after, Limit: limit,
		PageID: protocol.PageID(fmt.Sprintf("page-%s-%d", rand.Text(), r.pages))} // a time may be that of another device's, too
	if r.open != nil {
		req.Got = r.riding(*r.open)
	}
	return req
}

func (r *reader) pull(ctx context.Context, limit int64, senders ...protocol.PublicKey) (*records.Page, error) {
	page, err := r.h.store.Pull(ctx, r.request(limit, senders...))
	if err != nil {
		return nil, err
	}
	r.open = nil
	if page.Header.Records > 0 {
		r.open = &page.Header
	}
	r.after = &page.Header.Cursor
	return page, nil
}

func ids(t testing.TB, p *records.Page) []string {
	t.Helper()
	var all []string
	for _, l := range p.Lines {
		if l.Gone != nil {
			all = append(all, "gone:"+string(l.Gone.RecordID))
			continue
		}
		e, err := protocol.ParseEnvelope(l.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		var w protocol.Write
		if err := e.Decode(&w); err != nil {
			t.Fatal(err)
		}
		all = append(all, string(w.RecordID))
	}
	return all
}

// openPages counts the pages that wait for their acknowledgement.
const openPages = `SELECT count(*) FROM pages p WHERE got_at IS NULL AND NOT EXISTS (SELECT FROM pages l WHERE l.reader = p.reader AND l.turn > p.turn)`

func (h *house) count(query string, args ...any) (n int64) {
	h.t.Helper()
	if err := h.db.Pool().QueryRow(h.t.Context(), query, args...).Scan(&n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// backendsOfPools are the processes of Postgres behind the connections that the house has at hand.
func (h *house) backendsOfPools() (pids []uint32) {
	for _, pool := range []*pgxpool.Pool{h.db.Pool(), h.db.WritePool()} {
		for _, conn := range pool.AcquireAllIdle(h.t.Context()) {
			pids = append(pids, conn.Conn().PgConn().PID())
			conn.Release()
		}
	}
	return pids
}

// gone waits until such processes have ended, and with that told what they read.
func (h *house) gone(pids []uint32) {
	h.t.Helper()
	eventually(h.t, "connections end", func() bool {
		return h.count(`SELECT count(*) FROM pg_stat_activity WHERE pid::bigint = ANY($1)`, pids) == 0
	})
}

// balanced asserts that what accounts say is stored is what is stored.
func (h *house) balanced() {
	h.t.Helper()
	rows, err := h.db.Pool().Query(h.t.Context(), `
		SELECT a.stored, coalesce((SELECT sum(bytes) FROM records r WHERE r.account = a.key AND r.state = 0), 0)::bigint FROM accounts a`)
	if err != nil {
		h.t.Fatal(err)
	}
	var said, is int64
	if _, err := pgx.ForEachRow(rows, []any{&said, &is}, func() error {
		if said != is {
			h.t.Errorf("an account says %d bytes are stored, there are %d", said, is)
		}
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code protocol.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("got %v, want %s", err, code)
	}
}
