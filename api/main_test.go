package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/db"
	"relaymarket/internal/testlog"
	"relaymarket/internal/testpg"
	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/migrations"
	"relaymarket/protocol"
	"relaymarket/records"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// patience is for what comes about by itself. It bounds only a test that fails.
const patience = 5 * time.Minute

// rig is a relay with its real parts: Postgres, records, books and an HTTP server on loopback.
type rig struct {
	t       *testing.T
	key     *protocol.PrivateKey
	db      *db.DB
	books   *books.Store
	records *records.Store
	willing *willing.Store
	log     *testlog.Log
	offset  atomic.Int64 // of the relay's clock, ns
	server  *Server
	http    *httptest.Server
}

func (g *rig) clock() time.Time { return time.Now().Add(time.Duration(g.offset.Load())) }

// policy is what a rig's relay does for nothing, for whom its lists name.
var policy = willing.Policy{Keys: &willing.Conditions{}, Topics: &willing.Conditions{}, Stored: 100_000, Moved: 1_000_000, Days: 30, Accounts: 3}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	ctx := context.Background()
	g := &rig{t: t, key: newKey(t), log: &testlog.Log{}}
	url := testpg.New(t)
	if err := migrations.Up(ctx, url); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.db, err = db.Open(ctx, url, 8); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.db.Close)
	g.books = books.New(books.Config{DB: g.db, Clock: g.clock})
	limits := records.DefaultLimits()
	g.records, err = records.New(ctx, records.Config{DB: g.db, Books: g.books, Relay: g.key.Public(), Clock: g.clock, Limits: limits,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- g.records.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("records: %v", err)
		}
	})
	g.willing = willing.New(willing.Config{DB: g.db, Books: g.books, Clock: g.clock, Policy: policy})
	cfg := Config{Key: g.key, Records: g.records, Books: g.books, Willing: g.willing, Clock: g.clock, Limits: limits,
		Logger: slog.New(slog.NewTextHandler(g.log, nil)), Addresses: []string{"https://relay.example"}, Contact: "operator@relay.example <&>",
		Prober: &trials{}}
	for _, c := range change {
		c(&cfg)
	}
	g.server, g.http = g.serve(cfg)
	return g
}

// serve starts another HTTP interface on the same records.
func (g *rig) serve(cfg Config) (*Server, *httptest.Server) {
	g.t.Helper()
	cfg.Registry = prometheus.NewRegistry()
	s, err := New(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(s.Handler())
	h.Config.ReadHeaderTimeout = s.cfg.Bounds.HeaderTimeout
	h.Config.MaxHeaderBytes = MaxHeaderBytes
	h.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelDebug)
	h.Start()
	g.t.Cleanup(func() {
		s.Drain()
		h.CloseClientConnections()
		h.Close()
	})
	return s, h
}

func newKey(t *testing.T) *protocol.PrivateKey {
	t.Helper()
	k, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (g *rig) grant(key *protocol.PrivateKey) {
	g.t.Helper()
	err := g.books.Put(context.Background(), books.Grant{Key: key.Public(), QuotaStored: 1 << 30, QuotaMoved: 1 << 40, LastDay: "2999-12-31"})
	if err != nil {
		g.t.Fatal(err)
	}
}

// now is the relay's clock as a timestamp.
func (g *rig) now() protocol.Timestamp { return protocol.TimestampOf(g.clock()) }

func (g *rig) write(from, to *protocol.PrivateKey, id string) *protocol.Envelope {
	g.t.Helper()
	return g.sign(from, to.Public(), &protocol.Write{Relay: g.key.Public(), RecordID: protocol.RecordID(id),
		Expires: g.now().Add(time.Hour), MaxPulls: 8, Content: "aGVsbG8="})
}

func (g *rig) sign(key *protocol.PrivateKey, to protocol.PublicKey, request protocol.Request) *protocol.Envelope {
	g.t.Helper()
	e, err := protocol.Sign(key, to, g.now(), request)
	if err != nil {
		g.t.Fatal(err)
	}
	return e
}

// store puts a record and insists.
func (g *rig) store(from, to *protocol.PrivateKey, id string) *protocol.Envelope {
	g.t.Helper()
	e := g.write(from, to, id)
	got := g.put(recordPath(from, to, id), e)
	if got.status != http.StatusCreated {
		g.t.Fatalf("write: %d %s", got.status, got.body)
	}
	return e
}

func recordPath(from, to *protocol.PrivateKey, id string) string {
	return protocol.Path{Sender: from.Public(), Receiver: to.Public(), ID: protocol.RecordID(id)}.String()
}

// answer is a whole reply.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (g *rig) put(path string, e *protocol.Envelope) answer {
	return g.send(http.MethodPut, path, mediaEnvelope, string(e.Bytes()))
}

func (g *rig) post(path string, e *protocol.Envelope) answer {
	return g.send(http.MethodPost, path, mediaEnvelope, string(e.Bytes()))
}

// pull asks for a page; got, if not nil, acknowledges the one before.
func (g *rig) pull(reader *protocol.PrivateKey, query protocol.PullQuery, got *protocol.PageRoot) answer {
	g.t.Helper()
	pull, line, err := protocol.NewPull(query, got)
	if err != nil {
		g.t.Fatal(err)
	}
	body := protocol.PullBody(g.sign(reader, g.key.Public(), pull), line)
	return g.send(http.MethodPost, "/inbox/"+reader.Public().String(), mediaLines, string(body))
}

// signed sends a request without a body.
func (g *rig) signed(key *protocol.PrivateKey, method, target, requestType string) answer {
	g.t.Helper()
	e := g.sign(key, g.key.Public(), &protocol.Targeted{Type: requestType, Target: protocol.Target(method, target)})
	return g.send(method, target, "", "", "Authorization", e.Authorization())
}

// send sends a request; headers are names and values in turn.
func (g *rig) send(method, target, media, body string, headers ...string) answer {
	g.t.Helper()
	r, err := http.NewRequest(method, g.http.URL+target, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	reply, err := g.http.Client().Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer{reply.StatusCode, reply.Header, data}
}

// dial is a connection for requests that no proper client would make.
func dial(t *testing.T, h *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", h.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}
