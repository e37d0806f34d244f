package protocol

import (
	"strings"
	"testing"
)

// sameVerdict fails when the fast judge and the slow one differ about data.
func sameVerdict(t fataler, data string) {
	t.Helper()
	fault := canonicalFault([]byte(data))
	if scanCanonical([]byte(data)) != (fault == nil) {
		t.Fatalf("the fast judge says %v, the slow one %v, of %q", scanCanonical([]byte(data)), fault, data)
	}
}

// Every byte, and every two, at each place of a word of eight and in the odd rest.
func TestScanStrings(t *testing.T) {
	for c := range 256 {
		for before := range 9 {
			for _, after := range []int{0, 9} {
				sameVerdict(t, `"`+strings.Repeat("a", before)+string([]byte{byte(c)})+strings.Repeat("b", after)+`"`)
			}
		}
		for d := range 256 {
			sameVerdict(t, `"`+string([]byte{byte(c), byte(d)})+`"`)
			sameVerdict(t, `"\u00`+string([]byte{byte(c), byte(d)})+`"`)
		}
		sameVerdict(t, `"`+string([]byte{'\\', byte(c)})+`"`)
	}
}

// Members in either order, of names that every rule of the order decides.
func TestScanOrder(t *testing.T) {
	names := []string{"", "a", "aa", "ab", "b", "~", "\x7f", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", `\"`, `\\`}
	for c := range ' ' {
		switch c {
		case '\b', '\t', '\n', '\f', '\r':
			names = append(names, `\`+string("btn fr"[c-'\b']))
		default:
			names = append(names, `\u00`+string("01"[c/16])+string("0123456789abcdef"[c%16]))
		}
	}
	for _, n := range names[:len(names):len(names)] {
		names = append(names, "a"+n, n+"\ue000", n+`\n`)
	}
	accepted := 0
	for _, a := range names {
		for _, b := range names {
			data := `{"` + a + `":1,"` + b + `":2}`
			sameVerdict(t, data)
			if scanCanonical([]byte(data)) {
				accepted++
			}
		}
	}
	if most := len(names) * (len(names) - 1) / 2; accepted < most*9/10 || accepted > most {
		t.Fatalf("%d of %d orders are accepted", accepted, most)
	}
}

// Integers around every bound, nesting around the limit, and what ends too early.
func TestScanValues(t *testing.T) {
	for _, s := range []string{"", "-", "0", "-0", "00", "01", "1", "-1", "10", "9007199254740991", "-9007199254740991", "9007199254740992",
		"-9007199254740992", "99999999999999999", "10000000000000000000", "18446744073709551617", "1.0", "1e2", "1E2", "+1", "true", "false",
		"tru", "truex", "null", "nul", "[]", "{}", "[1,]", "[,1]", "[1 ,2]", " 1", "1 ", "{,}", `{"a":1,}`, `{"a"}`, `{"a":}`, `{1:1}`, `"\u001f"`, `"é"`, `"\\"`, "]", ":", ","} {
		for _, in := range []string{"%", "[%]", "[1,%]", "[%,1]", `{"a":%}`, `{"a":%,"b":1}`} {
			whole := strings.Replace(in, "%", s, 1)
			sameVerdict(t, whole)
			for cut := range len(whole) {
				sameVerdict(t, whole[:cut])
			}
		}
	}
	for depth := 15; depth <= 18; depth++ {
		for _, in := range []string{"", "1", `"a"`, "{}"} {
			sameVerdict(t, strings.Repeat("[", depth)+in+strings.Repeat("]", depth))
			sameVerdict(t, strings.Repeat(`{"a":`, depth)+"["+in+"]"+strings.Repeat("}", depth))
		}
	}
}
