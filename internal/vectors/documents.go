package main

import (
	"encoding/base64"
	"fmt"
	"strings"

	"relaymarket/protocol"
)

func (b *requestTopicBuilder) identity(c cast) {
	b.begin("identity", cardMembers(c), true)
	b.member("label", "string", true)
	b.accept("label-empty", members{"label": `""`})
	b.accept("label-64-characters-beyond-the-bmp", members{"label": quote(strings.Repeat("😀", 64))})
	b.refuse("label-65-characters", protocol.CodeInvalidValue, members{"label": quote(strings.Repeat("a", 65))})
	b.refuse("label-with-newline", protocol.CodeInvalidValue, members{"label": `"a\nb"`})
	b.refuse("label-with-zero-byte", protocol.CodeInvalidValue, members{"label": `"a\u0000"`})
	b.refuse("label-with-delete", protocol.CodeInvalidValue, members{"label": "\"\x7f\""})
	b.refuse("label-with-c1-control", protocol.CodeInvalidValue, members{"label": "\"\u0085\""})
	b.member("relays", "array", true)
	b.accept("relays-none", members{"relays": `[]`})
	many := make([]string, 17)
	for i := range many {
		many[i] = object(relayMembers("https://relay.example", protocol.PublicKey{0: byte(i)}))
	}
	b.accept("relays-16", members{"relays": list(many[:16]...)})
	b.refuse("relays-17", protocol.CodeInvalidValue, members{"relays": list(many...)})
	b.refuse("relays-twice", protocol.CodeInvalidValue, members{"relays": list(many[1], many[1])})
	b.member("hubs", "array", false)
	b.accept("hubs", members{"hubs": `["https://hub.example:8443"]`})
	b.refuse("hubs-9", protocol.CodeInvalidValue, members{"hubs": "[" + strings.Repeat(`"https://h.example",`, 8) + `"https://h.example"]`})
	b.refuse("hubs-with-path", protocol.CodeInvalidValue, members{"hubs": `["https://hub.example/"]`})
	b.refuse("hubs-number", protocol.CodeMalformed, members{"hubs": `[1]`})
	b.member("sealing", "array", true)
	b.refuse("sealing-none", protocol.CodeInvalidValue, members{"sealing": `[]`})
	item := object(futureSealing)
	b.accept("sealing-4", members{"sealing": list(item, item, item, item)})
	b.refuse("sealing-5", protocol.CodeInvalidValue, members{"sealing": list(item, item, item, item, item)})
}

func (b *requestTopicBuilder) identityItems(c cast) {
	relay := relayMembers("https://relay.example", c.relay.Public)
	relays := func(changes members) members { return members{"relays": list(object(relay.with(changes)))} }
	b.accept("relay-with-unknown-member", relays(members{"since": "1"}))
	b.refuse("relay-address-missing", protocol.CodeMalformed, relays(members{"address": ""}))
	b.refuse("relay-pubkey-missing", protocol.CodeMalformed, relays(members{"pubkey": ""}))
	b.refuse("relay-address-number", protocol.CodeMalformed, relays(members{"address": "1"}))
	b.refuse("relay-address-with-path", protocol.CodeInvalidValue, relays(members{"address": `"https://relay.example/"`}))
	b.refuse("relay-address-http", protocol.CodeInvalidValue, relays(members{"address": `"http://relay.example"`}))
	b.refuse("relay-pubkey-upper-case", protocol.CodeMalformed, relays(members{"pubkey": quote(upper(c.relay.Public.String()))}))
	b.refuse("relay-is-string", protocol.CodeMalformed, members{"relays": `["https://relay.example"]`})

	sealing := func(changes members) members { return members{"sealing": list(object(futureSealing.with(changes)))} }
	b.accept("sealing-with-unknown-member", sealing(members{"until": "1"}))
	b.accept("sealing-suite-0", sealing(members{"suite": "0"}))
	b.accept("sealing-suite-255", sealing(members{"suite": "255"}))
	b.refuse("sealing-suite-256", protocol.CodeInvalidValue, sealing(members{"suite": "256"}))
	b.refuse("sealing-suite-negative", protocol.CodeInvalidValue, sealing(members{"suite": "-1"}))
	b.refuse("sealing-suite-string", protocol.CodeMalformed, sealing(members{"suite": `"1"`}))
	b.refuse("sealing-suite-missing", protocol.CodeMalformed, sealing(members{"suite": ""}))
	b.refuse("sealing-key-missing", protocol.CodeMalformed, sealing(members{"key": ""}))
	b.refuse("sealing-key-empty", protocol.CodeMalformed, sealing(members{"key": `""`}))
	b.refuse("sealing-key-base64url", protocol.CodeMalformed, sealing(members{"key": `"-_-_"`}))
	b.refuse("sealing-key-without-padding", protocol.CodeMalformed, sealing(members{"key": `"AA"`}))
	b.refuse("sealing-key-with-newline", protocol.CodeMalformed, sealing(members{"key": `"AA\nAA"`}))
	b.refuse("sealing-key-bits-after", protocol.CodeMalformed, sealing(members{"key": `"AB=="`}))
	b.accept("sealing-x-wing", sealing(members{"suite": "1", "key": quote(newSealingActor("bob").encoded())}))
	b.refuse("sealing-x-wing-one-byte-short", protocol.CodeInvalidValue, sealing(members{"suite": "1", "key": quote(base64.StdEncoding.EncodeToString(make([]byte, 1215)))}))
	b.refuse("sealing-x-wing-one-byte-long", protocol.CodeInvalidValue, sealing(members{"suite": "1", "key": quote(base64.StdEncoding.EncodeToString(make([]byte, 1217)))}))
	b.refuse("sealing-x-wing-coefficient-above-modulus", protocol.CodeInvalidValue,
		sealing(members{"suite": "1", "key": quote(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\xff", 1216))))}))
}

func (b *requestTopicBuilder) announcement() {
	b.begin("serverBroadcast", announcementMembers(), true)
	b.member("addresses", "array", true)
	b.accept("addresses-none", members{"addresses": `[]`})
	b.refuse("addresses-17", protocol.CodeInvalidValue, members{"addresses": "[" + strings.Repeat(`"https://h.example",`, 16) + `"https://h.example"]`})
	b.refuse("addresses-with-path", protocol.CodeInvalidValue, members{"addresses": `["https://relay.example/x"]`})
	b.member("terms", "array", true)
	b.accept("terms-none", members{"terms": `[]`})
	b.accept("terms-unknown-type", members{"terms": `[{"payment":true,"type":"prepaid"}]`})
	b.refuse("terms-17", protocol.CodeInvalidValue, members{"terms": "[" + strings.Repeat(object(termMembers())+",", 16) + object(termMembers()) + "]"})
	terms := func(changes members) members { return members{"terms": list(object(termMembers().with(changes)))} }
	b.accept("terms-with-unknown-member", terms(members{"zzz": `"x"`}))
	b.accept("terms-volunteer", terms(members{"type": `"volunteer"`, "storedBytes": "1", "movedBytes": "9007199254740991", "days": "30"}))
	b.accept("terms-topic", terms(members{"topic": `"weather"`, "plaintext": "true", "ads": "true"}))
	b.accept("terms-any-topic", terms(members{"topic": `"*"`}))
	b.refuse("terms-topic-no-tag", protocol.CodeInvalidValue, terms(members{"topic": `"a b"`}))
	b.refuse("terms-topic-number", protocol.CodeMalformed, terms(members{"topic": "1"}))
	for _, name := range []string{"plaintext", "ads"} {
		b.refuse("terms-"+name+"-number", protocol.CodeMalformed, terms(members{name: "1"}))
	}
	for _, name := range []string{"storedBytes", "movedBytes", "days"} {
		b.refuse("terms-"+name+"-negative", protocol.CodeInvalidValue, terms(members{name: "-1"}))
	}
	b.accept("notice-of-200-characters", members{"notice": quote(strings.Repeat("é", 200))})
	b.refuse("notice-of-201-characters", protocol.CodeInvalidValue, members{"notice": quote(strings.Repeat("é", 201))})
	b.accept("terms-without-contact", terms(members{"contact": ""}))
	b.accept("terms-contact-of-200-characters", terms(members{"contact": quote(strings.Repeat("é", 200))}))
	b.refuse("terms-contact-of-201-characters", protocol.CodeInvalidValue, terms(members{"contact": quote(strings.Repeat("é", 201))}))
	b.refuse("terms-type-missing", protocol.CodeMalformed, terms(members{"type": ""}))
	b.refuse("terms-type-empty", protocol.CodeInvalidValue, terms(members{"type": `""`}))
	b.refuse("terms-payment-missing", protocol.CodeMalformed, terms(members{"payment": ""}))
	b.refuse("terms-payment-number", protocol.CodeMalformed, terms(members{"payment": "1"}))
	b.member("limits", "object", true)
	limits := func(changes members) members { return members{"limits": object(limitMembers().with(changes))} }
	b.accept("limits-with-unknown-member", limits(members{"moreBytes": "1"}))
	for _, name := range []string{
		"recordBytes", "admittedBytes", "batchBytes", "batchRecords", "pageBytes", "pageRecords", "lifetimeMs", "maxPulls", "headerSeconds", "bodySeconds",
	} {
		b.refuse("limits-"+name+"-missing", protocol.CodeMalformed, limits(members{name: ""}))
		b.refuse("limits-"+name+"-negative", protocol.CodeInvalidValue, limits(members{name: "-1"}))
	}
	b.offer()
	b.integer("seq")
	b.accept("seq-zero", members{"seq": "0"})
	b.refuse("seq-negative", protocol.CodeInvalidValue, members{"seq": "-1"})
	b.integer("validUntil")
	b.refuse("validUntil-negative", protocol.CodeMalformed, members{"validUntil": "-1"})
}

// offer is about the terms of contracts, which an announcement has whole or not at all.
func (b *requestTopicBuilder) offer() {
	offer := func(changes members) members { return offerMembers().with(changes) }
	b.accept("contracts", offer(members{}))
	b.accept("network-without-contracts", members{"network": `"regtest"`})
	b.refuse("network-missing", protocol.CodeNetwork, offer(members{"network": ""}))
	b.refuse("network-unknown", protocol.CodeNetwork, offer(members{"network": `"testnet3"`}))
	for _, m := range []struct {
		name string
		most int64
		code protocol.Code
	}{
		{"storageMsatPerGBDay", protocol.MaxInteger, protocol.CodeInvalidValue}, {"bandwidthMsatPerGB", protocol.MaxInteger, protocol.CodeInvalidValue},
		{"openingPriceSat", 21e14, protocol.CodeWrongAmount}, {"creditLimitSat", 21e14, protocol.CodeWrongAmount},
		{"bondPercent", 100, protocol.CodeInvalidValue}, {"minPrepaySat", 21e14, protocol.CodeWrongAmount},
	} {
		b.refuse("contracts-"+m.name+"-missing", protocol.CodeMalformed, offer(members{m.name: ""}))
		b.refuse("contracts-"+m.name+"-alone", protocol.CodeMalformed, members{"network": `"testnet4"`, m.name: "1"})
		b.refuse("contracts-"+m.name+"-string", protocol.CodeMalformed, offer(members{m.name: `"1"`}))
		b.refuse("contracts-"+m.name+"-negative", m.code, offer(members{m.name: "-1"}))
		b.accept("contracts-"+m.name+"-zero", offer(members{m.name: "0"}))
		b.accept("contracts-"+m.name+"-most", offer(members{m.name: fmt.Sprint(m.most)}))
		if m.most < protocol.MaxInteger {
			b.refuse("contracts-"+m.name+"-above", m.code, offer(members{m.name: fmt.Sprint(m.most + 1)}))
		}
	}
}

type documentCase struct {
	verdict
	input
	Now protocol.Timestamp `json:"now"` // the reader's clock
}

// documentTopicBuilder collects cases of signed documents.
type documentTopicBuilder struct{ topic }

func (b *documentTopicBuilder) add(v verdict, text string, at protocol.Timestamp) {
	b.Cases = append(b.Cases, documentCase{v, inputOf(text), at})
}

func cardsTopic(c cast) topic {
	const window = 300_000
	b := &documentTopicBuilder{topic{
		Description: "Identity cards as files, read by somebody whose clock shows now. One newline may end the file. " +
			"The members of the request are the business of requests.json.",
		Keys: c.keys(),
	}}
	plain := object(cardMembers(c).with(members{"sealing": list(object(members{"suite": "1", "key": quote(newSealingActor("alice").encoded())}))}))
	short := object(cardMembers(c))
	card := func(request string, at protocol.Timestamp) string {
		return string(signed(c.alice, c.alice.Public, at, request).Bytes())
	}
	b.add(good("plain"), card(plain, now), now)
	b.add(good("newline-after"), card(short, now)+"\n", now)
	b.add(good("ten-years-old"), card(short, now-10*365*86_400_000), now)
	b.add(good("ahead-by-300-s"), card(short, now+window), now)
	b.add(good("unknown-members"), card(object(cardMembers(c).with(members{"avatar": `"x"`})), now), now)
	b.add(good("label-beyond-ascii"), card(object(cardMembers(c).with(members{"label": quote("Zoë 😀")})), now), now)
	b.add(good("relays-on-loopback-and-onion"), card(object(cardMembers(c).with(members{"relays": list(
		object(relayMembers("http://127.0.0.1:7777", c.relay.Public)), object(relayMembers("http://"+strings.Repeat("a", 56)+".onion", c.other.Public)))})), now), now)
	b.add(bad("ahead-by-300-s-and-1-ms", protocol.CodeFuture), card(short, now+window+1), now)
	b.add(bad("ahead-by-a-year", protocol.CodeFuture), card(short, now+365*86_400_000), now)
	b.add(bad("to-another", protocol.CodeWrongAudience), string(signed(c.alice, c.bob.Public, now, short).Bytes()), now)
	b.add(bad("signed-by-another", protocol.CodeBadSignature), forged(c, short), now)
	b.add(bad("label-changed", protocol.CodeBadSignature), strings.Replace(card(short, now), `"label":"alice"`, `"label":"alicf"`, 1), now)
	b.add(bad("an-announcement", protocol.CodeWrongType), card(object(announcementMembers()), now), now)
	b.add(bad("label-missing", protocol.CodeMalformed), card(object(cardMembers(c).with(members{"label": ""})), now), now)
	b.add(bad("sealing-none", protocol.CodeInvalidValue), card(object(cardMembers(c).with(members{"sealing": "[]"})), now), now)
	b.add(bad("two-newlines-after", protocol.CodeNotCanonical), card(short, now)+"\n\n", now)
	b.add(bad("carriage-return-after", protocol.CodeNotCanonical), card(short, now)+"\r\n", now)
	b.add(bad("space-before", protocol.CodeNotCanonical), " "+card(short, now), now)
	b.add(bad("cut", protocol.CodeMalformed), card(short, now)[:100], now)
	b.add(bad("empty", protocol.CodeMalformed), "", now)
	b.add(good("of-16384-bytes"), cardOfSize(c, 16384), now)
	b.add(bad("of-16385-bytes", protocol.CodeTooLarge), cardOfSize(c, 16385), now)
	return b.topic
}

// cardOfSize fills a card up with a member of the future.
func cardOfSize(c cast, size int) string {
	card := func(fill int) string {
		request := object(cardMembers(c).with(members{"avatar": quote(strings.Repeat("x", fill))}))
		return string(signed(c.alice, c.alice.Public, now, request).Bytes())
	}
	return card(size - len(card(0)))
}

// forged is a document in alice's name with bob's signature.
func forged(c cast, request string) string {
	e := signed(c.bob, c.alice.Public, now, request)
	return strings.Replace(string(e.Bytes()), `{"msg":{"from":"`+c.bob.Public.String(), `{"msg":{"from":"`+c.alice.Public.String(), 1)
}

func announcementsTopic(c cast) topic {
	const window = 300_000
	b := &documentTopicBuilder{topic{
		Description: "Announcements of a relay, read by somebody whose clock shows now. The members of the request are the business of requests.json.",
		Keys:        c.keys(),
	}}
	plain := object(announcementMembers())
	say := func(request string, at protocol.Timestamp) string {
		return string(signed(c.relay, c.relay.Public, at, request).Bytes())
	}
	until := func(t string) string { return object(announcementMembers().with(members{"validUntil": t})) }
	b.add(good("plain"), say(plain, now), now)
	b.add(good("last-valid-moment"), say(until("1763683200000"), now-1000), now)
	b.add(bad("valid-until-1-ms-ago", protocol.CodeStale), say(until("1763683199999"), now-1000), now)
	b.add(good("ahead-by-300-s"), say(plain, now+window), now)
	b.add(bad("ahead-by-300-s-and-1-ms", protocol.CodeFuture), say(plain, now+window+1), now)
	b.add(good("unknown-members"), say(object(announcementMembers().with(members{"network": `"regtest"`, "pow": `{"bits":0,"nonce":"0000000000000000"}`})), now), now)
	b.add(bad("to-another", protocol.CodeWrongAudience), string(signed(c.relay, c.bob.Public, now, plain).Bytes()), now)
	b.add(bad("seq-changed", protocol.CodeBadSignature), strings.Replace(say(plain, now), `"seq":7`, `"seq":8`, 1), now)
	b.add(bad("signed-by-another", protocol.CodeBadSignature),
		strings.Replace(string(signed(c.other, c.relay.Public, now, plain).Bytes()), c.other.Public.String(), c.relay.Public.String(), 1), now)
	b.add(bad("a-card", protocol.CodeWrongType), say(object(cardMembers(c)), now), now)
	b.add(bad("newline-after", protocol.CodeNotCanonical), say(plain, now)+"\n", now)
	b.add(bad("limits-missing", protocol.CodeMalformed), say(object(announcementMembers().with(members{"limits": ""})), now), now)
	b.add(bad("empty", protocol.CodeMalformed), "", now)
	fill := func(n int) string {
		return object(announcementMembers().with(members{"x": quote(strings.Repeat("x", n))}))
	}
	room := 4096 - len(say(fill(0), now))
	b.add(good("of-4096-bytes"), say(fill(room), now), now)
	b.add(bad("of-4097-bytes", protocol.CodeTooLarge), say(fill(room+1), now), now)
	return b.topic
}
