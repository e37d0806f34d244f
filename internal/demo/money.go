package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"

	"relaymarket/internal/regtest"
)

const (
	purse      = 400_000       // satoshi that the sender begins with
	deposit    = 100_000       // that one contract locks
	operators  = 50_000        // satoshi that the operator has for bonds
	perGB      = 2_000_000_000 // millisatoshi, dear enough for two messages to be seen on a bill
	paidWords  = "These words were paid for."
	blockEvery = 300 * time.Millisecond // how soon a block comes while a command waits for one
)

// money is what the second half of the story is about.
type money struct {
	inn       *relay
	carol     *person
	contracts []contract
}

// contract is what relay contract show --json tells, as far as it matters here.
type contract struct {
	ID           string `json:"id"`
	State        string `json:"state"`
	Deposit      int64  `json:"deposit"`
	Bond         int64  `json:"bond"`
	Paid         int64  `json:"paid"`
	Expiry       int64  `json:"expiry"`
	Transactions []struct {
		Kind   string  `json:"kind"`
		TxID   string  `json:"txid"`
		Height *uint32 `json:"height"`
	} `json:"transactions"`
}

func aPaidRelay(ctx context.Context, s *stage, c *cast) (err error) {
	scene("A private Bitcoin chain is started, and a relay that wants to be paid.")
	tell("building btcd, if it was not built before")
	if s.node, err = regtest.Launch(ctx, regtest.Config{Dir: filepath.Join(s.dir, "bitcoin"), Plain: true}); err != nil {
		return err
	}
	password := filepath.Join(s.dir, "rpc.password")
	if err := os.WriteFile(password, []byte(regtest.Password+"\n"), 0o600); err != nil {
		return err
	}
	m := &c.money
	if m.inn, err = s.addRelay(ctx, "inn"); err != nil {
		return err
	}
	m.inn.settings = []string{"--bitcoin-rpc", s.node.Host(), "--bitcoin-tls", "no", "--bitcoin-user", regtest.User,
		"--bitcoin-password-file", password, "--bitcoin-network", "regtest", "--bond-percent", "10",
		"--bandwidth-price", fmt.Sprint(perGB), "--storage-price", fmt.Sprint(perGB)}
	if err := m.inn.admin(ctx, "wallet", "init"); err != nil {
		return err
	}
	if err := m.inn.start(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	w, err := m.inn.wallet(ctx)
	if err != nil {
		return err
	}
	if err := s.pay(w.Address, operators); err != nil {
		return err
	}
	if err := m.inn.has(ctx, operators); err != nil {
		return err
	}
	tell("inn is ready on %s, with %d satoshi of its own for bonds", m.inn.url, operators)
	return nil
}

func aPurse(ctx context.Context, s *stage, c *cast) (err error) {
	scene("Carol has no operator who knows her. She fills a wallet instead.")
	m := &c.money
	if m.carol, err = s.newPerson(ctx, "carol"); err != nil {
		return err
	}
	_, err = m.carol.relay(ctx, "wallet", "connect", "http://"+s.node.Host(), "--network", "regtest", "--rpc-user", regtest.User,
		"--rpc-password-file", filepath.Join(s.dir, "rpc.password"))
	if err != nil {
		return err
	}
	var a struct {
		Address string `json:"address"`
	}
	if err := m.carol.json(ctx, &a, "wallet", "address"); err != nil {
		return err
	}
	if err := s.pay(a.Address, purse); err != nil {
		return err
	}
	b, err := m.carol.balance(ctx)
	if err != nil || b != purse {
		return fmt.Errorf("carol's wallet has %d satoshi, not %d: %w", b, purse, err)
	}
	tell("carol has %d satoshi", b)
	return nil
}

func aContract(ctx context.Context, s *stage, c *cast) error {
	scene("She opens a contract: one command, from her coins to her first paid message.")
	m := &c.money
	if err := m.open(ctx, s); err != nil {
		return err
	}
	if _, err := m.carol.relay(ctx, "id", "--card", m.carol.card); err != nil {
		return err
	}
	if err := befriend(ctx, m.carol, c.bob); err != nil {
		return err
	}
	if _, err := m.carol.relay(ctx, "send", "bob", paidWords); err != nil {
		return err
	}
	if err := c.bob.reads(ctx, "carol", paidWords); err != nil {
		return err
	}
	tell("carol → bob: %q, read from the relay that she pays", paidWords)
	return nil
}

// open opens a contract with the inn, with blocks for whoever waits for one.
func (m *money) open(ctx context.Context, s *stage) error {
	began := time.Now()
	err := s.whileMining(ctx, func() error {
		_, err := m.carol.relay(ctx, "contract", "open", m.inn.url, "--deposit", fmt.Sprint(deposit), "--days", "7", "--yes")
		return err
	})
	if err != nil {
		return err
	}
	var list struct {
		Contracts []contract `json:"contracts"`
	}
	if err := m.carol.json(ctx, &list, "contract", "list"); err != nil {
		return err
	}
	for _, k := range list.Contracts {
		if k.State == "active" {
			m.contracts = append(m.contracts, k)
			tell("contract %s…: %d satoshi of hers and %d of the relay's are locked until both sign, or block %d; %.1f s", k.ID[:8], k.Deposit, k.Bond, k.Expiry,
				time.Since(began).Seconds())
			return nil
		}
	}
	return fmt.Errorf("no contract is active: %+v", list.Contracts)
}

// audit is what relay audit --json tells of a contract, as far as it matters here.
type audit struct {
	Lines    int64  `json:"lines"`
	Accepted string `json:"acceptedMsat"`
	Waiting  string `json:"waitingMsat"`
	Disputed string `json:"disputedMsat"`
	Paid     int64  `json:"paidSat"`
}

func theBill(ctx context.Context, _ *stage, c *cast) error {
	scene("The relay sends a bill. She believes only what Bob has signed for.")
	m := &c.money
	// His signature of what he read rides on his next pull.
	if err := c.bob.reads(ctx, "carol", paidWords); err != nil {
		return err
	}
	for {
		var out struct {
			Audits []audit `json:"audits"`
		}
		if err := m.carol.json(ctx, &out, "audit", m.contracts[0].ID, "--pay", "auto", "--limit", "20000"); err != nil {
			return err
		}
		if len(out.Audits) != 1 || out.Audits[0].Disputed != "0" {
			return fmt.Errorf("the audit is not as it should be: %+v", out)
		}
		a := out.Audits[0]
		if a.Lines >= 2 { // written and pulled
			tell("%d lines: %s msat are proven and accepted, %s are reserved, nothing is disputed", a.Lines, a.Accepted, a.Waiting)
			tell("what was accepted is paid by itself, and a cushion ahead: %d satoshi", a.Paid)
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the bill has %d lines only: %w", a.Lines, err)
		}
	}
}

func paysAndCloses(ctx context.Context, s *stage, c *cast) error {
	scene("She trusts the relay with a larger cushion and pays once more. Then they close the contract together.")
	m := &c.money
	id := m.contracts[0].ID
	const more = "500"
	if _, err := m.carol.relay(ctx, "contract", "pay", id, more, "--cushion", "6000", "--yes"); err != nil {
		return err
	}
	tell("carol signs a state in which the relay has %s satoshi more; no transaction, no fee", more)
	if _, err := m.carol.relay(ctx, "contract", "close", id, "--yes"); err != nil {
		return err
	}
	k, err := m.settled(ctx, s, 0, "closed")
	if err != nil {
		return err
	}
	tell("the closing is mined: the relay has its %d and its bond back, carol the rest", k.Paid)
	return nil
}

// settled mines until contract i is in a state, and keeps what it has become.
func (m *money) settled(ctx context.Context, s *stage, i int, state string) (contract, error) {
	k := &m.contracts[i]
	err := s.whileMining(ctx, func() error {
		for {
			if _, err := m.carol.relay(ctx, "contract", "watch", "--once"); err != nil {
				return err
			}
			if err := m.carol.json(ctx, k, "contract", "show", k.ID, "--offline"); err != nil {
				return err
			}
			if k.State == state {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("contract %s is still %s: %w", k.ID[:8], k.State, err)
			}
		}
	})
	return *k, err
}

func theInnVanishes(ctx context.Context, s *stage, c *cast) error {
	scene("A second contract, and the relay vanishes for good. Nobody holds her money.")
	m := &c.money
	if err := m.open(ctx, s); err != nil {
		return err
	}
	if err := m.inn.kill(); err != nil {
		return err
	}
	k := m.contracts[1]
	height, err := s.node.Height()
	if err != nil {
		return err
	}
	if said, err := m.carol.relay(ctx, "contract", "refund", k.ID, "--yes"); err == nil {
		return fmt.Errorf("a refund was made before its block:\n%s", said)
	}
	tell("the relay is dead; before block %d a refund is refused", k.Expiry)
	if _, err := s.node.Mine(int(k.Expiry) - height); err != nil {
		return err
	}
	if _, err := m.carol.relay(ctx, "contract", "refund", k.ID, "--yes"); err != nil {
		return err
	}
	if _, err := m.settled(ctx, s, 1, "closed"); err != nil {
		return err
	}
	tell("%d blocks later she takes back all of it alone, and the relay's bond of %d with it", int(k.Expiry)-height, k.Bond)
	return nil
}

// theBooks compares what both had with what both have: the difference is what the miners got, to the satoshi.
func theBooks(ctx context.Context, s *stage, c *cast) error {
	scene("The books.")
	m := &c.money
	carol, err := m.carol.balance(ctx)
	if err != nil {
		return err
	}
	w, err := m.inn.wallet(ctx)
	if err != nil {
		return err
	}
	fees, err := m.fees(s)
	if err != nil {
		return err
	}
	paid, bonds := m.contracts[0].Paid, m.contracts[1].Bond
	tell("carol had %d and has %d; the relay had %d and has %d; the miners got %d", purse, carol, operators, w.Confirmed, fees)
	if carol+w.Confirmed+fees != purse+operators {
		return fmt.Errorf("the books do not balance: %d + %d + %d is not %d", carol, w.Confirmed, fees, purse+operators)
	}
	tell("the relay earned %d, lost a bond of %d by vanishing, and paid its share of fees; %d + %d + %d = %d", paid, bonds,
		carol, w.Confirmed, fees, purse+operators)
	return nil
}

// fees are what all transactions of the contracts paid, from the chain itself.
func (m *money) fees(s *stage) (int64, error) {
	rpc, err := s.node.RPC()
	if err != nil {
		return 0, err
	}
	value := func(id string) (outs []int64, ins map[string][]uint32, err error) {
		hash, err := chainhash.NewHashFromStr(id)
		if err != nil {
			return nil, nil, err
		}
		tx, err := rpc.GetRawTransaction(hash)
		if err != nil {
			return nil, nil, err
		}
		ins = map[string][]uint32{}
		for _, in := range tx.MsgTx().TxIn {
			at := in.PreviousOutPoint
			ins[at.Hash.String()] = append(ins[at.Hash.String()], at.Index)
		}
		for _, out := range tx.MsgTx().TxOut {
			outs = append(outs, out.Value)
		}
		return outs, ins, nil
	}
	var fees int64
	for _, k := range m.contracts {
		for _, t := range k.Transactions {
			if t.Height == nil {
				continue
			}
			outs, ins, err := value(t.TxID)
			if err != nil {
				return 0, err
			}
			for _, v := range outs {
				fees -= v
			}
			for id, indexes := range ins {
				from, _, err := value(id)
				if err != nil {
					return 0, err
				}
				for _, i := range indexes {
					fees += from[i]
				}
			}
		}
	}
	return fees, nil
}

// pay sends satoshi of the miner's to an address and mines a block.
func (s *stage) pay(to string, amount btcutil.Amount) error {
	a, err := address.DecodeAddress(to, &chaincfg.RegressionNetParams)
	if err != nil {
		return err
	}
	_, err = s.node.Fund(a, amount)
	return err
}

// whileMining mines a block now and then until do returns.
func (s *stage) whileMining(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	mined := make(chan error, 1)
	go func() {
		tick := time.NewTicker(blockEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				mined <- nil
				return
			case <-tick.C:
				if _, err := s.node.Mine(1); err != nil {
					mined <- err
					return
				}
			}
		}
	}()
	err := do()
	cancel()
	return errors.Join(err, <-mined)
}

// balance is the confirmed satoshi of a person's wallet.
func (p *person) balance(ctx context.Context) (int64, error) {
	var b struct {
		Confirmed int64 `json:"confirmed"`
	}
	err := p.json(ctx, &b, "wallet", "balance")
	return b.Confirmed, err
}

// purseOf is what relayd wallet --json tells.
type purseOf struct {
	Address   string `json:"address"`
	Confirmed int64  `json:"confirmed"`
}

func (r *relay) wallet(ctx context.Context) (w purseOf, err error) {
	var errs bytes.Buffer
	cmd := r.command(ctx, append([]string{"wallet", "--json", "--operator-listen", r.operator}, walletSettings(r.settings)...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return w, fmt.Errorf("relayd wallet: %w\n%s", err, errs.String())
	}
	return w, json.Unmarshal(out, &w)
}

// has waits until the relay's wallet has seen so many confirmed satoshi.
func (r *relay) has(ctx context.Context, amount int64) error {
	for {
		w, err := r.wallet(ctx)
		if err != nil || w.Confirmed == amount {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the relay %s has %d satoshi, not %d: %w", r.name, w.Confirmed, amount, err)
		}
	}
}

// endNode stops the Bitcoin node, if there is one.
func (s *stage) endNode() error {
	if s.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	return s.node.Stop(ctx)
}

// walletSettings are those of a relay's settings that relayd wallet knows.
func walletSettings(settings []string) (some []string) {
	for i := 0; i+1 < len(settings); i += 2 {
		if strings.HasPrefix(settings[i], "--bitcoin-") {
			some = append(some, settings[i], settings[i+1])
		}
	}
	return some
}
