package relayside_test

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// metric is a figure of the newest manager, with the values of its labels; NaN if it is not shown.
func (h *house) metric(name string, labels ...string) float64 {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "relaymarket_"+name {
			continue
		}
	next:
		for _, m := range family.GetMetric() {
			if len(m.GetLabel()) != len(labels) {
				h.t.Fatalf("%s has the labels %v", name, m.GetLabel())
			}
			for i, l := range m.GetLabel() {
				if l.GetValue() != labels[i] {
					continue next
				}
			}
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return math.NaN()
}

func (h *house) shows(want float64, name string, labels ...string) {
	h.t.Helper()
	var got float64
	h.eventually(name+" "+strings.Join(labels, ","), func() bool {
		got = h.metric(name, labels...)
		return got == want || math.IsNaN(got) && math.IsNaN(want)
	})
}

// What an operator watches, through the life of a contract: states, money, coins, deadlines, transactions, refusals and the
// node; and nothing of it names a key or a contract.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.limits.Measure = 50 * time.Millisecond
	h.restart()
	h.fundWallet(50_000)
	h.shows(50_000, "wallet_sat", "free")
	h.shows(0, "contracts", "active")
	h.shows(math.NaN(), "contracts_blocks_to_settlement")
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 900, coin)
	d.asked.Deposit = 1_000
	d.offer(nil)
	wantCode(t, d.open(nil), protocol.CodeWrongAmount)
	h.shows(1, "contracts_refused_total", "wrong_amount", "open")
	d = u.plan(100_000, 900, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	h.shows(1, "contracts_half_open")
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
	h.shows(1, "contracts", "funding")
	h.shows(0, "contracts_half_open")
	h.shows(50_000, "wallet_sat", "reserved")
	h.shows(1, "wallet_coins", "reserved")
	h.shows(1, "contracts_transactions_total", "sent", "funding")
	h.mine(6)
	d.reaches(escrow.Active)
	if err := h.use(u.key.Public(), 4_000_000); err != nil {
		t.Fatal(err)
	}
	if _, err := d.pay(8_000, nil); err != nil {
		t.Fatal(err)
	}
	h.shows(1, "contracts", "active")
	h.shows(8_000, "contracts_sat", "paid")
	h.shows(1_000, "contracts_sat", "unpaid")
	h.shows(10_000, "contracts_sat", "bond")
	h.shows(0, "wallet_sat", "reserved")
	h.shows(float64(int(d.terms.LastUsage())-h.node.Height()), "contracts_blocks_to_settlement")
	h.shows(math.NaN(), "contracts_blocks_to_expiry")
	h.shows(1, "contracts_transactions_total", "confirmed", "funding")
	h.shows(1, "chain_up")
	h.shows(float64(h.node.Height()), "chain_height")
	h.shows(0, "chain_blocks_behind")
	h.advance(time.Hour)
	h.eventually("an old tip", func() bool { age := h.metric("chain_tip_age_seconds"); return age > 3_000 && age < 40_000 })

	h.mineTo(d.terms.LastUsage())
	h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
	h.shows(1, "contracts_transactions_total", "sent", "settlement")
	h.shows(1, "contracts_unsettled")
	h.shows(432, "contracts_blocks_to_expiry")
	h.shows(math.NaN(), "contracts_blocks_to_settlement")
	h.mine(1)
	h.shows(1, "contracts_transactions_total", "confirmed", "settlement")
	h.shows(0, "contracts_unsettled")
	h.shows(0, "contracts_sat", "paid")
	h.node.Reorg(1)
	h.synced()
	h.shows(1, "contracts_transactions_total", "undone", "settlement")
	h.shows(1, "contracts_blocks_total", "undone")
	h.shows(1, "contracts_unsettled")

	families, err := h.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, secret := range []string{d.id.String(), u.key.Public().String(), d.out.Hash.String()} {
			if strings.Contains(family.String(), secret) {
				t.Errorf("%s names %s", family.GetName(), secret)
			}
		}
	}
	h.node.Stop()
	h.shows(0, "chain_up")
	h.shows(math.NaN(), "chain_tip_age_seconds")
	stale, end := h.run(false)
	_ = stale
	h.shows(math.NaN(), "contracts_half_open") // a process that answers only does not measure
	end()
}

// gate is a node that takes a transaction when it is given by two at once.
type gate struct {
	*chain.Client
	armed atomic.Bool
	two   sync.WaitGroup
}

// Broadcast implements relayside.Node.
func (g *gate) Broadcast(ctx context.Context, tx *wire.MsgTx) error {
	if g.armed.Load() {
		g.two.Done()
		g.two.Wait()
		g.armed.Store(false)
	}
	return g.Client.Broadcast(ctx, tx)
}

// A handler and the work send the same transaction at a time. It is counted once.
func TestSentTwiceAtOnceIsCountedOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	node := &gate{Client: h.chain}
	node.two.Add(2)
	h.crash()
	h.contractChain = node
	h.limits.Resend = time.Hour
	h.start()
	d := h.user().active(100_000, 1500)
	node.armed.Store(true)
	if _, err := d.refund(5_000, 500); err != nil {
		t.Fatal(err)
	}
	h.inMempool(h.latest(d.id, protocol.TxClosing).TxHash())
	h.mine(1)
	h.shows(1, "contracts_transactions_total", "confirmed", "closing")
	h.shows(1, "contracts_transactions_total", "sent", "closing")
}
