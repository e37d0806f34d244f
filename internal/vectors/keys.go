package main

import (
	_ "embed"
	"encoding/csv"
	"encoding/hex"
	"strings"

	"github.com/btcsuite/btcd/address/v2/bech32"

	"relaymarket/protocol"
)

// Numbers of secp256k1 (SEC 2, section 2.4.1).
const (
	fieldPrime = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"
	groupOrder = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	generatorX = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	zero32     = "0000000000000000000000000000000000000000000000000000000000000000"
	offCurve   = "0000000000000000000000000000000000000000000000000000000000000005"
)

type keyCase struct {
	verdict
	input
	Hex    string `json:"hex,omitempty"`
	Bech32 string `json:"bech32,omitempty"`
}

// fiveBit is the bech32 alphabet's view of raw, with the given value of the last padding bits.
func fiveBit(raw []byte, padding byte) []byte {
	groups := must(bech32.ConvertBits(raw, 8, 5, true))
	groups[len(groups)-1] |= padding
	return groups
}

func keysTopic(c cast) topic {
	k := c.alice.Public
	hexKey, person := k.String(), must(bech32.EncodeM("relay", fiveBit(k[:], 0)))
	generator := must(hex.DecodeString(generatorX))
	var cases []any
	valid := func(name, text, hexForm, person string) {
		cases = append(cases, keyCase{good(name), inputOf(text), hexForm, person})
	}
	invalid := func(name, text string) {
		cases = append(cases, keyCase{verdict: bad(name, protocol.CodeMalformed), input: inputOf(text)})
	}
	gPerson := must(bech32.EncodeM("relay", fiveBit(generator, 0)))
	valid("hex", hexKey, hexKey, person)
	valid("hex-generator", generatorX, generatorX, gPerson)
	valid("bech32m", person, hexKey, person)
	valid("bech32m-generator", gPerson, generatorX, gPerson)
	valid("bech32m-upper-case", upper(person), hexKey, person)

	invalid("empty", "")
	invalid("hex-upper-case", upper(hexKey))
	invalid("hex-one-upper-case-digit", generatorX[:2]+upper(generatorX[2:3])+generatorX[3:])
	invalid("hex-63-digits", hexKey[1:])
	invalid("hex-65-digits", hexKey+"0")
	invalid("hex-33-bytes-compressed", "02"+hexKey)
	invalid("hex-0x", "0x"+hexKey[2:])
	invalid("hex-not-a-digit", "g"+hexKey[1:])
	invalid("hex-space-before", " "+hexKey)
	invalid("hex-newline-after", hexKey+"\n")
	invalid("hex-zero", zero32)
	invalid("hex-not-on-curve", offCurve)
	invalid("hex-field-prime", fieldPrime)
	invalid("hex-above-field-prime", strings.Repeat("f", 64))
	invalid("hex-field-prime-plus-one", "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30")
	invalid("hex-fullwidth-digit", "\uff10"+hexKey[3:])

	invalid("bech32-not-m", must(bech32.Encode("relay", fiveBit(k[:], 0))))
	invalid("bech32m-wrong-prefix", must(bech32.EncodeM("npub", fiveBit(k[:], 0))))
	invalid("bech32m-longer-prefix", must(bech32.EncodeM("relay1", fiveBit(k[:], 0))))
	invalid("bech32m-wrong-checksum", swapLast(person))
	invalid("bech32m-wrong-digit", person[:10]+otherDigit(person[10])+person[11:])
	invalid("bech32m-mixed-case", upper(person[:20])+person[20:])
	invalid("bech32m-not-a-digit", person[:10]+"b"+person[11:])
	invalid("bech32m-31-bytes", must(bech32.EncodeM("relay", fiveBit(k[:31], 0))))
	invalid("bech32m-33-bytes", must(bech32.EncodeM("relay", fiveBit(append(k[:], 0), 0))))
	invalid("bech32m-padding-not-zero", must(bech32.EncodeM("relay", fiveBit(k[:], 1))))
	invalid("bech32m-group-of-padding", must(bech32.EncodeM("relay", append(fiveBit(k[:], 0), 0))))
	invalid("bech32m-not-on-curve", must(bech32.EncodeM("relay", fiveBit(must(hex.DecodeString(offCurve)), 0))))
	invalid("bech32m-space-after", person+" ")
	invalid("bech32m-cut", person[:len(person)-1])
	invalid("bech32m-prefix-only", "relay1")
	return topic{
		Description: "A public key as a person types it, and both of its forms. hex is the wire form. An input in JSON " +
			"members is the wire form only, and is not checked to lie on the curve there.",
		Cases: cases,
	}
}

func swapLast(s string) string {
	n := len(s)
	if s[n-1] == s[n-2] {
		return s[:n-1] + otherDigit(s[n-1])
	}
	return s[:n-2] + s[n-1:] + s[n-2:n-1]
}

func otherDigit(c byte) string {
	if c == 'q' {
		return "p"
	}
	return "q"
}

type secretCase struct {
	verdict
	Secret string `json:"secret"`
	Public string `json:"public,omitempty"`
}

func secretsTopic(c cast) topic {
	cases := []any{
		secretCase{good("one"), zero32[:63] + "1", generatorX},
		secretCase{good("two"), zero32[:63] + "2", "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"},
		secretCase{good("three-bip340"), zero32[:63] + "3", "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"},
		secretCase{good("order-minus-one"), groupOrder[:63] + "0", generatorX},
		secretCase{good("alice"), c.alice.Secret, c.alice.Public.String()},
		secretCase{verdict: bad("zero", protocol.CodeMalformed), Secret: zero32},
		secretCase{verdict: bad("order", protocol.CodeMalformed), Secret: groupOrder},
		secretCase{verdict: bad("order-plus-one", protocol.CodeMalformed), Secret: groupOrder[:63] + "2"},
		secretCase{verdict: bad("all-ones", protocol.CodeMalformed), Secret: strings.Repeat("f", 64)},
	}
	return topic{Description: "A 32-byte secret and its BIP340 x-only public key. A secret is 1 to n-1.", Cases: cases}
}

// The rows of BIP340's own vectors whose message has 32 bytes: this protocol signs digests only.
//
//go:embed bip340.csv
var bip340CSV string

type signatureCase struct {
	verdict
	Secret    string `json:"secret,omitempty"`
	Public    string `json:"public"`
	Aux       string `json:"aux,omitempty"`
	Digest    string `json:"digest"`
	Signature string `json:"signature"`
	Comment   string `json:"comment,omitempty"`
}

func bip340Topic() topic {
	rows := must(csv.NewReader(strings.NewReader(bip340CSV)).ReadAll())
	t := topic{Description: "The test vectors 0 to 14 of BIP340 (github.com/bitcoin/bips, bip-0340/test-vectors.csv), in lower case. " +
		"Cases with a secret also sign: the signature of the digest with this auxiliary randomness is exactly this one. " +
		"Vectors 15 to 18 have messages of other lengths, which this protocol never signs."}
	for _, row := range rows[1:] {
		v := good("bip340-" + row[0])
		if row[6] != "TRUE" {
			v = bad("bip340-"+row[0], protocol.CodeBadSignature)
		}
		lower := strings.ToLower
		t.Cases = append(t.Cases, signatureCase{v, lower(row[1]), lower(row[2]), lower(row[3]), lower(row[4]), lower(row[5]), row[7]})
	}
	return t
}

func signaturesTopic(c cast) topic {
	t := topic{Description: "Signatures of tagged hashes of this protocol. digest is the tagged hash " +
		protocol.TagEnvelope + " of the text {\"n\":<i>}; cases with a secret also sign."}
	digest := func(i string) protocol.Hash {
		return protocol.TaggedHash(protocol.TagEnvelope, []byte(`{"n":`+i+`}`))
	}
	sign := func(name string, who actor, i string, aux [32]byte) signatureCase {
		d := digest(i)
		sig := must(who.key.SignDigest(d, aux))
		return signatureCase{good(name), who.Secret, who.Public.String(), hex.EncodeToString(aux[:]), d.String(), sig.String(), ""}
	}
	first := sign("alice-zero-aux", c.alice, "0", [32]byte{})
	t.Cases = append(t.Cases, first,
		sign("alice-other-aux", c.alice, "0", [32]byte{31: 1}),
		sign("bob", c.bob, "1", [32]byte{0: 0xff}),
		sign("relay", c.relay, "2", [32]byte{15: 7}))
	invalid := func(name, public, digest, signature string) {
		t.Cases = append(t.Cases, signatureCase{verdict: bad(name, protocol.CodeBadSignature), Public: public, Digest: digest, Signature: signature})
	}
	pub, d, s := first.Public, first.Digest, first.Signature
	invalid("other-key", c.bob.Public.String(), d, s)
	invalid("other-digest", pub, digest("1").String(), s)
	invalid("bit-of-r", pub, d, flipDigit(s, 0))
	invalid("bit-of-s", pub, d, flipDigit(s, 127))
	invalid("halves-swapped", pub, d, s[64:]+s[:64])
	invalid("zero", pub, d, zero32+zero32)
	invalid("r-zero", pub, d, zero32+s[64:])
	invalid("s-zero", pub, d, s[:64]+zero32)
	invalid("r-field-prime", pub, d, fieldPrime+s[64:])
	invalid("s-group-order", pub, d, s[:64]+groupOrder)
	invalid("all-ones", pub, d, strings.Repeat("f", 128))
	invalid("key-zero", zero32, d, s)
	invalid("key-not-on-curve", offCurve, d, s)
	invalid("key-field-prime", fieldPrime, d, s)
	plain := protocol.Hash([]byte(must(hex.DecodeString(zero32))))
	invalid("digest-zero", pub, plain.String(), s)
	return t
}

// flipDigit changes the lowest bit of one hex digit.
func flipDigit(s string, i int) string {
	return s[:i] + string("1032547698badcfe"[strings.IndexByte("0123456789abcdef", s[i])]) + s[i+1:]
}
