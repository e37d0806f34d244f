package main

import (
	"encoding/base64"
	"strings"

	"relaymarket/protocol"
)

type authorizationCase struct {
	verdict
	Header     *string            `json:"header"` // value of the Authorization header
	Method     string             `json:"method"`
	RequestURI string             `json:"requestUri"`
	Route      string             `json:"route"` // the request type of the route
	Relay      protocol.PublicKey `json:"relay"` // who is asked
	Now        protocol.Timestamp `json:"now"`   // his clock
	From       string             `json:"from,omitempty"`
}

type authorizationTopicBuilder struct {
	topic
	c cast
}

func (b *authorizationTopicBuilder) add(v verdict, header, method, uri, route string) {
	a := authorizationCase{v, &header, method, uri, route, b.c.relay.Public, now, ""}
	if v.Valid {
		a.From = b.c.alice.Public.String()
	}
	b.Cases = append(b.Cases, a)
}

func authorizationTopic(c cast) topic {
	const window = 300_000
	b := &authorizationTopicBuilder{c: c, topic: topic{
		Description: "Authorization headers as a relay judges them: form, audience, type of the route, target, time, signature. " +
			"Each invalid case has one fault.",
		Keys: c.keys(),
	}}
	path := recordPath(c)
	header := func(to actor, at protocol.Timestamp, request members) string {
		return signed(c.alice, to.Public, at, object(request)).Authorization()
	}
	del := targetedMembers("delete", "DELETE "+path)
	plain := header(c.relay, now, del)
	remove := func(v verdict, header string) { b.add(v, header, "DELETE", path, "delete") }
	remove(good("delete"), plain)
	b.add(good("read"), header(c.relay, now, targetedMembers("read", "GET "+path+"?pageId=p1")), "GET", path+"?pageId=p1", "read")
	b.add(good("inventory-of-one"), header(c.relay, now, targetedMembers("inventory", "GET /"+c.alice.Public.String()+"/outbox/"+c.bob.Public.String()+"?limit=5")),
		"GET", "/"+c.alice.Public.String()+"/outbox/"+c.bob.Public.String()+"?limit=5", "inventory")
	b.add(good("account"), header(c.relay, now, targetedMembers("account", "GET /account")), "GET", "/account", "account")
	remove(good("oldest"), header(c.relay, now-window, del))
	remove(good("newest"), header(c.relay, now+window, del))

	remove(bad("empty", protocol.CodeUnauthorized), "")
	remove(bad("scheme-of-others", protocol.CodeUnauthorized), "Bearer "+strings.Fields(plain)[1])
	remove(bad("scheme-lower-case", protocol.CodeUnauthorized), "relaymarket "+strings.Fields(plain)[1])
	remove(bad("scheme-alone", protocol.CodeUnauthorized), "Relaymarket")
	remove(bad("scheme-and-tab", protocol.CodeUnauthorized), "Relaymarket\t"+strings.Fields(plain)[1])
	raw := signed(c.alice, c.relay.Public, now, object(del)).Bytes()
	for _, form := range []struct {
		name string
		text string
	}{
		{"nothing-after-scheme", ""},
		{"two-spaces", " " + strings.Fields(plain)[1]},
		{"space-after", strings.Fields(plain)[1] + " "},
		{"newline-within", strings.Fields(plain)[1][:8] + "\n" + strings.Fields(plain)[1][8:]},
		{"not-base64", "{}"},
		{"base64-cut", strings.Fields(plain)[1][:len(strings.Fields(plain)[1])-1]},
		{"envelope-not-encoded", string(raw)},
	} {
		remove(bad(form.name, protocol.CodeMalformed), "Relaymarket "+form.text)
	}
	b.encodings(raw, remove)
	remove(bad("for-another-relay", protocol.CodeWrongAudience), header(c.other, now, del))
	remove(bad("type-of-another-route", protocol.CodeWrongType), header(c.relay, now, targetedMembers("read", "DELETE "+path)))
	remove(bad("target-of-another-record", protocol.CodeWrongTarget), header(c.relay, now, targetedMembers("delete", "DELETE "+path+"x")))
	remove(bad("target-of-another-method", protocol.CodeWrongTarget), header(c.relay, now, targetedMembers("delete", "GET "+path)))
	remove(bad("target-missing", protocol.CodeMalformed), header(c.relay, now, members{"type": `"delete"`}))
	remove(bad("member-unknown", protocol.CodeMalformed), header(c.relay, now, del.with(members{"zzz": "1"})))
	b.add(bad("query-not-signed", protocol.CodeWrongTarget), header(c.relay, now, targetedMembers("read", "GET "+path)), "GET", path+"?pageId=p1", "read")
	remove(bad("stale-by-1-ms", protocol.CodeStale), header(c.relay, now-window-1, del))
	remove(bad("ahead-by-1-ms", protocol.CodeFuture), header(c.relay, now+window+1, del))
	forgedText := strings.Replace(string(signed(c.bob, c.relay.Public, now, object(del)).Bytes()), c.bob.Public.String(), c.alice.Public.String(), 1)
	remove(bad("signed-by-another", protocol.CodeBadSignature), "Relaymarket "+base64.RawURLEncoding.EncodeToString([]byte(forgedText)))
	return b.topic
}

// encodings adds base64 of other kinds. The envelope is varied until each kind differs from the right one.
func (b *authorizationTopicBuilder) encodings(raw []byte, remove func(verdict, string)) {
	text := base64.RawURLEncoding.EncodeToString(raw)
	trailing := base64.RawURLEncoding.EncodeToString([]byte(envelopeOfLength(b.c, 1)))
	last := trailing[len(trailing)-1]
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	next := string(digits[strings.IndexByte(digits, last)+1])
	padded := base64.URLEncoding.EncodeToString([]byte(envelopeOfLength(b.c, 1)))
	standard := base64.RawStdEncoding.EncodeToString([]byte(`{"msg":"???>>>"}`))
	remove(bad("base64-with-padding", protocol.CodeMalformed), "Relaymarket "+padded)
	remove(bad("base64-standard-digits", protocol.CodeMalformed), "Relaymarket "+standard)
	remove(bad("base64-bits-after", protocol.CodeMalformed), "Relaymarket "+trailing[:len(trailing)-1]+next)
	remove(bad("not-canonical", protocol.CodeNotCanonical), "Relaymarket "+base64.RawURLEncoding.EncodeToString([]byte(" "+string(raw))))
	remove(bad("envelope-cut", protocol.CodeMalformed), "Relaymarket "+text[:len(text)/8*4])
}

// envelopeOfLength is a valid envelope whose length leaves the given rest when divided by 3.
func envelopeOfLength(c cast, rest int) string {
	for pad := ""; ; pad += "x" {
		e := signed(c.alice, c.relay.Public, now, object(targetedMembers("delete", "DELETE "+recordPath(c)+pad)))
		if len(e.Bytes())%3 == rest {
			return string(e.Bytes())
		}
	}
}
