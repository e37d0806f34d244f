package main

import (
	"net/url"
	"strings"

	"relaymarket/protocol"
)

func recordPath(c cast) string {
	return "/" + c.alice.Public.String() + "/outbox/" + c.bob.Public.String() + "/0193-a_B"
}

type pathCase struct {
	verdict
	input
	Sender   string `json:"sender,omitempty"`
	Receiver string `json:"receiver,omitempty"`
	ID       string `json:"id,omitempty"`
}

func pathsTopic(c cast) topic {
	t := topic{Description: "Paths of records: /sender/outbox/receiver/id. Keys are not checked to lie on the curve."}
	a, b := c.alice.Public.String(), c.bob.Public.String()
	valid := func(name, sender, receiver, id string) {
		t.Cases = append(t.Cases, pathCase{good(name), inputOf("/" + sender + "/outbox/" + receiver + "/" + id), sender, receiver, id})
	}
	valid("plain", a, b, "0193-a_B")
	valid("to-oneself", a, a, "x")
	valid("id-shortest", a, b, "-")
	valid("id-longest", a, b, strings.Repeat("Z", 64))
	valid("id-outbox", a, b, "outbox")
	valid("key-not-on-curve", offCurve, b, "x")
	for name, text := range sortedPairs(
		"empty", "", "root", "/", "no-slash-first", a+"/outbox/"+b+"/x", "slash-last", "/"+a+"/outbox/"+b+"/x/", "slashes-doubled", "//"+a+"/outbox/"+b+"/x",
		"outbox-upper-case", "/"+a+"/Outbox/"+b+"/x", "inbox", "/"+a+"/inbox/"+b+"/x", "id-missing", "/"+a+"/outbox/"+b, "id-empty", "/"+a+"/outbox/"+b+"/",
		"id-too-long", "/"+a+"/outbox/"+b+"/"+strings.Repeat("Z", 65), "id-dot", "/"+a+"/outbox/"+b+"/.", "id-dots", "/"+a+"/outbox/"+b+"/..",
		"id-percent", "/"+a+"/outbox/"+b+"/a%62", "id-space", "/"+a+"/outbox/"+b+"/a b", "id-beyond-ascii", "/"+a+"/outbox/"+b+"/é",
		"id-zero-byte", "/"+a+"/outbox/"+b+"/a\x00", "id-newline", "/"+a+"/outbox/"+b+"/a\n", "query", "/"+a+"/outbox/"+b+"/x?y=1", "fragment", "/"+a+"/outbox/"+b+"/x#y",
		"sender-upper-case", "/"+upper(a)+"/outbox/"+b+"/x", "receiver-upper-case", "/"+a+"/outbox/"+upper(b)+"/x", "sender-short", "/"+a[1:]+"/outbox/"+b+"/x",
		"receiver-long", "/"+a+"/outbox/"+b+"0/x", "sender-bech32m", "/"+c.alice.Public.Bech32()+"/outbox/"+b+"/x", "sender-not-hex", "/g"+a[1:]+"/outbox/"+b+"/x",
		"address-before", "https://relay.example/"+a+"/outbox/"+b+"/x", "segment-more", "/"+a+"/outbox/"+b+"/x/y", "utf8-invalid", "/"+a+"/outbox/"+b+"/\xff",
	) {
		t.Cases = append(t.Cases, pathCase{verdict: bad(name, protocol.CodeBadPath), input: inputOf(text)})
	}
	return t
}

type targetCase struct {
	verdict
	Method     string `json:"method"`
	RequestURI string `json:"requestUri"`
	Target     string `json:"target"`
}

func targetsTopic(c cast) topic {
	t := topic{Description: "A signed target against the request line it came with: method, one space, path, and the query as sent, byte for byte."}
	path := recordPath(c)
	add := func(name, method, uri, target string) {
		v := good(name)
		if method+" "+uri != target {
			v = bad(name, protocol.CodeWrongTarget)
		}
		t.Cases = append(t.Cases, targetCase{v, method, uri, target})
	}
	add("read", "GET", path+"?pageId=p1", "GET "+path+"?pageId=p1")
	add("delete", "DELETE", path, "DELETE "+path)
	add("account", "GET", "/account", "GET /account")
	add("inventory-with-query", "GET", "/"+c.alice.Public.String()+"/outbox?after=7f3a.41&limit=10", "GET /"+c.alice.Public.String()+"/outbox?after=7f3a.41&limit=10")
	add("other-method", "DELETE", path, "GET "+path)
	add("method-lower-case", "GET", path, "get "+path)
	add("method-missing", "GET", path, path)
	add("two-spaces", "GET", path, "GET  "+path)
	add("other-path", "GET", path, "GET "+path+"x")
	add("query-not-signed", "GET", path+"?pageId=p1", "GET "+path)
	add("query-not-sent", "GET", path, "GET "+path+"?pageId=p1")
	add("query-in-other-order", "GET", "/account?b=2&a=1", "GET /account?a=1&b=2")
	add("query-encoded-otherwise", "GET", "/account?a=%7e", "GET /account?a=~")
	add("query-empty", "GET", "/account?", "GET /account")
	add("with-address", "GET", "/account", "GET https://relay.example/account")
	add("with-protocol-version", "GET", "/account", "GET /account HTTP/1.1")
	add("slash-last", "GET", "/account", "GET /account/")
	return t
}

func addressesTopic() topic {
	t := topic{Description: "Addresses of relays and hubs. Valid ones are in the one form in which they are compared."}
	for name, text := range sortedPairs(
		"host", "https://relay.example", "host-and-port", "https://relay.example:8443", "one-label", "https://relay", "digits-and-hyphens", "https://a-1.0b.example",
		"punycode", "https://xn--mnchen-3ya.example", "ipv4", "https://192.0.2.1", "ipv4-and-port", "https://192.0.2.1:8443", "ipv6", "https://[2001:db8::1]",
		"ipv6-and-port", "https://[2001:db8::1]:8443", "ipv4-in-ipv6", "https://[::ffff:192.0.2.1]", "onion-https", "https://"+strings.Repeat("a", 56)+".onion",
		"onion-http", "http://"+strings.Repeat("a", 56)+".onion", "loopback-name", "http://localhost:7777", "loopback-name-default-port", "http://localhost",
		"loopback-ipv4", "http://127.0.0.1:7777", "loopback-ipv4-other", "http://127.1.2.3:7777", "loopback-ipv6", "http://[::1]:7777", "port-least", "https://relay.example:1",
		"port-greatest", "https://relay.example:65535", "port-80-of-https", "https://relay.example:80", "label-63", "https://"+strings.Repeat("a", 63)+".example",
		"longest", "https://"+strings.Repeat("a.", 123)+"a", "last-label-with-letter", "https://1.2.3.4a", "last-label-0xg", "https://a.0xg",
	) {
		t.Cases = append(t.Cases, textCase{good(name), inputOf(text)})
	}
	for name, text := range sortedPairs(
		"empty", "", "scheme-missing", "relay.example", "scheme-alone", "https://", "scheme-other", "ftp://relay.example", "scheme-websocket", "wss://relay.example",
		"scheme-upper-case", "HTTPS://relay.example", "host-upper-case", "https://Relay.example", "slash-last", "https://relay.example/", "path", "https://relay.example/x",
		"query", "https://relay.example?x", "query-empty", "https://relay.example?", "fragment", "https://relay.example#x", "fragment-empty", "https://relay.example#",
		"user", "https://a@relay.example", "user-empty", "https://@relay.example", "password", "https://a:b@relay.example", "one-slash", "https:/relay.example",
		"http-to-the-world", "http://relay.example", "http-to-private-network", "http://10.0.0.1", "http-to-onion-lookalike", "http://xonion",
		"http-to-loopback-lookalike", "http://localhost.example", "port-empty", "https://relay.example:", "port-zero", "https://relay.example:0",
		"port-too-great", "https://relay.example:65536", "port-leading-zero", "https://relay.example:08443", "port-plus", "https://relay.example:+1",
		"port-letters", "https://relay.example:https", "port-default-https", "https://relay.example:443", "port-default-http", "http://localhost:80",
		"host-underscore", "https://relay_1.example", "host-beyond-ascii", "https://münchen.example", "host-percent", "https://rel%61y.example", "host-space", "https://relay .example",
		"host-dot-last", "https://relay.example.", "host-dot-first", "https://.example", "host-dots-doubled", "https://relay..example", "label-hyphen-first", "https://-a.example",
		"label-hyphen-last", "https://a-.example", "label-64", "https://"+strings.Repeat("a", 64)+".example", "host-254", "https://"+strings.Repeat("a.", 126)+"aa",
		"too-long", "https://"+strings.Repeat("a.", 123)+"aa", "ipv4-short", "https://127.1", "ipv4-as-number", "https://2130706433", "ipv4-hexadecimal", "https://0x7f000001",
		"ipv4-hexadecimal-last", "https://127.0.0.0x1", "ipv4-five-parts", "https://1.2.3.4.5", "ipv4-leading-zero", "https://192.0.2.01", "ipv4-in-brackets", "https://[192.0.2.1]",
		"name-in-brackets", "https://[relay.example]", "ipv6-without-brackets", "https://2001:db8::1", "ipv6-long-form", "https://[2001:db8:0:0:0:0:0:1]",
		"ipv6-upper-case", "https://[2001:DB8::1]", "ipv6-zone", "https://[fe80::1%25eth0]", "ipv6-open", "https://[::1", "space-before", " https://relay.example",
		"newline-after", "https://relay.example\n", "utf8-invalid", "https://relay.\xff",
	) {
		t.Cases = append(t.Cases, textCase{bad(name, protocol.CodeInvalidValue), inputOf(text)})
	}
	return t
}

type linkCase struct {
	verdict
	input
	Key    string   `json:"key,omitempty"`
	Relays []string `json:"relays,omitempty"`
	Plain  string   `json:"plain,omitempty"` // the link as it is written
}

func linksTopic(c cast) topic {
	t := topic{Description: "Invitation links. plain is how the same link is written; others are read too."}
	k := c.alice.Public
	start := "relaymarket:" + k.Bech32()
	one, two := "https://relay.example", "http://127.0.0.1:7777"
	oneQ, twoQ := "relay="+url.QueryEscape(one), "relay="+url.QueryEscape(two)
	valid := func(name, text, plain string, relays ...string) {
		t.Cases = append(t.Cases, linkCase{good(name), inputOf(text), k.String(), relays, plain})
	}
	valid("key-alone", start, start)
	valid("one-relay", start+"?"+oneQ, start+"?"+oneQ, one)
	valid("two-relays", start+"?"+oneQ+"&"+twoQ, start+"?"+oneQ+"&"+twoQ, one, two)
	valid("relay-not-encoded", start+"?relay="+one, start+"?"+oneQ, one)
	valid("lower-case-escapes", start+"?relay=https%3a%2f%2frelay.example", start+"?"+oneQ, one)
	valid("unknown-parameter", start+"?label=Alice&"+oneQ+"&v=2", start+"?"+oneQ, one)
	pin := "pin=" + k.Bech32() + "%40203.0.113.5%3A7447"
	valid("pin", start+"?relay="+url.QueryEscape("https://203.0.113.5:7447")+"&"+pin, start+"?relay="+url.QueryEscape("https://203.0.113.5:7447")+"&"+pin, "https://203.0.113.5:7447")
	valid("key-upper-case", "relaymarket:"+upper(k.Bech32()), start)
	valid("key-in-hex", "relaymarket:"+k.String(), start)
	valid("query-empty", start+"?", start)
	many := make([]string, 17)
	for i := range many {
		many[i] = oneQ
	}
	for name, text := range sortedPairs(
		"empty", "", "key-missing", "relaymarket:", "scheme-missing", k.Bech32(), "scheme-upper-case", "RELAYMARKET:"+k.Bech32(), "scheme-with-slashes", "relaymarket://"+k.Bech32(),
		"key-cut", start[:len(start)-1], "key-bech32-of-another-prefix", "relaymarket:npub1qqqq", "key-hex-upper-case", "relaymarket:"+upper(k.String()),
		"key-not-on-curve", "relaymarket:"+offCurve, "space-before", " "+start, "newline-after", start+"\n", "fragment", start+"#x", "ampersand-first", start+"&"+oneQ,
		"escape-cut", start+"?relay=%4", "pin-key-cut", start+"?pin=relay1%40203.0.113.5", "semicolon", start+"?"+oneQ+";x=1", "too-long", start+"?x="+strings.Repeat("a", 8192),
	) {
		t.Cases = append(t.Cases, linkCase{verdict: bad(name, protocol.CodeMalformed), input: inputOf(text)})
	}
	for name, text := range sortedPairs(
		"relay-empty", start+"?relay=", "relay-with-path", start+"?relay=https%3A%2F%2Frelay.example%2Fx", "relay-http", start+"?relay=http%3A%2F%2Frelay.example",
		"relay-with-fragment", start+"?relay=https://relay.example#x", "relays-17", start+"?"+strings.Join(many, "&"),
		"pin-with-path", start+"?pin="+k.Bech32()+"%40203.0.113.5/x", "pin-without-host", start+"?pin="+k.Bech32(),
	) {
		t.Cases = append(t.Cases, linkCase{verdict: bad(name, protocol.CodeInvalidValue), input: inputOf(text)})
	}
	return t
}
