package wallet

import (
	"context"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcwallet/waddrmgr"
	"github.com/btcsuite/btcwallet/walletdb"

	"relaymarket/protocol"
)

// Kind is a kind of address.
type Kind uint8

// The kinds.
const (
	P2WPKH Kind = 1 // BIP84, bc1q…
	P2TR   Kind = 2 // BIP86, bc1p…
)

func (k Kind) scope() (waddrmgr.KeyScope, error) {
	switch k {
	case P2WPKH:
		return waddrmgr.KeyScopeBIP0084, nil
	case P2TR:
		return waddrmgr.KeyScopeBIP0086, nil
	}
	return waddrmgr.KeyScope{}, fmt.Errorf("%w: there is no kind %d of address", ErrRequest, k)
}

// NewAddress makes an address that was never given out before. It needs no node.
func (w *Wallet) NewAddress(_ context.Context, kind Kind) (address.Address, error) {
	return w.newAddress(kind, false)
}

// NewScript is NewAddress as an output script, for a payout of a contract.
func (w *Wallet) NewScript(ctx context.Context, kind Kind) (protocol.Script, error) {
	a, err := w.NewAddress(ctx, kind)
	if err != nil {
		return nil, err
	}
	return txscript.PayToAddrScript(a)
}

func (w *Wallet) newAddress(kind Kind, change bool) (address.Address, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newAddressLocked(kind, change)
}

// newAddressLocked wants mu: the address manager updates its memory after the commit, and two at a time could get one.
func (w *Wallet) newAddressLocked(kind Kind, change bool) (address.Address, error) {
	scope, err := kind.scope()
	if err != nil {
		return nil, err
	}
	manager, err := w.btc.AddrManager().FetchScopedKeyManager(scope)
	if err != nil {
		return nil, err
	}
	var made []waddrmgr.ManagedAddress
	err = walletdb.Update(w.db, func(tx walletdb.ReadWriteTx) error {
		next := manager.NextExternalAddresses
		if change {
			next = manager.NextInternalAddresses
		}
		var err error
		made, err = next(tx.ReadWriteBucket(bucketAddresses), waddrmgr.DefaultAccountNum, 1)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make an address: %w", err)
	}
	a := made[0].Address()
	return a, w.chain.NotifyReceived([]address.Address{a})
}

// ReceiveAddress is where to pay the wallet: the newest address, until something was paid to it. Asking often does not
// use addresses up, of which a restored wallet looks only so far ahead.
func (w *Wallet) ReceiveAddress(_ context.Context) (address.Address, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.btc.CurrentAddress(waddrmgr.DefaultAccountNum, waddrmgr.KeyScopeBIP0084)
	if err != nil {
		return nil, fmt.Errorf("read the address to pay to: %w", err)
	}
	return a, w.chain.NotifyReceived([]address.Address{a})
}
