package main

import (
	"maps"
	"slices"
	"strings"

	"relaymarket/protocol"
)

// What a body is, in bodies.json.
const (
	kindReceipts = "receipts"
	kindWritings = "writings"
)

// bodyCase is the body of sealed content that programs write to programs.
type bodyCase struct {
	verdict
	Kind string `json:"kind"`
	Body string `json:"body"`
}

func (c bodyCase) bytes() []byte { return []byte(c.Body) }

// bodyItems adds the cases of one kind of body: a document with one member, a list of items.
type bodyItems struct {
	t    *topic
	kind string
	item members // a good one; every member is required
	most int
}

func bodiesTopic() topic {
	t := topic{Description: "Bodies of sealed records that clients write to clients: receipts (kind receipts), and a writer's word to who pays for him (kind writings)."}
	h := quote(strings.Repeat("1a", 32))
	receipts := &bodyItems{&t, kindReceipts, members{"relay": h, "recordId": `"a"`, "hash": h, "bytes": "7", "got": "1763683200000"}, protocol.MaxReceipts}
	receipts.common()
	receipts.refuse("got-negative", protocol.CodeMalformed, members{"got": "-1"})
	writings := &bodyItems{&t, kindWritings, members{"relay": h, "to": h, "recordId": `"a"`, "hash": h, "bytes": "7", "signed": "1763683200000",
		"expires": "1763769600000", "maxPulls": "8"}, protocol.MaxWritings}
	writings.common()
	writings.accept("deleted", members{"deleted": "1763683300000"})
	writings.refuse("deleted-null", protocol.CodeNotCanonical, members{"deleted": "null"})
	writings.refuse("max-pulls-0", protocol.CodeInvalidValue, members{"maxPulls": "0"})
	writings.refuse("expires-is-text", protocol.CodeMalformed, members{"expires": `"1763769600000"`})
	return t
}

func (b *bodyItems) add(v verdict, body string) {
	v.Name = b.kind + "-" + v.Name
	b.t.Cases = append(b.t.Cases, bodyCase{v, b.kind, body})
}

func (b *bodyItems) body(items ...string) string { return object(members{b.kind: list(items...)}) }

func (b *bodyItems) accept(name string, changes members) {
	b.add(good(name), b.body(object(b.item.with(changes))))
}

func (b *bodyItems) refuse(name string, code protocol.Code, changes members) {
	b.add(bad(name, code), b.body(object(b.item.with(changes))))
}

// common is what holds for every kind.
func (b *bodyItems) common() {
	one := object(b.item)
	b.accept("one", members{})
	b.accept("member-of-the-future", members{"zzz": "1"})
	b.add(good("same-twice"), b.body(one, one)) // the second says nothing new
	b.add(good("document-of-the-future"), object(members{b.kind: list(one), "zzz": "{}"}))
	most := make([]string, b.most+1)
	for i := range most {
		most[i] = one
	}
	b.add(bad("too-many", protocol.CodeInvalidValue), b.body(most...))
	b.add(bad("none", protocol.CodeInvalidValue), b.body())
	b.add(bad("no-list", protocol.CodeMalformed), object(members{b.kind: one}))
	b.add(bad("without-"+b.kind, protocol.CodeMalformed), "{}")
	b.add(bad("not-canonical", protocol.CodeNotCanonical), strings.Replace(b.body(one), ":", ": ", 1))
	b.add(bad("cut", protocol.CodeMalformed), strings.TrimSuffix(b.body(one), "}"))
	for _, name := range slices.Sorted(maps.Keys(b.item)) {
		b.refuse("without-"+name, protocol.CodeMalformed, members{name: ""})
	}
	b.refuse("bytes-0", protocol.CodeInvalidValue, members{"bytes": "0"})
	b.refuse("bytes-more-than-an-envelope", protocol.CodeInvalidValue, members{"bytes": "1000000000"})
	b.refuse("hash-short", protocol.CodeMalformed, members{"hash": quote(strings.Repeat("1a", 31))})
	b.refuse("id-with-space", protocol.CodeMalformed, members{"recordId": `"a b"`})
}
