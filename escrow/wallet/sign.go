package wallet

import (
	"context"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/btcsuite/btcwallet/waddrmgr"
	"github.com/btcsuite/btcwallet/walletdb"

	"relaymarket/escrow"
)

// SignFunding finalizes, in the packet, the inputs that spend the coins leased to the request, and leaves all others as they
// are. It signs everything the transaction does (SIGHASH_ALL, for P2TR SIGHASH_DEFAULT): the caller has checked what that
// is. All inputs need their WITNESS_UTXO. Signing again gives another signature of the same.
//
// It may be repeated after the funding was published: a coin that this very transaction spends counts as there.
//
// Errors: ErrNotLeased when the request has no lease, or the transaction spends a coin of the wallet that is not in it, and
// then nothing is signed; ErrSpent when a leased coin is gone; ErrRequest when a WITNESS_UTXO is not the coin's.
func (w *Wallet) SignFunding(_ context.Context, key string, packet *psbt.Packet) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	leased, err := w.leasedNow(key, packet.UnsignedTx.TxHash())
	if err != nil {
		return err
	}
	coins := make(map[wire.OutPoint]*wire.TxOut)
	var own []int
	for i, in := range packet.UnsignedTx.TxIn {
		utxo := packet.Inputs[i].WitnessUtxo
		if utxo == nil {
			return fmt.Errorf("%w: input %d has no WITNESS_UTXO", ErrRequest, i)
		}
		coins[in.PreviousOutPoint] = utxo
		coin, ours := leased[in.PreviousOutPoint]
		switch {
		case !ours && w.isOwn(utxo.PkScript):
			return fmt.Errorf("%w: input %d, %v", ErrNotLeased, i, in.PreviousOutPoint)
		case !ours:
		case utxo.Value != coin.Value || string(utxo.PkScript) != string(coin.PkScript):
			return fmt.Errorf("%w: the WITNESS_UTXO of input %d is not the coin %v", ErrRequest, i, in.PreviousOutPoint)
		default:
			own = append(own, i)
		}
	}
	if len(own) != len(leased) {
		return fmt.Errorf("%w: the transaction spends %d of the %d coins of request %q", ErrRequest, len(own), len(leased), key)
	}
	witnesses, err := w.sign(packet.UnsignedTx, coins, own)
	if err != nil {
		return err
	}
	for i, witness := range witnesses {
		packet.Inputs[i].FinalScriptWitness = escrow.EncodeWitness(witness)
	}
	return nil
}

// leasedNow are the coins of a request, all of which still have to be there, or be spent by this transaction. The lease may have expired: if nobody took
// the coins since, nothing is lost by going on.
func (w *Wallet) leasedNow(key string, spender chainhash.Hash) (map[wire.OutPoint]*wire.TxOut, error) {
	found := make(map[wire.OutPoint]*wire.TxOut)
	err := walletdb.View(w.db, func(tx walletdb.ReadTx) error {
		all, err := readLeases(tx)
		if err != nil {
			return err
		}
		l, there := all[key]
		if !there {
			return fmt.Errorf("%w: request %q has no lease, call Fund first", ErrNotLeased, key)
		}
		coins, err := w.coins(tx)
		if err != nil {
			return err
		}
		unspent := make(map[wire.OutPoint]bool)
		for _, c := range coins {
			unspent[c.OutPoint] = true
		}
		published, err := w.btc.TxStore.TxDetails(tx.ReadBucket(bucketTransactions), &spender)
		if err != nil {
			return err
		}
		held := all.held(key, w.cfg.Clock())
		for _, c := range l.Coins {
			if h, taken := held[c.outpoint()]; taken && !(h.shared && l.Shared) {
				return fmt.Errorf("%w: %v went to another request when the lease had ended", ErrNotLeased, c.outpoint())
			}
			if !unspent[c.outpoint()] && published == nil {
				return fmt.Errorf("%w: %v", ErrSpent, c.outpoint())
			}
			found[c.outpoint()] = wire.NewTxOut(c.Value, c.Script)
		}
		return nil
	})
	return found, err
}

// SignOwn finalizes the one input of a packet, which spends an output of the wallet's that need not be in a block yet: the packet's
// WITNESS_UTXO says what it is. It signs everything the transaction does, and keeps nothing: the caller publishes it. Errors: ErrRequest,
// also when the wallet has no key of that output.
func (w *Wallet) SignOwn(_ context.Context, packet *psbt.Packet) error {
	if len(packet.Inputs) != 1 || packet.Inputs[0].WitnessUtxo == nil {
		return fmt.Errorf("%w: one input with its WITNESS_UTXO is signed", ErrRequest)
	}
	utxo := packet.Inputs[0].WitnessUtxo
	if !w.isOwn(utxo.PkScript) {
		return fmt.Errorf("%w: the output is not this wallet's", ErrRequest)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at := packet.UnsignedTx.TxIn[0].PreviousOutPoint
	witnesses, err := w.sign(packet.UnsignedTx, map[wire.OutPoint]*wire.TxOut{at: utxo}, []int{0})
	if err != nil {
		return err
	}
	packet.Inputs[0].FinalScriptWitness = escrow.EncodeWitness(witnesses[0])
	return nil
}

// isOwn tells whether the wallet has the key of an output.
func (w *Wallet) isOwn(script []byte) bool {
	_, addrs, _, err := txscript.ExtractPkScriptAddrs(script, w.params)
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if own, err := w.btc.HaveAddress(a); own && err == nil {
			return true
		}
	}
	return false
}

// sign makes the witnesses of these inputs. coins has every input's.
func (w *Wallet) sign(tx *wire.MsgTx, coins map[wire.OutPoint]*wire.TxOut, inputs []int) (map[int]wire.TxWitness, error) {
	hashes := txscript.NewTxSigHashes(tx, txscript.NewMultiPrevOutFetcher(coins))
	witnesses := make(map[int]wire.TxWitness)
	for _, i := range inputs {
		coin := coins[tx.TxIn[i].PreviousOutPoint]
		hashType := txscript.SigHashAll
		if txscript.IsPayToTaproot(coin.PkScript) {
			hashType = txscript.SigHashDefault
		}
		witness, _, err := w.btc.ComputeInputScript(tx, coin, i, hashes, hashType, nil)
		if waddrmgr.IsError(err, waddrmgr.ErrLocked) {
			return nil, fmt.Errorf("%w: the wallet is locked; open it again", ErrPassphrase)
		}
		if err != nil {
			return nil, fmt.Errorf("sign input %d: %w", i, err)
		}
		witnesses[i] = witness
	}
	return witnesses, nil
}
