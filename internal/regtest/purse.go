package regtest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/rpcclient"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// purseFee is what every payment of the purse gives to the miners: some 10 sat per vB of one input and two outputs, and
// more than the relay fee (1 sat per vB) of ten inputs.
const purseFee = 2_000 * btcutil.Amount(1)

// leastChange is the smallest change that is kept: less would be dust.
const leastChange = 1_000 * btcutil.Amount(1)

// purse is the miner's money: subsidies not yet spent, and change.
type purse struct {
	height int64 // of the last block whose subsidy was looked at
	change []wire.OutPoint
}

// purseKey is the miner's key, the same for every node: there is nothing to steal on regtest, and a chain that is started
// again is still its owner's.
func purseKey() *btcec.PrivateKey {
	key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{0x52}, 32))
	return key
}

func purseAddress() address.Address { return keyAddress(purseKey()) }

func freshAddress() (address.Address, error) {
	key, err := btcec.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	return keyAddress(key), nil
}

// keyAddress is the P2WPKH address of a key.
func keyAddress(key *btcec.PrivateKey) address.Address {
	hash := address.Hash160(key.PubKey().SerializeCompressed())
	a, err := address.NewAddressWitnessPubKeyHash(hash, params)
	if err != nil {
		panic(err) // a hash of another length than 20 bytes
	}
	return a
}

// Fund pays amount to an address from the miner's money and mines a block, so that it is confirmed once. It returns the
// coin.
func (n *Node) Fund(to address.Address, amount btcutil.Amount) (wire.OutPoint, error) {
	out, _, err := n.Pay(to, amount)
	if err != nil {
		return out, err
	}
	_, err = n.Mine(1)
	return out, err
}

// Pay is Fund without a block: the payment is left in the mempool. It can be replaced (BIP125).
func (n *Node) Pay(to address.Address, amount btcutil.Amount) (wire.OutPoint, *wire.MsgTx, error) {
	script, err := txscript.PayToAddrScript(to)
	if err != nil {
		return wire.OutPoint{}, nil, err
	}
	return n.PayScript(script, amount)
}

// PayScript is Pay to any output script.
func (n *Node) PayScript(script []byte, amount btcutil.Amount) (wire.OutPoint, *wire.MsgTx, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rpc, err := n.connection()
	if err != nil {
		return wire.OutPoint{}, nil, err
	}
	coins, total, err := n.purse.take(rpc, amount+purseFee)
	if err != nil {
		return wire.OutPoint{}, nil, err
	}
	tx := wire.NewMsgTx(2)
	for op := range coins {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: op, Sequence: wire.MaxTxInSequenceNum - 2})
	}
	tx.AddTxOut(wire.NewTxOut(int64(amount), script))
	change := total - amount - purseFee
	if change >= leastChange {
		own, err := txscript.PayToAddrScript(purseAddress())
		if err != nil {
			return wire.OutPoint{}, nil, err
		}
		tx.AddTxOut(wire.NewTxOut(int64(change), own))
	}
	if err := Sign(tx, purseKey(), coins); err != nil {
		return wire.OutPoint{}, nil, err
	}
	hash, err := rpc.SendRawTransaction(tx, true)
	if err != nil {
		return wire.OutPoint{}, nil, fmt.Errorf("pay %v: %w", amount, err)
	}
	if len(tx.TxOut) == 2 {
		n.purse.change = append(n.purse.change, wire.OutPoint{Hash: *hash, Index: 1})
	}
	return wire.OutPoint{Hash: *hash, Index: 0}, tx, nil
}

// take chooses coins worth at least amount.
func (p *purse) take(rpc *rpcclient.Client, amount btcutil.Amount) (map[wire.OutPoint]*wire.TxOut, btcutil.Amount, error) {
	best, err := rpc.GetBlockCount()
	if err != nil {
		return nil, 0, err
	}
	coins := make(map[wire.OutPoint]*wire.TxOut)
	var total btcutil.Amount
	for total < amount {
		op, err := p.next(rpc, best)
		if err != nil {
			return nil, 0, err
		}
		// Change may be gone after a reorganization, a subsidy spent before a restart.
		info, err := rpc.GetTxOut(&op.Hash, op.Index, true)
		if err != nil {
			return nil, 0, err
		}
		if info == nil {
			continue
		}
		value, err := btcutil.NewAmount(info.Value)
		if err != nil {
			return nil, 0, err
		}
		script, err := txscript.PayToAddrScript(purseAddress())
		if err != nil {
			return nil, 0, err
		}
		coins[op] = wire.NewTxOut(int64(value), script)
		total += value
	}
	return coins, total, nil
}

// next is the next coin that may be there: the newest change, else the next mature subsidy.
func (p *purse) next(rpc *rpcclient.Client, best int64) (wire.OutPoint, error) {
	if last := len(p.change) - 1; last >= 0 {
		op := p.change[last]
		p.change = p.change[:last]
		return op, nil
	}
	own, err := txscript.PayToAddrScript(purseAddress())
	if err != nil {
		return wire.OutPoint{}, err
	}
	for p.height+int64(params.CoinbaseMaturity) <= best {
		p.height++
		block, err := blockAt(rpc, p.height)
		if err != nil {
			return wire.OutPoint{}, err
		}
		coinbase := block.MsgBlock().Transactions[0]
		if bytes.Equal(coinbase.TxOut[0].PkScript, own) {
			return wire.OutPoint{Hash: coinbase.TxHash(), Index: 0}, nil
		}
	}
	return wire.OutPoint{}, errors.New("the miner has no mature coin left: mine more blocks")
}

// Sign puts the witness of a P2WPKH coin on every input, with one key for all of them.
func Sign(tx *wire.MsgTx, key *btcec.PrivateKey, coins map[wire.OutPoint]*wire.TxOut) error {
	hashes := txscript.NewTxSigHashes(tx, txscript.NewMultiPrevOutFetcher(coins))
	for i, in := range tx.TxIn {
		coin := coins[in.PreviousOutPoint]
		if coin == nil {
			return fmt.Errorf("input %d: the coin %v is not known", i, in.PreviousOutPoint)
		}
		witness, err := txscript.WitnessSignature(tx, hashes, i, coin.Value, coin.PkScript, txscript.SigHashAll, key, true)
		if err != nil {
			return fmt.Errorf("sign input %d: %w", i, err)
		}
		in.Witness = witness
	}
	return nil
}

// Transaction is a transaction of the chain or the mempool.
func (n *Node) Transaction(id chainhash.Hash) (*wire.MsgTx, error) {
	rpc, err := n.RPC()
	if err != nil {
		return nil, err
	}
	tx, err := rpc.GetRawTransaction(&id)
	if err != nil {
		return nil, err
	}
	return tx.MsgTx(), nil
}

// DoubleSpend makes another transaction over the inputs of one that the miner paid (see Pay): everything goes back to
// the miner, less the first's fee and extraFee. It is signed and not sent: give it to MineWith or Reorg, or to the
// mempool as a replacement.
func (n *Node) DoubleSpend(paid *wire.MsgTx, extraFee btcutil.Amount) (*wire.MsgTx, error) {
	own, err := txscript.PayToAddrScript(purseAddress())
	if err != nil {
		return nil, err
	}
	tx := wire.NewMsgTx(2)
	coins := make(map[wire.OutPoint]*wire.TxOut)
	var total int64
	for _, in := range paid.TxIn {
		from, err := n.Transaction(in.PreviousOutPoint.Hash)
		if err != nil {
			return nil, err
		}
		coin := from.TxOut[in.PreviousOutPoint.Index]
		if !bytes.Equal(coin.PkScript, own) {
			return nil, fmt.Errorf("the coin %v is not the miner's", in.PreviousOutPoint)
		}
		coins[in.PreviousOutPoint] = coin
		total += coin.Value
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: in.PreviousOutPoint, Sequence: in.Sequence})
	}
	tx.AddTxOut(wire.NewTxOut(total-int64(purseFee)-int64(extraFee), own))
	return tx, Sign(tx, purseKey(), coins)
}

// SignAsMiner signs a transaction that spends only coins of the miner's, change of Pay for instance.
func (n *Node) SignAsMiner(tx *wire.MsgTx) error {
	coins := make(map[wire.OutPoint]*wire.TxOut)
	for _, in := range tx.TxIn {
		from, err := n.Transaction(in.PreviousOutPoint.Hash)
		if err != nil {
			return err
		}
		coins[in.PreviousOutPoint] = from.TxOut[in.PreviousOutPoint.Index]
	}
	return Sign(tx, purseKey(), coins)
}
