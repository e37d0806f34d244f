package main

import (
	"encoding/hex"
	"strings"

	"relaymarket/protocol"
)

// testSalt is any salt.
const testSalt = "5a17000000000000000000000000c0de"

func queryMembers(c cast) members {
	return members{
		"senders": list(quote(c.alice.Public.String()), quote(c.carol.Public.String())),
		"limit":   "100", "pageId": `"page-2"`, "salt": quote(testSalt),
	}
}

// queryHash is made without the package under test.
func queryHash(query string) string {
	h := byHand(protocol.TagQuery, []byte(query))
	return hex.EncodeToString(h[:])
}

func pullMembers(c cast) members { return pullOf(object(queryMembers(c))) }

// pullOf is the request that names a query.
func pullOf(query string) members {
	return members{"type": `"pull"`, "query": quote(queryHash(query))}
}

// pageMembers is what acknowledges a page, alone or in a pull.
func pageMembers() members {
	return gotMembers().with(members{"type": ""})
}

type queryCase struct {
	verdict
	Query string `json:"query"`          // the line, without its newline
	Hash  string `json:"hash,omitempty"` // by which a pull names it
}

func (c queryCase) bytes() []byte { return []byte(c.Query) }

// queriesTopic bends the members of a query as requests.json bends those of requests.
func queriesTopic(c cast) topic {
	b := &requestTopicBuilder{requestType: "query", plain: queryMembers(c)}
	b.add(good("plain"), object(b.plain))
	b.refuse("unknown-member-first", protocol.CodeMalformed, members{"aaa": "1"})
	b.refuse("unknown-member-last", protocol.CodeMalformed, members{"zzz": `""`})
	b.refuse("type", protocol.CodeMalformed, members{"type": `"pull"`})
	b.refuse("got", protocol.CodeMalformed, members{"got": object(pageMembers())})
	b.add(bad("order", protocol.CodeNotCanonical), `{"pageId":"p",`+object(b.plain.with(members{"pageId": ""}))[1:])
	b.add(bad("member-twice", protocol.CodeMalformed), `{"limit":100,`+object(b.plain)[1:])
	b.add(bad("space", protocol.CodeNotCanonical), strings.Replace(object(b.plain), ":100", ": 100", 1))
	b.add(bad("carriage-return", protocol.CodeNotCanonical), object(b.plain)+"\r")
	b.add(bad("nothing", protocol.CodeMalformed), "")
	b.add(bad("array", protocol.CodeMalformed), list(object(b.plain)))
	b.add(bad("envelope", protocol.CodeMalformed), string(signed(c.bob, c.relay.Public, now, object(pullMembers(c))).Bytes()))
	b.senders(c)
	b.after()
	b.limit()
	b.word("pageId", 64, true)
	b.hex("salt")
	t := topic{Description: "The second line of a pull, without its newline. hash = tagged hash (…/query) of the line."}
	for _, one := range b.Cases {
		r := one.(requestCase)
		q := queryCase{verdict: r.verdict, Query: r.Request}
		if r.Valid {
			q.Hash = queryHash(r.Request)
		}
		t.Cases = append(t.Cases, q)
	}
	return t
}

func (b *requestTopicBuilder) limit() {
	b.integer("limit")
	b.accept("limit-least", members{"limit": "1"})
	b.accept("limit-greatest", members{"limit": "1000"})
	b.refuse("limit-zero", protocol.CodeInvalidValue, members{"limit": "0"})
	b.refuse("limit-negative", protocol.CodeInvalidValue, members{"limit": "-1"})
	b.refuse("limit-too-great", protocol.CodeInvalidValue, members{"limit": "1001"})
}

type pullCase struct {
	verdict
	input
	From   string `json:"from,omitempty"`
	Query  string `json:"query,omitempty"` // the second line
	Hash   string `json:"hash,omitempty"`  // of it
	PageID string `json:"pageId,omitempty"`
	Root   string `json:"root,omitempty"` // of the page before, with its id, if it is acknowledged
}

type pullTopicBuilder struct {
	topic
	c        cast
	envelope string // of the plain case
	query    string
}

func pullsTopic(c cast) topic {
	b := &pullTopicBuilder{c: c, query: object(queryMembers(c))}
	b.Description = "Bodies of pulls, as they travel (application/x-ndjson), judged in this order: two lines, the envelope, its request, the query, its hash, " +
		"the signature. Audience and time are not judged. pageId and root are those of the page that is acknowledged. Signatures have 32 zero bytes of auxiliary randomness."
	b.Keys = c.keys()
	b.envelope = b.sign(pullOf(b.query))
	acknowledging := b.sign(pullOf(b.query).with(members{"got": object(pageMembers())}))
	after := object(queryMembers(c).with(members{"after": `"7f3a.41"`}))
	b.valid("plain", b.envelope, b.query, false)
	b.valid("with-got", acknowledging, b.query, true)
	b.valid("after-with-got", b.sign(pullOf(after).with(members{"got": object(pageMembers())})), after, true)
	b.lines()
	b.queries(after)
	b.signatures(acknowledging)
	return b.topic
}

func (b *pullTopicBuilder) sign(request members) string {
	return string(signed(b.c.bob, b.c.relay.Public, now, object(request)).Bytes())
}

func (b *pullTopicBuilder) valid(name, envelope, query string, got bool) {
	p := pullCase{verdict: good(name), input: inputOf(envelope + "\n" + query + "\n"), From: b.c.bob.Public.String(), Query: query, Hash: queryHash(query)}
	if got {
		p.PageID, p.Root = strings.Trim(pageMembers()["pageId"], `"`), strings.Trim(pageMembers()["root"], `"`)
	}
	b.Cases = append(b.Cases, p)
}

func (b *pullTopicBuilder) invalid(name string, code protocol.Code, body string) {
	b.Cases = append(b.Cases, pullCase{verdict: bad(name, code), input: inputOf(body)})
}

func (b *pullTopicBuilder) lines() {
	e, q := b.envelope, b.query
	for name, body := range sortedPairs(
		"nothing", "", "one-line", e+"\n", "second-line-empty", e+"\n\n", "swapped", q+"\n"+e+"\n", "three-lines", e+"\n"+q+"\n"+q+"\n",
		"third-line-empty", e+"\n"+q+"\n\n", "bytes-after", e+"\n"+q+"\n ", "last-newline-missing", e+"\n"+q, "newline-between-missing", e+q+"\n",
		"empty-line-before", "\n"+e+"\n"+q+"\n", "empty-line-between", e+"\n\n"+q+"\n", "two-envelopes", e+"\n"+e+"\n",
		"query-within-the-request", b.sign(queryMembers(b.c).with(members{"type": `"pull"`}))+"\n",
	) {
		b.invalid(name, protocol.CodeMalformed, body)
	}
	b.invalid("carriage-returns", protocol.CodeNotCanonical, e+"\r\n"+q+"\r\n")
	b.invalid("carriage-return-after-the-query", protocol.CodeNotCanonical, e+"\n"+q+"\r\n")
	b.invalid("space-after-the-query", protocol.CodeNotCanonical, e+"\n"+q+" \n")
	b.invalid("of-another-type", protocol.CodeWrongType, b.sign(gotMembers())+"\n"+q+"\n")
}

func (b *pullTopicBuilder) queries(after string) {
	change := func(name, old, with string) {
		b.invalid("query-with-"+name, protocol.CodeWrongQuery, b.envelope+"\n"+strings.Replace(b.query, old, with, 1)+"\n")
	}
	change("another-limit", `"limit":100`, `"limit":101`)
	change("another-page", `"page-2"`, `"page-3"`)
	change("another-salt", "5a17", "5a18")
	change("fewer-senders", ","+quote(b.c.carol.Public.String()), "")
	b.invalid("query-with-a-cursor", protocol.CodeWrongQuery, b.envelope+"\n"+after+"\n")
	hash := func(name string, h [32]byte) {
		request := pullOf(b.query).with(members{"query": quote(hex.EncodeToString(h[:]))})
		b.invalid("hash-"+name, protocol.CodeWrongQuery, b.sign(request)+"\n"+b.query+"\n")
	}
	hash("of-the-line-with-its-newline", byHand(protocol.TagQuery, []byte(b.query+"\n")))
	hash("with-tag-of-request", byHand(protocol.TagRequest, []byte(b.query)))
	hash("without-tag", byHand("", []byte(b.query)))
}

// signatures are over another request than the one that is there.
func (b *pullTopicBuilder) signatures(acknowledging string) {
	page := object(pageMembers())
	forged := func(name, envelope, old, with string) {
		b.invalid(name, protocol.CodeBadSignature, strings.Replace(envelope, old, with, 1)+"\n"+b.query+"\n")
	}
	forged("got-stripped", acknowledging, `"got":`+page+`,`, ``)
	forged("got-added", b.envelope, `{"query"`, `{"got":`+page+`,"query"`)
	forged("got-of-another-page", acknowledging, `"page-1"`, `"page-0"`)
	query := strings.Replace(b.query, `"limit":100`, `"limit":101`, 1)
	b.invalid("query-and-hash-replaced", protocol.CodeBadSignature, strings.Replace(b.envelope, queryHash(b.query), queryHash(query), 1)+"\n"+query+"\n")
}

type acknowledgementCase struct {
	verdict
	Envelope string `json:"envelope"`
	Reader   string `json:"reader,omitempty"`
	Relay    string `json:"relay,omitempty"`
	PageID   string `json:"pageId,omitempty"`
	Root     string `json:"root,omitempty"`
}

func (c acknowledgementCase) bytes() []byte { return []byte(c.Envelope) }

func acknowledgementsTopic(c cast) topic {
	t := topic{Keys: c.keys(), Description: "What shows that a reader has a page: an envelope of type got, or of type pull with a got. " +
		"Whether reader and relay are those in question is not judged here."}
	sign := func(request members) string {
		return string(signed(c.bob, c.relay.Public, now, object(request)).Bytes())
	}
	page := pageMembers()
	pull := pullMembers(c)
	acknowledging := pull.with(members{"got": object(page)})
	valid := func(name, envelope string) {
		t.Cases = append(t.Cases, acknowledgementCase{good(name), envelope, c.bob.Public.String(), c.relay.Public.String(),
			strings.Trim(page["pageId"], `"`), strings.Trim(page["root"], `"`)})
	}
	invalid := func(name string, code protocol.Code, envelope string) {
		t.Cases = append(t.Cases, acknowledgementCase{verdict: bad(name, code), Envelope: envelope})
	}
	valid("got", sign(gotMembers()))
	valid("pull-with-got", sign(acknowledging))
	valid("pull-whose-query-nobody-knows", sign(acknowledging.with(members{"query": quote(zero32)})))
	invalid("pull-without-got", protocol.CodeMalformed, sign(pull))
	invalid("pull-with-got-without-root", protocol.CodeMalformed, sign(pull.with(members{"got": object(page.with(members{"root": ""}))})))
	invalid("pull-with-got-without-query", protocol.CodeMalformed, sign(acknowledging.with(members{"query": ""})))
	invalid("pull-with-an-envelope-as-got", protocol.CodeMalformed, sign(pull.with(members{"got": sign(gotMembers())})))
	invalid("pull-with-its-query", protocol.CodeMalformed, sign(acknowledging)+"\n"+object(queryMembers(c))+"\n")
	invalid("listen", protocol.CodeWrongType, sign(listenMembers(c)))
	invalid("listen-with-got", protocol.CodeWrongType, sign(acknowledging.with(members{"type": `"listen"`})))
	invalid("got-without-page", protocol.CodeMalformed, sign(gotMembers().with(members{"pageId": ""})))
	invalid("got-stripped-of-a-pull", protocol.CodeBadSignature,
		strings.Replace(sign(acknowledging), `"request":`+object(acknowledging), `"request":`+object(gotMembers()), 1))
	invalid("page-replaced", protocol.CodeBadSignature, strings.Replace(sign(acknowledging), `"page-1"`, `"page-7"`, 1))
	invalid("signed-by-another", protocol.CodeBadSignature, strings.Replace(sign(acknowledging), c.bob.Public.String(), c.carol.Public.String(), 1))
	return t
}
