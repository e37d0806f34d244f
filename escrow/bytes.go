package escrow

import "encoding/binary"

// byteReader takes hostile bytes apart from the front without allocating; the first failure sticks,
// and nothing is left to read after it.
type byteReader struct {
	rest []byte
	err  error
}

func (r *byteReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = badPSBT(format, args...)
	}
	r.rest = nil
}

// take takes n bytes.
func (r *byteReader) take(n int) []byte {
	if n > len(r.rest) {
		r.fail("it ends within a value")
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// bytes takes a compact size and as many bytes.
func (r *byteReader) bytes() []byte { return r.take(r.count()) }

// count takes a compact size of things that have at least a byte each.
func (r *byteReader) count() int {
	n := r.size()
	if n > uint64(len(r.rest)) {
		r.fail("it ends within a value")
		return 0
	}
	return int(n)
}

// size takes a compact size, which must be in its shortest form.
func (r *byteReader) size() uint64 {
	first := r.take(1)
	if r.err != nil {
		return 0
	}
	var n, least uint64
	switch first[0] {
	case 0xfd:
		if b := r.take(2); b != nil {
			n, least = uint64(binary.LittleEndian.Uint16(b)), 0xfd
		}
	case 0xfe:
		if b := r.take(4); b != nil {
			n, least = uint64(binary.LittleEndian.Uint32(b)), 1<<16
		}
	case 0xff:
		if b := r.take(8); b != nil {
			n, least = binary.LittleEndian.Uint64(b), 1<<32
		}
	default:
		return uint64(first[0])
	}
	if n < least {
		r.fail("a size is not in its shortest form")
		return 0
	}
	return n
}

// appendSize appends a compact size below 65,536.
func appendSize(out []byte, n int) []byte {
	if n < 0xfd {
		return append(out, byte(n))
	}
	return binary.LittleEndian.AppendUint16(append(out, 0xfd), uint16(n))
}
