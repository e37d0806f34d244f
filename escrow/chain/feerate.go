package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
)

// Feerate estimates what a transaction has to pay to be in one of the next blocks, within the floor and the ceiling of
// [Config]. A node that has no estimate, as one has after a start and always on regtest, is taken at the floor: whoever needs
// a transaction confirmed by a height bids again higher. Errors: ErrUnreachable.
func (c *Client) Feerate(ctx context.Context, blocks int) (escrow.Feerate, error) {
	estimate, err := c.estimate(ctx, blocks)
	if err != nil {
		return 0, err
	}
	return min(max(estimate, c.cfg.FeeFloor), c.cfg.FeeCeiling), nil
}

// estimate is what the node says, 0 if it does not know.
func (c *Client) estimate(ctx context.Context, blocks int) (escrow.Feerate, error) {
	// Core has only estimatesmartfee, btcd only estimatefee. Both answer bitcoin per 1000 vB.
	var smart struct {
		Feerate json.Number `json:"feerate"`
	}
	err := c.call(ctx, "estimatesmartfee", &smart, blocks)
	answer := smart.Feerate
	if isUnknownMethod(err) {
		err = c.call(ctx, "estimatefee", &answer, blocks)
	}
	var refusal *btcjson.RPCError
	if errors.As(err, &refusal) || err == nil && (answer == "" || strings.HasPrefix(answer.String(), "-")) {
		return 0, nil // it has seen too few blocks, or not enough transactions
	}
	if err != nil {
		return 0, err
	}
	amount, err := parseBitcoin(answer.String())
	if err != nil {
		return 0, fmt.Errorf("%w: its estimate of the fee: %w", ErrUnreachable, err)
	}
	return escrow.Feerate(amount), nil
}

// isUnknownMethod tells that the node has no such request, or one it does not serve.
func isUnknownMethod(err error) bool {
	return refusedWith(err, btcjson.ErrRPCMethodNotFound.Code, btcjson.ErrRPCUnimplemented)
}

// parseBitcoin reads an amount as nodes write it, in bitcoin, without going through floating point; what is below a
// satoshi is rounded up.
func parseBitcoin(text string) (btcutil.Amount, error) {
	const longest = 30
	_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	number, ok := new(big.Rat), false
	decimal := strings.Trim(text, "0123456789.eE+-") == ""              // no fraction, no other base
	if decimal && len(text) <= longest && len(exponent) <= len("-08") { // 1e999999999 would fill the memory
		number, ok = number.SetString(text)
	}
	if !ok || number.Sign() < 0 {
		return 0, fmt.Errorf("%.40q is not an amount", text)
	}
	number.Mul(number, big.NewRat(btcutil.SatoshiPerBitcoin, 1))
	satoshi, rest := new(big.Int).QuoRem(number.Num(), number.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		satoshi.Add(satoshi, big.NewInt(1))
	}
	if !satoshi.IsInt64() || satoshi.Int64() > btcutil.MaxSatoshi {
		return 0, fmt.Errorf("%.40q is more than all bitcoin", text)
	}
	return btcutil.Amount(satoshi.Int64()), nil
}
