package relayside_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/relayside"
	"relaymarket/protocol"
)

// run runs one more manager on the house, with or without the wallet, until the returned function is called.
func (h *house) run(withWallet bool) (*relayside.Manager, func()) {
	h.t.Helper()
	cfg := h.config()
	if !withWallet {
		cfg.Wallet = nil
	}
	m, err := relayside.New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(end)
	return m, end
}

// Any process answers; one works, and another goes on when it ends or falls silent. A process without a wallet gets its
// fundings signed by the one that has it.
func TestSeveralProcesses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	for range 3 {
		h.fundWallet(200_000)
	}
	worker := h.manager
	answering, _ := h.run(false)
	_, _ = h.run(true)
	holders := func() int { return h.count(`SELECT count(*) FROM contract_work WHERE holder IS NOT NULL`) }
	for i := range 3 {
		h.manager = answering
		u := h.user()
		d := u.opened(100_000, 1500)
		h.mine(6)
		d.reaches(escrow.Active)
		if _, err := d.pay(7_000, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := d.refund(7_000, 500); err != nil {
			t.Fatal(err)
		}
		h.mine(6)
		d.reaches(escrow.Closed)
		if holders() != 1 {
			t.Fatalf("%d processes work", holders())
		}
		switch i {
		case 0: // the worker ends
			h.manager = worker
			h.crash()
		case 1: // the next one falls silent, as if its machine were gone: whoever comes takes over when its lease is over
			if _, err := h.db.Pool().Exec(t.Context(), `UPDATE contract_work SET holder = '\xdead', until = $1`, h.now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// blind is a node that does not tell of blocks until it sees.
type blind struct {
	*chain.Client
	sees  atomic.Bool
	looks atomic.Int64
}

// Next implements relayside.Follower.
func (b *blind) Next(ctx context.Context, recent []chain.BlockID) (chain.Event, error) {
	b.looks.Add(1)
	if !b.sees.Load() {
		return chain.Event{}, chain.ErrUnreachable
	}
	return b.Client.Next(ctx, recent)
}

// The process with the wallet was away for so long that T came near: a funding that it has not signed it does not sign any
// more, and coin and account are free.
func TestTooLateToSign(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1000, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	h.crash()
	if _, err := d.send(); err != nil { // the handlers answer without the work
		t.Fatal(err)
	}
	if s := d.status(); s.State != escrow.FundingSent || s.Funding != nil {
		t.Fatalf("signed by the user only: %+v", s)
	}
	h.node.Mine(200)
	node := &blind{Client: h.chain}
	h.contractChain = node
	h.start()
	h.eventually("a look at the chain", func() bool { return node.looks.Load() > 3 })
	if s := d.status(); s.State != escrow.FundingSent || s.Funding != nil {
		t.Fatalf("signed without the newest blocks: %+v", s)
	}
	node.sees.Store(true)
	h.synced()
	d.reaches(escrow.Abandoned)
	h.coinsAre(1)
	if n := h.count(`SELECT count(*) FROM contract_transactions`); n != 0 {
		t.Fatal("the relay signed")
	}
	again := u.plan(100_000, 1500, coin)
	again.offer(nil)
	if err := again.open(nil); err != nil {
		t.Fatal(err)
	}
	again.witness(nil)
	if _, err := again.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(again.out.Hash)
	h.mine(1)
	again.reaches(escrow.Active)
}

// Payments for one contract that come at once, at several processes: each seq has one effect, and A never falls.
func TestPaymentsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	other, _ := h.run(false)
	u := h.user()
	d := u.active(100_000, 1500)
	var payments []*protocol.ContractPayment
	for i := range int64(20) {
		a := d.terms.OpeningPrice + 100*(btcutil.Amount(i)+1)
		payments = append(payments, &protocol.ContractPayment{Contract: d.id, Seq: i + 1, Amount: a, Signature: d.state(a)})
	}
	var group sync.WaitGroup
	for i, p := range payments {
		m := []*relayside.Manager{h.manager, other}[i%2]
		group.Go(func() {
			if s, err := m.Pay(t.Context(), u.envelope(p), p); err == nil && s.Amount < p.Amount {
				t.Errorf("after seq %d the amount is %d", p.Seq, s.Amount)
			}
		})
	}
	group.Wait()
	if s := d.status(); s.Seq != 20 || s.Amount != 7_000 {
		t.Fatalf("after all payments: %+v", s)
	}
}

// A database that is set back to an older copy takes the state that the user has, whatever seq it has; and a settlement that
// the chain shows teaches it what it held.
func TestDatabaseSetBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	d := u.active(100_000, 1500)
	if _, err := d.pay(8_000, nil); err != nil {
		t.Fatal(err)
	}
	copyOf := func(sql string) {
		t.Helper()
		if _, err := h.db.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	copyOf(`CREATE TABLE backup AS SELECT id, seq, amount, signature FROM contracts`)
	back := `UPDATE contracts c SET seq = b.seq, amount = b.amount, signature = b.signature FROM backup b WHERE b.id = c.id; DELETE FROM contract_payments WHERE seq > 1`
	for _, a := range []btcutil.Amount{12_000, 20_000, 30_000} {
		if _, err := d.pay(a, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.crash()
	copyOf(back)
	h.start()
	if s := d.status(); s.Seq != 1 || s.Amount != 8_000 {
		t.Fatalf("set back: %+v", s)
	}
	if s, err := d.repay(); err != nil || s.Seq != 4 || s.Amount != 30_000 { // the user's client sees the older seq, and shows his
		t.Fatalf("shown: %+v, %v", s, err)
	}
	_, err := d.refund(8_000, 500)
	wantCode(t, err, protocol.CodeWrongAmount)
	if err := h.manager.Settle(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.crash()
	copyOf(back + `; UPDATE contracts SET settle = false, state = 'active', final_owed = NULL; DELETE FROM contract_transactions WHERE kind = 'settlement'`)
	h.node.Mine(1)
	h.start()
	h.synced()
	if s := d.reaches(escrow.Settling); s.Amount != 30_000 {
		t.Fatalf("the chain has 30,000, the status %d", s.Amount)
	}
	h.node.Reorg(1)
	h.synced()
	if spend, _ := escrow.Identify(&d.terms, d.out, h.latest(d.id, protocol.TxSettlement)); spend.Amount != 30_000 {
		t.Fatalf("after a reorganization %d are settled", spend.Amount)
	}
}

// thief is a node during whose answer another process takes the lease.
type thief struct {
	*chain.Client
	h     *house
	armed atomic.Bool
}

// Next implements relayside.Follower.
func (s *thief) Next(ctx context.Context, recent []chain.BlockID) (chain.Event, error) {
	e, err := s.Client.Next(ctx, recent)
	if err == nil && s.armed.CompareAndSwap(true, false) {
		_, err = s.h.db.Pool().Exec(ctx, `UPDATE contract_work SET holder = '\xdead', until = $1`, s.h.now().Add(time.Hour))
	}
	return e, err
}

// A process that lost its lease between two steps changes nothing any more; requests are answered without any work, but for
// new contracts, which are refused when the work falls behind.
func TestLeaseIsLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	node := &thief{Client: h.chain, h: h}
	h.crash()
	h.contractChain = node
	h.start()
	u := h.user()
	d := u.active(100_000, 1500)
	coin, _ := u.coin(50_000)
	known := func() int { return h.count(`SELECT max(height) FROM contract_blocks`) }
	before := known()
	node.armed.Store(true)
	h.node.Mine(3)
	h.eventually("the theft", func() bool { return !node.armed.Load() })
	time.Sleep(200 * time.Millisecond)
	if known() != before {
		t.Fatal("a process without the lease stored a block")
	}
	if _, err := d.pay(6_000, nil); err != nil {
		t.Fatal(err)
	}
	v := h.user()
	v.coins = u.coins
	late := v.plan(30_000, 1500, coin)
	late.offer(nil)
	working := h.manager
	limits := h.limits
	h.limits.Patience = 200 * time.Millisecond
	h.manager, _ = h.run(false)
	wantCode(t, late.open(nil), protocol.CodeChainStale)
	h.manager, h.limits = working, limits
	if _, err := h.db.Pool().Exec(t.Context(), `UPDATE contract_work SET until = 0`); err != nil {
		t.Fatal(err)
	}
	if err := late.open(nil); err != nil { // it waits for the work
		t.Fatal(err)
	}
	h.synced()
}
