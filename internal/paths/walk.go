package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/internal/regtest"
)

// step is a transaction that was mined.
type step struct {
	Name   string
	Tx     *escrow.Tx
	Height int
}

// stopPatience bounds how long the node may take to end.
const stopPatience = 2 * time.Minute

// walker mines one transaction after the other.
type walker struct {
	node  *regtest.Node
	steps []step
}

// walk starts a node, goes all the ways, and returns the transactions in the order in which they were mined.
func walk(ctx context.Context) (steps []step, err error) {
	dir, err := os.MkdirTemp("", "relaymarket-paths-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	node, err := regtest.Launch(ctx, regtest.Config{Dir: filepath.Join(dir, "btcd")})
	if err != nil {
		return nil, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		err = errors.Join(err, node.Stop(ending))
	}()
	w := &walker{node: node}
	for _, path := range []func() error{w.settled, w.closed, w.requested, w.refunded, w.renewed, w.batched, w.outbid, w.cancelled} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := path(); err != nil {
			return nil, err
		}
	}
	return w.steps, nil
}

// farAway is an expiry that no path reaches by accident.
const farAway = 4_000

// coin is a confirmed coin of a key's.
func (w *walker) coin(k *btcec.PrivateKey, value btcutil.Amount) (escrow.Coin, error) {
	to, err := addressOf(k)
	if err != nil {
		return escrow.Coin{}, err
	}
	at, err := w.node.Fund(to, value)
	return escrow.Coin{OutPoint: at, Value: value, PkScript: scriptOf(k), Confirmations: 1}, err
}

// coins gives both sides of a deal their coins; 0 is none.
func (w *walker) coins(d *deal, user, relay btcutil.Amount) error {
	for _, c := range []struct {
		part  *escrow.Part
		key   *btcec.PrivateKey
		value btcutil.Amount
	}{{&d.funding.User, d.userCoin, user}, {&d.funding.Relay, d.relayCoin, relay}} {
		if c.value == 0 {
			continue
		}
		coin, err := w.coin(c.key, c.value)
		if err != nil {
			return err
		}
		c.part.Coins = append(c.part.Coins, coin)
	}
	return nil
}

// send hands a transaction to the node's mempool, with all its policy.
func (w *walker) send(name string, tx *escrow.Tx, made error) error {
	if made != nil {
		return fmt.Errorf("%s: %w", name, made)
	}
	rpc, err := w.node.RPC()
	if err != nil {
		return err
	}
	if _, err := rpc.SendRawTransaction(tx.MsgTx, false); err != nil {
		return fmt.Errorf("%s: the node refuses it: %w", name, err)
	}
	return nil
}

// mine sends a transaction, mines a block and sees that it is in it.
func (w *walker) mine(name string, tx *escrow.Tx, made error) error {
	if err := w.send(name, tx, made); err != nil {
		return err
	}
	if _, err := w.node.Mine(1); err != nil {
		return err
	}
	rpc, err := w.node.RPC()
	if err != nil {
		return err
	}
	hash := tx.TxHash()
	seen, err := rpc.GetRawTransactionVerbose(&hash)
	if err != nil || seen.Confirmations != 1 {
		return fmt.Errorf("%s is not in the block: %w", name, err)
	}
	height, err := w.node.Height()
	w.steps = append(w.steps, step{Name: name, Tx: tx, Height: height})
	return err
}

// open funds a deal of 100,000 satoshi, with a bond or without.
func (w *walker) open(name, what string, bond btcutil.Amount, expiry uint32) (*deal, error) {
	d := newDeal(name, 100_000, bond, expiry)
	relay := btcutil.Amount(0)
	if bond > 0 {
		relay = bond + 30_000
	}
	if err := w.coins(d, 150_000, relay); err != nil {
		return nil, err
	}
	tx, err := d.sign(nil)
	return d, w.mine(what, tx, err)
}

func (w *walker) settled() error {
	d, err := w.open("settled", "funding, both sides", 10_000, farAway)
	if err != nil {
		return err
	}
	tx, err := settle(60_000, feerate, nil, d)
	if err := w.mine("settlement by the relay alone", tx, err); err != nil {
		return err
	}
	sweep, err := d.sweep(tx)
	return w.mine("sweep of what a settlement left", sweep, err)
}

func (w *walker) closed() error {
	d, err := w.open("closed", "funding without a bond", 0, farAway)
	if err != nil {
		return err
	}
	tx, err := d.close(30_000, escrow.User)
	return w.mine("cooperative refund", tx, err)
}

func (w *walker) requested() error {
	d, err := w.open("requested", "funding before a payment request", 10_000, farAway)
	if err != nil {
		return err
	}
	tx, err := d.close(45_000, escrow.Relay)
	return w.mine("payment request", tx, err)
}

func (w *walker) refunded() error {
	height, err := w.node.Height()
	if err != nil {
		return err
	}
	d, err := w.open("refunded", "funding before a refund", 10_000, uint32(height)+20)
	if err != nil {
		return err
	}
	tx, err := d.refund(feerate)
	if w.send("refund before T", tx, err) == nil {
		return errors.New("the node took a refund before its height")
	}
	if height, err = w.node.Height(); err != nil {
		return err
	}
	if _, err := w.node.Mine(int(d.contract.Expiry) - height); err != nil {
		return err
	}
	return w.mine("refund by the user alone, from T", tx, err)
}

func (w *walker) renewed() error {
	old, err := w.open("old", "funding before a renewal", 10_000, farAway)
	if err != nil {
		return err
	}
	at, err := old.outpoint()
	if err != nil {
		return err
	}
	d := newDeal("new", 120_000, 10_000, farAway+4_000)
	d.contract.User, d.contract.Relay, d.contract.Renews = old.contract.User, old.contract.Relay, &old.contract.ID
	d.funding.Renewal = &escrow.Renewal{Contract: old.contract, Funding: at, Amount: 70_000}
	if err := w.coins(d, 110_000, 0); err != nil {
		return err
	}
	tx, err := d.sign(old)
	if err := w.mine("renewal into a new escrow", tx, err); err != nil {
		return err
	}
	closing, err := d.close(20_000, escrow.User)
	return w.mine("cooperative refund of the renewed", closing, err)
}

func (w *walker) batched() error {
	first, err := w.open("first", "funding, first of a batch", 0, farAway)
	if err != nil {
		return err
	}
	second, err := w.open("second", "funding, second of a batch", 0, farAway)
	if err != nil {
		return err
	}
	extra, err := w.coin(first.relayCoin, 50_000)
	if err != nil {
		return err
	}
	tx, err := settle(5_000, 20_000, []escrow.Coin{extra}, first, second)
	return w.mine("settlement of two, with a coin for the fee", tx, err)
}

// outbid settles while block space becomes dearer: each bid replaces the one before.
func (w *walker) outbid() error {
	d, err := w.open("outbid", "funding before a spike of fees", 10_000, farAway)
	if err != nil {
		return err
	}
	low, err := settle(60_000, feerate, nil, d)
	if err := w.send("settlement at a low fee", low, err); err != nil {
		return err
	}
	high, err := settle(60_000, 20*feerate, nil, d)
	return w.mine("settlement that replaced a cheaper one", high, err)
}

// cancelled is a funding that must not happen any more: the user spends one of its inputs.
func (w *walker) cancelled() error {
	d := newDeal("cancelled", 100_000, 0, farAway)
	if err := w.coins(d, 150_000, 0); err != nil {
		return err
	}
	late, err := d.sign(nil)
	if err != nil {
		return err
	}
	tx, err := d.cancel()
	if err := w.mine("cancelled funding's input", tx, err); err != nil {
		return err
	}
	if w.send("late funding", late, nil) == nil {
		return errors.New("the node took a funding whose input was spent")
	}
	return nil
}
