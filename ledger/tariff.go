package ledger

import (
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/protocol"
)

// The units that prices are for.
const (
	GB  = 1_000_000_000 // bytes
	Day = 86_400_000    // milliseconds

	// Denominator is what a sum of stored × storage price and moved × bandwidth price × [Day] is divided by to be msat.
	Denominator = GB * Day
)

// MaxPrice bounds a price, as every integer on the wire: 2^53−1.
const MaxPrice protocol.Msat = 1<<53 - 1

// MaxMsat is more than all bitcoin there will ever be, 21·10^17 msat, and leaves room to add in an int64.
const MaxMsat protocol.Msat = 1 << 62

// MsatOf is an amount of satoshi in msat. An amount that is more than there can be is refused.
func MsatOf(sat btcutil.Amount) (protocol.Msat, error) {
	if sat < -btcutil.MaxSatoshi || sat > btcutil.MaxSatoshi {
		return 0, fmt.Errorf("%d satoshi are more than there are", int64(sat))
	}
	return protocol.Msat(sat) * 1000, nil
}

// Sat is m in satoshi, rounded up: what has to be paid for m to be paid.
func Sat(m protocol.Msat) btcutil.Amount {
	sat := m / 1000
	if m%1000 > 0 {
		sat++
	}
	return btcutil.Amount(sat)
}

// Prices are what a relay asks, fixed for the life of a contract.
type Prices struct {
	Storage   protocol.Msat // for a GB stored for a day
	Bandwidth protocol.Msat // for a GB moved
}

// Validate checks bounds.
func (p Prices) Validate() error {
	if p.Storage < 0 || p.Storage > MaxPrice || p.Bandwidth < 0 || p.Bandwidth > MaxPrice {
		return fmt.Errorf("a price is 0 to %d msat", int64(MaxPrice))
	}
	return nil
}

// Usage is what was used, or reserved.
type Usage struct {
	Stored Quantity // bytes × milliseconds
	Moved  Quantity // bytes
}

// ErrOverflow: a total or a cost is larger than can be counted.
var ErrOverflow = errors.New("more than can be counted")

// Plus is u + v. The error is [ErrOverflow].
func (u Usage) Plus(v Usage) (sum Usage, err error) {
	stored, ok := u.Stored.Plus(v.Stored)
	moved, also := u.Moved.Plus(v.Moved)
	if !ok || !also {
		return Usage{}, ErrOverflow
	}
	return Usage{stored, moved}, nil
}

// Minus is u − v; ok is false when more comes back than was there.
func (u Usage) Minus(v Usage) (difference Usage, ok bool) {
	stored, ok := u.Stored.Minus(v.Stored)
	moved, also := u.Moved.Minus(v.Moved)
	if !ok || !also {
		return Usage{}, false
	}
	return Usage{stored, moved}, true
}

// Cost is the price of a running total, rounded up to a whole msat. It is for totals: costs of parts do not add up.
// The error is [ErrOverflow], for more than [MaxMsat].
func (p Prices) Cost(u Usage) (protocol.Msat, error) {
	sum := u.Stored.big()
	sum.Mul(sum, big.NewInt(int64(p.Storage)))
	moved := u.Moved.big()
	moved.Mul(moved, big.NewInt(int64(p.Bandwidth)))
	sum.Add(sum, moved.Mul(moved, big.NewInt(Day)))
	sum.Add(sum, big.NewInt(Denominator-1))
	sum.Quo(sum, big.NewInt(Denominator))
	if !sum.IsInt64() || protocol.Msat(sum.Int64()) > MaxMsat {
		return 0, ErrOverflow
	}
	return protocol.Msat(sum.Int64()), nil
}

// Reserved is what a write takes: storage of its bytes from when it was written until it expires, its bytes once for
// itself and once for each pull it allows.
func Reserved(bytes, pulls int64, written, expires time.Time) Usage {
	return Usage{Stored: stored(bytes, written, expires), Moved: Times(bytes, 1+pulls)}
}

// Unused is what comes back of [Reserved] when the record ends at a time with so many pulls never made.
func Unused(bytes, pullsLeft int64, written, ended, expires time.Time) Usage {
	if ended.Before(written) {
		ended = written // a clock was set back: no more comes back than was taken
	}
	return Usage{Stored: stored(bytes, ended, expires), Moved: Times(bytes, pullsLeft)}
}

func stored(bytes int64, from, to time.Time) Quantity {
	return Times(bytes, max(to.UnixMilli()-from.UnixMilli(), 0))
}
