package main

import (
	"fmt"
	"strings"

	"relaymarket/protocol"
)

type pageCase struct {
	verdict
	Incomplete bool     `json:"incomplete,omitempty"` // the reply was cut: no code, ask for the same page again
	Page       string   `json:"page"`
	Lines      int      `json:"lines"` // records or gone lines that arrived whole
	Gone       []string `json:"gone,omitempty"`
	Cursor     string   `json:"cursor,omitempty"`
	More       bool     `json:"more,omitempty"`
	Root       string   `json:"root,omitempty"`
}

type pageTopicBuilder struct {
	topic
	records []*protocol.Envelope
}

func pageHeader(records int, root string) members {
	h := members{"cursor": `"7f3a.44"`, "more": "false", "pageId": `"page-2"`, "records": fmt.Sprint(records), "served": "1"}
	if root != "" {
		h["root"] = quote(root)
	}
	return h
}

func goneLine(from protocol.PublicKey, id string, hash protocol.Hash) string {
	return object(members{"gone": object(members{"from": quote(from.String()), "hash": quote(hash.String()), "recordId": quote(id)})})
}

func pagesTopic(c cast) topic {
	b := &pageTopicBuilder{topic: topic{
		Description: "Pages as they travel (application/x-ndjson). lines counts what arrived whole. A page that is incomplete was cut off " +
			"and carries no code. Only envelope form and root are judged here; signatures are the reader's next step.",
		Keys: c.keys(),
	}}
	for i := range 3 {
		request := object(writeMembers(c).with(members{"recordId": quote(fmt.Sprintf("r%d", i))}))
		b.records = append(b.records, signed([]actor{c.alice, c.carol, c.alice}[i], c.bob.Public, now+protocol.Timestamp(i), request))
	}
	r := b.records
	h0, h1, h2 := r[0].Hash(), r[1].Hash(), r[2].Hash()
	root1, root3 := h0.String(), protocol.Hash(node(node(h0, h1), h2)).String()
	three := b.text(pageHeader(3, root3), b.line(0), b.line(1), b.line(2))
	gone := goneLine(r[1].From, "r1", h1)
	b.valid("empty", b.text(pageHeader(0, "").with(members{"served": "0"})), 0, "")
	b.valid("one", b.text(pageHeader(1, root1), b.line(0)), 1, root1)
	b.valid("three", three, 3, root3)
	b.valid("more-waiting", b.text(pageHeader(1, root1).with(members{"more": "true"}), b.line(0)), 1, root1)
	b.valid("served-again", b.text(pageHeader(1, root1).with(members{"served": "3"}), b.line(0)), 1, root1)
	b.valid("one-gone-since", b.text(pageHeader(3, root3), b.line(0), gone, b.line(2)), 3, root3, "r1")
	b.valid("all-gone-since", b.text(pageHeader(1, root1), goneLine(r[0].From, "r0", h0)), 1, root1, "r0")
	b.valid("header-with-unknown-member", b.text(pageHeader(1, root1).with(members{"z": "1"}), b.line(0)), 1, root1)
	b.valid("header-not-canonical", strings.Replace(b.text(pageHeader(1, root1), b.line(0)), `"more":false`, `"more": false`, 1), 1, root1)

	for _, at := range []struct {
		name   string
		offset int
		lines  int
	}{
		{"cut-before-header-ends", 10, 0},
		{"cut-after-header", strings.IndexByte(three, '\n') + 1, 0},
		{"cut-within-first-record", strings.IndexByte(three, '\n') + 100, 0},
		{"cut-before-last-newline", len(three) - 1, 2},
		{"cut-at-nothing", 0, 0},
	} {
		b.Cases = append(b.Cases, pageCase{verdict: bad(at.name, ""), Incomplete: true, Page: three[:at.offset], Lines: at.lines})
	}
	b.wrongRoots(root1, root3, gone)
	b.wrongShapes(root1, gone)
	return b.topic
}

func (b *pageTopicBuilder) line(i int) string { return string(b.records[i].Bytes()) }

func (b *pageTopicBuilder) text(header members, lines ...string) string {
	return strings.Join(append([]string{object(header)}, lines...), "\n") + "\n"
}

func (b *pageTopicBuilder) valid(name, page string, lines int, root string, gone ...string) {
	b.Cases = append(b.Cases, pageCase{good(name), false, page, lines, gone, "7f3a.44", strings.Contains(page, `"more":true`), root})
}

func (b *pageTopicBuilder) invalid(name string, code protocol.Code, page string) {
	b.Cases = append(b.Cases, pageCase{verdict: bad(name, code), Page: page})
}

func (b *pageTopicBuilder) wrongRoots(root1, root3, gone string) {
	const mismatch = protocol.CodeRootMismatch
	b.invalid("root-of-other-records", mismatch, b.text(pageHeader(1, root3), b.line(0)))
	b.invalid("root-missing", mismatch, b.text(pageHeader(1, ""), b.line(0)))
	b.invalid("records-swapped", mismatch, b.text(pageHeader(3, root3), b.line(1), b.line(0), b.line(2)))
	b.invalid("record-twice", mismatch, b.text(pageHeader(3, root3), b.line(0), b.line(0), b.line(2)))
	b.invalid("record-with-other-signature", mismatch, b.text(pageHeader(1, root1), strings.Replace(b.line(0), `"sig":"`+b.records[0].Sig.String()[:1], `"sig":"`+flipDigit(b.records[0].Sig.String()[:1], 0), 1)))
	b.invalid("gone-with-other-hash", mismatch, b.text(pageHeader(3, root3), b.line(0), strings.Replace(gone, b.records[1].Hash().String(), zero32, 1), b.line(2)))
}

func (b *pageTopicBuilder) wrongShapes(root1, gone string) {
	const malformed = protocol.CodeMalformed
	plain := pageHeader(1, root1)
	for _, name := range []string{"cursor", "more", "pageId", "records", "served"} {
		b.invalid("header-without-"+name, malformed, b.text(plain.with(members{name: ""}), b.line(0)))
	}
	b.invalid("header-cursor-number", malformed, b.text(plain.with(members{"cursor": "44"}), b.line(0)))
	b.invalid("header-records-negative", malformed, b.text(plain.with(members{"records": "-1"}), b.line(0)))
	b.invalid("header-records-1001", malformed, b.text(plain.with(members{"records": "1001"}), b.line(0)))
	b.invalid("header-records-string", malformed, b.text(plain.with(members{"records": `"1"`}), b.line(0)))
	b.invalid("header-page-id-empty", malformed, b.text(plain.with(members{"pageId": `""`}), b.line(0)))
	b.invalid("header-root-upper-case", malformed, b.text(plain.with(members{"root": quote(upper(root1))}), b.line(0)))
	b.invalid("header-root-short", malformed, b.text(plain.with(members{"root": quote(root1[2:])}), b.line(0)))
	b.invalid("header-member-twice", malformed, strings.Replace(b.text(plain, b.line(0)), `"more":false`, `"more":false,"more":false`, 1))
	b.invalid("header-array", malformed, "[]\n"+b.line(0)+"\n")
	b.invalid("header-missing", malformed, b.line(0)+"\n")
	b.invalid("line-empty", malformed, b.text(plain, ""))
	b.invalid("line-with-carriage-return", protocol.CodeNotCanonical, b.text(plain, b.line(0)+"\r"))
	b.invalid("line-no-envelope", malformed, b.text(plain, `{"code":"internal"}`))
	b.invalid("line-not-canonical", protocol.CodeNotCanonical, b.text(plain, " "+b.line(0)))
	b.invalid("gone-without-hash", malformed, b.text(plain, object(members{"gone": object(members{"from": quote(b.records[0].From.String()), "recordId": `"r0"`})})))
	b.invalid("gone-without-from", malformed, b.text(plain, object(members{"gone": object(members{"hash": quote(root1), "recordId": `"r0"`})})))
	b.invalid("gone-without-record-id", malformed, b.text(plain, object(members{"gone": object(members{"from": quote(b.records[0].From.String()), "hash": quote(root1)})})))
	b.invalid("gone-record-id-empty", malformed, b.text(plain, strings.Replace(gone, `"r1"`, `""`, 1)))
	b.invalid("gone-is-true", malformed, b.text(plain, `{"gone":true}`))
	b.invalid("gone-not-canonical", protocol.CodeNotCanonical, b.text(plain, strings.Replace(gone, `"hash":`, `"hash": `, 1)))
}
