package escrow

import "strings"

// The alphabets of BIP380: characters of a descriptor, in three groups of 32, and of its checksum.
const (
	descriptorInput     = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
	descriptorChecksum8 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
)

// descriptorChecksum is the checksum of BIP380, eight characters. The text must be of its alphabet.
func descriptorChecksum(text string) string {
	c := uint64(1)
	class, count := 0, 0
	for i := range len(text) {
		at := strings.IndexByte(descriptorInput, text[i])
		c = descriptorStep(c, at&31)
		class = class*3 + at>>5
		if count++; count == 3 {
			c = descriptorStep(c, class)
			class, count = 0, 0
		}
	}
	if count > 0 {
		c = descriptorStep(c, class)
	}
	for range 8 {
		c = descriptorStep(c, 0)
	}
	c ^= 1
	var sum [8]byte
	for i := range sum {
		sum[i] = descriptorChecksum8[c>>(5*(7-i))&31]
	}
	return string(sum[:])
}

// descriptorStep is one step of the BCH code.
func descriptorStep(c uint64, value int) uint64 {
	top := c >> 35
	c = (c&0x7ffffffff)<<5 ^ uint64(value)
	for i, generator := range [5]uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd} {
		if top>>i&1 == 1 {
			c ^= generator
		}
	}
	return c
}
