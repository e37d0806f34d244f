package main

import (
	"fmt"
	"net/url"
	"strings"

	"relaymarket/protocol"
)

// invited is the throw-away key of the vectors' invitation.
func invited() actor { return newActor("invitation") }

func firstWordMembers(c cast) members {
	card := signed(c.carol, c.carol.Public, now, object(cardMembers(c)))
	return members{"type": quote(protocol.TypeFirstWord), "invitation": quote(invited().Public.String()), "text": `"we met on the train"`, "card": string(card.Bytes())}
}

func (b *requestTopicBuilder) firstWord(c cast) {
	b.begin(protocol.TypeFirstWord, firstWordMembers(c), true)
	b.hex("invitation")
	b.member("text", "string", true)
	b.accept("text-empty", members{"text": `""`})
	b.accept("text-1000-characters-beyond-the-bmp", members{"text": quote(strings.Repeat("😀", 1000))})
	b.refuse("text-1001-characters", protocol.CodeInvalidValue, members{"text": quote(strings.Repeat("a", 1001))})
	b.member("card", "object", true)
	b.accept("card-that-is-none", members{"card": `{}`}) // who reads the word reads the card
	b.refuse("card-too-large", protocol.CodeTooLarge, members{"card": `{"x":` + quote(strings.Repeat("x", protocol.MaxCardSize)) + `}`})
}

// firstWordsTopic is first words as the bodies of records.
func firstWordsTopic(c cast) topic {
	b := &documentTopicBuilder{topic{
		Description: "First words, the bodies of records that the key invitation signed for bob, read by him when his clock shows now. " +
			"The members of the request are the business of requests.json.",
		Keys: c.keys(),
	}}
	b.Keys["invitation"] = invited()
	plain := firstWordMembers(c)
	word := func(changes members) string {
		return string(signed(c.carol, c.bob.Public, now, object(plain.with(changes))).Bytes())
	}
	card := func(by actor, to protocol.PublicKey, at protocol.Timestamp) string {
		return string(signed(by, to, at, object(cardMembers(c))).Bytes())
	}
	b.add(good("plain"), word(nil), now)
	b.add(good("unknown-member"), word(members{"zzz": "1"}), now)
	b.add(good("card-ten-years-old"), word(members{"card": card(c.carol, c.carol.Public, now-10*365*86_400_000)}), now)
	b.add(good("card-of-16384-bytes"), word(members{"card": cardOfSizeBy(c, c.carol, protocol.MaxCardSize)}), now)
	b.add(good("ahead-by-300-s"), string(signed(c.carol, c.bob.Public, now+300_000, object(plain)).Bytes()), now)
	b.add(bad("ahead-by-300-s-and-1-ms", protocol.CodeFuture), string(signed(c.carol, c.bob.Public, now+300_001, object(plain)).Bytes()), now)
	b.add(bad("for-somebody-else", protocol.CodeWrongAudience), string(signed(c.carol, c.alice.Public, now, object(plain)).Bytes()), now)
	b.add(bad("of-another-invitation", protocol.CodeWrongAudience), word(members{"invitation": quote(c.other.Public.String())}), now)
	b.add(bad("card-of-another-key", protocol.CodeMismatch), word(members{"card": card(c.alice, c.alice.Public, now)}), now)
	b.add(bad("card-for-another-key", protocol.CodeWrongAudience), word(members{"card": card(c.carol, c.bob.Public, now)}), now)
	b.add(bad("card-ahead", protocol.CodeFuture), word(members{"card": card(c.carol, c.carol.Public, now+300_001)}), now)
	b.add(bad("card-altered", protocol.CodeBadSignature), word(members{"card": strings.Replace(card(c.carol, c.carol.Public, now), `"label":"alice"`, `"label":"alicf"`, 1)}), now)
	b.add(bad("text-altered", protocol.CodeBadSignature), strings.Replace(word(nil), "train", "plane", 1), now)
	b.add(bad("of-another-type", protocol.CodeWrongType), card(c.carol, c.bob.Public, now), now)
	b.add(bad("too-large", protocol.CodeTooLarge), word(members{"zzz": quote(strings.Repeat("x", protocol.MaxFirstWord))}), now)
	b.add(bad("newline-after", protocol.CodeNotCanonical), word(nil)+"\n", now)
	b.add(bad("empty", protocol.CodeMalformed), "", now)
	return b.topic
}

// cardOfSizeBy is a card of a number of bytes, filled up with a member of the future.
func cardOfSizeBy(c cast, by actor, size int) string {
	card := func(fill int) string {
		return string(signed(by, by.Public, now, object(cardMembers(c).with(members{"avatar": quote(strings.Repeat("x", fill))}))).Bytes())
	}
	return card(size - len(card(0)))
}

type invitationCase struct {
	verdict
	input
	Link       string              `json:"link,omitempty"`       // the link in it, as it is written
	Invitation *protocol.PublicKey `json:"invitation,omitempty"` // the public key
}

func invitationsTopic(c cast) topic {
	t := topic{Description: "Invitations: a link, and the secret of the key that may leave a first word. link is how the link in it is written.", Keys: map[string]actor{"invitation": invited()}}
	link := "relaymarket:" + c.bob.Public.Bech32() + "?relay=" + url.QueryEscape("https://relay.example")
	secret := invited().Secret
	key := invited().Public
	for name, text := range sortedPairs(
		"plain", link+"#invite="+secret, "parameter-of-the-future", link+"&v=2#invite="+secret,
	) {
		t.Cases = append(t.Cases, invitationCase{good(name), inputOf(text), link, &key})
	}
	for name, text := range sortedPairs(
		"empty", "", "link-alone", link, "secret-missing", link+"#invite=", "secret-short", link+"#invite="+secret[2:], "secret-long", link+"#invite="+secret+"00",
		"secret-upper-case", link+"#invite="+upper(secret), "secret-not-hex", link+"#invite=x"+secret[1:], "secret-zero", link+"#invite="+strings.Repeat("0", 64),
		"secret-of-the-order", link+"#invite=fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", "newline-after", link+"#invite="+secret+"\n",
		"mark-of-another-case", link+"#INVITE="+secret, "secret-before", "#invite="+secret+link, "two-secrets", link+"#invite="+secret+"#invite="+secret,
		"link-with-fragment", "relaymarket:"+c.bob.Public.Bech32()+"#x#invite="+secret, "rubbish", "relaymarket:%zz?%%#invite="+secret,
		"too-long", fmt.Sprintf("%s&x=%s#invite=%s", link, strings.Repeat("a", 8192), secret),
	) {
		t.Cases = append(t.Cases, invitationCase{verdict: bad(name, protocol.CodeMalformed), input: inputOf(text)})
	}
	for name, text := range sortedPairs(
		"no-relay", "relaymarket:"+c.bob.Public.Bech32()+"#invite="+secret, "relay-with-path", "relaymarket:"+c.bob.Public.Bech32()+"?relay=https%3A%2F%2Frelay.example%2Fx#invite="+secret,
	) {
		t.Cases = append(t.Cases, invitationCase{verdict: bad(name, protocol.CodeInvalidValue), input: inputOf(text)})
	}
	return t
}
