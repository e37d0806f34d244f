package chain

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/rpcclient"
	"github.com/btcsuite/btcd/wire/v2"
)

// Transaction is a transaction of the best chain or the mempool.
type Transaction struct {
	Msg           *wire.MsgTx
	Confirmations int64          // 0: in the mempool
	Block         chainhash.Hash // zero in the mempool
}

// Output is an unspent output of the best chain or the mempool.
type Output struct {
	Amount        btcutil.Amount
	Script        []byte
	Confirmations int64 // 0: in the mempool
	Coinbase      bool  // it can be spent from 100 confirmations on
}

// Transaction looks up a transaction. Errors: ErrNotFound, ErrUnreachable.
func (c *Client) Transaction(ctx context.Context, id chainhash.Hash) (Transaction, error) {
	var answer struct {
		Hex           string `json:"hex"`
		BlockHash     string `json:"blockhash"`
		Confirmations int64  `json:"confirmations"`
	}
	err := c.call(ctx, "getrawtransaction", &answer, id.String(), 1)
	if refusedWith(err, btcjson.ErrRPCNoTxInfo) {
		var refusal *btcjson.RPCError
		if errors.As(err, &refusal) && strings.Contains(refusal.Message, "-txindex") {
			return Transaction{}, fmt.Errorf("%w: it has no transaction index: start it with --txindex", ErrUnreachable)
		}
		return Transaction{}, fmt.Errorf("%w: transaction %v", ErrNotFound, id)
	}
	if err != nil {
		return Transaction{}, err
	}
	raw, err := hex.DecodeString(answer.Hex)
	if err != nil {
		return Transaction{}, fmt.Errorf("%w: transaction %v cannot be read", ErrUnreachable, id)
	}
	found := Transaction{Msg: new(wire.MsgTx), Confirmations: answer.Confirmations}
	if err := found.Msg.Deserialize(bytes.NewReader(raw)); err != nil || found.Msg.TxHash() != id {
		return Transaction{}, fmt.Errorf("%w: transaction %v cannot be read", ErrUnreachable, id)
	}
	if answer.BlockHash != "" {
		block, err := chainhash.NewHashFromStr(answer.BlockHash)
		if err != nil {
			return Transaction{}, fmt.Errorf("%w: the block of transaction %v cannot be read", ErrUnreachable, id)
		}
		found.Block = *block
	}
	return found, nil
}

// Output looks up a coin that no block has spent; one that only the mempool spends is still answered. Errors: ErrNotFound
// when it never was or is spent, ErrUnreachable.
func (c *Client) Output(ctx context.Context, coin wire.OutPoint) (Output, error) {
	var answer *struct {
		Value         json.Number `json:"value"`
		Confirmations int64       `json:"confirmations"`
		Coinbase      bool        `json:"coinbase"`
		Script        struct {
			Hex string `json:"hex"`
		} `json:"scriptPubKey"`
	}
	err := c.call(ctx, "gettxout", &answer, coin.Hash.String(), coin.Index, false)
	if err == nil && answer == nil {
		err = c.call(ctx, "gettxout", &answer, coin.Hash.String(), coin.Index, true)
	}
	if refusedWith(err, btcjson.ErrRPCInvalidTxVout) || err == nil && answer == nil {
		return Output{}, fmt.Errorf("%w: unspent output %v", ErrNotFound, coin)
	}
	if err != nil {
		return Output{}, err
	}
	amount, err := parseBitcoin(answer.Value.String())
	if err != nil {
		return Output{}, fmt.Errorf("%w: the amount of %v: %w", ErrUnreachable, coin, err)
	}
	script, err := hex.DecodeString(answer.Script.Hex)
	if err != nil {
		return Output{}, fmt.Errorf("%w: the script of %v: %w", ErrUnreachable, coin, err)
	}
	return Output{Amount: amount, Script: script, Confirmations: answer.Confirmations, Coinbase: answer.Coinbase}, nil
}

// Broadcast hands a transaction to the node, which relays it. It answers nil when the node has it, now or before, in the
// mempool or in a block: it may be repeated, and should be after ErrUnreachable, a restart or a reorganization, since btcd
// forgets its mempool when it ends. Errors: ErrConflict, ErrFeeTooLow, ErrNotFinal, ErrOrphan, ErrRejected,
// ErrUnreachable.
func (c *Client) Broadcast(ctx context.Context, tx *wire.MsgTx) error {
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		return err
	}
	var id string
	err := c.call(ctx, "sendrawtransaction", &id, hex.EncodeToString(raw.Bytes()))
	var refusal *btcjson.RPCError
	if !errors.As(err, &refusal) {
		return err
	}
	// It may be refused because it is there already, in words that differ by node and by where it is.
	if _, known := c.Transaction(ctx, tx.TxHash()); !errors.Is(known, ErrNotFound) {
		return known
	}
	return fmt.Errorf("transaction %v: %w: %w", tx.TxHash(), c.classify(ctx, tx, refusal), err)
}

// classify finds the kind of a refusal in the node's words.
func (c *Client) classify(ctx context.Context, tx *wire.MsgTx, refusal *btcjson.RPCError) error {
	switch rpcclient.MapRPCErr(refusal) {
	case rpcclient.ErrInsufficientFee, rpcclient.ErrMempoolMinFeeNotMet:
		return ErrFeeTooLow
	case rpcclient.ErrMempoolConflict, rpcclient.ErrConflictingTx, rpcclient.ErrTooManyReplacements, rpcclient.ErrReplacementAddsUnconfirmed:
		return ErrConflict
	case rpcclient.ErrNonFinal, rpcclient.ErrNonBIP68Final:
		return ErrNotFinal
	case rpcclient.ErrMissingInputs, rpcclient.ErrMissingInputsOrSpent, rpcclient.ErrTxAlreadyKnown:
		return c.classifyMissing(ctx, tx)
	}
	return ErrRejected
}

// classifyMissing tells a spent input from one that was never there.
func (c *Client) classifyMissing(ctx context.Context, tx *wire.MsgTx) error {
	for _, in := range tx.TxIn {
		if _, err := c.Output(ctx, in.PreviousOutPoint); !errors.Is(err, ErrNotFound) {
			continue
		}
		if _, err := c.Transaction(ctx, in.PreviousOutPoint.Hash); err != nil {
			return ErrOrphan
		}
	}
	return ErrConflict
}
