package wallet_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

// rich is a wallet with coins of 1, 2, 3 … bitcoin, of both kinds by turns.
func rich(t *testing.T, n *regtest.Test, coins int, edit ...func(*wallet.Config)) *person {
	t.Helper()
	p := open(t, n, edit...)
	for i := range coins {
		n.Pay(p.address(wallet.Kind(1+i%2)), btcutil.Amount(i+1)*bitcoin)
	}
	n.Mine(1)
	p.sync()
	return p
}

// leased is for longer than a test takes: most of them are by the machine's clock.
const leased = time.Hour

func request(key string, amount btcutil.Amount) wallet.FundRequest {
	return wallet.FundRequest{Key: key, Amount: amount, Feerate: 2_000, For: leased}
}

func outpoints(f wallet.Funds) []string {
	var list []string
	for _, c := range f.Coins {
		list = append(list, c.OutPoint.String())
	}
	slices.Sort(list)
	return list
}

func TestFundSelectsAndLeases(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	now := time.Now()
	dir := t.TempDir()
	edit := func(c *wallet.Config) { c.Clock, c.Dir = func() time.Time { return now }, dir }
	p := rich(t, n, 4, edit) // 1, 2, 3 and 4
	first := p.fund(request("a", bitcoin+1))
	if len(first.Coins) != 1 || first.Coins[0].Value != 2*bitcoin {
		t.Errorf("not the smallest coin that reaches: %+v", first.Coins)
	}
	for name, again := range map[string]wallet.FundRequest{"the same": request("a", bitcoin+1), "less": request("a", bitcoin/2)} {
		f := p.fund(again)
		if !slices.Equal(outpoints(f), outpoints(first)) || string(f.Change) != string(first.Change) {
			t.Errorf("%s under one key got other coins", name)
		}
	}
	second := p.fund(request("b", bitcoin+1))
	if second.Coins[0].Value != 3*bitcoin || string(second.Change) == string(first.Change) {
		t.Errorf("%+v", second)
	}
	third := p.fund(request("c", 4*bitcoin+bitcoin/2))
	if len(third.Coins) != 2 {
		t.Errorf("4 and 1 are left, and together they reach: %+v", third.Coins)
	}
	if b := p.balance(); b.Leased != 10*bitcoin || b.Confirmed != 10*bitcoin {
		t.Errorf("%+v", b)
	}
	_, err := p.Fund(t.Context(), request("d", 1_000))
	want(t, err, wallet.ErrFunds)
	if err := p.Release(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if f := p.fund(request("d", 1_000)); f.Coins[0].Value != 3*bitcoin {
		t.Errorf("what was released is not free: %+v", f)
	}
	// Leases outlive the process, and end by the clock.
	p.close()
	p = open(t, n, edit)
	p.sync()
	_, err = p.Fund(t.Context(), request("e", 1_000))
	want(t, err, wallet.ErrFunds)
	now = now.Add(leased + time.Second)
	if f := p.fund(request("e", 1_000)); f.Coins[0].Value != bitcoin {
		t.Errorf("%+v", f)
	}
	if f := p.fund(request("a", bitcoin+1)); !slices.Equal(outpoints(f), outpoints(first)) {
		t.Error("the key is shown another coin after its lease has ended")
	}
}

// A crowd that asks and goes does not lock the coins away from each other, only from those who want a coin to themselves.
func TestFundShared(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 2)
	share := func(key string) wallet.FundRequest {
		r := request(key, bitcoin/2)
		r.Shared = true
		return r
	}
	a, b := p.fund(share("a")), p.fund(share("b"))
	if slices.Equal(outpoints(a), outpoints(b)) {
		t.Error("shared while another was free")
	}
	if c := p.fund(share("c")); !slices.Equal(outpoints(c), outpoints(a)) {
		t.Errorf("%v, the one that was leased first is %v", outpoints(c), outpoints(a))
	}
	_, err := p.Fund(t.Context(), request("own", 1_000))
	want(t, err, wallet.ErrFunds)
	// The first whose funding is sent has it.
	packet := draft(t, a, bitcoin/2)
	other := draft(t, a, bitcoin/4)
	if err := p.SignFunding(t.Context(), "a", packet); err != nil {
		t.Fatal(err)
	}
	tx := extract(t, packet)
	if err := p.Publish(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	want(t, p.SignFunding(t.Context(), "c", other), wallet.ErrSpent)
	if f := p.fund(share("c")); slices.Equal(outpoints(f), outpoints(a)) {
		t.Error("a coin that is spent")
	}
	// One that is somebody's alone is not shared.
	if err := errors.Join(p.Release(t.Context(), "b"), p.Release(t.Context(), "c")); err != nil {
		t.Fatal(err)
	}
	p.fund(request("own", 1_000))
	_, err = p.Fund(t.Context(), share("d"))
	want(t, err, wallet.ErrFunds)
}

// Many at once: no coin twice.
func TestFundAtOnce(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 12)
	var wait sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]string)
	refused := 0
	for i := range 20 {
		wait.Go(func() {
			key := fmt.Sprint(i)
			f, err := p.Fund(t.Context(), request(key, 1_000))
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, wallet.ErrFunds) {
				refused++
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			for _, o := range append(outpoints(f), string(f.Change)) {
				if by, taken := seen[o]; taken {
					t.Errorf("%q went to %s and to %s", o, by, key)
				}
				seen[o] = key
			}
		})
	}
	wait.Wait()
	if refused != 8 || len(seen) != 24 {
		t.Errorf("%d of 20 got nothing, %d coins and scripts given", refused, len(seen))
	}
}

func TestFundRefusals(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := open(t, n)
	p.sync()
	n.Pay(p.address(wallet.P2TR), bitcoin)
	_, err := p.Fund(t.Context(), request("unconfirmed", 1_000))
	want(t, err, wallet.ErrFunds)
	n.Mine(1)
	p.sync()
	for _, r := range []wallet.FundRequest{
		{}, request("", 1), request("k", 0), request("k", -1), request("k", btcutil.MaxSatoshi+1),
		{Key: "k", Amount: 1, Feerate: 1_000},
	} {
		_, err := p.Fund(t.Context(), r)
		want(t, err, wallet.ErrRequest)
	}
	_, err = p.Fund(t.Context(), wallet.FundRequest{Key: "k", Amount: 1, Feerate: 999, For: time.Second})
	want(t, err, protocol.CodeFeerate)
	// To the satoshi: 57.75 vB of input and 43 of change, rounded up, at 2 sat, and one for the rounding of shares.
	const costs = 2*58 + 1 + 2*43
	_, err = p.Fund(t.Context(), request("k", bitcoin-costs+1))
	want(t, err, wallet.ErrFunds)
	p.fund(request("k", bitcoin-costs))
}

// draft is a funding that spends the funds and pays amount to nobody's script, the rest to the change.
func draft(t *testing.T, f wallet.Funds, amount btcutil.Amount) *psbt.Packet {
	t.Helper()
	tx := wire.NewMsgTx(2)
	rest := -amount - 5_000
	for _, c := range f.Coins {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: c.OutPoint, Sequence: wire.MaxTxInSequenceNum - 2})
		rest += c.Value
	}
	tx.AddTxOut(wire.NewTxOut(int64(amount), append([]byte{txscript.OP_0, 32}, make([]byte, 32)...)))
	tx.AddTxOut(wire.NewTxOut(int64(rest), f.Change))
	packet, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range f.Coins {
		packet.Inputs[i].WitnessUtxo = c.Output()
	}
	return packet
}

func extract(t *testing.T, packet *psbt.Packet) *wire.MsgTx {
	t.Helper()
	tx, err := psbt.Extract(packet)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// A funding of two owners, both kinds of coins on each side, is taken by the node.
func TestSignFundingOfTwo(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	user := rich(t, n, 2)
	relay := rich(t, n, 2, func(c *wallet.Config) { c.Branch = branchOf(2) })
	user.sync()
	uf, rf := user.fund(request("c", 2*bitcoin+bitcoin/2)), relay.fund(request("c", 2*bitcoin+bitcoin/4))
	if len(uf.Coins) != 2 || len(rf.Coins) != 2 {
		t.Fatalf("%d and %d coins", len(uf.Coins), len(rf.Coins))
	}
	packet := draft(t, wallet.Funds{Coins: slices.Concat(uf.Coins, rf.Coins), Change: uf.Change}, 5*bitcoin)
	if err := user.SignFunding(t.Context(), "c", packet); err != nil {
		t.Fatal(err)
	}
	for i, in := range packet.Inputs {
		if (in.FinalScriptWitness != nil) != (i < 2) {
			t.Errorf("input %d: %x", i, in.FinalScriptWitness)
		}
	}
	if err := relay.SignFunding(t.Context(), "c", packet); err != nil {
		t.Fatal(err)
	}
	tx := extract(t, packet)
	if err := relay.Publish(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := user.Publish(t.Context(), tx); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	if b := relay.balance(); b.Confirmed != 0 || b.Unconfirmed != 0 {
		t.Errorf("%+v", b)
	}
	retry := draft(t, wallet.Funds{Coins: slices.Concat(uf.Coins, rf.Coins), Change: uf.Change}, 5*bitcoin)
	if err := user.SignFunding(t.Context(), "c", retry); err != nil || retry.Inputs[0].FinalScriptWitness == nil {
		t.Errorf("a retry after the funding was published: %v", err)
	}
	change := btcutil.Amount(tx.TxOut[1].Value)
	if b := user.balance(); b.Confirmed != 0 || b.Unconfirmed != change {
		t.Errorf("%+v", b)
	}
	n.Mine(1)
	user.wants(change, 0)
	relay.wants(0, 0)
	if err := user.Publish(t.Context(), tx); err != nil {
		t.Errorf("in a block: %v", err)
	}
	user.wants(change, 0)
}

// A stranger who learns a coin of the relay's puts it among his own inputs. Nothing may be signed for it.
func TestSignFundingSignsNoOtherCoin(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 3)
	mine := p.fund(request("contract", bitcoin/2))
	all, err := p.Coins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stolen := all[slices.IndexFunc(all, func(c escrow.Coin) bool { return c.OutPoint != mine.Coins[0].OutPoint })]
	packet := draft(t, wallet.Funds{Coins: append([]escrow.Coin{stolen}, mine.Coins...), Change: mine.Change}, bitcoin)
	want(t, p.SignFunding(t.Context(), "contract", packet), wallet.ErrNotLeased)
	for i, in := range packet.Inputs {
		if in.FinalScriptWitness != nil {
			t.Errorf("input %d was signed", i)
		}
	}
	want(t, p.SignFunding(t.Context(), "nobody's", draft(t, mine, 1_000)), wallet.ErrNotLeased)
	// A coin said to be another amount: the signature would be worthless, or worse.
	lie := draft(t, mine, 1_000)
	lie.Inputs[0].WitnessUtxo = wire.NewTxOut(lie.Inputs[0].WitnessUtxo.Value+1, lie.Inputs[0].WitnessUtxo.PkScript)
	want(t, p.SignFunding(t.Context(), "contract", lie), wallet.ErrRequest)
	lie = draft(t, mine, 1_000)
	lie.Inputs[0].WitnessUtxo = nil
	want(t, p.SignFunding(t.Context(), "contract", lie), wallet.ErrRequest)
	key, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := txscript.PayToTaprootScript(key.PubKey())
	if err != nil {
		t.Fatal(err)
	}
	none := draft(t, wallet.Funds{Coins: []escrow.Coin{{OutPoint: wire.OutPoint{Index: 7}, Value: bitcoin, PkScript: foreign}}, Change: mine.Change}, 1_000)
	want(t, p.SignFunding(t.Context(), "contract", none), wallet.ErrRequest)
}

// With escrow's own types: coins, change and fee come out even.
func TestFundsMakeAFunding(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t, regtest.Plain)
	p := rich(t, n, 3)
	f := fundingOf(t, p, bitcoin+bitcoin/2)
	missing, err := f.Missing(escrow.User)
	if err != nil {
		t.Fatal(err)
	}
	funds := p.fund(request("f", missing))
	f.User = funds.Part()
	if err := f.SetChange(escrow.User, funds.Change); err != nil {
		t.Fatal(err)
	}
	packet, err := f.Packet()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SignFunding(t.Context(), "f", packet); err != nil {
		t.Fatal(err)
	}
	tx := extract(t, packet)
	if err := p.Publish(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	n.Mine(1)
	p.sync()
	if f.User.Change == nil {
		t.Fatal("no change")
	}
	p.wants(6*bitcoin-funds.Coins[0].Value+btcutil.Amount(f.User.Change.Value), 0)
}

func fundingOf(t *testing.T, p *person, deposit btcutil.Amount) *escrow.Funding {
	t.Helper()
	id := escrow.ID{1, 2, 3}
	key, err := p.ContractKey(id)
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.ContractKey(escrow.ID{9})
	if err != nil {
		t.Fatal(err)
	}
	script, err := p.NewScript(t.Context(), wallet.P2TR)
	if err != nil {
		t.Fatal(err)
	}
	return &escrow.Funding{Feerate: 2_000, Contract: &escrow.Contract{
		ID: id, Network: protocol.Regtest, UserKey: escrow.KeyOf(key), RelayKey: escrow.KeyOf(other),
		UserScript: script, RelayScript: script, Deposit: deposit, OpeningPrice: 1_000, Expiry: 5_000,
	}}
}
