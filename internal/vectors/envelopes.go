package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"relaymarket/protocol"
)

type envelopeCase struct {
	verdict
	input
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Timestamp string `json:"timestamp,omitempty"` // decimal
	Type      string `json:"type,omitempty"`
	Request   string `json:"request,omitempty"`
	Sig       string `json:"sig,omitempty"`
}

// envelopeTopicBuilder collects the cases around one well-formed envelope.
type envelopeTopicBuilder struct {
	topic
	c   cast
	msg members // of the plain envelope
	sig string
}

func envelopesTopic(c cast) topic {
	e := signed(c.alice, c.bob.Public, now, object(writeMembers(c)))
	b := &envelopeTopicBuilder{c: c, sig: quote(e.Sig.String()), msg: members{
		"from": quote(e.From.String()), "request": string(e.Request), "timestamp": fmt.Sprint(e.Timestamp), "to": quote(e.To.String()),
	}}
	b.Description = "Envelopes as they travel. Valid ones parse and their signature is true; the request is any object with a type, " +
		"its members are the business of requests.json. bad_signature: the envelope parses. Signatures have 32 zero bytes of auxiliary randomness."
	b.Keys = c.keys()
	b.validEnvelopes()
	b.wrongMembers()
	b.wrongTexts()
	b.wrongSignatures()
	return b.topic
}

func (b *envelopeTopicBuilder) valid(name string, e *protocol.Envelope) {
	b.Cases = append(b.Cases, envelopeCase{
		good(name), inputOf(string(e.Bytes())), e.From.String(), e.To.String(), fmt.Sprint(e.Timestamp), e.Type, string(e.Request), e.Sig.String(),
	})
}

func (b *envelopeTopicBuilder) malformed(name, text string) {
	b.Cases = append(b.Cases, envelopeCase{verdict: bad(name, protocol.CodeMalformed), input: inputOf(text)})
}

func (b *envelopeTopicBuilder) notCanonical(name, text string) {
	b.Cases = append(b.Cases, envelopeCase{verdict: bad(name, protocol.CodeNotCanonical), input: inputOf(text)})
}

func (b *envelopeTopicBuilder) validEnvelopes() {
	c := b.c
	for _, v := range []struct {
		name    string
		from    actor
		to      protocol.PublicKey
		request members
	}{
		{"write", c.alice, c.bob.Public, writeMembers(c)},
		{"write-with-tag", c.alice, c.bob.Public, writeMembers(c).with(members{"tag": `"ack"`})},
		{"write-to-oneself", c.alice, c.alice.Public, writeMembers(c)},
		{"pull", c.bob, c.relay.Public, pullMembers(c)},
		{"pull-with-got", c.bob, c.relay.Public, pullMembers(c).with(members{"got": object(pageMembers())})},
		{"got", c.bob, c.relay.Public, gotMembers()},
		{"listen", c.bob, c.relay.Public, listenMembers(c)},
		{"admit", c.bob, c.relay.Public, admitMembers(c)},
		{"read", c.bob, c.relay.Public, targetedMembers("read", "GET "+recordPath(c)+"?pageId=page-3")},
		{"delete", c.alice, c.relay.Public, targetedMembers("delete", "DELETE "+recordPath(c))},
		{"inventory", c.alice, c.relay.Public, targetedMembers("inventory", "GET /"+c.alice.Public.String()+"/outbox?limit=10")},
		{"account", c.alice, c.relay.Public, targetedMembers("account", "GET /account")},
		{"terms", c.alice, c.relay.Public, wishesMembers()},
		{"probe", c.relay, c.bob.Public, probeMembers(c)},
		{"identity", c.alice, c.alice.Public, cardMembers(c)},
		{"serverBroadcast", c.relay, c.relay.Public, announcementMembers()},
		{"type-of-the-future", c.alice, c.relay.Public, members{"type": `"x"`}},
		{"type-of-64-bytes", c.alice, c.relay.Public, members{"type": quote(strings.Repeat("t", 64))}},
		{"type-beyond-ascii", c.alice, c.relay.Public, members{"type": quote("ü")}},
		{"type-not-first", c.alice, c.relay.Public, members{"a": `{"type":"no"}`, "type": `"yes"`}},
		{"depth-16", c.alice, c.relay.Public, members{"type": `"x"`, "deep": nested(13)}},
		{"envelope-in-a-string", c.alice, c.relay.Public, members{"type": `"x"`, "s": `"},\"timestamp\":1,\"to\":\""`}},
	} {
		b.valid(v.name, signed(v.from, v.to, now, object(v.request)))
	}
	b.valid("timestamp-zero", signed(c.alice, c.relay.Public, 0, `{"type":"x"}`))
	b.valid("timestamp-greatest", signed(c.alice, c.relay.Public, protocol.MaxInteger, `{"type":"x"}`))
	b.valid("to-not-on-curve", signed(c.alice, protocol.PublicKey{31: 5}, now, `{"type":"x"}`))
}

// around is the plain envelope with changes in its msg; the signature is not renewed.
func (b *envelopeTopicBuilder) around(changes members) string {
	return object(members{"msg": object(b.msg.with(changes)), "sig": b.sig})
}

func (b *envelopeTopicBuilder) wrongMembers() {
	for _, name := range []string{"from", "request", "timestamp", "to"} {
		b.malformed(name+"-missing", b.around(members{name: ""}))
		wrong := wrongKinds(map[string]string{"request": "object", "timestamp": "number"}[name])
		for _, kind := range slices.Sorted(maps.Keys(wrong)) {
			b.malformed(name+"-is-"+kind, b.around(members{name: wrong[kind]}))
		}
		b.notCanonical(name+"-is-null", b.around(members{name: "null"}))
	}
	for _, name := range []string{"from", "to"} {
		key := strings.Trim(b.msg[name], `"`)
		b.malformed(name+"-upper-case", b.around(members{name: quote(upper(key))}))
		b.malformed(name+"-one-digit-short", b.around(members{name: quote(key[1:])}))
		b.malformed(name+"-one-digit-long", b.around(members{name: quote(key + "0")}))
		b.malformed(name+"-not-hex", b.around(members{name: quote("g" + key[1:])}))
		b.malformed(name+"-empty", b.around(members{name: `""`}))
	}
	b.malformed("from-bech32m", b.around(members{"from": quote(b.c.alice.Public.Bech32())}))
	b.malformed("timestamp-negative", b.around(members{"timestamp": "-1"}))
	b.notCanonical("timestamp-float", b.around(members{"timestamp": "1763683200000.5"}))
	b.notCanonical("timestamp-whole-float", b.around(members{"timestamp": "1763683200000.0"}))
	b.notCanonical("timestamp-exponent", b.around(members{"timestamp": "17636832e5"}))
	b.notCanonical("timestamp-2-53", b.around(members{"timestamp": "9007199254740992"}))
	b.notCanonical("timestamp-minus-zero", b.around(members{"timestamp": "-0"}))
	b.malformed("timestamp-leading-zero", b.around(members{"timestamp": "01763683200000"}))
	b.malformed("request-empty", b.around(members{"request": "{}"}))
	b.malformed("type-missing", b.around(members{"request": `{"target":"GET /account"}`}))
	b.malformed("type-only-within", b.around(members{"request": `{"a":{"type":"x"}}`}))
	b.malformed("type-number", b.around(members{"request": `{"type":1000}`}))
	b.malformed("type-object", b.around(members{"request": `{"type":{"type":"x"}}`}))
	b.malformed("type-empty", b.around(members{"request": `{"type":""}`}))
	b.malformed("type-of-65-bytes", b.around(members{"request": object(members{"type": quote(strings.Repeat("t", 65))})}))
	b.malformed("type-with-escape", b.around(members{"request": `{"type":"a\"b"}`}))
	b.notCanonical("depth-17", b.around(members{"request": object(members{"type": `"x"`, "deep": nested(14)})}))
	for _, extra := range []string{"aaa", "nonce", "request2", "timestampa", "zzz"} {
		b.malformed("msg-with-extra-"+extra, b.around(members{extra: "1"}))
	}
}

func (b *envelopeTopicBuilder) wrongTexts() {
	msg, plain := object(b.msg), b.around(nil)
	sig := strings.Trim(b.sig, `"`)
	shapes := map[string]members{
		"sig-missing": {"msg": msg}, "msg-missing": {"sig": b.sig}, "extra-before": {"a": "1", "msg": msg, "sig": b.sig},
		"extra-between": {"msg": msg, "pow": "1", "sig": b.sig}, "extra-after": {"msg": msg, "sig": b.sig, "z": "1"},
		"msg-is-string": {"msg": `"x"`, "sig": b.sig}, "msg-is-array": {"msg": list(msg), "sig": b.sig},
		"sig-is-number": {"msg": msg, "sig": "1"}, "sig-is-array": {"msg": msg, "sig": list(b.sig)},
		"sig-upper-case": {"msg": msg, "sig": upper(b.sig)}, "sig-empty": {"msg": msg, "sig": `""`},
		"sig-one-digit-short": {"msg": msg, "sig": quote(sig[1:])}, "sig-one-digit-long": {"msg": msg, "sig": quote(sig + "0")},
		"sig-not-hex": {"msg": msg, "sig": quote(sig[:127] + "g")}, "sig-with-space": {"msg": msg, "sig": quote(sig[:127] + " ")},
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		b.malformed(name, object(shapes[name]))
	}
	b.notCanonical("order-sig-first", `{"sig":`+b.sig+`,"msg":`+msg+`}`)
	b.notCanonical("order-to-before-from", `{"msg":{"to":`+b.msg["to"]+`,"from":`+b.msg["from"]+`,"request":`+b.msg["request"]+
		`,"timestamp":`+b.msg["timestamp"]+`},"sig":`+b.sig+`}`)
	b.notCanonical("order-within-request", b.around(members{"request": `{"type":"x","a":1}`}))
	b.notCanonical("space-after-colon", strings.Replace(plain, `"sig":`, `"sig": `, 1))
	b.notCanonical("space-within-request", b.around(members{"request": `{ "type":"x"}`}))
	b.notCanonical("newline-after", plain+"\n")
	b.notCanonical("escape-in-name", strings.Replace(plain, `"msg"`, `"ms\u0067"`, 1))
	b.notCanonical("escape-in-key", strings.Replace(plain, `"from":"`+strings.Trim(b.msg["from"], `"`)[:1], `"from":"\u0030`, 1))
	b.malformed("to-twice", strings.Replace(plain, `,"to":`, `,"to":`+b.msg["to"]+`,"to":`, 1))
	b.malformed("sig-twice", strings.Replace(plain, `,"sig":`, `,"sig":`+b.sig+`,"sig":`, 1))
	b.malformed("type-twice", b.around(members{"request": `{"type":"x","type":"x"}`}))
	b.malformed("type-twice-by-escape", b.around(members{"request": `{"type":"x","\u0074ype":"y"}`}))
	for _, n := range []int{0, 1, len(plain) / 2, len(plain) - 1} {
		b.malformed(fmt.Sprintf("cut-at-%d", n), plain[:n])
	}
	b.malformed("twice", plain+plain)
	b.malformed("byte-order-mark", "\ufeff"+plain)
	b.malformed("in-an-array", list(plain))
	b.malformed("a-string", `"envelope"`)
	b.malformed("msg-alone", msg)
	b.malformed("utf8-invalid-in-request", b.around(members{"request": "{\"type\":\"x\xff\"}"}))
	b.malformed("lone-surrogate-in-request", b.around(members{"request": `{"a":"\ud800","type":"x"}`}))
}

func (b *envelopeTopicBuilder) wrongSignatures() {
	c := b.c
	invalid := func(name, text string) {
		b.Cases = append(b.Cases, envelopeCase{verdict: bad(name, protocol.CodeBadSignature), input: inputOf(text)})
	}
	sign := func(who actor, digest protocol.Hash) string {
		return quote(must(who.key.SignDigest(digest, [32]byte{})).String())
	}
	msg := object(b.msg)
	envelope := func(sig string) string { return object(members{"msg": msg, "sig": sig}) }
	invalid("signed-by-another", envelope(sign(c.bob, protocol.TaggedHash(protocol.TagEnvelope, []byte(msg)))))
	invalid("signed-without-tag", envelope(sign(c.alice, protocol.TaggedHash("", []byte(msg)))))
	invalid("signed-with-tag-of-request", envelope(sign(c.alice, protocol.TaggedHash(protocol.TagRequest, []byte(msg)))))
	invalid("signed-with-newline", envelope(sign(c.alice, protocol.TaggedHash(protocol.TagEnvelope, []byte(msg+"\n")))))
	invalid("timestamp-changed", b.around(members{"timestamp": "1763683200001"}))
	invalid("receiver-changed", b.around(members{"to": quote(c.carol.Public.String())}))
	invalid("sender-changed", b.around(members{"from": quote(c.carol.Public.String())}))
	invalid("from-not-on-curve", b.around(members{"from": quote(offCurve)}))
	invalid("from-and-to-swapped", b.around(members{"from": b.msg["to"], "to": b.msg["from"]}))
	invalid("request-changed", b.around(members{"request": strings.Replace(b.msg["request"], `"maxPulls":8`, `"maxPulls":9`, 1)}))
	invalid("sig-zero", envelope(quote(zero32+zero32)))
	invalid("sig-bit-changed", envelope(quote(flipDigit(strings.Trim(b.sig, `"`), 64))))
}

// wrongKinds is one value of each JSON kind but the right one (string if empty) and null.
func wrongKinds(right string) map[string]string {
	kinds := map[string]string{"string": `"x"`, "number": "1", "boolean": "true", "object": "{}", "array": "[]"}
	if right == "" {
		right = "string"
	}
	delete(kinds, right)
	return kinds
}
