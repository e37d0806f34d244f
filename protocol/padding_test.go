package protocol

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// padme is the definition of the PURBs paper (section 4), in floating point as it stands there.
func padme(length int) int {
	e := math.Floor(math.Log2(float64(length)))
	s := math.Floor(math.Log2(e)) + 1
	last := math.Pow(2, e-s)
	return int(math.Ceil(float64(length)/last) * last)
}

func TestPaddedSizeIsPadme(t *testing.T) {
	check := func(t fataler, n int) {
		t.Helper()
		if got, want := PaddedSize(n), max(256, padme(n+4)); got != want {
			t.Fatalf("PaddedSize(%d) = %d, want %d", n, got, want)
		}
	}
	for n := range 20_000 {
		check(t, n)
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, MaxEnvelopeSize).Draw(t, "n")
		check(t, n)
		size := PaddedSize(n)
		if size < n+4 {
			t.Fatalf("%d bytes do not fit in %d", n, size)
		}
		if n > 252 && float64(size) > 1.12*float64(n+4) {
			t.Fatalf("%d bytes are padded to %d, over 12 %%", n, size)
		}
		if PaddedSize(size-4) != size {
			t.Fatalf("%d is no size of its own", size)
		}
	})
}
