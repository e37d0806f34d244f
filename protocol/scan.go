package protocol

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// The fast judge of canonical form: it reads the data once, copies nothing, and knows only yes and no. What it
// refuses goes to the slow one, canonicalFault, which can say why. Tests hold the two against each other: they
// accept the same. That is RFC 8785 within the protocol's limits:
//
//	value   = object | array | string | integer | "true" | "false"          at most 16 levels
//	object  = "{" [ string ":" value *( "," string ":" value ) ] "}"        names ascend by UTF-16 code units
//	array   = "[" [ value *( "," value ) ] "]"
//	string  = valid UTF-8 in quotes; control characters, quote and backslash escaped, each in its one way
//	integer = "0" | ["-"] digit1-9 *digit                                   at most 2^53−1 either way

// scanCanonical tells whether data is one canonical value and nothing else.
func scanCanonical(data []byte) bool { return scanValue(data, 0, 0) == len(data) && len(data) > 0 }

// scanValue returns the index after the value that starts at data[i], within depth objects and arrays; -1
// when none starts there that is canonical.
func scanValue(data []byte, i, depth int) int {
	if i >= len(data) {
		return -1
	}
	switch c := data[i]; {
	case c == '"':
		end, _ := scanString(data, i)
		return end
	case c == '{' && depth < maxDepth:
		return scanObject(data, i, depth+1)
	case c == '[' && depth < maxDepth:
		return scanArray(data, i, depth+1)
	case c == '-' || '0' <= c && c <= '9':
		return scanInteger(data, i)
	case c == 't':
		return scanWord(data, i, "true")
	case c == 'f':
		return scanWord(data, i, "false")
	}
	return -1
}

func scanWord(data []byte, i int, word string) int {
	if end := i + len(word); end <= len(data) && string(data[i:end]) == word {
		return end
	}
	return -1
}

func scanArray(data []byte, i, depth int) int {
	if i++; i < len(data) && data[i] == ']' {
		return i + 1
	}
	for {
		i = scanValue(data, i, depth)
		if i < 0 || i >= len(data) {
			return -1
		}
		switch data[i] {
		case ',':
			i++
		case ']':
			return i + 1
		default:
			return -1
		}
	}
}

func scanObject(data []byte, i, depth int) int {
	if i++; i < len(data) && data[i] == '}' {
		return i + 1
	}
	var last []byte // the name before
	lastPlain := true
	for first := true; ; first = false {
		if i >= len(data) || data[i] != '"' {
			return -1
		}
		end, plain := scanString(data, i)
		if end < 0 || end >= len(data) || data[end] != ':' {
			return -1
		}
		name := data[i+1 : end-1]
		if !first && !ascends(last, name, lastPlain && plain) {
			return -1
		}
		last, lastPlain = name, plain
		i = scanValue(data, end+1, depth)
		if i < 0 || i >= len(data) {
			return -1
		}
		switch data[i] {
		case ',':
			i++
		case '}':
			return i + 1
		default:
			return -1
		}
	}
}

// scanString returns the index after the string whose quote is data[i], -1 when it is not canonical; plain
// is one of ASCII without escapes. Eight bytes at a time are passed as long as none of them needs a look.
func scanString(data []byte, i int) (end int, plain bool) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	plain = true
	for i++; i < len(data); {
		if len(data)-i >= 8 {
			v := binary.LittleEndian.Uint64(data[i:])
			// The high bit of a byte is set if it is below a space, a quote, a backslash or not ASCII. A
			// subtraction borrows from the next byte only after such a one, so the lowest is exact.
			look := (v | (v - ' '*ones) | ((v ^ '"'*ones) - ones) | ((v ^ '\\'*ones) - ones)) & high
			if look == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(look) / 8
		}
		switch c := data[i]; {
		case c == '"':
			return i + 1, plain
		case c == '\\':
			n := scanEscape(data[i:])
			if n == 0 {
				return -1, false
			}
			i, plain = i+n, false
		case c < ' ':
			return -1, false
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && n == 1 {
				return -1, false
			}
			i, plain = i+n, false
		}
	}
	return -1, false
}

// scanEscape is the length of the escape sequence that s starts with, 0 when it is not the one way to
// write its character.
func scanEscape(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', 'b', 't', 'n', 'f', 'r':
		return 2
	case 'u':
		if len(s) < 6 || s[2] != '0' || s[3] != '0' || nibble(s[4]) > 1 || nibble(s[5]) > 15 {
			return 0
		}
		switch nibble(s[4])<<4 | nibble(s[5]) {
		case '\b', '\t', '\n', '\f', '\r':
			return 0 // these have a short form
		}
		return 6
	}
	return 0
}

func scanInteger(data []byte, i int) int {
	const mostDigits = 17 // more than any that is accepted has, and no overflow
	negative := data[i] == '-'
	if negative {
		i++
	}
	first, n := i, int64(0)
	for ; i < len(data) && '0' <= data[i] && data[i] <= '9' && i-first < mostDigits; i++ {
		n = n*10 + int64(data[i]-'0')
	}
	switch {
	case i == first, n > MaxInteger:
		return -1
	case data[first] == '0' && (negative || i > first+1):
		return -1
	}
	return i
}

// ascends tells whether b comes after a in the order of RFC 8785 section 3.2.3. Both are canonical, as they
// stand between their quotes; plain says that no byte of them means anything but itself.
func ascends(a, b []byte, plain bool) bool {
	if plain {
		return string(a) < string(b)
	}
	for len(a) > 0 && len(b) > 0 {
		x, n := nameRune(a)
		y, m := nameRune(b)
		if x != y {
			return utf16Rank(x) < utf16Rank(y)
		}
		a, b = a[n:], b[m:]
	}
	return len(b) > 0 // a is used up, or both are
}

// nameRune is the character that canonical s starts with, and how many bytes it takes.
func nameRune(s []byte) (rune, int) {
	if s[0] != '\\' {
		return utf8.DecodeRune(s)
	}
	switch s[1] {
	case 'b':
		return '\b', 2
	case 't':
		return '\t', 2
	case 'n':
		return '\n', 2
	case 'f':
		return '\f', 2
	case 'r':
		return '\r', 2
	case 'u':
		return rune(nibble(s[4])<<4 | nibble(s[5])), 6
	}
	return rune(s[1]), 2
}

// utf16Rank orders characters as their UTF-16 code units: those from U+10000 on are written with
// surrogates, which come before U+E000.
func utf16Rank(r rune) rune {
	if 0xe000 <= r && r <= 0xffff {
		return r + utf8.MaxRune + 1
	}
	return r
}
