package main

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// byteSize is a count of bytes as people write it: an integer and a unit.
type byteSize int64

// unit is one way to count bytes.
type unit struct {
	name  string
	bytes uint64
}

// units returns them, largest first.
func units() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
	}
}

// parseSize reads 1000, 1kB, "10 GB" or 5GiB: kB, MB, GB, TB count in thousands, KiB, MiB, GiB, TiB in 1024s.
func parseSize(s string) (byteSize, error) {
	digits := strings.TrimSpace(s)
	factor := uint64(1)
	if end := strings.LastIndexAny(digits, "0123456789"); end >= 0 && end+1 < len(digits) {
		name := strings.TrimSpace(digits[end+1:])
		digits = digits[:end+1]
		factor = 0
		for _, u := range units() {
			if strings.EqualFold(u.name, name) {
				factor = u.bytes
			}
		}
		if factor == 0 {
			return 0, fmt.Errorf("%q has no unit that is known: write for example 500MB, 1GB or 2GiB", s)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: write a whole number and a unit, for example 500MB, 1GB or 2GiB", s)
	}
	high, low := bits.Mul64(n, factor)
	if high != 0 || low > math.MaxInt64 {
		return 0, fmt.Errorf("%q is larger than any disk", s)
	}
	return byteSize(low), nil
}

// String is the exact value in the largest unit that gives a whole number; parseSize reads it.
func (b byteSize) String() string {
	if b <= 0 {
		return strconv.FormatInt(int64(b), 10)
	}
	for _, u := range units() {
		if uint64(b)%u.bytes == 0 {
			return strconv.FormatUint(uint64(b)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	v, err := parseSize(s)
	if err == nil {
		*b = v
	}
	return err
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "size" }

// human rounds down to two digits after the point, for tables.
func (b byteSize) human() string {
	for _, u := range []unit{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if b < 0 || uint64(b) < u.bytes {
			continue
		}
		return fmt.Sprintf("%d.%02d %s", uint64(b)/u.bytes, uint64(b)%u.bytes/(u.bytes/100), u.name)
	}
	return strconv.FormatInt(int64(b), 10) + " B"
}
