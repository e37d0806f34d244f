package regtest

import (
	"fmt"
	"math"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/integration/rpctest"
	"github.com/btcsuite/btcd/rpcclient"
	"github.com/btcsuite/btcd/wire/v2"
)

// params are the network's.
var params = &chaincfg.RegressionNetParams

// Height is the height of the best chain.
func (n *Node) Height() (int, error) {
	rpc, err := n.RPC()
	if err != nil {
		return 0, err
	}
	height, err := rpc.GetBlockCount()
	return int(height), err
}

// Mine adds count blocks to the best chain, the first of them with all that is in the mempool, and returns their hashes.
func (n *Node) Mine(count int) ([]*chainhash.Hash, error) {
	rpc, err := n.RPC()
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return nil, nil
	}
	if count < 0 || count > math.MaxInt32 {
		return nil, fmt.Errorf("%d blocks cannot be mined", count)
	}
	return rpc.Generate(uint32(count))
}

// MineTo adds count blocks whose subsidy (without fees) goes to an address. They have no other transaction.
func (n *Node) MineTo(to address.Address, count int) ([]*chainhash.Hash, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rpc, err := n.connection()
	if err != nil {
		return nil, err
	}
	tip, err := tipBlock(rpc)
	if err != nil {
		return nil, err
	}
	return extend(rpc, tip, to, count, nil)
}

// MineWith adds one block with exactly these transactions, in this order, whatever the mempool's policy thinks of them.
// The transactions in the mempool that they contradict are dropped by btcd.
func (n *Node) MineWith(txs ...*wire.MsgTx) (*chainhash.Hash, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rpc, err := n.connection()
	if err != nil {
		return nil, err
	}
	tip, err := tipBlock(rpc)
	if err != nil {
		return nil, err
	}
	hashes, err := extend(rpc, tip, purseAddress(), 1, txs)
	if err != nil {
		return nil, err
	}
	return hashes[0], nil
}

// Reorg replaces the newest depth blocks by a longer branch of depth+1 blocks, the first of them with exactly these
// transactions. What stood in the replaced blocks goes back to the mempool, unless it contradicts them.
func (n *Node) Reorg(depth int, txs ...*wire.MsgTx) ([]*chainhash.Hash, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rpc, err := n.connection()
	if err != nil {
		return nil, err
	}
	height, err := rpc.GetBlockCount()
	if err != nil {
		return nil, err
	}
	if depth < 1 || int64(depth) > height {
		return nil, fmt.Errorf("the newest %d of %d blocks cannot be replaced", depth, height)
	}
	fork, err := blockAt(rpc, height-int64(depth))
	if err != nil {
		return nil, err
	}
	// To a fresh address: the new blocks must differ from the old ones even when they are mined in the same second.
	to, err := freshAddress()
	if err != nil {
		return nil, err
	}
	hashes, err := extend(rpc, fork, to, depth+1, txs)
	if err != nil {
		return nil, err
	}
	best, err := rpc.GetBestBlockHash()
	if err != nil {
		return nil, err
	}
	if *best != *hashes[depth] {
		return nil, fmt.Errorf("the branch up to %v did not become the best chain, which ends with %v", hashes[depth], best)
	}
	return hashes, nil
}

// Invalidate takes the newest depth blocks off the chain and leaves it shorter, until more is mined. Their transactions
// go back to the mempool.
func (n *Node) Invalidate(depth int) error {
	rpc, err := n.RPC()
	if err != nil {
		return err
	}
	height, err := rpc.GetBlockCount()
	if err != nil {
		return err
	}
	hash, err := rpc.GetBlockHash(height - int64(depth) + 1)
	if err != nil {
		return err
	}
	return rpc.InvalidateBlock(hash)
}

// extend adds count blocks after the given one, the first with these transactions.
func extend(rpc *rpcclient.Client, after *btcutil.Block, to address.Address, count int, txs []*wire.MsgTx) ([]*chainhash.Hash, error) {
	var included []*btcutil.Tx
	for _, tx := range txs {
		included = append(included, btcutil.NewTx(tx))
	}
	var hashes []*chainhash.Hash
	for range count {
		// btcd wants each later than the median of the eleven before it, and none two hours ahead.
		date := after.MsgBlock().Header.Timestamp.Add(time.Second)
		if now().After(date) {
			date = now()
		}
		block, err := rpctest.CreateBlock(after, included, rpctest.BlockVersion, date, to, nil, params)
		if err != nil {
			return nil, err
		}
		if err := rpc.SubmitBlock(block, nil); err != nil {
			return nil, fmt.Errorf("block %d: %w", block.Height(), err)
		}
		hashes = append(hashes, block.Hash())
		after, included = block, nil
	}
	return hashes, nil
}

func tipBlock(rpc *rpcclient.Client) (*btcutil.Block, error) {
	height, err := rpc.GetBlockCount()
	if err != nil {
		return nil, err
	}
	return blockAt(rpc, height)
}

func blockAt(rpc *rpcclient.Client, height int64) (*btcutil.Block, error) {
	hash, err := rpc.GetBlockHash(height)
	if err != nil {
		return nil, err
	}
	msg, err := rpc.GetBlock(hash)
	if err != nil {
		return nil, err
	}
	block := btcutil.NewBlock(msg)
	block.SetHeight(int32(height))
	return block, nil
}
