package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
)

// Depth is how many of the newest blocks a follower remembers, and so the deepest reorganization it can follow.
const Depth = 100

// Kind is what happens to a block.
type Kind uint8

// The kinds.
const (
	Connect    Kind = 1 // it comes after the newest known block
	Disconnect Kind = 2 // the newest known block is no longer on the best chain
)

// Event is one step towards the best chain.
type Event struct {
	Kind  Kind
	Block BlockID
	// Time and Msg are the block's; only for Connect.
	Time time.Time
	Msg  *wire.MsgBlock
}

// Next answers the next step from the blocks a follower knows, oldest first and without gaps, towards the node's best
// chain. After Connect the follower appends the block (and forgets those deeper than [Depth]), after Disconnect it drops
// its last one, in the same database transaction as what follows from it; then it asks again. So a follower can die at
// any instant and go on.
//
// Errors: ErrUpToDate at the tip; ErrBehind while the node has fewer blocks than known, as after its data were lost,
// and with btcd for a moment in the middle of a reorganization (a chain is replaced by a longer one, so nothing is taken back before that is there); ErrTooDeep when the only known
// block is off the chain; ErrUnreachable. A follower that begins anew takes [Client.Tip] or [Client.BlockAt] as its first
// known block.
func (c *Client) Next(ctx context.Context, recent []BlockID) (Event, error) {
	if len(recent) == 0 {
		return Event{}, errors.New("a follower of the chain starts from a block: take that of Tip or BlockAt")
	}
	newest := recent[len(recent)-1]
	// A reorganization between two requests makes their answers contradict each other: ask again.
	const attempts = 5
	for range attempts {
		hash, err := c.hashAt(ctx, newest.Height)
		switch {
		case errors.Is(err, ErrNotFound):
			return Event{}, fmt.Errorf("%w: none at height %d", ErrBehind, newest.Height)
		case err != nil:
			return Event{}, err
		case hash != newest.Hash && len(recent) == 1:
			return Event{}, fmt.Errorf("%w: block %v is off the best chain, and none before it is known", ErrTooDeep, newest)
		case hash != newest.Hash:
			return Event{Kind: Disconnect, Block: newest}, nil
		}
		next := BlockID{Height: newest.Height + 1}
		next.Hash, err = c.hashAt(ctx, next.Height)
		if errors.Is(err, ErrNotFound) {
			return Event{}, ErrUpToDate
		}
		if err != nil {
			return Event{}, err
		}
		block, err := c.Block(ctx, next.Hash)
		if errors.Is(err, ErrNotFound) || err == nil && block.Header.PrevBlock != newest.Hash {
			continue
		}
		if err != nil {
			return Event{}, err
		}
		return Event{Kind: Connect, Block: next, Time: block.Header.Timestamp, Msg: block}, nil
	}
	return Event{}, fmt.Errorf("%w: its chain kept changing while it was asked", ErrUnreachable)
}

// BlockAt names the block of the best chain at a height. Errors: ErrNotFound above the tip, ErrUnreachable.
func (c *Client) BlockAt(ctx context.Context, height uint32) (BlockID, error) {
	hash, err := c.hashAt(ctx, height)
	return BlockID{Height: height, Hash: hash}, err
}
