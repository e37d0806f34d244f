package wallet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/btcsuite/btcwallet/walletdb"

	"relaymarket/escrow"
)

// leaseMemory is how long a lease is remembered after it has expired, so that whoever asks again and again under one key is
// shown the same coins, not one after the other all that the owner has.
const leaseMemory = 24 * time.Hour

// lease is what a request got. It is a JSON value of the leases' bucket, under the request's key.
type lease struct {
	Coins   []leasedCoin `json:"coins"`
	Change  []byte       `json:"change"`
	Amount  int64        `json:"amount"`  // sat
	Feerate int64        `json:"feerate"` // sat per 1000 vB
	Expires int64        `json:"expires"` // ms
	Shared  bool         `json:"shared"`
}

type leasedCoin struct {
	TxID   chainhash.Hash `json:"txid"`
	Index  uint32         `json:"index"`
	Value  int64          `json:"value"` // sat
	Script []byte         `json:"script"`
}

func (c leasedCoin) outpoint() wire.OutPoint { return wire.OutPoint{Hash: c.TxID, Index: c.Index} }

func leasedCoins(coins []escrow.Coin) []leasedCoin {
	var leased []leasedCoin
	for _, c := range coins {
		leased = append(leased, leasedCoin{TxID: c.OutPoint.Hash, Index: c.OutPoint.Index, Value: int64(c.Value), Script: c.PkScript})
	}
	return leased
}

func (l lease) expires() time.Time { return time.UnixMilli(l.Expires) }

// leases are all that are remembered, by the request's key.
type leases map[string]lease

func readLeases(tx walletdb.ReadTx) (leases, error) {
	all := make(leases)
	err := tx.ReadBucket(bucketLeases).ForEach(func(key, value []byte) error {
		var l lease
		if err := json.Unmarshal(value, &l); err != nil {
			return fmt.Errorf("the lease of request %q: %w", key, err)
		}
		all[string(key)] = l
		return nil
	})
	return all, err
}

// Lease is a request's hold on coins.
type Lease struct {
	Key     string // of the request
	Expires time.Time
}

// Leases are those that have not expired, in the order of their keys.
func (w *Wallet) Leases(context.Context) (found []Lease, err error) {
	now := w.cfg.Clock()
	err = walletdb.View(w.db, func(tx walletdb.ReadTx) error {
		all, err := readLeases(tx)
		for key, l := range all {
			if l.expires().After(now) {
				found = append(found, Lease{Key: key, Expires: l.expires()})
			}
		}
		return err
	})
	slices.SortFunc(found, func(a, b Lease) int { return strings.Compare(a.Key, b.Key) })
	return found, err
}

// hold is how a coin is leased.
type hold struct {
	until  time.Time
	shared bool // by all who hold it
}

// held are the coins that other requests than this one have.
func (all leases) held(request string, now time.Time) map[wire.OutPoint]hold {
	found := make(map[wire.OutPoint]hold)
	for key, l := range all {
		if key == request || !l.expires().After(now) {
			continue
		}
		for _, c := range l.Coins {
			h, again := found[c.outpoint()]
			if !again {
				h.shared = true
			}
			if l.expires().After(h.until) {
				h.until = l.expires()
			}
			h.shared = h.shared && l.Shared
			found[c.outpoint()] = h
		}
	}
	return found
}

func writeLease(tx walletdb.ReadWriteTx, key string, l lease) error {
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return tx.ReadWriteBucket(bucketLeases).Put([]byte(key), value)
}

// prune forgets what expired long ago.
func (all leases) prune(tx walletdb.ReadWriteTx, now time.Time) error {
	for key, l := range all {
		if now.Sub(l.expires()) < leaseMemory {
			continue
		}
		if err := tx.ReadWriteBucket(bucketLeases).Delete([]byte(key)); err != nil {
			return err
		}
		delete(all, key)
	}
	return nil
}
