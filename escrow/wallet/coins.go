package wallet

import (
	"context"
	"errors"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/btcsuite/btcwallet/walletdb"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
)

// Balance is the sum of the wallet's coins, by what can be done with them.
type Balance struct {
	Confirmed   btcutil.Amount // in a block, to be spent now; what is leased included
	Leased      btcutil.Amount // of these: leased to a request
	Unconfirmed btcutil.Amount // change of what the wallet sent and no block has yet, or has no more
	Immature    btcutil.Amount // subsidies of blocks with less than 100 confirmations
}

// Coins are the coins that can be spent now: native, in a block, and no other transaction of the wallet's spends them.
// Those that are leased are included.
func (w *Wallet) Coins(context.Context) ([]escrow.Coin, error) {
	var found []escrow.Coin
	err := walletdb.View(w.db, func(tx walletdb.ReadTx) error {
		all, err := w.coins(tx)
		for _, coin := range all {
			if w.spendable(coin) {
				found = append(found, coin)
			}
		}
		return err
	})
	return found, err
}

// Balance adds the coins up.
func (w *Wallet) Balance(context.Context) (Balance, error) {
	var sum Balance
	err := walletdb.View(w.db, func(tx walletdb.ReadTx) error {
		all, err := w.coins(tx)
		if err != nil {
			return err
		}
		leases, err := readLeases(tx)
		if err != nil {
			return err
		}
		held := leases.held("", w.cfg.Clock())
		for _, coin := range all {
			switch {
			case coin.Confirmations == 0:
				sum.Unconfirmed += coin.Value
			case !w.spendable(coin):
				sum.Immature += coin.Value
			default:
				sum.Confirmed += coin.Value
				if _, leased := held[coin.OutPoint]; leased {
					sum.Leased += coin.Value
				}
			}
		}
		return nil
	})
	return sum, err
}

// coins are all native coins that are not spent as far as the wallet knows.
func (w *Wallet) coins(tx walletdb.ReadTx) ([]escrow.Coin, error) {
	credits, err := w.btc.TxStore.UnspentOutputs(tx.ReadBucket(bucketTransactions))
	if err != nil {
		return nil, err
	}
	tip := w.btc.SyncedTo().Height
	var coins []escrow.Coin
	for _, credit := range credits {
		if !txscript.IsPayToWitnessPubKeyHash(credit.PkScript) && !txscript.IsPayToTaproot(credit.PkScript) {
			continue
		}
		var confirmations int64
		if credit.Height >= 0 && credit.Height <= tip {
			confirmations = int64(tip-credit.Height) + 1
		}
		coins = append(coins, escrow.Coin{
			OutPoint: credit.OutPoint, Value: credit.Amount, PkScript: credit.PkScript,
			Confirmations: confirmations, Coinbase: credit.FromCoinBase,
		})
	}
	return coins, nil
}

func (w *Wallet) spendable(coin escrow.Coin) bool {
	if coin.Coinbase {
		return coin.Confirmations >= int64(w.params.CoinbaseMaturity)
	}
	return coin.Confirmations > 0
}

// AwaitSync returns when the wallet has seen the block that is the node's newest now. [Wallet.Run] has to run. Errors:
// chain.ErrUnreachable, or ctx's.
func (w *Wallet) AwaitSync(ctx context.Context) error {
	tip, err := w.node.Tip(ctx)
	if err != nil {
		return err
	}
	w.chain.poke()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if newest, settled := w.chain.place(); settled && w.btc.ChainSynced() {
			synced := w.btc.SyncedTo()
			if newest.Hash == synced.Hash && newest.Height >= tip.Height {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-w.chain.ctx.Done():
			return context.Canceled
		}
	}
}

// resend hands the wallet's transactions that are in no block to the node again, which may have forgotten them.
func (w *Wallet) resend(ctx context.Context) {
	var waiting []*wire.MsgTx
	err := walletdb.View(w.db, func(tx walletdb.ReadTx) (err error) {
		waiting, err = w.btc.TxStore.UnminedTxs(tx.ReadBucket(bucketTransactions))
		return err
	})
	if err != nil {
		w.cfg.Log.Error("wallet: read the transactions to send again", "error", err)
	}
	for _, tx := range waiting {
		err := w.node.Broadcast(ctx, tx)
		if errors.Is(err, chain.ErrUnreachable) {
			return
		}
		if err != nil {
			w.cfg.Log.Warn("wallet: a transaction is refused when sent again", "txid", tx.TxHash(), "error", err)
		}
		if errors.Is(err, chain.ErrConflict) {
			w.forget(tx)
		}
	}
}
