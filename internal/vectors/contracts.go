package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"relaymarket/protocol"
)

// Plain, valid instances of the messages of a contract. A PSBT is only looked at as base64 here; its
// transactions have tests of their own in package escrow.

var (
	contractID  = strings.Repeat("c0", 32)
	payout      = "0014" + strings.Repeat("11", 20)
	derSig      = "3006020101020101" + "83"
	shortPSBT   = "cHNidP8="
	contractKey = func(a actor) string { return "02" + a.Public.String() }
)

func consentMembers(c cast) members {
	return members{"type": `"contractConsent"`, "contract": quote(contractID), "payer": quote(c.alice.Public.String())}
}

func writerMembers(c cast) members {
	return members{
		"key":     quote(c.bob.Public.String()),
		"consent": string(signed(c.bob, c.relay.Public, now, object(consentMembers(c))).Bytes()),
	}
}

func contractOpenMembers(c cast) members {
	return members{
		"type": `"contractOpen"`, "contract": quote(contractID), "announcement": quote(protocol.Hash(leaf(1)).String()),
		"deposit": "100000", "expiry": "904320", "feerate": "2000", "userKey": quote(contractKey(c.alice)),
		"userScript": quote(payout), "psbt": quote(shortPSBT), "writers": list(object(writerMembers(c))),
	}
}

func serverInputsMembers(c cast) members {
	return members{
		"type": `"contractServerAddInputs"`, "contract": quote(contractID), "relayKey": quote(contractKey(c.relay)),
		"relayScript": quote(payout), "bond": "0", "openingPrice": "2000", "creditLimit": "2000",
		"storageMsatPerGBDay": "500000", "bandwidthMsatPerGB": "2000000", "expiry": "904320", "psbt": quote(shortPSBT),
		"reservedUntil": fmt.Sprint(now + 120_000),
	}
}

func clientSignedMembers() members {
	return members{
		"type": `"contractClientSigned"`, "contract": quote(contractID), "psbt": quote(shortPSBT),
		"seq": "0", "amount": "2000", "signature": quote(derSig),
	}
}

func paymentMembers() members {
	return members{"type": `"contractPaymentState"`, "contract": quote(contractID), "seq": "1", "amount": "2500", "signature": quote(derSig)}
}

func refundMembers() members {
	return members{"type": `"contractRefundPayment"`, "contract": quote(contractID), "amount": "2500", "fee": "340", "signature": quote(derSig)}
}

func statusMembers() members {
	return members{
		"type": `"contractStatus"`, "contract": quote(contractID), "state": `"active"`, "seq": "1", "amount": "2500",
		"deposit": "100000", "bond": "0", "openingPrice": "2000", "creditLimit": "2000", "expiry": "904320",
		"lastUsage": "903888", "height": "900010", "owed": "2400",
		"transactions": list(object(contractTxMembers())),
	}
}

func contractTxMembers() members {
	return members{"kind": `"funding"`, "txid": quote(protocol.Hash(leaf(2)).String()), "confirmations": "6"}
}

func (b *requestTopicBuilder) contracts(c cast) {
	b.contractOpen(c)
	b.contractConsent(c)
	b.serverInputs(c)
	b.clientSigned()
	b.payment()
	b.refund()
	b.status()
	b.contractList()
}

// amount adds what no amount of satoshi may be.
func (b *requestTopicBuilder) amount(name string) {
	b.integer(name)
	b.accept(name+"-all-bitcoin", members{name: "2100000000000000"})
	b.refuse(name+"-negative", protocol.CodeWrongAmount, members{name: "-1"})
	b.refuse(name+"-above-all-bitcoin", protocol.CodeWrongAmount, members{name: "2100000000000001"})
}

// height adds what no expiry may be.
func (b *requestTopicBuilder) height(name string) {
	b.integer(name)
	b.accept(name+"-greatest", members{name: "499999999"})
	for what, value := range sortedPairs("zero", "0", "negative", "-1", "a-time", "500000000") {
		b.refuse(name+"-"+what, protocol.CodeContractExpiry, members{name: value})
	}
}

// point adds what no contract key may be.
func (b *requestTopicBuilder) point(name string) {
	b.hex(name)
	b.refuse(name+"-not-on-curve", protocol.CodeInvalidValue, members{name: quote("02" + offCurve)})
	b.refuse(name+"-uncompressed-prefix", protocol.CodeInvalidValue, members{name: quote("04" + strings.Trim(b.plain[name], `"`)[2:])})
}

// script adds what no payout may be.
func (b *requestTopicBuilder) script(name string) {
	b.member(name, "string", true)
	b.accept(name+"-P2TR", members{name: quote("5120" + strings.Repeat("22", 32))})
	b.accept(name+"-P2WSH", members{name: quote("0020" + strings.Repeat("22", 32))})
	for what, value := range sortedPairs(
		"empty", "", "P2PKH", "76a914"+strings.Repeat("11", 20)+"88ac", "P2SH", "a914"+strings.Repeat("11", 20)+"87", "return", "6a00",
		"witness-version-2", "5220"+strings.Repeat("22", 32), "P2WPKH-and-more", payout+"51",
	) {
		b.refuse(name+"-"+what, protocol.CodeWrongScript, members{name: quote(value)})
	}
	b.refuse(name+"-upper-case", protocol.CodeMalformed, members{name: quote("0014" + strings.Repeat("AA", 20))})
	b.refuse(name+"-odd", protocol.CodeMalformed, members{name: quote(payout[1:])})
	b.refuse(name+"-too-long", protocol.CodeMalformed, members{name: quote(strings.Repeat("00", 35))})
}

// signature adds what no transaction signature may be.
func (b *requestTopicBuilder) signature() {
	b.member("signature", "string", true)
	b.accept("signature-longest", members{"signature": quote(strings.Repeat("30", 73))})
	b.refuse("signature-empty", protocol.CodeContractSignature, members{"signature": `""`})
	b.refuse("signature-short", protocol.CodeContractSignature, members{"signature": quote(strings.Repeat("30", 8))})
	b.refuse("signature-too-long", protocol.CodeMalformed, members{"signature": quote(strings.Repeat("30", 74))})
	b.refuse("signature-upper-case", protocol.CodeMalformed, members{"signature": quote(strings.Repeat("AA", 70))})
}

func (b *requestTopicBuilder) psbt() {
	b.member("psbt", "string", true)
	b.refuse("psbt-empty", protocol.CodeBadPSBT, members{"psbt": `""`})
	b.refuse("psbt-base64url", protocol.CodeBadPSBT, members{"psbt": `"-_-_"`})
	b.refuse("psbt-without-padding", protocol.CodeBadPSBT, members{"psbt": `"cHNidP8"`})
}

func (b *requestTopicBuilder) contractOpen(c cast) {
	b.begin("contractOpen", contractOpenMembers(c), false)
	b.hex("contract")
	b.hex("announcement")
	b.amount("deposit")
	b.height("expiry")
	b.integer("feerate")
	b.accept("feerate-least", members{"feerate": "1000"})
	b.accept("feerate-greatest", members{"feerate": "1000000"})
	for what, value := range sortedPairs("zero", "0", "too-small", "999", "negative", "-1000", "10000-sat-per-vB", "10000000") {
		b.refuse("feerate-"+what, protocol.CodeFeerate, members{"feerate": value})
	}
	b.point("userKey")
	b.script("userScript")
	b.psbt()
	b.member("writers", "array", true)
	b.accept("writers-none", members{"writers": "[]"})
	one := writerMembers(c)
	change := func(changes members) members { return members{"writers": list(object(one.with(changes)))} }
	b.refuse("writers-twice", protocol.CodeInvalidValue, members{"writers": list(object(one), object(one))})
	b.refuse("writer-without-consent", protocol.CodeMalformed, change(members{"consent": ""}))
	b.refuse("writer-without-key", protocol.CodeMalformed, change(members{"key": ""}))
	b.refuse("writer-with-unknown-member", protocol.CodeMalformed, change(members{"until": "1"}))
	b.refuse("writer-with-consent-as-text", protocol.CodeMalformed, change(members{"consent": `"yes"`}))
	b.accept("renews", members{"renews": quote(strings.Repeat("c1", 32))})
	b.refuse("renews-itself", protocol.CodeInvalidValue, members{"renews": quote(contractID)})
	b.refuse("renews-is-null", protocol.CodeNotCanonical, members{"renews": "null"})
}

func (b *requestTopicBuilder) contractConsent(c cast) {
	b.begin("contractConsent", consentMembers(c), false)
	b.hex("contract")
	b.hex("payer")
}

func (b *requestTopicBuilder) serverInputs(c cast) {
	b.begin("contractServerAddInputs", serverInputsMembers(c), true)
	b.hex("contract")
	b.point("relayKey")
	b.script("relayScript")
	for _, name := range []string{"bond", "openingPrice", "creditLimit"} {
		b.amount(name)
	}
	for _, name := range []string{"storageMsatPerGBDay", "bandwidthMsatPerGB"} {
		b.integer(name)
		b.accept(name+"-free", members{name: "0"})
		b.refuse(name+"-negative", protocol.CodeInvalidValue, members{name: "-1"})
	}
	b.height("expiry")
	b.psbt()
	b.integer("reservedUntil")
	b.refuse("reservedUntil-negative", protocol.CodeMalformed, members{"reservedUntil": "-1"})
	b.accept("renewsAmount", members{"renewsAmount": "0"})
	b.refuse("renewsAmount-negative", protocol.CodeWrongAmount, members{"renewsAmount": "-1"})
}

func (b *requestTopicBuilder) clientSigned() {
	b.begin("contractClientSigned", clientSignedMembers(), false)
	b.hex("contract")
	b.psbt()
	b.integer("seq")
	b.refuse("seq-not-zero", protocol.CodeStateOrder, members{"seq": "1"})
	b.amount("amount")
	b.signature()
}

func (b *requestTopicBuilder) payment() {
	b.begin("contractPaymentState", paymentMembers(), false)
	b.hex("contract")
	b.integer("seq")
	b.accept("seq-greatest", members{"seq": "9007199254740991"})
	b.refuse("seq-zero", protocol.CodeStateOrder, members{"seq": "0"})
	b.refuse("seq-negative", protocol.CodeStateOrder, members{"seq": "-1"})
	b.amount("amount")
	b.signature()
	b.accept("usage", members{"usage": `"500000"`})
	b.accept("usage-greatest", members{"usage": `"9223372036854775807"`})
	for what, value := range sortedPairs("empty", "", "negative", "-1", "leading-zero", "01", "plus", "+1", "too-great", "9223372036854775808", "float", "1.5") {
		b.refuse("usage-"+what, protocol.CodeMalformed, members{"usage": quote(value)})
	}
	b.refuse("usage-number", protocol.CodeMalformed, members{"usage": "500000"})
	pending := paymentMembers().with(members{"type": "", "contract": quote(strings.Repeat("c1", 32))})
	change := func(changes members) members { return members{"pending": object(pending.with(changes))} }
	b.accept("pending", change(nil))
	for _, name := range []string{"contract", "seq", "amount", "signature"} {
		b.refuse("pending-without-"+name, protocol.CodeMalformed, change(members{name: ""}))
	}
	b.refuse("pending-of-itself", protocol.CodeInvalidValue, change(members{"contract": quote(contractID)}))
	b.refuse("pending-with-unknown-member", protocol.CodeMalformed, change(members{"zzz": "1"}))
	b.refuse("pending-negative", protocol.CodeWrongAmount, change(members{"amount": "-1"}))
	b.refuse("pending-is-null", protocol.CodeNotCanonical, members{"pending": "null"})
}

func (b *requestTopicBuilder) refund() {
	b.begin("contractRefundPayment", refundMembers(), false)
	b.hex("contract")
	b.amount("amount")
	b.integer("fee")
	b.refuse("fee-zero", protocol.CodeFeerate, members{"fee": "0"})
	b.refuse("fee-negative", protocol.CodeFeerate, members{"fee": "-1"})
	b.signature()
}

func (b *requestTopicBuilder) status() {
	b.begin("contractStatus", statusMembers(), true)
	b.hex("contract")
	b.member("state", "string", true)
	b.accept("state-of-the-future", members{"state": `"sleeping"`})
	b.refuse("state-empty", protocol.CodeInvalidValue, members{"state": `""`})
	b.refuse("state-too-long", protocol.CodeInvalidValue, members{"state": quote(strings.Repeat("x", 33))})
	b.integer("seq")
	b.accept("seq-before-the-first", members{"seq": "-1"})
	b.refuse("seq-too-small", protocol.CodeInvalidValue, members{"seq": "-2"})
	for _, name := range []string{"amount", "deposit", "bond", "openingPrice", "creditLimit", "owed"} {
		b.amount(name)
	}
	b.height("expiry")
	for _, name := range []string{"lastUsage", "height"} {
		b.integer(name)
		b.refuse(name+"-negative", protocol.CodeInvalidValue, members{name: "-1"})
	}
	b.statusParts()
}

func (b *requestTopicBuilder) statusParts() {
	b.member("transactions", "array", true)
	b.accept("transactions-none", members{"transactions": "[]"})
	b.parts("transactions", contractTxMembers(), func(item string) string { return list(item) })
	b.parts("funding", members{"txid": quote(protocol.Hash(leaf(2)).String()), "tx": `"0200"`, "confirmations": "0"}, nil)
	b.parts("due", members{"amount": "4000"}, nil)
	b.parts("closing", members{"amount": "2500", "fee": "340", "signature": quote(derSig)}, nil)
	for _, name := range []string{"renewedBy", "renews"} {
		b.accept(name, members{name: quote(strings.Repeat("c1", 32))})
		b.refuse(name+"-short", protocol.CodeMalformed, members{name: `"c1"`})
	}
	b.refuse("transaction-without-a-kind", protocol.CodeInvalidValue, members{"transactions": list(object(contractTxMembers().with(members{"kind": `""`})))})
	b.refuse("due-negative", protocol.CodeWrongAmount, members{"due": `{"amount":-1}`})
	b.refuse("closing-without-a-fee", protocol.CodeFeerate, members{"closing": object(members{"amount": "2500", "fee": "0", "signature": quote(derSig)})})
}

// parts adds an object within the plain one: valid, with a member more, and with each one less.
func (b *requestTopicBuilder) parts(name string, plain members, wrap func(string) string) {
	if wrap == nil {
		wrap = func(item string) string { return item }
	}
	b.accept(name, members{name: wrap(object(plain))})
	b.accept(name+"-with-unknown-member", members{name: wrap(object(plain.with(members{"zzz": "1"})))})
	b.refuse(name+"-within-is-text", protocol.CodeMalformed, members{name: wrap(`"x"`)})
	for _, member := range slices.Sorted(maps.Keys(plain)) {
		b.refuse(name+"-without-"+member, protocol.CodeMalformed, members{name: wrap(object(plain.with(members{member: ""})))})
	}
}

func (b *requestTopicBuilder) contractList() {
	b.begin("contractList", members{"type": `"contractList"`, "contracts": list(object(statusMembers()))}, true)
	b.member("contracts", "array", true)
	b.accept("contracts-none", members{"contracts": "[]"})
	b.refuse("contract-without-state", protocol.CodeMalformed, members{"contracts": list(object(statusMembers().with(members{"state": ""})))})
	b.refuse("contract-without-type", protocol.CodeMalformed, members{"contracts": list(object(statusMembers().with(members{"type": ""})))})
	b.refuse("contract-of-another-type", protocol.CodeInvalidValue, members{"contracts": list(object(statusMembers().with(members{"type": `"contractList"`})))})
	b.refuse("contract-with-false-amount", protocol.CodeWrongAmount, members{"contracts": list(object(statusMembers().with(members{"amount": "-1"})))})
	b.accept("contract-with-unknown-member", members{"contracts": list(object(statusMembers().with(members{"zzz": "1"})))})
}
