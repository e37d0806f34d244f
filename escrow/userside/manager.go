package userside

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// Node is the Bitcoin node that is asked and told.
type Node interface {
	Blocks
	Coins
	Feerate(ctx context.Context, blocks int) (escrow.Feerate, error)
	Broadcast(ctx context.Context, tx *wire.MsgTx) error
	Stale(ctx context.Context) error
}

// Coins are what is looked up.
type Coins interface {
	Output(ctx context.Context, coin wire.OutPoint) (chain.Output, error)
	Transaction(ctx context.Context, id chainhash.Hash) (chain.Transaction, error)
}

// Blocks are what is followed of the best chain.
type Blocks interface {
	Tip(ctx context.Context) (chain.Tip, error)
	BlockAt(ctx context.Context, height uint32) (chain.BlockID, error)
	Next(ctx context.Context, recent []chain.BlockID) (chain.Event, error)
}

var _ Node = (*chain.Client)(nil)

// Wallet has the user's coins. It is asked only when a contract is opened, renewed or cancelled: watching and
// refunding need no wallet.
type Wallet interface {
	Fund(ctx context.Context, r wallet.FundRequest) (wallet.Funds, error)
	Release(ctx context.Context, key string) error
	Leases(ctx context.Context) ([]wallet.Lease, error)
	SignFunding(ctx context.Context, key string, packet *psbt.Packet) error
	NewScript(ctx context.Context, kind wallet.Kind) (protocol.Script, error)
}

var _ Wallet = (*wallet.Wallet)(nil)

// How long the wallet keeps the coins of a contract from other uses: while the user thinks it over, and once the relay
// may have his signatures.
const (
	thinkingTime = 30 * time.Minute
	signedTime   = 90 * 24 * time.Hour
)

const leasePrefix = "contract/"

// lease names a contract's coins to the wallet.
func lease(id protocol.ContractID) string { return leasePrefix + id.String() }

// Keys derives the key of a contract, which signs for nothing else.
type Keys interface {
	ContractKey(network protocol.Network, id protocol.ContractID) (*btcec.PrivateKey, error)
}

// BranchKeys are the keys below the Bitcoin branch of a seed, m/29293'/2'.
type BranchKeys struct{ Branch *hdkeychain.ExtendedKey }

// ContractKey implements [Keys].
func (k BranchKeys) ContractKey(network protocol.Network, id protocol.ContractID) (*btcec.PrivateKey, error) {
	return escrow.DeriveKey(k.Branch, network, id)
}

// ErrNoOther is a [Keeper]'s word that there is nowhere else to keep a document.
var ErrNoOther = errors.New("there is no other relay to keep it on")

// ErrNotKept: the other relays take no sealed backup of a contract, and nothing is signed before one has it.
var ErrNotKept = errors.New("no other relay of yours takes the sealed backup of the contract")

// Keeper keeps a contract's backup document where the loss of this disk does not reach: sealed to the user on a relay
// other than the contract's own. ErrNoOther if there is none.
type Keeper interface {
	KeepContract(ctx context.Context, document []byte, until time.Time, except protocol.PublicKey) error
}

const (
	// DefaultPoll is how often Run looks for a new block.
	DefaultPoll = 15 * time.Second
	// DefaultPatience is how long Advance waits for a relay that has our signatures to sign the funding.
	DefaultPatience = time.Minute
)

// Config is what a Manager works with.
type Config struct {
	Network protocol.Network
	Store   *Store
	Node    Node
	Keys    Keys
	// Relays gives the relay with this key at this address.
	Relays func(key protocol.PublicKey, address string) (Relay, error)
	// BackupFile is written whenever a contract is made; it has to be set.
	BackupFile string
	// Unasked tells up to which A the relay is paid without asking when it says that so much is due, within accepted usage and
	// cushion; an error says why not more. Nil: up to all of that.
	Unasked  func(ctx context.Context, r *Record, due btcutil.Amount) (btcutil.Amount, error)
	Keeper   Keeper           // nil: the backup file is all
	Clock    func() time.Time // nil: time.Now
	Entropy  io.Reader        // of contract ids
	Logger   *slog.Logger     // nil: silent
	Poll     time.Duration    // 0: DefaultPoll
	Patience time.Duration    // 0: DefaultPatience
}

// Manager is the user's side of his contracts. It is safe for concurrent use, also by several processes on one
// file: each step is one transaction, and each message and broadcast may be repeated.
type Manager struct {
	Config

	mu    sync.Mutex
	asked map[protocol.ContractID]time.Time // when a relay was asked last
}

// mayAsk tells whether it is time to ask a relay about a contract again, and notes that it is asked.
func (m *Manager) mayAsk(id protocol.ContractID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.Clock()
	if now.Sub(m.asked[id]) < askEvery {
		return false
	}
	m.asked[id] = now
	return true
}

// New makes a manager. It starts nothing.
func New(c Config) (*Manager, error) {
	if c.Store == nil || c.Node == nil || c.Keys == nil || c.Relays == nil || c.Entropy == nil || c.BackupFile == "" {
		return nil, errors.New("a manager of contracts needs store, node, keys, relays, entropy and the name of a backup file")
	}
	if err := c.Network.Validate(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Poll == 0 {
		c.Poll = DefaultPoll
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	return &Manager{Config: c, asked: map[protocol.ContractID]time.Time{}}, nil
}

// feerate is the given one, or what the node estimates for the next blocks.
func (m *Manager) feerate(ctx context.Context, given escrow.Feerate) (escrow.Feerate, error) {
	if given != 0 {
		return given, given.Validate()
	}
	const soon = 6 // blocks
	return m.Node.Feerate(ctx, soon)
}

// relay is the relay of a contract.
func (m *Manager) relay(r *Record) (Relay, error) { return m.Relays(r.Relay, r.Address) }

// move brings a contract's state forward by the one table. What the table does not take changes nothing.
func move(r *Record, e escrow.Event) error {
	next, err := escrow.Next(r.State, e)
	if err == nil {
		r.State = next
	}
	return err
}
