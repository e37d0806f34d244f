package escrow

import (
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// chain is a best chain and the transactions that wait for a block, by the rules that matter to a
// contract: outputs are spent once, locktimes (BIP65, BIP113) and sequences (BIP68) hold, scripts
// are run. Which of two conflicting transactions is mined, and when, is its adversary's choice, up to
// maxDelay.
type chain struct {
	tip   uint32
	mined []inBlock // by height; most blocks have none
	pool  []waiting
	coins map[wire.OutPoint]*wire.TxOut // what was there before
	valid map[chainhash.Hash]bool       // scripts run already
}

// inBlock is a transaction of the best chain.
type inBlock struct {
	tx     *Tx
	id     chainhash.Hash
	height uint32
}

// waiting is a transaction in the mempool. Since is when its purpose was first broadcast: a
// replacement does not start to wait anew.
type waiting struct {
	tx      *Tx
	purpose string
	since   uint32
	by      Side
}

// maxDelay is how many blocks a transaction that is re-bid until it confirms waits at most. A
// settlement that is reorganized out maxReorgs times is still in a block before T:
// maxDelay·(maxReorgs+1) < M.
const (
	maxDelay  = 100
	maxReorgs = 3
)

// find is the transaction with this id in the best chain, and its height.
func (c *chain) find(id chainhash.Hash) (*Tx, uint32) {
	for _, m := range c.mined {
		if m.id == id {
			return m.tx, m.height
		}
	}
	return nil, 0
}

// spender is the transaction of the best chain that spends an output.
func (c *chain) spender(at wire.OutPoint) (*Tx, uint32) {
	for _, m := range c.mined {
		for _, in := range m.tx.TxIn {
			if in.PreviousOutPoint == at {
				return m.tx, m.height
			}
		}
	}
	return nil, 0
}

// confirmations of a transaction, 0 if it is in no block.
func (c *chain) confirmations(id chainhash.Hash) int64 {
	if _, at := c.find(id); at > 0 {
		return int64(c.tip-at) + 1
	}
	return 0
}

// fits tells whether a transaction may be in the next block.
func (c *chain) fits(tx *Tx) bool {
	next := c.tip + 1
	for i, in := range tx.TxIn {
		_, exists := c.coins[in.PreviousOutPoint]
		parent, at := c.find(in.PreviousOutPoint.Hash)
		if !exists && parent == nil {
			return false
		}
		if spent, _ := c.spender(in.PreviousOutPoint); spent != nil {
			return false
		}
		if tx.LockTime >= next && in.Sequence != wire.MaxTxInSequenceNum {
			return false
		}
		if in.Sequence&wire.SequenceLockTimeDisabled == 0 && at+in.Sequence > next {
			return false
		}
		if exists != (parent == nil) || tx.Prev[i] == nil {
			return false
		}
	}
	id := tx.TxHash()
	if !c.valid[id] {
		c.valid[id] = tx.Verify() == nil
	}
	return c.valid[id]
}

func (c *chain) broadcast(by Side, purpose string, tx *Tx) {
	since := c.tip
	for _, w := range c.pool {
		if w.tx.TxHash() == tx.TxHash() {
			return
		}
		if w.purpose == purpose {
			since = min(since, w.since)
		}
	}
	c.pool = append(c.pool, waiting{tx, purpose, since, by})
}

// mine adds a block with everything that waited this long, one side's transactions first.
func (c *chain) mine(delay uint32, first Side) []*Tx {
	slices.SortStableFunc(c.pool, func(a, b waiting) int {
		switch {
		case a.by == b.by:
			return 0
		case a.by == first:
			return -1
		}
		return 1
	})
	var block []*Tx
	for _, w := range c.pool {
		if w.since+delay <= c.tip && c.fits(w.tx) && !conflicts(block, w.tx) {
			block = append(block, w.tx)
		}
	}
	c.tip++
	for _, tx := range block {
		c.mined = append(c.mined, inBlock{tx, tx.TxHash(), c.tip})
	}
	c.pool = slices.DeleteFunc(c.pool, func(w waiting) bool { return slices.Contains(block, w.tx) })
	return block
}

func conflicts(block []*Tx, tx *Tx) bool {
	for _, other := range block {
		for _, a := range other.TxIn {
			for _, b := range tx.TxIn {
				if a.PreviousOutPoint == b.PreviousOutPoint {
					return true
				}
			}
		}
	}
	return false
}

// disconnect takes the last block off; its transactions wait again. They come newest first.
func (c *chain) disconnect() (block []*Tx) {
	for len(c.mined) > 0 && c.mined[len(c.mined)-1].height == c.tip {
		block = append(block, c.mined[len(c.mined)-1].tx)
		c.mined = c.mined[:len(c.mined)-1]
	}
	c.tip--
	for i := range c.pool {
		c.pool[i].since = min(c.pool[i].since, c.tip)
	}
	for _, tx := range block {
		c.pool = append(c.pool, waiting{tx, "reorganized " + tx.TxHash().String(), c.tip, Relay})
	}
	return block
}

// wealth is what outputs of the best chain pay to these scripts and nobody spent.
func (c *chain) wealth(scripts ...[]byte) (total btcutil.Amount) {
	mine := func(out *wire.TxOut) bool {
		return slices.ContainsFunc(scripts, func(s []byte) bool { return string(s) == string(out.PkScript) })
	}
	count := func(at wire.OutPoint, out *wire.TxOut) {
		if spent, _ := c.spender(at); spent == nil && mine(out) {
			total += btcutil.Amount(out.Value)
		}
	}
	for at, out := range c.coins {
		count(at, out)
	}
	for _, m := range c.mined {
		for i, out := range m.tx.TxOut {
			count(wire.OutPoint{Hash: m.id, Index: uint32(i)}, out)
		}
	}
	return total
}

// fees of everything in the best chain.
func (c *chain) fees() (total btcutil.Amount) {
	for _, m := range c.mined {
		total += m.tx.Fee()
	}
	return total
}
