package bytesize_test

import (
	"math"
	"testing"

	"relaymarket/internal/bytesize"
)

func TestText(t *testing.T) {
	for n, want := range map[int64]string{-1: "-1 bytes", 0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1000: "1.0 kB", 1999: "1.9 kB", 99_999: "99.9 kB", 100_000: "100 kB",
		999_999: "999 kB", 3_100_000: "3.1 MB", 4e9: "4.0 GB", 1234e12: "1234 TB", math.MaxInt64: "9223372 TB"} {
		if got := bytesize.Text(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
