package relayside_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/relayside"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// stuck is a wallet that answers nothing until it is freed, whatever its caller's context says: so is one that derives
// keys, or recovers, under its lock.
type stuck struct {
	relayside.Wallet
	signs bool          // all but signing goes on
	asked chan struct{} // one place: somebody waits
	freed chan struct{}
}

func (s *stuck) wait(signing bool) {
	if s.signs && !signing {
		return
	}
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.freed
}

// NewScript implements relayside.Wallet.
func (s *stuck) NewScript(ctx context.Context, kind wallet.Kind) (protocol.Script, error) {
	s.wait(false)
	return s.Wallet.NewScript(ctx, kind)
}

// Coins implements relayside.Wallet.
func (s *stuck) Coins(ctx context.Context) ([]escrow.Coin, error) {
	s.wait(false)
	return s.Wallet.Coins(ctx)
}

// Keep implements relayside.Wallet.
func (s *stuck) Keep(ctx context.Context, key string, coins []wire.OutPoint, duration time.Duration) error {
	s.wait(false)
	return s.Wallet.Keep(ctx, key, coins, duration)
}

// SignFunding implements relayside.Wallet.
func (s *stuck) SignFunding(ctx context.Context, key string, packet *psbt.Packet) error {
	s.wait(true)
	return s.Wallet.SignFunding(ctx, key, packet)
}

// A wallet that hangs holds up what needs it, and nothing else: at T − M the settlement is sent, blocks are seen and
// contracts closed. When it answers again, what waited for it is done.
func TestWalletHangs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(50_000)
	h.fundWallet(60_000)
	d := h.user().active(100_000, 900)
	if _, err := d.pay(30_000, nil); err != nil {
		t.Fatal(err)
	}
	u := h.user()
	coin, _ := u.coin(150_000)
	waiting := u.plan(100_000, 3000, coin)
	waiting.offer(nil)
	if err := waiting.open(nil); err != nil {
		t.Fatal(err)
	}
	waiting.witness(nil)
	h.crash()
	purse := &stuck{Wallet: h.wallet, asked: make(chan struct{}, 1), freed: make(chan struct{})}
	free := sync.OnceFunc(func() { close(purse.freed) })
	t.Cleanup(free) // before the house waits for the work
	h.contractWallet = purse
	h.start()
	<-purse.asked
	if s, err := waiting.send(); err != nil || s.State != escrow.FundingSent {
		t.Fatalf("%+v, %v", s, err)
	}

	h.mineTo(d.terms.LastUsage())
	d.reaches(escrow.Settling)
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.mine(6)
	d.reaches(escrow.Closed)
	if spend, _ := escrow.Identify(&d.terms, d.out, h.spender(d.out)); spend.Amount != 30_000 {
		t.Fatalf("it was settled as %+v", spend)
	}
	if s := waiting.status(); s.Funding != nil {
		t.Fatalf("signed without the wallet: %+v", s)
	}

	free()
	h.inMempool(waiting.out.Hash)
	h.mine(1)
	waiting.reaches(escrow.Active)
}

// While the wallet signs, a block ends the contract: its signatures are not let out, and the coin is free.
func TestCoinIsSpentWhileTheWalletSigns(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(50_000)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 3000, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	h.crash()
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	purse := &stuck{Wallet: h.wallet, signs: true, asked: make(chan struct{}, 1), freed: make(chan struct{})}
	free := sync.OnceFunc(func() { close(purse.freed) })
	t.Cleanup(free)
	h.contractWallet = purse
	h.start()
	<-purse.asked
	h.node.MineWith(u.elsewhere(coin, 5_000))
	h.synced()
	d.reaches(escrow.Abandoned)
	free()
	h.coinsAre(1)
	if n := h.count(`SELECT count(*) FROM contract_transactions`); n != 0 {
		t.Fatalf("%d transactions of a contract that was over were let out", n)
	}
}
