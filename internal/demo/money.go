package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/protocol"
)

const (
	coin       = 250_000 // satoshi of each of the two coins that the sender begins with
	purse      = 2 * coin
	deposit    = 100_000                // that one contract locks
	blockEvery = 300 * time.Millisecond // how soon a block comes while a command waits for one
)

// contract is what relay contract show --json tells, as far as it matters here.
type contract struct {
	ID           string `json:"id"`
	Relay        string `json:"relay"` // its key
	State        string `json:"state"`
	Deposit      int64  `json:"deposit"`
	Bond         int64  `json:"bond"`
	Paid         int64  `json:"paid"`
	Owed         int64  `json:"owed"` // as the relay counts, reservations included
	Expiry       int64  `json:"expiry"`
	Transactions []struct {
		Kind   string  `json:"kind"`
		TxID   string  `json:"txid"`
		Height *uint32 `json:"height"`
	} `json:"transactions"`
}

func sheRentsTwo(ctx context.Context, s *stage, c *cast) error {
	scene("She rents the two best by escrow: one command, from her coins to space on two relays.")
	return c.rent(ctx, s, "--best", "2", "--kept", "1MB", "--moved", "5MB")
}

// rent opens contracts, with blocks for whoever waits for one, and tells of those that are new.
func (c *cast) rent(ctx context.Context, s *stage, args ...string) error {
	began := time.Now()
	err := s.whileMining(ctx, func() error {
		_, err := c.alice.relay(ctx, append([]string{"contract", "open", "--deposit", fmt.Sprint(deposit), "--days", "7", "--yes"}, args...)...)
		return err
	})
	if err != nil {
		return err
	}
	var list struct {
		Contracts []contract `json:"contracts"`
	}
	if err := c.alice.json(ctx, &list, "contract", "list"); err != nil {
		return err
	}
	for _, k := range list.Contracts {
		if c.known(k.ID) {
			continue
		}
		if k.State != "active" {
			return fmt.Errorf("contract %s is %s", k.ID, k.State)
		}
		c.contracts = append(c.contracts, &k)
		tell("contract %s… with %s: %d satoshi of hers and %d of the relay's are locked until both sign, or block %d", k.ID[:8], s.relayOf(&k).name, k.Deposit,
			k.Bond, k.Expiry)
	}
	tell("it took %.1f s, blocks and all", time.Since(began).Seconds())
	return nil
}

func (c *cast) known(id string) bool {
	return slices.ContainsFunc(c.contracts, func(k *contract) bool { return k.ID == id })
}

// relayOf is the relay of a contract.
func (s *stage) relayOf(k *contract) *relay {
	for _, r := range s.relays {
		if r.isKey(k.Relay) {
			return r
		}
	}
	return &relay{name: k.Relay}
}

// isKey tells whether a key, in any of its forms, is the relay's.
func (r *relay) isKey(text string) bool {
	k, err := protocol.ParsePublicKey(text)
	own, ownErr := protocol.ParsePublicKey(r.key)
	return err == nil && ownErr == nil && k == own
}

// with is the latest contract with a relay.
func (c *cast) with(r *relay) (*contract, error) {
	for _, k := range slices.Backward(c.contracts) {
		if r.isKey(k.Relay) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("there is no contract with %s", r.name)
}

// audit is what relay audit --json tells of a contract, as far as it matters here.
type audit struct {
	Lines    int64  `json:"lines"`
	Accepted string `json:"acceptedMsat"`
	Waiting  string `json:"waitingMsat"`
	Disputed string `json:"disputedMsat"`
	Paid     int64  `json:"paidSat"`
	Dropped  int64  `json:"droppedLines"` // that were refused
	Reasons  []struct {
		Reason string `json:"reason"`
		Lines  int64  `json:"lines"`
		Msat   string `json:"msat"`
	} `json:"reasons"`
}

// audits asks a relay for its bill of a contract and pays what is accepted.
func (c *cast) audits(ctx context.Context, k *contract, flags ...string) (a audit, err error) {
	var out struct {
		Audits []audit `json:"audits"`
	}
	if err := c.alice.json(ctx, &out, append([]string{"audit", k.ID, "--pay", "auto", "--limit", "20000"}, flags...)...); err != nil {
		return a, err
	}
	if len(out.Audits) != 1 {
		return a, fmt.Errorf("there are %d audits of one contract", len(out.Audits))
	}
	return out.Audits[0], nil
}

func theBills(ctx context.Context, s *stage, c *cast) error {
	scene("The relays send their bills. She believes only what Bob has signed for.")
	// His signature of what he read rides on his next pull.
	if err := c.bob.reads(ctx, c, "alice", liveWords); err != nil {
		return err
	}
	for _, r := range []*relay{c.north, c.south} {
		k, err := c.with(r)
		if err != nil {
			return err
		}
		a := audit{}
		for a.Lines < 2 { // one is written and pulled at least
			if a, err = c.audits(ctx, k); err != nil {
				return err
			}
			if a.Disputed != "0" {
				return fmt.Errorf("the audit of %s disputes: %+v", r.name, a)
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("the bill of %s has %d lines only: %w", r.name, a.Lines, err)
			}
		}
		tell("%s: %d lines, %s msat are proven and accepted, %s are reserved, nothing is disputed; paid by itself, and a cushion ahead: %d satoshi",
			r.name, a.Lines, a.Accepted, a.Waiting, a.Paid)
	}
	k, err := c.with(c.north)
	if err != nil {
		return err
	}
	const more = "500"
	if _, err := c.alice.relay(ctx, "contract", "pay", k.ID, more, "--cushion", "6000", "--yes"); err != nil {
		return err
	}
	tell("she trusts north with a larger cushion and signs a state in which it has %s satoshi more: no transaction, no fee", more)
	return nil
}

func theyClose(ctx context.Context, s *stage, c *cast) error {
	scene("She has no more to say through north. They close the contract together.")
	k, err := c.with(c.north)
	if err != nil {
		return err
	}
	if err := c.closes(ctx, s, k); err != nil {
		return err
	}
	tell("the closing is mined: north has its %d and its bond back, alice the rest", k.Paid)
	return nil
}

// closes ends a contract together with its relay. What she wrote stays there until it expires, and she agrees to pay for that.
func (c *cast) closes(ctx context.Context, s *stage, k *contract) error {
	if err := c.alice.json(ctx, k, "contract", "show", k.ID); err != nil {
		return err
	}
	most := max(k.Paid, k.Owed)
	if _, err := c.alice.relay(ctx, "contract", "close", k.ID, "--pay-up-to", fmt.Sprint(most), "--yes"); err != nil {
		return err
	}
	return c.becomes(ctx, s, k, "closed")
}

// becomes mines until a contract is in a state, and keeps what it has become.
func (c *cast) becomes(ctx context.Context, s *stage, k *contract, state string) error {
	return s.whileMining(ctx, func() error {
		for {
			if _, err := c.alice.relay(ctx, "contract", "watch", "--once"); err != nil {
				return err
			}
			if err := c.alice.json(ctx, k, "contract", "show", k.ID, "--offline"); err != nil {
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
}

func aRelayVanishes(ctx context.Context, s *stage, c *cast) error {
	scene("She rents north once more, and it vanishes for good. Nobody holds her money.")
	// The contract with south is over: nobody else keeps a copy of the descriptor.
	if err := c.rent(ctx, s, c.north.url, "--backup-file-only"); err != nil {
		return err
	}
	if err := c.north.kill(); err != nil {
		return err
	}
	k, err := c.with(c.north)
	if err != nil {
		return err
	}
	height, err := s.node.Height()
	if err != nil {
		return err
	}
	if said, err := c.alice.relay(ctx, "contract", "refund", k.ID, "--yes"); err == nil {
		return fmt.Errorf("a refund was made before its block:\n%s", said)
	}
	tell("the relay is dead; before block %d a refund is refused", k.Expiry)
	if _, err := s.node.Mine(int(k.Expiry) - height); err != nil {
		return err
	}
	if _, err := c.alice.relay(ctx, "contract", "refund", k.ID, "--yes"); err != nil {
		return err
	}
	if err := c.becomes(ctx, s, k, "closed"); err != nil {
		return err
	}
	tell("%d blocks later she takes back all of it alone, and the relay's bond of %d with it", int(k.Expiry)-height, k.Bond)
	return nil
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
	cmd := r.command(ctx, "wallet", "--json")
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
