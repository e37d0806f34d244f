package main

import (
	"strings"

	"relaymarket/protocol"
)

func (b *requestTopicBuilder) usageReport() {
	h := quote(strings.Repeat("1a", 32))
	totals := members{"written": `"1"`, "pulled": `"0"`, "stored": `"340282366920938463463374607431768211455"`,
		"reservedPulled": `"20"`, "reservedStored": `"9007199254740993"`}
	plain := members{"type": quote(protocol.TypeUsageReport), "contract": h, "first": "1", "last": "16384", "root": h, "totals": object(totals)}
	b.begin(protocol.TypeUsageReport, plain, true)
	b.hex("contract")
	b.hex("root")
	b.integer("first")
	b.integer("last")
	b.member("totals", "object", true)
	b.accept("later", members{"first": "16385", "last": "16385", "previous": h})
	b.refuse("first-0", protocol.CodeInvalidValue, members{"first": "0", "previous": h})
	b.refuse("no-lines", protocol.CodeInvalidValue, members{"last": "0"})
	b.refuse("too-many-lines", protocol.CodeInvalidValue, members{"last": "16385"})
	b.refuse("first-with-one-before", protocol.CodeInvalidValue, members{"previous": h})
	b.refuse("later-without-one-before", protocol.CodeInvalidValue, members{"first": "2"})
	for name, text := range sortedPairs("empty", "", "sign", "-1", "leading-zero", "01", "space", " 1", "exponent", "1e3", "point", "1.0",
		"2-128", "340282366920938463463374607431768211456", "40-digits", strings.Repeat("1", 40)) {
		b.refuse("total-"+name, protocol.CodeMalformed, members{"totals": object(totals.with(members{"stored": quote(text)}))})
	}
	b.refuse("total-is-number", protocol.CodeMalformed, members{"totals": object(totals.with(members{"stored": "1"}))})
	b.refuse("total-missing", protocol.CodeMalformed, members{"totals": object(totals.with(members{"stored": ""}))})
	b.accept("total-of-the-future", members{"totals": object(totals.with(members{"zzz": `"1"`}))})
}

func (b *requestTopicBuilder) usageRefusal() {
	h := quote(strings.Repeat("1a", 32))
	one := members{"first": "7", "last": "7", "reason": `"unknown"`}
	plain := members{"type": quote(protocol.TypeUsageRefusal), "contract": h, "report": h, "lines": list(object(one))}
	b.begin(protocol.TypeUsageRefusal, plain, false)
	b.hex("contract")
	b.hex("report")
	b.member("lines", "array", true)
	lines := func(changes ...members) members {
		all := make([]string, len(changes))
		for i, c := range changes {
			all[i] = object(one.with(c))
		}
		return members{"lines": list(all...)}
	}
	b.accept("a-range", lines(members{"last": "16390"}))
	b.accept("several", lines(members{}, members{"first": "8", "last": "9", "reason": `"no_evidence"`}, members{"first": "100", "last": "100"}))
	b.accept("until", lines(members{"until": "1763683200000"}))
	b.accept("reason-of-the-future", lines(members{"reason": quote(strings.Repeat("z", 32))}))
	for _, name := range []string{"first", "last", "reason"} {
		b.refuse("line-without-"+name, protocol.CodeMalformed, lines(members{name: ""}))
	}
	b.refuse("line-with-unknown-member", protocol.CodeMalformed, lines(members{"zzz": "1"}))
	b.refuse("no-lines", protocol.CodeInvalidValue, members{"lines": "[]"})
	b.refuse("too-many", protocol.CodeInvalidValue, lines(make([]members, protocol.MaxRefusedRanges+1)...))
	b.refuse("line-zero", protocol.CodeInvalidValue, lines(members{"first": "0"}))
	b.refuse("last-before-first", protocol.CodeInvalidValue, lines(members{"last": "6"}))
	b.refuse("more-than-a-report", protocol.CodeInvalidValue, lines(members{"last": "16391"}))
	b.refuse("twice", protocol.CodeInvalidValue, lines(members{}, members{}))
	b.refuse("out-of-order", protocol.CodeInvalidValue, lines(members{}, members{"first": "6", "last": "6"}))
	b.refuse("until-of-several", protocol.CodeInvalidValue, lines(members{"last": "8", "until": "1763683200000"}))
	b.refuse("until-negative", protocol.CodeMalformed, lines(members{"until": "-1"}))
	for what, value := range sortedPairs("empty", "", "too-long", strings.Repeat("z", 33), "capital", "Unknown", "space", "no evidence") {
		b.refuse("reason-"+what, protocol.CodeInvalidValue, lines(members{"reason": quote(value)}))
	}
}

func (b *requestTopicBuilder) usageRefused() {
	h := quote(strings.Repeat("1a", 32))
	plain := members{"type": quote(protocol.TypeUsageRefused), "contract": h, "report": h, "outcome": quote(string(protocol.RefusalDropped)),
		"writtenOff": `"500000"`, "disputed": `"0"`, "most": `"9223372036854775807"`}
	b.begin(protocol.TypeUsageRefused, plain, true)
	b.hex("contract")
	b.hex("report")
	b.member("outcome", "string", true)
	b.accept("closed", members{"outcome": quote(string(protocol.RefusalClosed))})
	b.accept("outcome-of-the-future", members{"outcome": `"pondered"`})
	b.refuse("outcome-empty", protocol.CodeInvalidValue, members{"outcome": `""`})
	b.refuse("outcome-too-long", protocol.CodeInvalidValue, members{"outcome": quote(strings.Repeat("z", 33))})
	for _, name := range []string{"writtenOff", "disputed", "most"} {
		b.member(name, "string", true)
		b.refuse(name+"-negative", protocol.CodeMalformed, members{name: `"-1"`})
		b.refuse(name+"-number", protocol.CodeMalformed, members{name: "1"})
	}
}

func usageHeaderSamples() []sample {
	h := strings.Repeat("1a", 32)
	var all []sample
	for _, text := range []string{`{"lines":0,"more":false}`, `{"more":true, "lines":3,"later":1}`, `{"lines":1,"more":false,"path":["` + h + `"]}`} {
		all = append(all, wordSample{good("header"), text})
	}
	for _, text := range []string{`{}`, `{"lines":-1,"more":false}`, `{"lines":16385,"more":false}`, `{"lines":1,"lines":1,"more":false}`,
		`{"lines":0,"more":false,"report":{}}`, `{"lines":0,"more":false,"path":["1a"]}`, `[`} {
		all = append(all, wordSample{bad("header", protocol.CodeMalformed), text})
	}
	return all
}
