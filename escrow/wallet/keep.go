package wallet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/btcsuite/btcwallet/walletdb"

	"relaymarket/escrow"
)

// Keep leases these very coins under a key, to nobody else, or prolongs that lease: for who has chosen them by himself among
// [Wallet.Coins]. Other requests that were offered one of them may not sign with it any more. Errors: ErrSpent when one is not
// there, ErrNotLeased when another request has one to himself, ErrRequest.
func (w *Wallet) Keep(_ context.Context, key string, coins []wire.OutPoint, duration time.Duration) error {
	if key == "" || len(coins) == 0 || len(coins) > escrow.MaxPartInputs || duration <= 0 {
		return fmt.Errorf("%w: coins are kept with a key and for a time", ErrRequest)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return walletdb.Update(w.db, func(tx walletdb.ReadWriteTx) error {
		all, err := readLeases(tx)
		if err != nil {
			return err
		}
		there, err := w.coins(tx)
		if err != nil {
			return err
		}
		now := w.cfg.Clock()
		if err := all.prune(tx, now); err != nil {
			return err
		}
		held := all.held(key, now)
		var kept []escrow.Coin
		for _, at := range coins {
			i := slices.IndexFunc(there, func(c escrow.Coin) bool { return c.OutPoint == at })
			if i < 0 {
				return fmt.Errorf("%w: %v", ErrSpent, at)
			}
			if h, taken := held[at]; taken && !h.shared {
				return fmt.Errorf("%w: %v is another request's", ErrNotLeased, at)
			}
			kept = append(kept, there[i])
		}
		return writeLease(tx, key, lease{Coins: leasedCoins(kept), Expires: now.Add(duration).UnixMilli()})
	})
}
