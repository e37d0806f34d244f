package regtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/rpcclient"
	"github.com/btcsuite/btcd/wire/v2"
)

// tape is the best chain without the genesis block. btcd removes its regtest database whenever it starts, so the chain
// is written down before a node ends and played back to it when it starts again.
type tape []*wire.MsgBlock

// record brings the tape up to the node's best chain.
func (t *tape) record(rpc *rpcclient.Client) error {
	tip, height, err := rpc.GetBestBlock()
	if err != nil {
		return err
	}
	kept := *t
	var fresh []*wire.MsgBlock // newest first
	for hash := *tip; height > 0; height-- {
		if int(height) <= len(kept) && kept[height-1].BlockHash() == hash {
			break
		}
		block, err := rpc.GetBlock(&hash)
		if err != nil {
			return err
		}
		fresh = append(fresh, block)
		hash = block.Header.PrevBlock
	}
	slices.Reverse(fresh)
	*t = append(kept[:height:height], fresh...)
	return nil
}

// play gives the tape to a new node.
func (t tape) play(rpc *rpcclient.Client) error {
	// One after the other: requests under way together arrive in any order, and of the blocks whose parent is not known
	// yet btcd keeps a hundred.
	for i, block := range t {
		if err := rpc.SubmitBlock(btcutil.NewBlock(block), nil); err != nil {
			return fmt.Errorf("play block %d back: %w", i+1, err)
		}
	}
	if len(t) == 0 {
		return nil
	}
	best, err := rpc.GetBestBlockHash()
	if err != nil {
		return err
	}
	if want := t[len(t)-1].BlockHash(); *best != want {
		return fmt.Errorf("the chain ends with %v after it was played back, not with %v", best, want)
	}
	return nil
}

// save writes the tape to a file, in one step.
func (t tape) save(path string) error {
	next := path + ".next"
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	for _, block := range t {
		if err := block.Serialize(w); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// loadTape reads what save wrote; no file is an empty tape.
func loadTape(path string) (tape, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var t tape
	previous := chainhash.Hash(*params.GenesisHash)
	for r := bufio.NewReader(file); ; {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return t, nil
		}
		block := new(wire.MsgBlock)
		if err := block.Deserialize(r); err != nil {
			return nil, fmt.Errorf("read the saved chain %s (remove it to begin a new one): %w", path, err)
		}
		if block.Header.PrevBlock != previous {
			return nil, fmt.Errorf("the saved chain %s is broken after block %d: remove it to begin a new one", path, len(t))
		}
		t, previous = append(t, block), block.BlockHash()
	}
}
