package relayside_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/relayside"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/db"
	"relaymarket/internal/regtest"
	"relaymarket/internal/testpg"
	"relaymarket/ledger/books"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// patience is for what comes about by itself. It bounds only a test that fails.
const patience = 5 * time.Minute

// house is a relay's contracts on a database, a wallet and a Bitcoin node of its own.
type house struct {
	denies func(context.Context, protocol.PublicKey) (bool, error) // nil: nobody is denied

	t      testing.TB
	node   *regtest.Test
	chain  *chain.Client
	url    string
	db     *db.DB
	books  *books.Store
	wallet *wallet.Wallet
	branch *hdkeychain.ExtendedKey
	key    *protocol.PrivateKey
	offset atomic.Int64 // of the clock, in ms
	offer  protocol.ContractOffer
	said   *protocol.Envelope // the announcement
	limits relayside.Limits
	faults faults

	contractChain  relayside.Chain  // what the manager asks; nil: chain
	contractWallet relayside.Wallet // what the manager has; nil: wallet

	manager  *relayside.Manager
	registry *prometheus.Registry // of the newest manager
	stop     func() error
}

// faults ends the work at a step, once.
type faults struct {
	mu    sync.Mutex
	at    string // the step
	skip  int    // so many times it is still passed first
	hits  map[string]int
	fired bool

	passes int // skip as it was armed
}

// missed tells whether the armed fault should have ended the work and did not. How often something
// is sent, and how many blocks are seen, hangs on how long it is waited for: a step that came fewer
// times than are passed first has not been missed, unless it is to end at its first time.
func (f *faults) missed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	armed := f.at != ""
	few := f.hits[f.at] <= f.passes
	f.at = ""
	return armed && (f.passes == 0 || !few)
}

// seen tells, once, whether a fault ended something.
func (f *faults) seen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	fired := f.fired
	f.fired = false
	return fired
}

var errFault = errors.New("the power is cut")

func (f *faults) reach(step string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hits == nil {
		f.hits = make(map[string]int)
	}
	f.hits[step]++
	if f.at != step {
		return nil
	}
	if f.skip > 0 {
		f.skip--
		return nil
	}
	f.at = ""
	f.fired = true
	return errFault
}

func (f *faults) arm(step string, skip int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.skip, f.passes = step, skip, skip
	f.hits = make(map[string]int)
}

// standardOffer is what most tests' relay announces: a byte moved costs a millisatoshi.
var standardOffer = protocol.ContractOffer{BandwidthMsatPerGB: 1_000_000_000, OpeningPrice: 5_000, CreditLimit: 5_000, MinPrepay: 20_000}

func newHouse(t testing.TB, offer protocol.ContractOffer) *house {
	t.Helper()
	// An offer stands for as long as a slow machine may take to come back to it; whoever waits for its end moves the clock.
	h := &house{t: t, node: regtest.Start(t, regtest.Plain), url: testpg.New(t), key: identity(t), offer: offer,
		limits: relayside.Limits{Poll: 50 * time.Millisecond, Lease: 100 * time.Millisecond, Patience: patience, Resend: 200 * time.Millisecond, Wallet: 200 * time.Millisecond,
			Measure: 250 * time.Millisecond, Reservation: time.Hour, OpeningsByPayer: 100, OpeningsByInput: 100}}
	if err := migrations.Up(t.Context(), h.url); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.db, err = db.Open(t.Context(), h.url, 12); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.db.Close)
	t.Cleanup(h.accounted)
	h.chain, err = chain.New(chain.Config{Network: protocol.Regtest, Host: h.node.Host(), User: regtest.User, Password: regtest.Password, Plain: true,
		Timeout: patience, FeeCeiling: 2_000}, h.clock) // what btcd makes of a few transactions is no estimate
	if err != nil {
		t.Fatal(err)
	}
	h.books = books.New(books.Config{DB: h.db, Clock: h.clock})
	h.branch = branch(t)
	h.openWallet()
	h.start()
	t.Cleanup(func() { h.crash() })
	h.announce()
	h.eventually("the wallet's script", func() bool { return h.count(`SELECT count(*) FROM contract_payout`) == 1 })
	return h
}

// branch is a Bitcoin branch of some seed.
func branch(t testing.TB) *hdkeychain.ExtendedKey {
	t.Helper()
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // it never fails
	key, err := hdkeychain.NewMaster(seed, &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (h *house) openWallet() {
	h.t.Helper()
	w, err := wallet.Open(wallet.Config{Dir: h.t.TempDir(), Network: protocol.Regtest, Branch: h.branch, Passphrase: []byte("open"),
		Clock: h.clock, Log: slog.New(slog.DiscardHandler), Poll: 50 * time.Millisecond, ScryptN: wallet.FastScryptN, Lookahead: 10}, h.chain)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("wallet: %v", err)
		}
		if err := w.Close(); err != nil {
			h.t.Errorf("wallet: %v", err)
		}
	})
	h.wallet = w
}

func (h *house) clock() time.Time {
	return time.Now().Add(time.Duration(h.offset.Load()) * time.Millisecond)
}

func (h *house) now() protocol.Timestamp { return protocol.TimestampOf(h.clock()) }

func (h *house) advance(d time.Duration) { h.offset.Add(d.Milliseconds()) }

// contractKey is what the relay derives for a contract.
func (h *house) contractKey(id protocol.ContractID) (*btcec.PrivateKey, error) {
	return escrow.DeriveKey(h.branch, protocol.Regtest, id)
}

// config is what a manager on this house is made of.
func (h *house) config() relayside.Config {
	handler := slog.Handler(slog.DiscardHandler)
	if os.Getenv("RELAYSIDE_LOG") != "" {
		handler = slog.NewTextHandler(h.t.Output(), nil)
	}
	node := relayside.Chain(h.chain)
	if h.contractChain != nil {
		node = h.contractChain
	}
	purse := relayside.Wallet(h.wallet)
	if h.contractWallet != nil {
		purse = h.contractWallet
	}
	h.registry = prometheus.NewRegistry()
	return relayside.Config{Registerer: h.registry, DB: h.db, Books: h.books, Chain: node, Relay: h.key.Public(), Network: protocol.Regtest, Key: h.contractKey,
		Wallet: purse, Clock: h.clock, Logger: slog.New(handler), Limits: h.limits, Checkpoint: h.faults.reach, Denies: h.denies}
}

// start runs a manager that knows nothing but the database.
func (h *house) start() {
	h.t.Helper()
	m, err := relayside.New(h.config())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	h.manager = m
	h.stop = sync.OnceValue(func() error { cancel(); return <-done })
}

// crash ends the manager, wherever it is.
func (h *house) crash() {
	h.t.Helper()
	if err := h.stop(); err != nil && !errors.Is(err, errFault) {
		h.t.Errorf("the work ended: %v", err)
	}
}

// restart is a crash and a start.
func (h *house) restart() {
	h.t.Helper()
	h.crash()
	h.start()
}

// revive starts a manager anew if a fault ended the work.
func (h *house) revive() {
	h.t.Helper()
	if h.faults.seen() {
		h.restart()
	}
}

// retry does what a client does until it is answered.
func (h *house) retry(do func() error) {
	h.t.Helper()
	for range 3 {
		err := do()
		h.revive()
		if err == nil {
			return
		}
		if !errors.Is(err, errFault) {
			h.t.Fatal(err)
		}
	}
	h.t.Fatal("it was never answered")
}

// announce says what the relay offers.
func (h *house) announce() {
	h.t.Helper()
	offer := h.offer
	said := &protocol.Announcement{Addresses: []string{}, Terms: []protocol.Terms{}, Seq: 1, ValidUntil: h.now().Add(24 * time.Hour),
		Network: protocol.Regtest, Contracts: &offer}
	e, err := protocol.Sign(h.key, h.key.Public(), h.now(), said)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.manager.Announce(h.t.Context(), e, said); err != nil {
		h.t.Fatal(err)
	}
	h.said = e
}

// walletRead waits until the work has asked the wallet after this moment.
func (h *house) walletRead() {
	h.t.Helper()
	asked := time.Now()
	h.eventually("a look at the wallet", func() bool {
		since := time.Since(asked) // before the age is told: else it would seem younger than it is
		age := h.metric("contracts_wallet_read_seconds")
		return age >= 0 && since.Seconds() > age
	})
}

// eventually waits for something that the work does by itself.
func (h *house) eventually(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(15 * time.Millisecond) {
		h.revive()
		if time.Now().After(deadline) {
			h.t.Fatalf("%s did not come about", what)
		}
	}
}

// synced waits until the work has seen the node's newest block, and what follows from it.
func (h *house) synced() {
	h.t.Helper()
	height := h.node.Height()
	h.eventually("the newest block", func() bool {
		var known int
		err := h.db.Pool().QueryRow(h.t.Context(), `SELECT coalesce(max(height), 0) FROM contract_blocks`).Scan(&known)
		return err == nil && known == height && h.count(`SELECT count(*) FROM contracts WHERE look_at <= $1`, height) == 0
	})
}

func (h *house) mine(n int) {
	h.t.Helper()
	h.node.Mine(n)
	h.synced()
}

func (h *house) count(sql string, args ...any) (n int) {
	h.t.Helper()
	if err := h.db.Pool().QueryRow(h.t.Context(), sql, args...).Scan(&n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// use has the account of a payer use so many msat, as a write would.
func (h *house) use(payer protocol.PublicKey, msat int64) error {
	h.t.Helper()
	return h.db.Tx(h.t.Context(), func(tx pgx.Tx) error {
		charge := books.Charge{Owner: payer, Writer: payer, Bytes: msat, Expires: h.now().Add(time.Hour)}
		b, err := h.books.Lock(h.t.Context(), tx, []books.Charge{charge})
		if err != nil {
			return err
		}
		if err := b.Charge(charge); err != nil {
			return err
		}
		return b.Save(h.t.Context(), tx)
	})
}

func identity(t testing.TB) *protocol.PrivateKey {
	t.Helper()
	k, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fundWallet gives the relay's wallet a coin and waits until it may be offered.
func (h *house) fundWallet(amount btcutil.Amount) {
	h.t.Helper()
	to, err := h.wallet.NewAddress(h.t.Context(), wallet.P2TR)
	if err != nil {
		h.t.Fatal(err)
	}
	at := h.node.Fund(to, amount)
	h.eventually("the wallet's coin", func() bool {
		return h.count(`SELECT count(*) FROM contract_coins WHERE outpoint = $1`, outpointKey(at)) == 1
	})
}

// coinsAre waits until so many coins of the relay's are offered: the wallet sees a block later than the contracts do.
func (h *house) coinsAre(n int) {
	h.t.Helper()
	h.eventually("the coins", func() bool { return h.count(`SELECT count(*) FROM contract_coins WHERE contract IS NULL`) == n })
}
