package chain

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// BlockID names a block of a chain.
type BlockID struct {
	Height uint32
	Hash   chainhash.Hash
}

// String is "height:hash".
func (b BlockID) String() string { return fmt.Sprintf("%d:%v", b.Height, b.Hash) }

// Tip is the newest block of the node's best chain.
type Tip struct {
	BlockID
	Time time.Time // what its miner wrote
}

// Tip asks for the newest block. Errors: ErrUnreachable, ErrNetwork.
func (c *Client) Tip(ctx context.Context) (Tip, error) {
	var info struct {
		Chain string `json:"chain"`
		Best  string `json:"bestblockhash"`
	}
	if err := c.call(ctx, "getblockchaininfo", &info); err != nil {
		return Tip{}, err
	}
	if err := c.checkNetwork(info.Chain); err != nil {
		return Tip{}, err
	}
	var header btcjson.GetBlockHeaderVerboseResult
	if err := c.call(ctx, "getblockheader", &header, info.Best, true); err != nil {
		return Tip{}, err
	}
	hash, err := chainhash.NewHashFromStr(header.Hash)
	if err != nil || header.Height < 0 {
		return Tip{}, fmt.Errorf("%w: a block header that cannot be read", ErrUnreachable)
	}
	return Tip{BlockID: BlockID{Height: uint32(header.Height), Hash: *hash}, Time: time.Unix(header.Time, 0)}, nil
}

// checkNetwork compares with the chain that the node says it is on: btcd has its own words, Core others.
func (c *Client) checkNetwork(said string) error {
	core := map[string]string{"main": "mainnet", "test": "testnet3"}
	if said == c.params.Name || core[said] == c.params.Name {
		return nil
	}
	return fmt.Errorf("%w: %s, not %s: ask another node, or set the network that this one is on", ErrNetwork, said, c.cfg.Network)
}

// Stale answers nil while the node may be relied on for something new, else why not: ErrUnreachable, ErrNetwork, or
// ErrStale when its newest block is older than [Config] allows. What is open already goes on.
func (c *Client) Stale(ctx context.Context) error {
	tip, err := c.Tip(ctx)
	if err != nil {
		return err
	}
	age := c.now().Sub(tip.Time)
	if c.cfg.StaleAfter > 0 && age > c.cfg.StaleAfter {
		return fmt.Errorf("%w: its newest block, %d, is %v old", ErrStale, tip.Height, age.Truncate(time.Minute))
	}
	return nil
}

// Block fetches a block, which need not be on the best chain. Errors: ErrNotFound, ErrUnreachable.
func (c *Client) Block(ctx context.Context, hash chainhash.Hash) (*wire.MsgBlock, error) {
	var text string
	err := c.call(ctx, "getblock", &text, hash.String(), 0)
	if refusedWith(err, btcjson.ErrRPCBlockNotFound) {
		return nil, fmt.Errorf("%w: block %v", ErrNotFound, hash)
	}
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: block %v cannot be read", ErrUnreachable, hash)
	}
	block := new(wire.MsgBlock)
	if err := block.Deserialize(bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("%w: block %v cannot be read: %w", ErrUnreachable, hash, err)
	}
	if block.BlockHash() != hash {
		return nil, fmt.Errorf("%w: another block than %v was answered", ErrUnreachable, hash)
	}
	return block, nil
}

// hashAt is the block of the best chain at a height; ErrNotFound above the tip.
func (c *Client) hashAt(ctx context.Context, height uint32) (chainhash.Hash, error) {
	var text string
	err := c.call(ctx, "getblockhash", &text, height)
	// btcd says "out of range", Core "invalid parameter".
	if refusedWith(err, btcjson.ErrRPCOutOfRange, btcjson.ErrRPCInvalidParameter) {
		return chainhash.Hash{}, fmt.Errorf("%w: block %d", ErrNotFound, height)
	}
	if err != nil {
		return chainhash.Hash{}, err
	}
	hash, err := chainhash.NewHashFromStr(text)
	if err != nil {
		return chainhash.Hash{}, fmt.Errorf("%w: a block hash that cannot be read: %w", ErrUnreachable, err)
	}
	return *hash, nil
}

// Header is the header of a block.
type Header struct {
	wire.BlockHeader
	Height uint32
}

// Header fetches the header of a block, which need not be on the best chain. Errors: ErrNotFound, ErrUnreachable.
func (c *Client) Header(ctx context.Context, hash chainhash.Hash) (Header, error) {
	var verbose btcjson.GetBlockHeaderVerboseResult
	err := c.call(ctx, "getblockheader", &verbose, hash.String(), true)
	if refusedWith(err, btcjson.ErrRPCBlockNotFound) {
		return Header{}, fmt.Errorf("%w: block %v", ErrNotFound, hash)
	}
	if err != nil {
		return Header{}, err
	}
	header, err := readHeader(verbose)
	if err != nil || header.BlockHash() != hash {
		return Header{}, fmt.Errorf("%w: the header of block %v cannot be read", ErrUnreachable, hash)
	}
	return header, nil
}

// readHeader puts a header together from its parts; whoever calls it compares the hash.
func readHeader(v btcjson.GetBlockHeaderVerboseResult) (Header, error) {
	h := Header{Height: uint32(v.Height)}
	bits, err := strconv.ParseUint(v.Bits, 16, 32)
	if err != nil || v.Height < 0 || v.Nonce > math.MaxUint32 {
		return h, errors.New("out of range")
	}
	if v.PreviousHash != "" { // the first block's is missing
		if err := chainhash.Decode(&h.PrevBlock, v.PreviousHash); err != nil {
			return h, err
		}
	}
	if err := chainhash.Decode(&h.MerkleRoot, v.MerkleRoot); err != nil {
		return h, err
	}
	h.Version, h.Bits, h.Nonce, h.Timestamp = v.Version, uint32(bits), uint32(v.Nonce), time.Unix(v.Time, 0)
	return h, nil
}
