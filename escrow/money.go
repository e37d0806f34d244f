package escrow

import (
	"math/bits"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/protocol"
)

// MinUserRest is what a state always leaves to the user: A ≤ P − 1000 satoshi, so that the state
// output is never dust.
const MinUserRest btcutil.Amount = 1000

// Feerate is a price of block space in satoshi per 1000 virtual bytes (BIP141).
type Feerate int64

// The bounds of a feerate: 1 sat/vB, what every node relays, and 1000 sat/vB, above which it is a
// mistake.
const (
	MinFeerate Feerate = protocol.MinContractFeerate
	MaxFeerate Feerate = protocol.MaxContractFeerate
)

// Validate checks the bounds, 1 to 1000 sat/vB.
func (r Feerate) Validate() error {
	if r < MinFeerate || r > MaxFeerate {
		return protocol.Errorf(protocol.CodeFeerate, "a feerate of %d sat per 1000 vB is out of bounds, take %d to %d",
			int64(r), int64(MinFeerate), int64(MaxFeerate))
	}
	return nil
}

// Clamp is the nearest feerate within bounds, for an estimate that may be 0 or absurd.
func (r Feerate) Clamp() Feerate {
	return min(max(r, MinFeerate), MaxFeerate)
}

// Fee is the fee of a transaction of this weight, rounded up. It saturates far above all bitcoin.
func (r Feerate) Fee(w Weight) btcutil.Amount {
	if r <= 0 || w <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(r), uint64(w.VBytes()))
	if hi != 0 || lo > 2*btcutil.MaxSatoshi*1000 {
		return 2 * btcutil.MaxSatoshi
	}
	return btcutil.Amount((lo + 999) / 1000)
}

// sum adds amounts that are each 0 … 21 million bitcoin; a result above that is refused.
func sum(amounts ...btcutil.Amount) (btcutil.Amount, error) {
	var total btcutil.Amount
	for _, a := range amounts {
		if a < 0 || a > btcutil.MaxSatoshi {
			return 0, protocol.Errorf(protocol.CodeWrongAmount, "%d satoshi is no amount", int64(a))
		}
		if total += a; total > btcutil.MaxSatoshi {
			return 0, protocol.Errorf(protocol.CodeWrongAmount, "the amounts add up to more than all bitcoin")
		}
	}
	return total, nil
}
