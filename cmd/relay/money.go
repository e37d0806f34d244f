package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"

	"relaymarket/client"
	"relaymarket/client/keyfile"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// Files in the folder.
const (
	contractsFile = "contracts.db"
	backupFile    = "contracts.backup"
	walletFolder  = "wallet"
)

// money is what commands about money work with: keys, contracts, and the Bitcoin node.
type money struct {
	p        *program
	dir      string
	settings *nodeSettings
	client   *client.Client
	store    *userside.Store
	node     *chain.Client
	branch   *hdkeychain.ExtendedKey
	manager  *userside.Manager

	wallet *wallet.Wallet // nil until openWallet
	ended  chan error     // the wallet's Run

	lent bool // by a daemon, which closes the rest
}

// contractStore opens the contracts alone; with an owner they are made if there are none.
func (p *program) contractStore(ctx context.Context, owner *protocol.PublicKey) (*userside.Store, error) {
	dir, err := p.folder()
	if err != nil {
		return nil, err
	}
	return userside.OpenStore(ctx, filepath.Join(dir, contractsFile), owner, nil)
}

// openMoney opens everything but the wallet. keep says whether backups go to other relays, too.
func (p *program) openMoney(ctx context.Context, keep bool) (*money, error) {
	dir, err := p.folder()
	if err != nil {
		return nil, err
	}
	seed, err := p.seed(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer seed.Wipe()
	c, err := p.openWith(ctx, dir, seed)
	if err != nil {
		return nil, err
	}
	m, err := p.moneyOf(ctx, dir, seed, c, keep)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return m, nil
}

func (p *program) moneyOf(ctx context.Context, dir string, seed *keyfile.Seed, c *client.Client, keep bool) (*money, error) {
	key := c.Key()
	store, err := p.contractStore(ctx, &key)
	if err != nil {
		return nil, err
	}
	m := &money{p: p, dir: dir, client: c, store: store}
	if err := m.assemble(ctx, seed, keep); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return m, nil
}

func (m *money) assemble(ctx context.Context, seed *keyfile.Seed, keep bool) (err error) {
	if m.settings, err = readNode(ctx, m.store); err != nil {
		return err
	}
	if m.node, err = m.settings.client(); err != nil {
		return err
	}
	if m.branch, err = seed.Bitcoin(); err != nil {
		return err
	}
	cfg := userside.Config{
		Network: m.settings.Network, Store: m.store, Node: m.node, Keys: userside.BranchKeys{Branch: m.branch},
		Relays: func(key protocol.PublicKey, address string) (userside.Relay, error) {
			return m.client.ContractRelay(key, address)
		},
		BackupFile: filepath.Join(m.dir, backupFile), Entropy: rand.Reader, Logger: m.p.logger(), Unasked: m.unasked,
	}
	if m.settings.Network == protocol.Regtest {
		cfg.Poll = 500 * time.Millisecond // blocks come when somebody wants them
	}
	if keep {
		cfg.Keeper = m.client
	}
	m.manager, err = userside.New(cfg)
	return err
}

// close ends the use of everything.
func (m *money) close() error {
	var err error
	if m.wallet != nil {
		err = errors.Join(m.wallet.Close(), <-m.ended)
	}
	if m.lent {
		return err
	}
	m.branch.Zero()
	return errors.Join(err, m.store.Close(), m.client.Close())
}

const (
	// tagWallet makes the passphrase of the wallet's file a value of its own.
	tagWallet = "relaymarket/v1/wallet-file"
	// walletScrypt is the cost of the wallet file's key. Its passphrase has 256 bits already: stretching it adds nothing.
	walletScrypt = 1 << 10
)

// openWallet opens the wallet and waits until it has seen the newest block.
func (m *money) openWallet(ctx context.Context) error {
	if m.wallet != nil {
		return nil
	}
	// The file opens with the seed and with nothing else.
	passphrase := protocol.TaggedHash(tagWallet, []byte(m.branch.String()))
	w, err := wallet.Open(wallet.Config{
		Dir: filepath.Join(m.dir, walletFolder, string(m.settings.Network)), Network: m.settings.Network, Branch: m.branch,
		Passphrase: hex.AppendEncode(nil, passphrase[:]), Birthday: m.settings.Since.Time(), ScryptN: walletScrypt,
		Log: m.p.logger(), Poll: 200 * time.Millisecond,
	}, m.node)
	if err != nil {
		return err
	}
	m.wallet, m.ended = w, make(chan error, 1)
	// Run ends with Close: the wallet must not stop in the middle of a block when the user ends the command.
	go func() { m.ended <- w.Run(context.WithoutCancel(ctx)) }()
	done := m.p.busy("looking at the newest blocks")
	defer done()
	if err := w.AwaitSync(ctx); err != nil {
		return fmt.Errorf("the wallet looks at the chain: %w", err)
	}
	// A program that died while its user was thinking left coins reserved.
	_, err = m.manager.Reclaim(ctx, w)
	return err
}

// withMoney runs a command that needs no wallet, and tells what was done on the way.
func (p *program) withMoney(ctx context.Context, do func(*money) error) (err error) {
	m, err := p.openMoney(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	return do(m)
}

// withWallet runs a command that needs the wallet.
func (p *program) withWallet(ctx context.Context, do func(*money) error) error {
	return p.withMoney(ctx, func(m *money) error {
		if err := m.openWallet(ctx); err != nil {
			return err
		}
		return do(m)
	})
}
