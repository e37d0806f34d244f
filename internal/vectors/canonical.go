package main

import (
	"strings"

	"relaymarket/protocol"
)

type textCase struct {
	verdict
	input
}

func canonicalTopic() topic {
	t := topic{Description: "Whole JSON texts. Valid ones are exactly their RFC 8785 form and within the protocol's profile. " +
		"malformed is what a strict JSON reader (RFC 8259, unique names, valid Unicode) refuses, not_canonical all else. " +
		"inputHex stands for input where the bytes are no UTF-8."}
	valid := func(name, text string) { t.Cases = append(t.Cases, textCase{good(name), inputOf(text)}) }
	broken := func(name, text string) {
		t.Cases = append(t.Cases, textCase{bad(name, protocol.CodeMalformed), inputOf(text)})
	}
	other := func(name, text string) {
		t.Cases = append(t.Cases, textCase{bad(name, protocol.CodeNotCanonical), inputOf(text)})
	}
	canonicalValid(valid)
	canonicalNumbers(other, broken)
	canonicalStrings(other, broken)
	canonicalShape(other, broken)
	return t
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func canonicalValid(valid func(name, text string)) {
	valid("object-empty", `{}`)
	valid("array-empty", `[]`)
	valid("string", `"a"`)
	valid("string-empty", `""`)
	valid("true", `true`)
	valid("false", `false`)
	valid("zero", `0`)
	valid("minus-one", `-1`)
	valid("integer-greatest", `9007199254740991`)
	valid("integer-least", `-9007199254740991`)
	valid("sorted", `{"a":1,"b":[2,{"c":3}],"d":{}}`)
	valid("order-prefix-first", `{"a":1,"aa":2,"b":3}`)
	valid("order-upper-before-lower", `{"B":1,"_":2,"a":3}`)
	valid("order-digits-as-text", `{"1":1,"10":2,"2":3}`)
	valid("order-of-rfc8785", `{"\r":1,"1":2,"`+"\u0080"+`":3,"`+"\u00f6"+`":4,"`+"\u20ac"+`":5,"`+"\U0001f600"+`":6,"`+"\ufb33"+`":7}`)
	valid("order-utf16-not-code-points", `{"`+"\U00010000"+`":1,"`+"\uffff"+`":2}`)
	valid("name-empty", `{"":1}`)
	valid("names-differ-in-case", `{"A":1,"a":2}`)
	valid("names-differ-in-normalization", `{"e`+"\u0301"+`":1,"`+"\u00e9"+`":2}`)
	valid("escapes-short", `"\b\t\n\f\r\"\\"`)
	valid("escapes-control", `"\u0000\u0001\u000b\u001f"`)
	valid("solidus-bare", `"/"`)
	valid("delete-bare", "\"\x7f\"")
	valid("line-separators-bare", "\"\u2028\u2029\"")
	valid("html-bare", `"<>&'"`)
	valid("beyond-the-bmp-bare", "\"\U0001f600\"")
	valid("noncharacter-bare", "\"\uffff\"")
	valid("structure-in-string", `"{\"a\":[1.5,null]}"`)
	valid("null-in-string", `"null"`)
	valid("float-in-string", `"1.5e3"`)
	valid("backslash-at-end", `["\\","\\\\"]`)
	valid("depth-16", nested(16))
	valid("depth-16-objects", strings.Repeat(`{"a":`, 15)+`{}`+strings.Repeat(`}`, 15))
	valid("siblings-do-not-nest", `[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]`)
}

func canonicalNumbers(other, broken func(name, text string)) {
	other("float", `1.5`)
	other("float-whole", `1.0`)
	other("float-within", `{"a":[0,0.1]}`)
	other("exponent", `1e2`)
	other("exponent-upper", `1E2`)
	other("exponent-canonical", `1e+21`)
	other("exponent-negative", `1e-7`)
	other("minus-zero", `-0`)
	other("minus-zero-float", `-0.0`)
	other("integer-2-53", `9007199254740992`)
	other("integer-minus-2-53", `-9007199254740992`)
	other("integer-2-53-plus-1", `9007199254740993`)
	other("integer-int64-greatest", `9223372036854775807`)
	other("integer-2-64", `18446744073709551616`)
	other("integer-long", `123456789012345678901234567890`)
	other("number-overflows-double", `1e400`)
	broken("leading-zero", `01`)
	broken("leading-zero-negative", `-01`)
	broken("plus", `+1`)
	broken("point-first", `.5`)
	broken("point-last", `1.`)
	broken("minus-alone", `-`)
	broken("hexadecimal", `0x10`)
	broken("not-a-number", `NaN`)
	broken("infinity", `Infinity`)
}

func canonicalStrings(other, broken func(name, text string)) {
	other("escape-of-letter", `"\u0061"`)
	other("escape-of-solidus", `"\/"`)
	other("escape-long-for-short", `"\u000a"`)
	other("escape-of-quote-long", `"\u0022"`)
	other("escape-upper-hex", `"\u001F"`)
	other("escape-of-surrogate-pair", `"\ud83d\ude00"`)
	other("escape-of-delete", `"\u007f"`)
	other("escape-in-name", `{"\u0061":1}`)
	broken("lone-high-surrogate", `"\ud800"`)
	broken("lone-low-surrogate", `"\udc00"`)
	broken("surrogates-reversed", `"\ude00\ud83d"`)
	broken("high-surrogate-then-letter", `"\ud83da"`)
	broken("lone-surrogate-in-name", `{"\ud800":1}`)
	broken("utf8-stray-continuation", "\"\x80\"")
	broken("utf8-cut", "\"\xc3\"")
	broken("utf8-overlong", "\"\xc0\xaf\"")
	broken("utf8-encoded-surrogate", "\"\xed\xa0\x80\"")
	broken("utf8-beyond-unicode", "\"\xf4\x90\x80\x80\"")
	broken("utf8-invalid-in-name", "{\"\xff\":1}")
	broken("utf8-invalid-outside", "\xff")
	broken("control-bare", "\"\x01\"")
	broken("zero-byte-bare", "\"\x00\"")
	broken("newline-bare", "\"\n\"")
	broken("escape-unknown", `"\a"`)
	broken("escape-short-hex", `"\u00e"`)
	broken("string-open", `"a`)
	broken("string-open-after-backslash", `"\"`)
	broken("quote-single", `'a'`)
}

func canonicalShape(other, broken func(name, text string)) {
	other("order", `{"b":1,"a":2}`)
	other("order-within", `[{"a":{"c":1,"b":2}}]`)
	other("order-by-code-points", `{"`+"\uffff"+`":1,"`+"\U00010000"+`":2}`)
	other("order-case-blind", `{"a":1,"B":2}`)
	other("order-by-escaped-text", `{"1":2,"\r":1}`)
	other("space-after-colon", `{"a": 1}`)
	other("space-before-colon", `{"a" :1}`)
	other("space-after-comma", `[1, 2]`)
	other("space-in-empty", `{ }`)
	other("space-before", ` {}`)
	other("newline-after", "{}\n")
	other("tab-within", "[\t1]")
	other("carriage-return-after", "{}\r\n")
	other("null", `null`)
	other("null-member", `{"a":null}`)
	other("null-element", `[null]`)
	other("depth-17", nested(17))
	other("depth-17-mixed", strings.Repeat(`{"a":[`, 8)+`{}`+strings.Repeat(`]}`, 8))
	broken("empty", ``)
	broken("space-only", ` `)
	broken("name-twice", `{"a":1,"a":1}`)
	broken("name-twice-apart", `{"a":1,"b":2,"a":3}`)
	broken("name-twice-within", `[{"x":{"a":1,"a":2}}]`)
	broken("name-twice-by-escape", `{"a":1,"\u0061":2}`)
	broken("two-values", `{}{}`)
	broken("byte-order-mark", "\ufeff{}")
	broken("comma-last-object", `{"a":1,}`)
	broken("comma-last-array", `[1,]`)
	broken("comma-first", `[,1]`)
	broken("comma-missing", `[1 2]`)
	broken("colon-missing", `{"a"1}`)
	broken("name-bare", `{a:1}`)
	broken("name-number", `{1:2}`)
	broken("comment", `/**/{}`)
	broken("object-open", `{"a":1`)
	broken("array-open", `[1`)
	broken("bracket-wrong", `[1}`)
	broken("bracket-extra", `{}}`)
	broken("literal-cut", `tru`)
	broken("literal-upper-case", `True`)
	broken("literal-run-on", `truefalse`)
	broken("no-break-space", "[\u00a01]")
}
