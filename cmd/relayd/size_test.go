package main

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]byteSize{
		"0": 0, "1": 1, "17B": 17, "1kB": 1000, "1KB": 1000, "1KiB": 1024, "3 MB": 3e6, "1MiB": 1 << 20, "1GB": 1e9, "2gib": 2 << 30,
		" 5TB ": 5e12, "1TiB": 1 << 40, "9223372036854775807": math.MaxInt64, "9223372TB": 9223372e12,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "B", "GB", "-1", "+1", "1.5GB", "1,5GB", "1 000", "1XB", "1e3", "0x10", "9223372036854775808",
		"18446744073709551616", "9223373TB", "20000000TB", "1GBGB", "GB1"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}

func TestSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := byteSize(rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes"))
		if got, err := parseSize(b.String()); err != nil || got != b {
			t.Fatalf("%d is written %q and read %d (%v)", int64(b), b, got, err)
		}
	})
}

func TestHumanSize(t *testing.T) {
	for b, want := range map[byteSize]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 1999: "1.99 kB", 999_999: "999.99 kB", 1e9: "1.00 GB", 12_345_678_900: "12.34 GB", 5e15: "5000.00 TB",
	} {
		if got := b.human(); got != want {
			t.Errorf("%d is %q, want %q", int64(b), got, want)
		}
	}
}
