package wallet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcwallet/waddrmgr"
	btcwallet "github.com/btcsuite/btcwallet/wallet"
	"github.com/btcsuite/btcwallet/walletdb"
	_ "github.com/btcsuite/btcwallet/walletdb/bdb" // the storage that walletdb.Open knows as "bdb"
	"github.com/btcsuite/btcwallet/wtxmgr"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

const (
	// DefaultPoll is how often the chain is looked at, unless [Config] says otherwise.
	DefaultPoll = 2 * time.Second
	// DefaultLookahead is how many unused addresses ahead of the last used one are looked for, unless [Config] says
	// otherwise: a relay gives one to each contract that is asked for, and most come to nothing.
	DefaultLookahead = 100
	// regtestLookahead is enough on a private chain, where nobody hands out addresses that are never paid.
	regtestLookahead = 10
	// openPatience is how long another process may hold the file until Open gives up.
	openPatience = time.Second
	// syncRetry is how long btcwallet waits before it tries again to synchronize with a node that was down.
	syncRetry = time.Second

	fileName   = "wallet.db"
	driver     = "bdb"
	noFreelist = true
)

// The top-level buckets of the file: btcwallet's two, under the names that it has for them, and ours.
var (
	bucketAddresses    = []byte("waddrmgr")
	bucketTransactions = []byte("wtxmgr")
	bucketLeases       = []byte("relaymarket-leases")
	bucketSends        = []byte("relaymarket-sends")
)

// Config says what to open.
type Config struct {
	Dir     string // made if it is not there, 0700
	Network protocol.Network
	// Branch is the Bitcoin branch of the owner's seed, m/29293'/2'. The caller may call its Zero after Open.
	Branch *hdkeychain.ExtendedKey
	// Passphrase encrypts the file. The caller may overwrite it after Open.
	Passphrase []byte
	// Birthday is when the seed was made: a new wallet looks for its coins from two days before it on. Zero: from the
	// first block on.
	Birthday time.Time

	Clock func() time.Time // nil: time.Now
	Log   *slog.Logger
	// Poll is how often the chain is looked at; 0: DefaultPoll.
	Poll time.Duration
	// Lookahead is how many unused addresses ahead of the last used one are looked for in blocks that are new since the wallet
	// was last open; 0: DefaultLookahead, half a second of work, or a tenth of it on regtest. Fewer find fewer coins after a
	// restore.
	Lookahead uint32
	// ScryptN is scrypt's cost for a new file; 0: btcwallet's 2^18, half a second to a second for each of two derivations at
	// every Open. A passphrase of 256 random bits needs none: [FastScryptN].
	ScryptN int
}

// FastScryptN derives in no time. It adds nothing to a passphrase: it is for those that nobody can guess, and for tests.
const FastScryptN = 16

// Wallet is an open wallet. It is safe for concurrent use.
type Wallet struct {
	cfg    Config
	params *chaincfg.Params
	branch *hdkeychain.ExtendedKey
	node   *chain.Client
	loader *btcwallet.Loader
	btc    *btcwallet.Wallet
	db     walletdb.DB
	chain  *backend

	// mu makes selecting and leasing, and making addresses, one step each.
	mu sync.Mutex
}

// Open opens the wallet in the folder, or makes it. It does not need the node; [Wallet.Run] does, and until Run has caught
// up, the wallet knows what it knew before. The caller closes it. Errors: ErrPassphrase, ErrOtherSeed, ErrInUse.
func Open(cfg Config, node *chain.Client) (*Wallet, error) {
	params, err := escrow.Params(cfg.Network)
	if err != nil {
		return nil, err
	}
	if node.Network() != cfg.Network {
		return nil, fmt.Errorf("the wallet is for %s and its node for %s: set the same network for both", cfg.Network, node.Network())
	}
	if len(cfg.Passphrase) == 0 {
		return nil, fmt.Errorf("%w: a wallet needs one", ErrPassphrase)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Birthday.IsZero() {
		cfg.Birthday = params.GenesisBlock.Header.Timestamp
	}
	if cfg.Lookahead == 0 {
		cfg.Lookahead = DefaultLookahead
		if cfg.Network == protocol.Regtest {
			cfg.Lookahead = regtestLookahead
		}
	}
	logTo(cfg.Log)
	root, err := escrow.DeriveWallet(cfg.Branch, cfg.Network)
	if err != nil {
		return nil, fmt.Errorf("derive the wallet's root: %w", err)
	}
	defer root.Zero()
	root.SetNet(params)
	if err := create(cfg, params, root); err != nil {
		return nil, err
	}
	branch, err := hdkeychain.NewKeyFromString(cfg.Branch.String())
	if err != nil {
		return nil, err
	}
	w := &Wallet{cfg: cfg, params: params, branch: branch, node: node}
	if err := w.open(root); err != nil {
		return nil, err
	}
	w.cfg.Passphrase, w.cfg.Branch = nil, nil
	return w, nil
}

// create makes the file, under another name until it is complete.
func create(cfg Config, params *chaincfg.Params, root *hdkeychain.ExtendedKey) error {
	path := filepath.Join(cfg.Dir, fileName)
	if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := walletdb.Create(driver, next, noFreelist, openPatience, false)
	if err != nil {
		return fmt.Errorf("make the wallet: %w", err)
	}
	scrypt := waddrmgr.DefaultScryptOptions
	if cfg.ScryptN != 0 {
		scrypt.N = cfg.ScryptN
	}
	err = walletdb.Update(db, func(tx walletdb.ReadWriteTx) error {
		addresses, err := tx.CreateTopLevelBucket(bucketAddresses)
		if err != nil {
			return err
		}
		transactions, err := tx.CreateTopLevelBucket(bucketTransactions)
		if err != nil {
			return err
		}
		if err := waddrmgr.Create(addresses, root, cfg.Passphrase, cfg.Passphrase, params, &scrypt, cfg.Birthday); err != nil {
			return err
		}
		return wtxmgr.Create(transactions)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("make the wallet: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncFolder(cfg.Dir)
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (w *Wallet) open(root *hdkeychain.ExtendedKey) error {
	w.loader = btcwallet.NewLoader(w.params, w.cfg.Dir, noFreelist, openPatience, w.cfg.Lookahead, btcwallet.WithWalletSyncRetryInterval(syncRetry))
	var err error
	w.btc, err = w.loader.OpenExistingWallet(w.cfg.Passphrase, false)
	if err != nil {
		return openFault(w.cfg.Dir, err)
	}
	w.db = w.btc.Database()
	w.chain = newBackend(w.node, w.params, w.cfg.Log, w.cfg.Poll)
	if err := w.unlock(root); err != nil {
		return errors.Join(err, w.loader.UnloadWallet())
	}
	w.btc.SynchronizeRPC(w.chain)
	return nil
}

// unlock makes the wallet ready to sign, and sees to it that it is the owner's.
func (w *Wallet) unlock(root *hdkeychain.ExtendedKey) error {
	if err := w.btc.Unlock(w.cfg.Passphrase, nil); err != nil {
		return openFault(w.cfg.Dir, err)
	}
	err := walletdb.Update(w.db, func(tx walletdb.ReadWriteTx) error {
		for _, name := range [][]byte{bucketLeases, bucketSends} {
			if _, err := tx.CreateTopLevelBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	want, err := accountKey(root)
	if err != nil {
		return err
	}
	account, err := w.btc.AccountProperties(waddrmgr.KeyScopeBIP0084, waddrmgr.DefaultAccountNum)
	if err != nil {
		return err
	}
	have, err := account.AccountPubKey.ECPubKey()
	if err != nil {
		return err
	}
	if !bytes.Equal(have.SerializeCompressed(), want.SerializeCompressed()) {
		return fmt.Errorf("%w: %s; use the folder of this seed, or move that one away", ErrOtherSeed, w.cfg.Dir)
	}
	return nil
}

// accountKey is the public key of BIP84's account 0, derived as btcwallet does, which differs from BIP32 for a key in 256.
func accountKey(root *hdkeychain.ExtendedKey) (*btcec.PublicKey, error) {
	const hardened = hdkeychain.HardenedKeyStart
	scope := waddrmgr.KeyScopeBIP0084
	key := root
	for _, step := range []uint32{hardened + scope.Purpose, hardened + scope.Coin, hardened} {
		//lint:ignore SA1019 the wallet has no other way
		next, err := key.DeriveNonStandard(step)
		if key != root {
			key.Zero()
		}
		if err != nil {
			return nil, err
		}
		key = next
	}
	defer key.Zero()
	return key.ECPubKey()
}

func openFault(dir string, err error) error {
	switch {
	case waddrmgr.IsError(err, waddrmgr.ErrWrongPassphrase):
		return fmt.Errorf("%w: %s", ErrPassphrase, dir)
	case errors.Is(err, walletdb.ErrDbNotOpen) || err.Error() == "timeout":
		return fmt.Errorf("%w: end the other process that has %s open", ErrInUse, dir)
	}
	return fmt.Errorf("open the wallet in %s: %w", dir, err)
}

// Run follows the chain until ctx ends or the wallet is closed, and returns nil then. It is called once. While the node
// is down, it tries again.
func (w *Wallet) Run(ctx context.Context) error { return w.chain.run(ctx, w.resend) }

// Close ends Run and closes the file. Nothing else may be called after it.
func (w *Wallet) Close() error {
	w.chain.Stop()
	err := w.loader.UnloadWallet()
	w.branch.Zero()
	return err
}

// ContractKey is the owner's key of a contract, which restores from the words and the contract's id alone. The caller
// calls its Zero.
func (w *Wallet) ContractKey(id escrow.ID) (*btcec.PrivateKey, error) {
	return escrow.DeriveKey(w.branch, w.cfg.Network, id)
}
