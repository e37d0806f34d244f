package relaynode

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"relaymarket/api"
	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/relayside"
	"relaymarket/escrow/wallet"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Bitcoin says how the relay makes contracts. The zero value is a relay that makes none.
type Bitcoin struct {
	Node chain.Config // without a Host: no contracts
	// Branch is the Bitcoin branch of the relay's seed, m/29293'/2', and Birthday when it was drawn.
	Branch   *hdkeychain.ExtendedKey
	Birthday time.Time
	// Wallet is its folder. Empty: another process on the same database keeps the wallet, follows the chain and settles; this one
	// answers requests.
	Wallet string
	Offer  *protocol.ContractOffer // announced; nil: no new contracts
	Limits relayside.Limits
}

// tagWalletFile makes the passphrase of the wallet's file a value of its own.
const tagWalletFile = "relaymarket/v1/wallet-file"

// walletScrypt is the cost of the wallet file's key. Its passphrase has 256 bits already: stretching it adds nothing.
const walletScrypt = 1 << 10

// bitcoin is what is open of it.
type bitcoin struct {
	chain   *chain.Client
	wallet  *wallet.Wallet // nil: kept by another process
	manager *relayside.Manager
}

var _ api.Contracts = (*relayside.Manager)(nil)

// open makes the parts; it does not need the node to be up.
func (b Bitcoin) open(log *slog.Logger, clock func() time.Time) (*bitcoin, error) {
	node, err := chain.New(b.Node, clock)
	if err != nil {
		return nil, fmt.Errorf("bitcoin: %w", err)
	}
	opened := &bitcoin{chain: node}
	if b.Wallet == "" {
		return opened, nil
	}
	secret, err := b.Branch.ECPrivKey()
	if err != nil {
		return nil, fmt.Errorf("wallet: %w", err)
	}
	passphrase := protocol.TaggedHash(tagWalletFile, secret.Serialize())
	opened.wallet, err = wallet.Open(wallet.Config{Dir: b.Wallet, Network: b.Node.Network, Branch: b.Branch, Birthday: b.Birthday,
		Passphrase: []byte(hex.EncodeToString(passphrase[:])), Clock: clock, Log: log, ScryptN: walletScrypt}, node)
	if err != nil {
		return nil, fmt.Errorf("wallet: %w", err)
	}
	return opened, nil
}

func (b *bitcoin) close() error {
	if b == nil || b.wallet == nil {
		return nil
	}
	return b.wallet.Close()
}

// manage makes the manager of the relay's contracts.
func (b *bitcoin) manage(cfg Config, s *store, accounts *books.Store, denies func(context.Context, protocol.PublicKey) (bool, error), registry prometheus.Registerer) (err error) {
	c := relayside.Config{DB: s.db, Books: accounts, Chain: b.chain, Relay: cfg.Key.Public(), Network: cfg.Bitcoin.Node.Network,
		Key: func(id protocol.ContractID) (*btcec.PrivateKey, error) {
			return escrow.DeriveKey(cfg.Bitcoin.Branch, cfg.Bitcoin.Node.Network, id)
		},
		Denies: denies, Clock: cfg.Clock, Logger: cfg.Logger, Limits: cfg.Bitcoin.Limits, Registerer: registry}
	if b.wallet != nil {
		c.Wallet = b.wallet
	}
	underTest(&c)
	b.manager, err = relayside.New(c)
	return err
}

// run follows the chain and does what contracts need, until ctx is done.
func (b *bitcoin) run(ctx context.Context, group *errgroup.Group) {
	if b == nil {
		return
	}
	if b.wallet != nil {
		group.Go(func() error {
			if err := b.wallet.Run(ctx); err != nil {
				return fmt.Errorf("wallet: %w", err)
			}
			return nil
		})
	}
	group.Go(func() error {
		if err := b.manager.Run(ctx); err != nil {
			return fmt.Errorf("contracts: %w", err)
		}
		return nil
	})
}

// syncPatience bounds how long a command waits for the wallet to see the newest block.
const syncPatience = 2 * time.Minute

// WithWallet runs a command on the wallet of a relay that does not run. The error is [wallet.ErrInUse] when it does:
// then [AskWallet] and [PayFromWallet] ask it.
func WithWallet(ctx context.Context, b Bitcoin, log *slog.Logger, do func(context.Context, *wallet.Wallet) error) (err error) {
	opened, err := b.open(log, time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return opened.wallet.Run(running) })
	group.Go(func() error {
		defer cancel()
		patience, stop := context.WithTimeout(running, syncPatience)
		defer stop()
		if err := opened.wallet.AwaitSync(patience); err != nil {
			return fmt.Errorf("the wallet does not see the newest block; see that the Bitcoin node runs: %w", err)
		}
		return do(running, opened.wallet)
	})
	return group.Wait()
}

// WithContracts runs an administrative command on the relay's contracts, while the relay serves or not. What it asks
// for is done by the relay that keeps the wallet.
func WithContracts(ctx context.Context, d Database, relay *protocol.PrivateKey, b Bitcoin, log *slog.Logger, do func(context.Context, *relayside.Manager) error) error {
	b.Wallet = ""
	return d.withShared(ctx, func(s *store) error {
		opened, err := b.open(log, time.Now)
		if err != nil {
			return err
		}
		accounts := books.New(books.Config{DB: s.db, Clock: time.Now})
		if err := opened.manage(Config{Key: relay, Bitcoin: b, Clock: time.Now, Logger: log}, s, accounts, nil, nil); err != nil {
			return err
		}
		return do(ctx, opened.manager)
	})
}
