// Package bytesize writes sizes for people.
package bytesize

import "fmt"

// Text is a number of bytes in its largest unit, rounded down, with one decimal below a hundred: 1 kB is 1,000 bytes.
func Text(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		switch {
		case n >= 100*unit.size:
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		case n >= unit.size:
			return fmt.Sprintf("%d.%d %s", n/unit.size, n%unit.size/(unit.size/10), unit.name)
		}
	}
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}
