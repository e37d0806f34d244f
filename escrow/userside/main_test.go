package userside_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/leakcheck"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// branchOf is the Bitcoin branch of a made-up owner.
func branchOf(owner byte) *hdkeychain.ExtendedKey {
	key, err := hdkeychain.NewMaster(bytes.Repeat([]byte{owner}, 32), &chaincfg.MainNetParams)
	if err != nil {
		panic(err)
	}
	return key
}

// user is a person with a wallet, a node and a relay. His clock is the test's.
type user struct {
	*userside.Manager
	t      *testing.T
	node   *regtest.Test
	client *chain.Client
	wallet *wallet.Wallet
	store  *userside.Store
	relay  *scripted
	dir    string
	key    protocol.PublicKey
	owner  byte
	now    time.Time
	keeper userside.Keeper
}

const deposit = btcutil.Amount(100_000)

// patience is for what comes about by itself. It bounds only a test that fails.
const patience = 5 * time.Minute

// somebody is a user with half a bitcoin in two coins.
func somebody(t *testing.T) *user {
	t.Helper()
	node := regtest.Start(t, regtest.Plain)
	identity, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, node: node, dir: t.TempDir(), key: identity.Public(), owner: 1, now: time.Now()}
	u.relay = newScripted(t, node, u.key)
	u.client, err = chain.New(chain.Config{Network: protocol.Regtest, Host: node.Host(), User: regtest.User, Password: regtest.Password,
		Plain: true, Timeout: patience}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	u.openWallet()
	for range 2 {
		a, err := u.wallet.NewAddress(t.Context(), wallet.P2WPKH)
		if err != nil {
			t.Fatal(err)
		}
		node.Fund(a, btcutil.SatoshiPerBitcoin/4)
	}
	u.sync()
	u.openStore()
	return u
}

func (u *user) openWallet() {
	u.t.Helper()
	var err error
	// Who waits for it has it look at once: that it looks by itself costs a slow machine more than it brings.
	u.wallet, err = wallet.Open(wallet.Config{Dir: filepath.Join(u.dir, "wallet"), Network: protocol.Regtest, Branch: branchOf(u.owner),
		Passphrase: []byte("right"), Poll: 200 * time.Millisecond, ScryptN: wallet.FastScryptN, Log: slog.New(slog.DiscardHandler)}, u.client)
	if err != nil {
		u.t.Fatal(err)
	}
	w, done := u.wallet, make(chan error, 1)
	go func() { done <- w.Run(context.Background()) }()
	u.t.Cleanup(func() {
		if err := errors.Join(w.Close(), <-done); err != nil {
			u.t.Error(err)
		}
	})
}

// openStore opens the contracts, as a program does that was just started.
func (u *user) openStore() {
	u.t.Helper()
	var err error
	if u.store, err = userside.OpenStore(u.t.Context(), filepath.Join(u.dir, "contracts.db"), &u.key, u.clock); err != nil {
		u.t.Fatal(err)
	}
	store := u.store
	u.t.Cleanup(func() { _ = store.Close() })
	u.Manager, err = userside.New(userside.Config{Network: protocol.Regtest, Store: u.store, Node: u.client, Keys: userside.BranchKeys{Branch: branchOf(u.owner)},
		Relays:     func(protocol.PublicKey, string) (userside.Relay, error) { return u.relay, nil },
		BackupFile: filepath.Join(u.dir, "contracts.backup"), Keeper: u.keeper, Clock: u.clock, Entropy: rand.Reader, Poll: 20 * time.Millisecond,
		Patience: 20 * time.Millisecond})
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) clock() time.Time { return u.now }

func (u *user) sync() {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	if err := u.wallet.AwaitSync(ctx); err != nil {
		u.t.Fatal(err)
	}
}

// draft prepares a contract of the usual deposit.
func (u *user) draft(change func(*userside.Wish)) *userside.Draft {
	u.t.Helper()
	w := userside.Wish{Announcement: u.relay.announcement(nil), Address: "http://127.0.0.1:1", Deposit: deposit, Feerate: 2000, Lifetime: escrow.MinLifetime}
	if change != nil {
		change(&w)
	}
	d, err := u.Draft(u.t.Context(), w, u.wallet)
	if err != nil {
		u.t.Fatal(err)
	}
	return d
}

// starts writes a draft down.
func (u *user) starts() protocol.ContractID {
	u.t.Helper()
	r, err := u.Open(u.t.Context(), u.draft(nil))
	if err != nil {
		u.t.Fatal(err)
	}
	return r.ID
}

// advances takes steps until there are none, or one fails.
func (u *user) advances(id protocol.ContractID) (*userside.Record, error) {
	u.t.Helper()
	for range 10 {
		r, err := u.Advance(u.t.Context(), id, u.wallet)
		if err != nil || !r.Opening() {
			return r, err
		}
	}
	u.t.Fatal("the exchange does not end")
	return nil, nil
}

// opens has a contract of the usual deposit, funded and in a block.
func (u *user) opens() protocol.ContractID {
	u.t.Helper()
	id := u.starts()
	if _, err := u.advances(id); err != nil {
		u.t.Fatal(err)
	}
	u.node.Mine(1)
	u.steps()
	u.is(id, escrow.Active)
	return id
}

func (u *user) steps() {
	u.t.Helper()
	if err := u.Step(u.t.Context()); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) record(id protocol.ContractID) *userside.Record {
	u.t.Helper()
	r, err := u.store.Contract(u.t.Context(), id)
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

func (u *user) is(id protocol.ContractID, want protocol.ContractState) *userside.Record {
	u.t.Helper()
	r := u.record(id)
	if r.State != want {
		u.t.Fatalf("the contract is %s, want %s\n%s", r.State, want, u.journal(id))
	}
	return r
}

func (u *user) journal(id protocol.ContractID) string {
	u.t.Helper()
	notes, err := u.store.Journal(u.t.Context(), id)
	if err != nil {
		u.t.Fatal(err)
	}
	var text strings.Builder
	for _, n := range notes {
		text.WriteString(n.Text + "\n")
	}
	return text.String()
}

// mineTo mines until the chain has a height.
func (u *user) mineTo(height uint32) {
	u.t.Helper()
	u.node.Mine(int(height) - u.node.Height())
}

// balance is what is confirmed in the wallet.
func (u *user) balance() btcutil.Amount {
	u.t.Helper()
	u.sync()
	b, err := u.wallet.Balance(u.t.Context())
	if err != nil {
		u.t.Fatal(err)
	}
	return b.Confirmed
}

// free checks that no coin of the wallet is leased.
func (u *user) free() {
	u.t.Helper()
	u.sync()
	b, err := u.wallet.Balance(u.t.Context())
	if err != nil {
		u.t.Fatal(err)
	}
	if b.Leased != 0 {
		u.t.Errorf("%v is still leased", b.Leased)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
}

// askAgain is longer than a relay is left alone.
const askAgain = 11 * time.Minute

func (u *user) contractKeyOf(id protocol.ContractID) protocol.ContractKey {
	key, err := escrow.DeriveKey(branchOf(u.owner), protocol.Regtest, id)
	if err != nil {
		u.t.Fatal(err)
	}
	return escrow.KeyOf(key)
}

func escrowInput(prev *wire.TxOut) psbt.PInput { return psbt.PInput{WitnessUtxo: prev} }

// addCoin adds an input of the relay's, and its change, to the funding.
func (u *user) addCoin(t *testing.T, a *protocol.ContractServerInputs, hash chainhash.Hash) {
	repack(t, func(tx *wire.MsgTx, in []*wire.TxOut) []*wire.TxOut {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: hash}, Sequence: wire.MaxTxInSequenceNum - 2})
		script := a.RelayScript
		f := escrow.Funding{Feerate: 2000}
		tx.AddTxOut(wire.NewTxOut(50_000-int64(f.InputCost(script))-int64(escrow.Feerate(2000).Fee(4*31))+1, script))
		return append(in, wire.NewTxOut(50_000, script))
	})(a)
}

// otherTx is a transaction that has nothing to do with anything.
func otherTx() protocol.RawTx {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{})
	tx.AddTxOut(wire.NewTxOut(1, make([]byte, 22)))
	var b bytes.Buffer
	_ = tx.Serialize(&b)
	return b.Bytes()
}

// memory keeps documents as another relay would.
type memory struct {
	documents [][]byte
	until     time.Time // of the last
}

// KeepContract implements [userside.Keeper].
func (m *memory) KeepContract(_ context.Context, document []byte, until time.Time, _ protocol.PublicKey) error {
	m.documents, m.until = append(m.documents, document), until
	return nil
}

// wipes loses the disk: only words, wallet and the relay's memory are left.
func (u *user) wipes() {
	u.t.Helper()
	if err := u.store.Close(); err != nil {
		u.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(u.dir, "contracts.db"), filepath.Join(u.dir, "lost.db")); err != nil {
		u.t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(filepath.Join(u.dir, "contracts.db"+suffix))
	}
	if err := os.Remove(filepath.Join(u.dir, "contracts.backup")); err != nil {
		u.t.Fatal(err)
	}
	u.openStore()
}

// gets checks that all but what was paid and the fees came back.
func (u *user) gets(before, paid btcutil.Amount, r *userside.Record) {
	u.t.Helper()
	// The share of the funding's fee is not in the backup.
	const fundingFee = 2 * 1000
	spent := before - u.balance() - paid - fees(r)
	if spent < 0 || spent > fundingFee {
		u.t.Errorf("%d sat are missing beside the fees that are known", spent)
	}
}

// cancelOf is a transaction that spends the wallet's coins of a funding elsewhere.
func (u *user) cancelOf(id protocol.ContractID) *wire.MsgTx {
	u.t.Helper()
	packet, err := escrow.DecodePSBT(u.record(id).PSBT)
	if err != nil {
		u.t.Fatal(err)
	}
	tx, in := wire.NewMsgTx(2), int64(0)
	var prev []*wire.TxOut
	for i, input := range packet.UnsignedTx.TxIn {
		if txscript.IsPayToWitnessScriptHash(packet.Inputs[i].WitnessUtxo.PkScript) {
			continue // the escrow that is renewed
		}
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: input.PreviousOutPoint, Sequence: wire.MaxTxInSequenceNum - 2})
		prev = append(prev, packet.Inputs[i].WitnessUtxo)
		in += packet.Inputs[i].WitnessUtxo.Value
	}
	script, err := u.wallet.NewScript(u.t.Context(), wallet.P2WPKH)
	if err != nil {
		u.t.Fatal(err)
	}
	tx.AddTxOut(wire.NewTxOut(in-5000, script))
	cancel, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		u.t.Fatal(err)
	}
	for i := range prev {
		cancel.Inputs[i].WitnessUtxo = prev[i]
	}
	if err := u.wallet.SignFunding(u.t.Context(), "contract/"+id.String(), cancel); err != nil {
		u.t.Fatal(err)
	}
	signed, err := psbt.Extract(cancel)
	if err != nil {
		u.t.Fatal(err)
	}
	return signed
}
