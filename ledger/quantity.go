package ledger

import (
	"fmt"
	"math/big"
	"math/bits"
)

// Quantity is a total of bytes, or of bytes × milliseconds, from 0 up to 2^128−1: 8 MiB stored for a year are
// 2^58 already. The zero value is 0. Values are comparable with ==.
type Quantity struct{ hi, lo uint64 }

// Times is a × b, of which neither may be negative.
func Times(a, b int64) Quantity {
	if a < 0 || b < 0 {
		panic(fmt.Sprintf("ledger: %d × %d is no quantity", a, b))
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return Quantity{hi, lo}
}

// Plus is q + r; ok is false, and the sum 0, when it has more than 128 bits.
func (q Quantity) Plus(r Quantity) (sum Quantity, ok bool) {
	lo, carry := bits.Add64(q.lo, r.lo, 0)
	hi, carry := bits.Add64(q.hi, r.hi, carry)
	if carry != 0 {
		return Quantity{}, false
	}
	return Quantity{hi, lo}, true
}

// Minus is q − r; ok is false, and the difference 0, when r is the larger.
func (q Quantity) Minus(r Quantity) (difference Quantity, ok bool) {
	lo, borrow := bits.Sub64(q.lo, r.lo, 0)
	hi, borrow := bits.Sub64(q.hi, r.hi, borrow)
	if borrow != 0 {
		return Quantity{}, false
	}
	return Quantity{hi, lo}, true
}

// Int64 is q where it fits.
func (q Quantity) Int64() (n int64, ok bool) {
	if q.hi != 0 || q.lo > 1<<63-1 {
		return 0, false
	}
	return int64(q.lo), true
}

func (q Quantity) big() *big.Int {
	n := new(big.Int).SetUint64(q.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(q.lo))
}

// String is q in decimal.
func (q Quantity) String() string { return q.big().String() }

// MarshalText implements encoding.TextMarshaler: decimal, the form on the wire.
func (q Quantity) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes what MarshalText gives and nothing else: no sign, no
// leading zero.
func (q *Quantity) UnmarshalText(text []byte) error {
	n, ok := new(big.Int).SetString(string(text), 10)
	if !ok || n.Sign() < 0 || n.BitLen() > 128 || n.String() != string(text) {
		return fmt.Errorf("%.60q is no quantity: decimal digits, less than 2^128", text)
	}
	q.lo = new(big.Int).And(n, new(big.Int).SetUint64(1<<64-1)).Uint64()
	q.hi = n.Rsh(n, 64).Uint64()
	return nil
}
