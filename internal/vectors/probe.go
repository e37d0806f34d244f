package main

import (
	"strings"

	"relaymarket/protocol"
)

func probeMembers(c cast) members {
	return members{"type": quote(protocol.TypeProbe), "address": quote("https://relay.example"),
		"announcement": string(signed(c.relay, c.relay.Public, now, object(announcementMembers())).Bytes())}
}

func (b *requestTopicBuilder) probe(c cast) {
	b.begin(protocol.TypeProbe, probeMembers(c), false)
	b.member("address", "string", true)
	b.member("announcement", "object", true)
	b.accept("of-an-ip-address", members{"address": quote("https://203.0.113.5:7447")})
	b.accept("announcement-of-anything", members{"announcement": `{}`})
	b.refuse("address-with-path", protocol.CodeInvalidValue, members{"address": quote("https://relay.example/x")})
	b.refuse("address-empty", protocol.CodeInvalidValue, members{"address": `""`})
	b.refuse("address-plain-http", protocol.CodeInvalidValue, members{"address": quote("http://relay.example")})
}

func (b *requestTopicBuilder) probeAnswer() {
	b.begin(protocol.TypeProbeAnswer, members{"type": quote(protocol.TypeProbeAnswer), "request": quote(strings.Repeat("1a", 32)),
		"address": quote("https://relay.example"), "reached": "true", "tookMs": "120"}, true)
	b.hex("request")
	b.member("address", "string", true)
	b.member("reached", "boolean", true)
	b.member("tookMs", "number", true)
	b.accept("not-reached", members{"reached": "false", "unreached": quote(string(protocol.UnreachedConnect))})
	b.accept("not-reached-for-a-reason-of-the-future", members{"reached": "false", "unreached": `"a word of the future"`})
	b.refuse("not-reached-and-no-reason", protocol.CodeInvalidValue, members{"reached": "false"})
	b.refuse("reached-and-a-reason", protocol.CodeInvalidValue, members{"unreached": `"tls"`})
	b.refuse("took-negative", protocol.CodeInvalidValue, members{"tookMs": "-1"})
	b.refuse("address-with-user", protocol.CodeInvalidValue, members{"address": quote("https://a@relay.example")})
}
