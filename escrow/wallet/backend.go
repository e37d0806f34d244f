package wallet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	btcchain "github.com/btcsuite/btcwallet/chain"
	"github.com/btcsuite/btcwallet/waddrmgr"
	"github.com/btcsuite/btcwallet/wtxmgr"

	"relaymarket/escrow/chain"
)

// backend is btcwallet's view of the chain. btcwallet's own client of btcd wants a websocket that it takes up to a minute
// to renew, its client of Core other requests; this one asks through chain.Client, as the contracts do, so both nodes, and
// a node that goes and comes back, are one matter in one place.
//
// btcwallet asks, and is told over one channel. After ClientConnected it undoes what it knew of blocks that are gone,
// looks for its addresses in new blocks (FilterBlocks), and calls Rescan; from there on it is told block by block.
type backend struct {
	node   *chain.Client
	params *chaincfg.Params
	log    *slog.Logger
	poll   time.Duration

	// ctx ends every request when the wallet is closed, which btcwallet's interface has no other way for.
	ctx   context.Context
	end   context.CancelFunc
	notes chan any
	wake  chan struct{} // one place: something has changed

	mu      sync.Mutex
	scripts map[string]struct{}        // output scripts that are ours
	coins   map[wire.OutPoint]struct{} // our coins, spent or not
	recent  []chain.BlockID            // what btcwallet was told of, oldest first; empty: wait for Rescan
	pending bool                       // btcwallet waits to be told that the rescan is finished
}

var _ btcchain.Interface = (*backend)(nil)

func newBackend(node *chain.Client, params *chaincfg.Params, log *slog.Logger, poll time.Duration) *backend {
	ctx, end := context.WithCancel(context.Background())
	return &backend{
		node: node, params: params, log: log, poll: poll, ctx: ctx, end: end,
		notes: make(chan any), wake: make(chan struct{}, 1),
		scripts: make(map[string]struct{}), coins: make(map[wire.OutPoint]struct{}),
	}
}

// run tells btcwallet what happens on the chain, and calls upToDate whenever the tip is reached after something changed.
func (b *backend) run(ctx context.Context, upToDate func(context.Context)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	if !b.tell(ctx, btcchain.ClientConnected{}) {
		return nil
	}
	ticker := time.NewTicker(b.poll)
	defer ticker.Stop()
	changed := true // since upToDate was called
	var fault string
	for {
		moved, err := b.step(ctx)
		changed = changed || moved
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			continue
		case errors.Is(err, chain.ErrUpToDate):
			if changed {
				upToDate(ctx)
			}
			if fault != "" {
				b.log.Info("wallet: the Bitcoin node answers again")
			}
			changed, fault = false, ""
		case errors.Is(err, errIdle):
		default:
			// What is in the node's mempool may be gone when it is back.
			changed = true
			if fault != err.Error() {
				fault = err.Error()
				b.log.Warn("wallet: the chain cannot be followed, trying again", "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-b.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// errIdle says that btcwallet has not asked to be told anything yet.
var errIdle = errors.New("nothing to follow")

// step tells one thing.
func (b *backend) step(ctx context.Context) (moved bool, err error) {
	b.mu.Lock()
	recent := b.recent
	b.mu.Unlock()
	if len(recent) == 0 {
		return false, errIdle
	}
	event, err := b.node.Next(ctx, recent)
	switch {
	case errors.Is(err, chain.ErrUpToDate):
		return b.finish(ctx), err
	case errors.Is(err, chain.ErrTooDeep):
		// btcwallet itself remembers more blocks, and goes back to where the branches meet.
		b.mu.Lock()
		b.recent = nil
		b.mu.Unlock()
		b.tell(ctx, btcchain.ClientConnected{})
		return true, nil
	case err != nil:
		return false, err
	}
	meta := wtxmgr.BlockMeta{Block: wtxmgr.Block{Hash: event.Block.Hash, Height: int32(event.Block.Height)}, Time: event.Time}
	if event.Kind == chain.Disconnect {
		b.advance(recent, recent[:len(recent)-1])
		return true, b.told(b.tell(ctx, btcchain.BlockDisconnected(meta)))
	}
	relevant, err := b.relevant(event.Msg)
	if err != nil {
		return false, err
	}
	// Nothing is lost between the two: btcwallet begins again from the newest block that it was told is connected.
	ok := b.tell(ctx, btcchain.FilteredBlockConnected{Block: &meta, RelevantTxs: relevant}) && b.tell(ctx, btcchain.BlockConnected(meta))
	next := append(recent[:len(recent):len(recent)], event.Block)
	b.advance(recent, next[max(0, len(next)-chain.Depth):])
	return true, b.told(ok)
}

// advance moves to another place on the chain, unless a Rescan has set one in the meantime.
func (b *backend) advance(from, to []chain.BlockID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.recent) > 0 && b.recent[len(b.recent)-1] == from[len(from)-1] {
		b.recent = to
	}
}

func (b *backend) told(ok bool) error {
	if !ok {
		return context.Canceled
	}
	return nil
}

// finish tells that the tip is reached, once after each Rescan.
func (b *backend) finish(ctx context.Context) bool {
	b.mu.Lock()
	pending, tip := b.pending, b.recent
	b.pending = false
	b.mu.Unlock()
	if !pending || len(tip) == 0 {
		return false
	}
	newest := tip[len(tip)-1]
	return b.tell(ctx, &btcchain.RescanFinished{Hash: &newest.Hash, Height: int32(newest.Height)})
}

func (b *backend) tell(ctx context.Context, note any) bool {
	select {
	case b.notes <- note:
		return true
	case <-ctx.Done():
		return false
	}
}

// relevant picks the transactions that pay to or spend from the wallet, and watches what they pay.
func (b *backend) relevant(block *wire.MsgBlock) ([]*wtxmgr.TxRecord, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*wtxmgr.TxRecord
	for _, tx := range block.Transactions {
		ours := false
		for _, in := range tx.TxIn {
			_, spent := b.coins[in.PreviousOutPoint]
			ours = ours || spent
		}
		var hash *chainhash.Hash
		for i, out := range tx.TxOut {
			if _, paid := b.scripts[string(out.PkScript)]; paid {
				ours = true
				if hash == nil {
					id := tx.TxHash()
					hash = &id
				}
				b.coins[wire.OutPoint{Hash: *hash, Index: uint32(i)}] = struct{}{}
			}
		}
		if !ours {
			continue
		}
		record, err := wtxmgr.NewTxRecordFromMsgTx(tx, block.Header.Timestamp)
		if err != nil {
			return nil, err
		}
		found = append(found, record)
	}
	return found, nil
}

// Rescan makes btcwallet be told of everything after the block start.
func (b *backend) Rescan(start *chainhash.Hash, addrs []address.Address, coins map[wire.OutPoint]address.Address) error {
	header, err := b.node.Header(b.ctx, *start)
	if err != nil {
		return err
	}
	if err := b.watch(addrs); err != nil {
		return err
	}
	b.mu.Lock()
	for coin := range coins {
		b.coins[coin] = struct{}{}
	}
	b.recent = []chain.BlockID{{Height: header.Height, Hash: *start}}
	b.pending = true
	b.mu.Unlock()
	b.poke()
	return nil
}

func (b *backend) watch(addrs []address.Address) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range addrs {
		script, err := txscript.PayToAddrScript(a)
		if err != nil {
			return fmt.Errorf("watch %v: %w", a, err)
		}
		b.scripts[string(script)] = struct{}{}
	}
	return nil
}

func (b *backend) poke() {
	select {
	case b.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// place is the newest block that btcwallet was told of, and whether it waits for more before it is synchronized.
func (b *backend) place() (newest chain.BlockID, settled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.recent) == 0 {
		return chain.BlockID{}, false
	}
	return b.recent[len(b.recent)-1], !b.pending
}

// FilterBlocks finds the first block with something of the wallet's, for its recovery.
func (b *backend) FilterBlocks(request *btcchain.FilterBlocksRequest) (*btcchain.FilterBlocksResponse, error) {
	filter := btcchain.NewBlockFilterer(b.params, request)
	for i, meta := range request.Blocks {
		block, err := b.node.Block(b.ctx, meta.Hash)
		if err != nil {
			return nil, err
		}
		if !filter.FilterBlock(block) {
			continue
		}
		return &btcchain.FilterBlocksResponse{
			BatchIndex:         uint32(i),
			BlockMeta:          meta,
			FoundExternalAddrs: filter.FoundExternal,
			FoundInternalAddrs: filter.FoundInternal,
			FoundOutPoints:     filter.FoundOutPoints,
			RelevantTxns:       filter.RelevantTxns,
		}, nil
	}
	return nil, nil
}

// SendRawTransaction hands a transaction of the wallet's to the node. When the node cannot be asked that is no failure:
// btcwallet would forget the transaction, and select its coins for another; it is kept, and sent again (see resend).
func (b *backend) SendRawTransaction(tx *wire.MsgTx, _ bool) (*chainhash.Hash, error) {
	id := tx.TxHash()
	err := b.node.Broadcast(b.ctx, tx)
	if err != nil && !errors.Is(err, chain.ErrUnreachable) {
		return nil, err
	}
	return &id, nil
}

// GetBestBlock names the tip.
func (b *backend) GetBestBlock() (*chainhash.Hash, int32, error) {
	tip, err := b.node.Tip(b.ctx)
	return &tip.Hash, int32(tip.Height), err
}

// BlockStamp is the tip with its time.
func (b *backend) BlockStamp() (*waddrmgr.BlockStamp, error) {
	tip, err := b.node.Tip(b.ctx)
	return &waddrmgr.BlockStamp{Hash: tip.Hash, Height: int32(tip.Height), Timestamp: tip.Time}, err
}

// GetBlock fetches a block.
func (b *backend) GetBlock(hash *chainhash.Hash) (*wire.MsgBlock, error) {
	return b.node.Block(b.ctx, *hash)
}

// GetBlockHash names the block at a height.
func (b *backend) GetBlockHash(height int64) (*chainhash.Hash, error) {
	at, err := b.node.BlockAt(b.ctx, uint32(height))
	return &at.Hash, err
}

// GetBlockHeader fetches a header.
func (b *backend) GetBlockHeader(hash *chainhash.Hash) (*wire.BlockHeader, error) {
	header, err := b.node.Header(b.ctx, *hash)
	return &header.BlockHeader, err
}

// Start, NotifyBlocks and WaitForShutdown have nothing to do: Run tells, and requests end with ctx.
func (b *backend) Start(context.Context) error { return nil }
func (b *backend) NotifyBlocks() error         { return nil }
func (b *backend) WaitForShutdown()            {}

// Stop ends all requests and Run.
func (b *backend) Stop() { b.end() }

// IsCurrent tells whether the node is up to date with the network.
func (b *backend) IsCurrent() bool { return b.node.Stale(b.ctx) == nil }

// NotifyReceived adds addresses to those that are looked for in blocks.
func (b *backend) NotifyReceived(addrs []address.Address) error { return b.watch(addrs) }

// Notifications is what btcwallet is told over.
func (b *backend) Notifications() <-chan any { return b.notes }

// BackEnd is a name for logs.
func (b *backend) BackEnd() string { return "node" }

// MapRPCErr leaves errors as they are: package chain has named them.
func (b *backend) MapRPCErr(err error) error { return err }

// TestMempoolAccept is not used by the wallet.
func (b *backend) TestMempoolAccept([]*wire.MsgTx, float64) ([]*btcjson.TestMempoolAcceptResult, error) {
	return nil, btcchain.ErrUnimplemented
}

// SubmitPackage is not used by the wallet.
func (b *backend) SubmitPackage([]*wire.MsgTx, *float64) (*btcjson.SubmitPackageResult, error) {
	return nil, btcchain.ErrUnimplemented
}
