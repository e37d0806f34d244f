package main

import (
	"fmt"
	"strings"

	"relaymarket/protocol"
)

func wishMembers(topic string) members {
	return members{"type": `"volunteer"`, "payment": "false", "topic": quote(topic), "plaintext": "true", "ads": "false"}
}

func wishesMembers() members {
	return members{"type": quote(protocol.TypeTerms), "wishes": list(`{"ads":false,"payment":false,"plaintext":false,"type":"grant"}`,
		object(wishMembers("weather")), `{"ads":false,"payment":true,"plaintext":false,"type":"contract"}`)}
}

func (b *requestTopicBuilder) terms() {
	b.begin(protocol.TypeTerms, wishesMembers(), false)
	b.member("wishes", "array", true)
	one := func(changes members) members {
		return members{"wishes": list(object(wishMembers("a").with(changes)))}
	}
	b.accept("one", one(nil))
	b.accept("topic-absent", one(members{"topic": ""}))
	b.accept("type-of-the-future", one(members{"type": `"barter"`, "payment": "true"}))
	b.accept("topic-longest", one(members{"topic": quote(strings.Repeat("Z", 32))}))
	b.refuse("none", protocol.CodeInvalidValue, members{"wishes": `[]`})
	wishes := func(n int) members {
		all := make([]string, n)
		for i := range all {
			all[i] = object(wishMembers(fmt.Sprint("t", i)))
		}
		return members{"wishes": list(all...)}
	}
	b.accept("16", wishes(16))
	b.refuse("17", protocol.CodeInvalidValue, wishes(17))
	b.refuse("twice", protocol.CodeInvalidValue, members{"wishes": list(object(wishMembers("a")), object(wishMembers("a")))})
	b.refuse("unknown-flag", protocol.CodeMalformed, one(members{"tracking": "true"}))
	b.refuse("type-missing", protocol.CodeMalformed, one(members{"type": ""}))
	b.refuse("type-empty", protocol.CodeInvalidValue, one(members{"type": `""`}))
	b.refuse("type-with-space", protocol.CodeInvalidValue, one(members{"type": `"a b"`}))
	for _, name := range []string{"payment", "plaintext", "ads"} {
		b.refuse(name+"-missing", protocol.CodeMalformed, one(members{name: ""}))
	}
	b.refuse("topic-empty", protocol.CodeInvalidValue, one(members{"topic": `""`}))
	b.refuse("payment-number", protocol.CodeMalformed, one(members{"payment": "0"}))
	b.refuse("volunteer-for-payment", protocol.CodeInvalidValue, one(members{"payment": "true"}))
	b.refuse("contract-for-nothing", protocol.CodeInvalidValue, one(members{"type": `"contract"`, "topic": ""}))
	b.refuse("contract-on-topic", protocol.CodeInvalidValue, one(members{"type": `"contract"`, "payment": "true"}))
	b.refuse("topic-any", protocol.CodeInvalidValue, one(members{"topic": `"*"`}))
	b.refuse("topic-too-long", protocol.CodeInvalidValue, one(members{"topic": quote(strings.Repeat("Z", 33))}))
	b.refuse("topic-number", protocol.CodeMalformed, one(members{"topic": "1"}))
	b.refuse("plaintext-string", protocol.CodeMalformed, one(members{"plaintext": `"true"`}))
	b.refuse("wish-is-string", protocol.CodeMalformed, members{"wishes": `["volunteer"]`})
}

func (b *requestTopicBuilder) termsAnswer(c cast) {
	announcement := string(signed(c.relay, c.relay.Public, now, object(announcementMembers())).Bytes())
	account := members{"storedBytes": "10000000", "movedBytes": "100000000", "until": fmt.Sprint(now + 30*86_400_000), "topic": `"weather"`, "plaintext": "true"}
	plain := members{"type": quote(protocol.TypeTermsAnswer), "request": quote(strings.Repeat("1a", 32)), "accepted": "1", "refused": `["key"]`,
		"account": object(account), "announcement": announcement}
	b.begin(protocol.TypeTermsAnswer, plain, true)
	b.hex("request")
	b.member("refused", "array", true)
	b.member("announcement", "object", true)
	given := func(changes members) members { return members{"account": object(account.with(changes))} }
	b.accept("contract", members{"account": ""})
	b.accept("first", members{"accepted": "0", "refused": `[]`})
	b.accept("none", members{"accepted": "", "account": "", "refused": `["offer","a word of the future"]`})
	b.accept("account-bound-to-nothing", given(members{"topic": "", "plaintext": ""}))
	b.accept("account-with-unknown-member", given(members{"zzz": "1"}))
	b.refuse("none-and-an-account", protocol.CodeInvalidValue, members{"accepted": ""})
	b.refuse("nothing-at-all", protocol.CodeInvalidValue, members{"accepted": "", "account": "", "refused": `[]`})
	b.refuse("accepted-negative", protocol.CodeInvalidValue, members{"accepted": "-1"})
	b.refuse("accepted-16", protocol.CodeInvalidValue, members{"accepted": "16", "refused": list(strings.Split(strings.Repeat(`"key",`, 15)+`"key"`, ",")...)})
	b.refuse("accepted-not-after-the-refused", protocol.CodeInvalidValue, members{"accepted": "2"})
	b.refuse("refused-17", protocol.CodeInvalidValue, members{"accepted": "", "account": "", "refused": list(strings.Split(strings.Repeat(`"key",`, 16)+`"key"`, ",")...)})
	b.refuse("refused-number-within", protocol.CodeMalformed, members{"refused": `[1]`})
	for _, name := range []string{"storedBytes", "movedBytes"} {
		b.refuse("account-"+name+"-missing", protocol.CodeMalformed, given(members{name: ""}))
		b.refuse("account-"+name+"-negative", protocol.CodeInvalidValue, given(members{name: "-1"}))
	}
	b.refuse("account-until-missing", protocol.CodeMalformed, given(members{"until": ""}))
	b.refuse("account-topic-any", protocol.CodeInvalidValue, given(members{"topic": `"*"`}))
}
