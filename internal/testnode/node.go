// Package testnode gives tests whole relays: in the test's own process with Start, and as the real program in
// a process of its own, which a test can kill, with StartProcess.
//
// A relay listens on free ports of loopback, has rates without bound, and ends with the test. A package that uses
// it has
//
//	func TestMain(m *testing.M) { testpg.Main(m) }
//
// which stops the Postgres cluster that the databases are in.
package testnode

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/relaynode"
	"relaymarket/internal/testpg"
	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
	"relaymarket/records"
)

// patience bounds every step of a relay under test.
const patience = 3 * time.Minute

// Options say how a relay differs from the usual one; the zero value is fine.
type Options struct {
	DSN   string                  // of a database, for example another node's; empty: a fresh one
	Key   *protocol.PrivateKey    // nil: a new one
	Clock func() time.Time        // nil: the machine's
	Setup func(*relaynode.Config) // changes anything else, may be nil
}

// Node is a relay in the test's process. Its fields do not change when it is restarted.
type Node struct {
	URL         string
	OperatorURL string
	NATSURL     string // empty unless Setup lets the NATS server in it listen
	HubURL      string // empty unless Setup makes it a hub
	Key         protocol.PublicKey
	Secret      *protocol.PrivateKey
	DSN         string

	t      testing.TB
	config relaynode.Config
	cancel context.CancelFunc // nil while it is stopped
	done   chan error
}

// Start boots a relay and returns when it is ready. It ends with the test.
func Start(t testing.TB, o Options) *Node {
	t.Helper()
	if o.DSN == "" {
		o.DSN = testpg.New(t)
	}
	if o.Key == nil {
		o.Key = NewKey(t)
	}
	n := &Node{t: t, DSN: o.DSN, Key: o.Key.Public(), Secret: o.Key}
	n.config = relaynode.Config{
		Key:             o.Key,
		Database:        relaynode.Database{URL: o.DSN, Connections: 18},
		Listen:          FreeAddress(t), // nobody else's while it is stopped
		OperatorListen:  FreeAddress(t),
		Limits:          records.DefaultLimits(),
		ShutdownTimeout: 10 * time.Second,
		Clock:           o.Clock,
		Logger:          slog.New(slog.NewTextHandler(newTestLog(t), nil)),
	}
	if o.Setup != nil {
		o.Setup(&n.config)
	}
	t.Cleanup(n.Stop)
	n.Restart()
	return n
}

// NewKey is a fresh key.
func NewKey(t testing.TB) *protocol.PrivateKey {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Stop ends the relay as a signal would, and fails the test if it does not end cleanly. It does nothing to a
// stopped one.
func (n *Node) Stop() {
	n.t.Helper()
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("testnode: the relay ended with: %v", err)
		}
	case <-time.After(patience):
		n.t.Errorf("testnode: the relay did not end within %s", patience)
	}
}

// Restart stops the relay if it runs, and starts it on the same addresses and database.
func (n *Node) Restart() {
	n.t.Helper()
	n.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan relaynode.Ready, 1), make(chan error, 1)
	config := n.config
	config.Ready = func(r relaynode.Ready) { ready <- r }
	go func() { done <- relaynode.Run(ctx, config) }()
	select {
	case r := <-ready:
		n.URL, n.OperatorURL, n.NATSURL, n.HubURL = r.URL, r.OperatorURL, r.NATSURL, r.HubURL
	case err := <-done:
		cancel()
		n.t.Fatalf("testnode: the relay did not start: %v", err)
	case <-time.After(patience):
		cancel()
		n.t.Fatalf("testnode: the relay was not ready within %s", patience)
	}
	n.cancel, n.done = cancel, done
	n.config.Listen = strings.TrimPrefix(n.URL, "http://")
	n.config.OperatorListen = strings.TrimPrefix(n.OperatorURL, "http://")
}

// Grant gives keys more space than a test uses.
func (n *Node) Grant(t testing.TB, keys ...protocol.PublicKey) {
	t.Helper()
	for _, key := range keys {
		n.Put(t, ample(key))
	}
}

// Put makes or changes one grant.
func (n *Node) Put(t testing.TB, grant books.Grant) {
	t.Helper()
	withBooks(t, n.DSN, func(ctx context.Context, b *books.Store) error { return b.Put(ctx, grant) })
}

// List puts an entry on the lists of whom the relay serves for nothing.
func (n *Node) List(t testing.TB, e willing.Entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := relaynode.WithLists(ctx, relaynode.Database{URL: n.DSN, Connections: 4}, willing.Policy{}, func(ctx context.Context, lists *willing.Store) error {
		_, err := lists.Put(ctx, e)
		return err
	})
	if err != nil {
		t.Fatalf("testnode: %v", err)
	}
}

// Admit sets whom an account admits.
func (n *Node) Admit(t testing.TB, owner protocol.PublicKey, keys ...protocol.Admitted) {
	t.Helper()
	withBooks(t, n.DSN, func(ctx context.Context, b *books.Store) error { return b.SetAdmitted(ctx, owner, keys) })
}

// Contract makes a contract the account of its payer, with credit but without any bitcoin behind it.
func (n *Node) Contract(t testing.TB, o books.Opening, credit protocol.Msat) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := relaynode.WithAccounts(ctx, relaynode.Database{URL: n.DSN, Connections: 4}, func(ctx context.Context, b *books.Store, tx pgx.Tx) error {
		if err := b.OpenContract(ctx, tx, o); err != nil {
			return err
		}
		return b.SetCredit(ctx, tx, o.Payer, o.ID, credit)
	})
	if err != nil {
		t.Fatalf("testnode: %v", err)
	}
}

// Posted has everything posted that happened before, and returns a contract's bill.
func (n *Node) Posted(t testing.TB, id protocol.ContractID) (bill books.Bill) {
	t.Helper()
	withBooks(t, n.DSN, func(ctx context.Context, b *books.Store) (err error) {
		if err := b.Post(ctx); err != nil {
			return err
		}
		bill, err = b.Posted(ctx, id)
		return err
	})
	return bill
}

// Account is what a key has and has used.
func (n *Node) Account(t testing.TB, key protocol.PublicKey) books.Account {
	t.Helper()
	return account(t, relaynode.Database{URL: n.DSN, Connections: 4}, key)
}

func ample(key protocol.PublicKey) books.Grant {
	return books.Grant{Key: key, QuotaStored: 1e15, QuotaMoved: 1e15, LastDay: "9999-12-31"}
}

func withBooks(t testing.TB, dsn string, do func(context.Context, *books.Store) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := relaynode.WithBooks(ctx, relaynode.Database{URL: dsn, Connections: 4}, do); err != nil {
		t.Fatalf("testnode: %v", err)
	}
}

func account(t testing.TB, d relaynode.Database, key protocol.PublicKey) (a books.Account) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := relaynode.WithBooks(ctx, d, func(ctx context.Context, b *books.Store) (err error) {
		a, err = b.Get(ctx, key)
		return err
	})
	if err != nil {
		t.Fatalf("testnode: %v", err)
	}
	return a
}

// testLog writes to the log of a test, which shows it if the test fails. What is said when the test has ended is lost: the
// test's own log would end all tests for it.
type testLog struct {
	mu   sync.Mutex
	t    testing.TB
	over bool
}

func newTestLog(t testing.TB) *testLog {
	l := &testLog{t: t}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
	})
	return l
}

func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.t.Log(strings.TrimRight(string(line), "\n"))
	}
	return len(line), nil
}
