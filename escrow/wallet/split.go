package wallet

import (
	"context"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
)

// SplitRequest asks for several coins where there is one: the wallet pays itself. Fundings need confirmed coins, so whoever opens
// several contracts at once needs one for each.
type SplitRequest struct {
	// Key names the split: asked for again under it, the same transaction is sent again, never a second one.
	Key string
	// Parts are what each new coin has to bring, as [FundRequest].Amount at the same feerate: such a request is then answered
	// with one of them.
	Parts   []btcutil.Amount
	Feerate escrow.Feerate
	// For is how long the coins that are split are leased: until the caller has asked his user.
	For time.Duration
}

// SplitFee selects and leases the coins to be split, and answers the fee. [Wallet.Split] under the same key takes these very coins;
// [Wallet.Release] gives them back, under [SplitRequest.Lease]. Errors: ErrFunds, ErrRequest.
func (w *Wallet) SplitFee(ctx context.Context, r SplitRequest) (btcutil.Amount, error) {
	funds, err := w.splitFunds(ctx, r)
	if err != nil {
		return 0, err
	}
	outputs := r.outputs()
	fee := -changeFor(funds, outputs, r.Feerate)
	for _, coin := range funds.Coins {
		fee += coin.Value
	}
	for _, out := range outputs {
		fee -= btcutil.Amount(out.Value)
	}
	return fee, nil
}

// Split makes the coins. Like [Wallet.Send], it writes the transaction down before the node has it. The new coins count as
// unconfirmed, and are offered to nobody, until it is in a block. Errors: those of Send.
func (w *Wallet) Split(ctx context.Context, r SplitRequest) (*wire.MsgTx, error) {
	tx, err := w.sent(r.Key)
	if err != nil {
		return nil, err
	}
	if tx == nil {
		funds, err := w.splitFunds(ctx, r)
		if err != nil {
			return nil, err
		}
		outputs := r.outputs()
		for _, out := range outputs {
			a, err := w.newAddress(P2TR, true)
			if err != nil {
				return nil, err
			}
			if out.PkScript, err = txscript.PayToAddrScript(a); err != nil {
				return nil, err
			}
		}
		if tx, err = w.pay(r.Key, funds, outputs, r.Feerate); err != nil {
			return nil, err
		}
	}
	return tx, w.Publish(ctx, tx)
}

// Lease is the key under which the coins to be split are leased.
func (r SplitRequest) Lease() string { return sendKey(r.Key) }

func (w *Wallet) splitFunds(ctx context.Context, r SplitRequest) (Funds, error) {
	if len(r.Parts) == 0 || len(r.Parts) > escrow.MaxPartInputs {
		return Funds{}, fmt.Errorf("%w: a coin is split into 1 to %d", ErrRequest, escrow.MaxPartInputs)
	}
	need := r.Feerate.Fee(baseWeight)
	for i, out := range r.outputs() {
		if r.Parts[i] <= 0 || r.Parts[i] > btcutil.MaxSatoshi {
			return Funds{}, fmt.Errorf("%w: a part of %d satoshi", ErrRequest, int64(r.Parts[i]))
		}
		need += btcutil.Amount(out.Value) + r.Feerate.Fee(outputWeight(out.PkScript))
	}
	return w.Fund(ctx, FundRequest{Key: r.Lease(), Amount: need, Feerate: r.Feerate, For: r.For})
}

// outputs are the new coins, their scripts not filled in but as long as they will be. Each brings its part to the transaction that
// spends it, with a change output: what [FundRequest] looks for.
func (r SplitRequest) outputs() []*wire.TxOut {
	outputs := make([]*wire.TxOut, len(r.Parts))
	for i, part := range r.Parts {
		script := make([]byte, lengthP2TR)
		script[0], script[1] = txscript.OP_1, txscript.OP_DATA_32
		spend := FundRequest{Amount: part, Feerate: r.Feerate}
		value := spend.withChange() + spend.cost(escrow.Coin{PkScript: script})
		outputs[i] = wire.NewTxOut(int64(value), script)
	}
	return outputs
}
