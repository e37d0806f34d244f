package relayside

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Node is the Bitcoin node, as the handlers and the settlement use it.
type Node interface {
	Stale(ctx context.Context) error
	Output(ctx context.Context, coin wire.OutPoint) (chain.Output, error)
	Broadcast(ctx context.Context, tx *wire.MsgTx) error
	Feerate(ctx context.Context, blocks int) (escrow.Feerate, error)
}

// Follower is the Bitcoin node, as the follower of the chain uses it.
type Follower interface {
	Tip(ctx context.Context) (chain.Tip, error)
	Next(ctx context.Context, recent []chain.BlockID) (chain.Event, error)
	BlockAt(ctx context.Context, height uint32) (chain.BlockID, error)
}

// Chain is both.
type Chain interface {
	Node
	Follower
}

// Books are the accounts that contracts are. The methods run in the contract's own transaction.
type Books interface {
	Accounts
	Journal
	// Refuse takes lines off a bill that its payer does not pay for.
	Refuse(ctx context.Context, tx pgx.Tx, r books.Refusal) (books.Refused, error)
	// Paid notes that a payment covers usage up to an amount: the evidence for it need not be kept for good.
	Paid(ctx context.Context, tx pgx.Tx, id protocol.ContractID, usage protocol.Msat) error
	// Billed is what the bill of a contract comes to by now, whichever contract has the account; false: it cannot be told yet.
	Billed(ctx context.Context, q books.Querier, id protocol.ContractID) (protocol.Msat, bool, error)
	// Returned notes what came back under a contract whose account another one has.
	Returned(ctx context.Context, tx pgx.Tx, id protocol.ContractID, amount protocol.Msat) error
	// Costs is what has been used under each contract that is the account of its payer.
	Costs(ctx context.Context, q books.Querier) (map[protocol.ContractID]protocol.Msat, error)
}

// Accounts are the accounts that contracts are.
type Accounts interface {
	OpenContract(ctx context.Context, tx pgx.Tx, o books.Opening) error
	SetCredit(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID, credit protocol.Msat) error
	StopTaking(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID) error
	CloseContract(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID) error
	Owed(ctx context.Context, q books.Querier, payer protocol.PublicKey, id protocol.ContractID) (books.ContractUse, error)
}

// Journal is the double entry of what contracts owe.
type Journal interface {
	Received(ctx context.Context, tx pgx.Tx, id protocol.ContractID, paid protocol.Msat) error
	HandOver(ctx context.Context, tx pgx.Tx, h books.HandOver) error
	Carry(ctx context.Context, tx pgx.Tx, from, to protocol.ContractID, amount protocol.Msat) error
	Close(ctx context.Context, tx pgx.Tx, id protocol.ContractID, used protocol.Msat) error
	Lose(ctx context.Context, tx pgx.Tx, id protocol.ContractID) error
}

var (
	_ Chain = (*chain.Client)(nil)
	_ Books = (*books.Store)(nil)
)

// Wallet is where the relay's bonds come from and its money goes to. Only the process that holds the lease uses it.
type Wallet interface {
	// NewScript is a fresh output script of the wallet.
	NewScript(ctx context.Context, kind wallet.Kind) (protocol.Script, error)
	// Coins are the coins that can be spent now, leased ones included.
	Coins(ctx context.Context) ([]escrow.Coin, error)
	// Keep leases these very coins under a key, or prolongs that lease.
	Keep(ctx context.Context, key string, coins []wire.OutPoint, duration time.Duration) error
	// Release ends the lease of a key, if it has one.
	Release(ctx context.Context, key string) error
	// SignFunding finalizes the inputs that spend the coins leased under the key, and leaves all others as they are.
	SignFunding(ctx context.Context, key string, packet *psbt.Packet) error
}

var _ Wallet = (*wallet.Wallet)(nil)

// Config is what a [Manager] needs.
type Config struct {
	DB      *db.DB
	Books   Books
	Chain   Chain
	Relay   protocol.PublicKey
	Network protocol.Network
	// Key derives the relay's key of a contract (S). It may answer from several goroutines at once.
	Key    func(protocol.ContractID) (*btcec.PrivateKey, error)
	Wallet Wallet // nil: this process answers requests only
	// Denies tells whether the operator makes no contract with a payer; nil: with anybody. What is open goes on.
	Denies func(ctx context.Context, payer protocol.PublicKey) (bool, error)
	Clock  func() time.Time
	Logger *slog.Logger
	Limits Limits
	// Registerer takes the metrics; nil: they are shown nowhere.
	Registerer prometheus.Registerer
	// Checkpoint is called after each durable step of the work with its name; an error ends the work there, as a crash
	// would. nil: never.
	Checkpoint func(step string) error
}

// Limits bound what strangers can make a manager hold, and pace its work. The zero value of a field is its default.
type Limits struct {
	Openings        int           // half-opened contracts in all: 20,000
	OpeningsByPayer int           // 3
	OpeningsByInput int           // by the first coin offered: 3
	Reservation     time.Duration // how long an offer stands: 90 s
	Shortest        uint32        // blocks a new contract lives at least: [escrow.MinLifetime], which is the least
	Longest         uint32        // and at most: [escrow.MaxLifetime], which is the most
	RequestPatience uint32        // blocks a payment request waits for the user before the relay settles: 144
	Poll            time.Duration // how often the work looks around when nothing calls it: 1 s
	Lease           time.Duration // how long a silent worker keeps the work from others: 15 s
	Resend          time.Duration // how often a transaction that is in no block is sent again: 60 s
	Patience        time.Duration // how long opening waits for the work to see a few new blocks: 3 s
	BidBlocks       int           // target of the first bid of a settlement: 6 blocks
	Wallet          time.Duration // how often the wallet's coins are read when there is no new block: 10 s
	Measure         time.Duration // how often the figures of the metrics are measured: 15 s
	// WriteOff is how much of a contract's opening price may be written off on its payer's word, in percent: 100; below 0:
	// nothing. What is refused beyond that closes the contract.
	WriteOff btcutil.Amount
}

func (l Limits) withDefaults() Limits {
	fill(&l.Openings, 20_000)
	fill(&l.OpeningsByPayer, 3)
	fill(&l.OpeningsByInput, 3)
	fill(&l.Reservation, 90*time.Second)
	fill(&l.Shortest, escrow.MinLifetime)
	fill(&l.Longest, escrow.MaxLifetime)
	fill(&l.RequestPatience, 144)
	fill(&l.Poll, time.Second)
	fill(&l.Lease, 15*time.Second)
	fill(&l.Resend, time.Minute)
	fill(&l.Patience, 3*time.Second)
	fill(&l.BidBlocks, 6)
	fill(&l.Wallet, 10*time.Second)
	fill(&l.Measure, 15*time.Second)
	fill(&l.WriteOff, 100)
	return l
}

func fill[T comparable](field *T, otherwise T) {
	var zero T
	if *field == zero {
		*field = otherwise
	}
}

// Manager is the contracts of one relay. It is safe for concurrent use.
type Manager struct {
	cfg    Config
	limits Limits
	db     *db.DB
	books  Books
	chain  Chain
	clock  func() time.Time
	log    *slog.Logger

	holder [16]byte       // this process's name on the lease
	wake   chan struct{}  // one is enough: the work looks at everything
	seldom rate.Sometimes // for the log: a chain that is not seen refuses every opening alike

	metrics    *metrics
	working    atomic.Bool               // whether the lease was this process's in the last round
	measured   atomic.Pointer[figures]   // nil: another process works
	walletRead atomic.Pointer[time.Time] // when the wallet answered last; nil: never
}

// New makes a manager on a migrated database. It starts nothing: [Manager.Run] does. The handlers work without.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Network.Validate(); err != nil {
		return nil, fmt.Errorf("contracts: %w", err)
	}
	m := &Manager{cfg: cfg, limits: cfg.Limits.withDefaults(), db: cfg.DB, books: cfg.Books, chain: cfg.Chain,
		clock: cfg.Clock, log: cfg.Logger, wake: make(chan struct{}, 1)}
	m.seldom.Interval = time.Second
	if l := m.limits; l.Shortest < escrow.MinLifetime || l.Longest > escrow.MaxLifetime || l.Shortest > l.Longest {
		return nil, fmt.Errorf("contracts: they cannot live %d to %d blocks: take bounds from %d to %d", l.Shortest, l.Longest, escrow.MinLifetime, escrow.MaxLifetime)
	}
	var err error
	if m.metrics, err = newMetrics(cfg.Registerer, m); err != nil {
		return nil, fmt.Errorf("contracts: %w", err)
	}
	if err := m.drawName(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manager) now() protocol.Timestamp { return protocol.TimestampOf(m.clock()) }

// nudge has the work of this process look around now. Another process's looks by itself soon.
func (m *Manager) nudge() {
	select {
	case m.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// reached tells the harness that a step is durable.
func (m *Manager) reached(step string) error {
	if m.cfg.Checkpoint == nil {
		return nil
	}
	if err := m.cfg.Checkpoint(step); err != nil {
		return fmt.Errorf("%w %q: %w", errCrash, step, err)
	}
	return nil
}

// wrap names what was tried; failures that a client can wait out keep their code.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, db.Refusal(err))...)
}
