package main

import (
	"maps"
	"slices"
	"strings"

	"relaymarket/protocol"
)

type requestCase struct {
	verdict
	Type    string `json:"type"`    // what the reader expects
	Request string `json:"request"` // the text in the envelope
}

// requestTopicBuilder collects cases of one request type at a time.
type requestTopicBuilder struct {
	topic
	requestType string
	plain       members
	open        bool
}

func requestsTopic(c cast) topic {
	b := &requestTopicBuilder{}
	b.Description = "Request objects, as they stand in an otherwise valid envelope, read by somebody who expects the type given. " +
		"Requests refuse members they do not know; the documents identity, serverBroadcast, contractServerAddInputs, contractStatus, contractList, usageReport, termsAnswer, probeAnswer and firstWord ignore them."
	b.write(c)
	b.pull(c)
	b.got()
	b.listen(c)
	b.admit(c)
	b.targeted(c)
	b.identity(c)
	b.identityItems(c)
	b.announcement()
	b.contracts(c)
	b.usageReport()
	b.usageRefusal()
	b.usageRefused()
	b.terms()
	b.termsAnswer(c)
	b.probe(c)
	b.probeAnswer()
	b.firstWord(c)
	return b.topic
}

func (b *requestTopicBuilder) add(v verdict, text string) {
	v.Name = b.requestType + "-" + v.Name
	b.Cases = append(b.Cases, requestCase{v, b.requestType, text})
}

// begin sets the type and adds what every type has in common.
func (b *requestTopicBuilder) begin(requestType string, plain members, open bool) {
	b.requestType, b.plain, b.open = requestType, plain, open
	b.add(good("plain"), object(plain))
	other := "got"
	if requestType == other {
		other = "pull"
	}
	b.refuse("of-another-type", protocol.CodeWrongType, members{"type": quote(other)})
	b.refuse("type-in-upper-case", protocol.CodeWrongType, members{"type": quote(upper(requestType))})
	if open {
		b.accept("unknown-member", members{"aaa": "1", "zzz": `{"b":[true]}`})
	} else {
		b.refuse("unknown-member-first", protocol.CodeMalformed, members{"aaa": "1"})
		b.refuse("unknown-member-last", protocol.CodeMalformed, members{"zzz": `""`})
		b.refuse("unknown-member-in-other-case", protocol.CodeMalformed, members{"TYPE": quote(requestType)})
	}
	names := slices.Sorted(maps.Keys(plain))
	last := names[len(names)-1]
	b.add(bad("order", protocol.CodeNotCanonical), "{"+quote(last)+":"+plain[last]+","+object(plain.with(members{last: ""}))[1:])
	b.add(bad("member-twice", protocol.CodeMalformed), "{"+quote(last)+":"+plain[last]+","+object(plain)[1:])
}

func (b *requestTopicBuilder) accept(name string, changes members) {
	b.add(good(name), object(b.plain.with(changes)))
}

func (b *requestTopicBuilder) refuse(name string, code protocol.Code, changes members) {
	b.add(bad(name, code), object(b.plain.with(changes)))
}

// member adds what every member has in common: absent, null and of every other JSON kind.
func (b *requestTopicBuilder) member(name, kind string, required bool) {
	if required {
		b.refuse(name+"-missing", protocol.CodeMalformed, members{name: ""})
	} else {
		b.accept(name+"-absent", members{name: ""})
	}
	b.refuse(name+"-is-null", protocol.CodeNotCanonical, members{name: "null"})
	wrong := wrongKinds(kind)
	for _, k := range slices.Sorted(maps.Keys(wrong)) {
		b.refuse(name+"-is-"+k, protocol.CodeMalformed, members{name: wrong[k]})
	}
}

// integer adds the number forms that no integer member takes.
func (b *requestTopicBuilder) integer(name string) {
	b.member(name, "number", true)
	b.refuse(name+"-in-a-string", protocol.CodeMalformed, members{name: `"1"`})
	b.refuse(name+"-float", protocol.CodeNotCanonical, members{name: "1.5"})
	b.refuse(name+"-exponent", protocol.CodeNotCanonical, members{name: "1e3"})
	b.refuse(name+"-2-53", protocol.CodeNotCanonical, members{name: "9007199254740992"})
}

// hex adds what no key, hash or root may be.
func (b *requestTopicBuilder) hex(name string) {
	b.member(name, "string", true)
	value := strings.Trim(b.plain[name], `"`)
	b.refuse(name+"-upper-case", protocol.CodeMalformed, members{name: quote(upper(value))})
	b.refuse(name+"-short", protocol.CodeMalformed, members{name: quote(value[2:])})
	b.refuse(name+"-long", protocol.CodeMalformed, members{name: quote(value + "00")})
	b.refuse(name+"-not-hex", protocol.CodeMalformed, members{name: quote("x" + value[1:])})
	b.refuse(name+"-empty", protocol.CodeMalformed, members{name: `""`})
}

// word adds the grammar of record ids, page ids and tags.
func (b *requestTopicBuilder) word(name string, most int, required bool) {
	b.member(name, "string", required)
	b.accept(name+"-of-one-character", members{name: `"_"`})
	b.accept(name+"-of-every-kind", members{name: `"Az09-_"`})
	b.accept(name+"-longest", members{name: quote(strings.Repeat("Z", most))})
	b.refuse(name+"-too-long", protocol.CodeMalformed, members{name: quote(strings.Repeat("Z", most+1))})
	for what, value := range sortedPairs(
		"empty", "", "dot", "a.b", "slash", "a/b", "space", "a b", "percent", "a%20b", "plus", "a+b", "equals", "a=",
		"beyond-ascii", "é", "newline", `a\n`, "zero-byte", `a\u0000`,
	) {
		b.refuse(name+"-with-"+what, protocol.CodeMalformed, members{name: quote(value)})
	}
}

// sortedPairs iterates over name, value, name, value ….
func sortedPairs(pairs ...string) func(yield func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(pairs); i += 2 {
			if !yield(pairs[i], pairs[i+1]) {
				return
			}
		}
	}
}

func (b *requestTopicBuilder) write(c cast) {
	b.begin("write", writeMembers(c), false)
	b.hex("relay")
	b.accept("relay-not-on-curve", members{"relay": quote(offCurve)})
	b.word("recordId", 64, true)
	b.word("tag", 32, false)
	b.integer("expires")
	b.accept("expires-zero", members{"expires": "0"})
	b.accept("expires-greatest", members{"expires": "9007199254740991"})
	b.refuse("expires-negative", protocol.CodeMalformed, members{"expires": "-1"})
	b.integer("maxPulls")
	b.accept("maxPulls-least", members{"maxPulls": "1"})
	b.accept("maxPulls-greatest", members{"maxPulls": "1000000"})
	b.refuse("maxPulls-zero", protocol.CodeInvalidValue, members{"maxPulls": "0"})
	b.refuse("maxPulls-negative", protocol.CodeInvalidValue, members{"maxPulls": "-1"})
	b.refuse("maxPulls-too-great", protocol.CodeInvalidValue, members{"maxPulls": "1000001"})
	b.member("content", "string", true)
	for name, value := range sortedPairs("three-bytes", "AAAA", "one-byte", "AA==", "two-bytes", "AAA=", "plus-and-solidus", "+/+/") {
		b.accept("content-"+name, members{"content": quote(value)})
	}
	b.refuse("content-empty", protocol.CodeInvalidValue, members{"content": `""`})
	for name, value := range sortedPairs(
		"without-padding", "AA", "half-padding", "AA=", "padding-alone", "====", "padding-within", "AA==AAAA", "padding-three", "A===",
		"padding-too-much", "AAAA====", "one-digit", "A", "five-digits", "AAAAA", "base64url", "-_-_", "space", "AA A", "newline", `AAAA\n`,
		"newline-within", `AA\nAA`, "bits-after-one-byte", "AB==", "bits-after-two-bytes", "AAB=", "beyond-ascii", "AAAé",
	) {
		b.refuse("content-"+name, protocol.CodeMalformed, members{"content": quote(value)})
	}
}

func (b *requestTopicBuilder) senders(c cast) {
	key := c.alice.Public.String()
	b.member("senders", "array", true)
	b.accept("senders-one", members{"senders": list(quote(key))})
	b.accept("senders-not-on-curve", members{"senders": list(quote(offCurve))})
	b.refuse("senders-none", protocol.CodeInvalidValue, members{"senders": `[]`})
	b.refuse("senders-twice", protocol.CodeInvalidValue, members{"senders": list(quote(key), quote(key))})
	b.refuse("senders-upper-case", protocol.CodeMalformed, members{"senders": list(quote(upper(key)))})
	b.refuse("senders-short", protocol.CodeMalformed, members{"senders": list(quote(key[1:]))})
	b.refuse("senders-bech32m", protocol.CodeMalformed, members{"senders": list(quote(c.alice.Public.Bech32()))})
	b.refuse("senders-number-within", protocol.CodeMalformed, members{"senders": `[1]`})
	b.refuse("senders-array-within", protocol.CodeMalformed, members{"senders": list(list(quote(key)))})
}

func (b *requestTopicBuilder) after() {
	b.member("after", "string", false)
	b.accept("after", members{"after": `"7f3a.41"`})
	b.accept("after-longest", members{"after": quote(strings.Repeat("~", 64))})
	b.refuse("after-empty", protocol.CodeBadCursor, members{"after": `""`})
	b.refuse("after-too-long", protocol.CodeBadCursor, members{"after": quote(strings.Repeat("1", 65))})
	b.refuse("after-with-space", protocol.CodeBadCursor, members{"after": `"1 2"`})
	b.refuse("after-with-delete", protocol.CodeBadCursor, members{"after": "\"1\x7f\""})
	b.refuse("after-beyond-ascii", protocol.CodeBadCursor, members{"after": `"é"`})
}

func (b *requestTopicBuilder) pull(c cast) {
	b.begin("pull", pullMembers(c), false)
	b.hex("query")
	b.member("got", "object", false)
	page := pageMembers()
	got := func(changes members) members { return members{"got": object(page.with(changes))} }
	b.accept("got", got(nil))
	b.accept("got-of-the-longest-name", got(members{"pageId": quote(strings.Repeat("Z", 64))}))
	b.refuse("got-empty", protocol.CodeMalformed, members{"got": "{}"})
	b.refuse("got-without-root", protocol.CodeMalformed, got(members{"root": ""}))
	b.refuse("got-without-page", protocol.CodeMalformed, got(members{"pageId": ""}))
	b.refuse("got-with-type", protocol.CodeMalformed, got(members{"type": `"got"`}))
	b.refuse("got-with-page-of-no-name", protocol.CodeMalformed, got(members{"pageId": `"a.b"`}))
	b.refuse("got-with-root-in-upper-case", protocol.CodeMalformed, got(members{"root": upper(page["root"])}))
	b.refuse("got-with-short-root", protocol.CodeMalformed, got(members{"root": `"00"`}))
	b.refuse("got-an-envelope", protocol.CodeMalformed, members{"got": string(signed(c.bob, c.relay.Public, now, object(gotMembers())).Bytes())})
	b.refuse("with-its-query", protocol.CodeMalformed, queryMembers(c))
}

func (b *requestTopicBuilder) got() {
	b.begin("got", gotMembers(), false)
	b.word("pageId", 64, true)
	b.hex("root")
}

func (b *requestTopicBuilder) listen(c cast) {
	b.begin("listen", listenMembers(c), false)
	b.senders(c)
	b.after()
}

func (b *requestTopicBuilder) admit(c cast) {
	b.begin("admit", admitMembers(c), false)
	b.member("keys", "array", true)
	b.accept("nobody", members{"keys": `[]`})
	one := admittedMembers(c.alice.Public)
	change := func(changes members) members { return members{"keys": list(object(one.with(changes)))} }
	b.accept("one", change(nil))
	b.accept("bytes-and-records-least", change(members{"bytes": "1", "records": "1"}))
	b.accept("bytes-and-records-greatest", change(members{"bytes": "9007199254740991", "records": "9007199254740991"}))
	b.refuse("key-twice", protocol.CodeInvalidValue, members{"keys": list(object(one), object(one.with(members{"bytes": "1"})))})
	b.refuse("key-upper-case", protocol.CodeMalformed, change(members{"key": quote(upper(c.alice.Public.String()))}))
	b.refuse("key-number", protocol.CodeMalformed, change(members{"key": "1"}))
	for _, name := range []string{"bytes", "records"} {
		b.refuse(name+"-zero", protocol.CodeInvalidValue, change(members{name: "0"}))
		b.refuse(name+"-negative", protocol.CodeInvalidValue, change(members{name: "-1"}))
		b.refuse(name+"-string", protocol.CodeMalformed, change(members{name: `"1"`}))
		b.refuse(name+"-float", protocol.CodeNotCanonical, change(members{name: "0.5"}))
	}
	for _, name := range []string{"key", "bytes", "records"} {
		b.refuse(name+"-missing", protocol.CodeMalformed, change(members{name: ""}))
	}
	b.refuse("item-with-unknown-member", protocol.CodeMalformed, change(members{"until": "1"}))
	b.refuse("item-is-key", protocol.CodeMalformed, members{"keys": list(quote(c.alice.Public.String()))})
}

func (b *requestTopicBuilder) targeted(c cast) {
	path := recordPath(c)
	for _, v := range [][2]string{
		{"read", "GET " + path + "?pageId=page-3"}, {"delete", "DELETE " + path},
		{"inventory", "GET /" + c.alice.Public.String() + "/outbox?after=7f3a.41&limit=10"}, {"account", "GET /account"},
		{"contractRead", "GET /contracts/" + contractID},
	} {
		b.begin(v[0], targetedMembers(v[0], v[1]), false)
		b.member("target", "string", true)
		b.accept("target-longest", members{"target": quote("GET /" + strings.Repeat("a", 4091))})
		b.refuse("target-empty", protocol.CodeInvalidValue, members{"target": `""`})
		b.refuse("target-too-long", protocol.CodeInvalidValue, members{"target": quote("GET /" + strings.Repeat("a", 4092))})
	}
}
