package relayside

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// metrics are the figures of this package. None has a key, a contract or an address as a label. What is counted is this
// process's since it started; what is measured ([figures]) is the database's, told by the process that does the work.
type metrics struct {
	m            *Manager
	refused      *prometheus.CounterVec
	transactions *prometheus.CounterVec
	blocks       *prometheus.CounterVec
}

// What happens to transactions and blocks.
const (
	eventSent      = "sent"      // the node took it, for the first time or after it had not
	eventRefused   = "refused"   // the node does not take it
	eventConfirmed = "confirmed" // it is in a block
	eventUndone    = "undone"    // its block left the best chain
	eventRescan    = "rescan"    // none of the known blocks was left
)

// What strangers ask for.
const (
	stepOpen   = "open"
	stepSigned = "signed"
	stepPay    = "pay"
	stepRefund = "refund"
)

func newMetrics(r prometheus.Registerer, m *Manager) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "relaymarket_contracts_" + name, Help: help}, labels)
	}
	c := &metrics{m: m,
		refused:      counter("refused_total", "Requests of users that were refused, by step and code.", "step", "code"),
		transactions: counter("transactions_total", "Transactions of the relay's making, by kind and what happened to them.", "kind", "event"),
		blocks:       counter("blocks_total", "Blocks of the chain that were followed.", "event"),
	}
	// Shown from the start, as zero.
	for _, event := range []string{eventSent, eventRefused, eventConfirmed, eventUndone} {
		for _, kind := range []string{protocol.TxFunding, protocol.TxSettlement, protocol.TxClosing, protocol.TxCancel} {
			c.transactions.WithLabelValues(kind, event)
		}
	}
	for _, event := range []string{eventConfirmed, eventUndone, eventRescan} {
		c.blocks.WithLabelValues(event)
	}
	for _, step := range []string{stepOpen, stepSigned, stepPay, stepRefund} {
		c.refused.WithLabelValues(step, string(protocol.CodeInternal)) // the one that is worth an alarm; the others once they occur
	}
	if r == nil {
		return c, nil
	}
	return c, errors.Join(r.Register(c.refused), r.Register(c.transactions), r.Register(c.blocks), r.Register(c))
}

// refuse counts a refusal, if there was one.
func (c *metrics) refuse(step string, err error) {
	if err == nil || errors.Is(err, context.Canceled) { // whoever asked has gone
		return
	}
	code := protocol.CodeInternal
	var known *protocol.Error
	if errors.As(err, &known) {
		code = known.Code
	} else {
		_ = errors.As(err, &code)
	}
	c.refused.WithLabelValues(step, string(code)).Inc()
}

func (c *metrics) transaction(kind, event string) {
	c.transactions.WithLabelValues(kind, event).Inc()
}

// followed counts a step of the chain, and the relay's transactions in its block.
func (c *metrics) followed(event string, kinds []string) {
	c.blocks.WithLabelValues(event).Inc()
	for _, kind := range kinds {
		c.transaction(kind, event)
	}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("relaymarket_"+name, help, labels, nil)
}

var (
	descContracts  = describe("contracts", "Contracts that were signed and are not over, by state.", "state")
	descHalfOpen   = describe("contracts_half_open", "Contracts that were asked for and not signed.")
	descSat        = describe("contracts_sat", "Satoshi in contracts that are not over: paid and not settled, used and not paid, the relay's bonds.", "kind")
	descUnsettled  = describe("contracts_unsettled", "Contracts that are to be settled, and no block shows their end.")
	descToSettle   = describe("contracts_blocks_to_settlement", "Blocks until the next contract has to be settled; missing: there is none.")
	descToExpiry   = describe("contracts_blocks_to_expiry", "Blocks until the user of a contract that is to be settled may take all; missing: there is none.")
	descMeasured   = describe("contracts_measured_seconds", "How long ago these figures were measured.")
	descWalletRead = describe("contracts_wallet_read_seconds", "How long ago the wallet answered last.")
	descCoins      = describe("wallet_coins", "Coins of the relay's wallet: free, or promised to fundings that are in no block.", "kind")
	descWallet     = describe("wallet_sat", "Satoshi in the relay's wallet: free, or promised to fundings that are in no block.", "kind")
	descUp         = describe("chain_up", "1 while the Bitcoin node answers.")
	descTipAge     = describe("chain_tip_age_seconds", "How old the node's newest block is.")
	descHeight     = describe("chain_height", "Height of the node's newest block.")
	descBehind     = describe("chain_blocks_behind", "Blocks of the node that contracts do not know yet.")
)

// Describe implements prometheus.Collector: the figures are there only while this process does the work, so they are
// not described.
func (c *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. It asks nobody: the figures were measured before.
func (c *metrics) Collect(to chan<- prometheus.Metric) {
	f := c.m.measured.Load()
	if f == nil {
		return
	}
	now := c.m.clock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, s := range measuredStates {
		gauge(descContracts, float64(f.states[s]), string(s))
	}
	gauge(descHalfOpen, float64(f.halfOpen))
	gauge(descSat, float64(f.paid), "paid")
	gauge(descSat, float64(f.unpaid), "unpaid")
	gauge(descSat, float64(f.bonds), "bond")
	gauge(descUnsettled, float64(f.unsettled))
	if f.toSettle != nil {
		gauge(descToSettle, float64(*f.toSettle))
	}
	if f.toExpiry != nil {
		gauge(descToExpiry, float64(*f.toExpiry))
	}
	gauge(descMeasured, now.Sub(f.at).Seconds())
	if read := c.m.walletRead.Load(); read != nil {
		gauge(descWalletRead, now.Sub(*read).Seconds())
	}
	gauge(descCoins, float64(f.free.coins), "free")
	gauge(descCoins, float64(f.reserved.coins), "reserved")
	gauge(descWallet, float64(f.free.sat), "free")
	gauge(descWallet, float64(f.reserved.sat), "reserved")
	if f.node == nil {
		gauge(descUp, 0)
		return
	}
	gauge(descUp, 1)
	gauge(descTipAge, now.Sub(f.node.Time).Seconds())
	gauge(descHeight, float64(f.node.Height))
	gauge(descBehind, max(float64(f.node.Height)-float64(f.height), 0))
}

// measuredStates are those that a signed contract may be in until it is over.
var measuredStates = []escrow.State{escrow.FundingSent, escrow.Active, escrow.PaymentRequested, escrow.RefundRequested,
	escrow.Renewing, escrow.Settling, escrow.Closed, escrow.Abandoned}
