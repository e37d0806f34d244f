package main

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"relaymarket/protocol"
)

const sealedFile = "sealed.json"

// sealingActor is an X-Wing key pair of the vectors.
type sealingActor struct {
	Seed        string `json:"seed"`
	PublicKey   string `json:"publicKey"` // standard base64, as in a card
	Fingerprint string `json:"sha256"`    // of the public key's bytes

	private hpke.PrivateKey
}

func newSealingActor(name string) sealingActor {
	seed := sha256.Sum256([]byte("relaymarket test vector: sealing " + name))
	private := must(hpke.MLKEM768X25519().NewPrivateKey(seed[:]))
	public := private.PublicKey().Bytes()
	print := sha256.Sum256(public)
	return sealingActor{hex.EncodeToString(seed[:]), base64.StdEncoding.EncodeToString(public), hex.EncodeToString(print[:]), private}
}

func (a sealingActor) encoded() string { return a.PublicKey }

// sealedTopic is a topic with sealing keys.
type sealedTopic struct {
	topic
	Sealing map[string]sealingActor `json:"sealing"`
}

type sealedCase struct {
	verdict
	Key       string `json:"key"` // whose sealing key opens
	From      string `json:"from"`
	To        string `json:"to"`
	RecordID  string `json:"recordId"`
	Tag       string `json:"tag,omitempty"`
	Content   string `json:"content"`
	Info      string `json:"info,omitempty"`      // hex; of all that opens
	AAD       string `json:"aad,omitempty"`       // text
	Plaintext string `json:"plaintext,omitempty"` // hex
	Header    string `json:"header,omitempty"`    // text
	Body      string `json:"body,omitempty"`      // hex
}

// recipe is content to be sealed: the plaintext wanted, and the place it is for.
type recipe struct {
	verdict
	plain  []byte
	tag    string
	header string
	body   []byte
}

// sealedBuilder seals as docs/protocol.md says, without package protocol's own sealing.
type sealedBuilder struct {
	sealedTopic
	c        cast
	previous map[string][]byte // content of the last run by name of the case
	made     map[string][]byte // content of this run
}

// readSealed returns the content of the last run. There may be none.
func readSealed(dir string) (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, sealedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var file struct{ Cases []sealedCase }
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w (delete it to seal anew)", sealedFile, err)
	}
	content := make(map[string][]byte, len(file.Cases))
	for _, c := range file.Cases {
		raw, err := base64.StdEncoding.DecodeString(c.Content)
		if err == nil {
			content[c.Name] = raw
		}
	}
	return content, nil
}

func (b *sealedBuilder) info() []byte {
	fingerprint := must(hex.DecodeString(b.Sealing["bob"].Fingerprint))
	info := append([]byte(protocol.LabelSeal), 0x01)
	info = append(info, b.c.alice.Public[:]...)
	info = append(info, b.c.bob.Public[:]...)
	return append(info, fingerprint...)
}

const sealedRecordID = "0193-a_B"

func aadOf(tag string) string {
	aad := members{"recordId": quote(sealedRecordID)}
	if tag != "" {
		aad["tag"] = quote(tag)
	}
	return object(aad)
}

// seal returns the content of the last run if it still opens to the plaintext, else new content.
func (b *sealedBuilder) seal(r recipe) []byte {
	bob := b.Sealing["bob"].private
	kdf, aead, aad := hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(aadOf(r.tag))
	if old := b.previous[r.Name]; len(old) > 1121 && old[0] == 0x01 {
		recipient, err := hpke.NewRecipient(old[1:1121], bob, kdf, aead, b.info())
		if err == nil {
			if plain, err := recipient.Open(aad, old[1121:]); err == nil && bytes.Equal(plain, r.plain) {
				return old
			}
		}
	}
	enc, sender, err := hpke.NewSender(bob.PublicKey(), kdf, aead, b.info())
	must(enc, err)
	ciphertext := must(sender.Seal(aad, r.plain))
	return append(append([]byte{0x01}, enc...), ciphertext...)
}

func (b *sealedBuilder) add(r recipe) {
	content := b.seal(r)
	b.made[r.Name] = content
	c := b.at(r.verdict, content)
	c.Tag, c.Info, c.AAD, c.Plaintext = r.tag, hex.EncodeToString(b.info()), aadOf(r.tag), hex.EncodeToString(r.plain)
	c.Header, c.Body = r.header, hex.EncodeToString(r.body)
	b.Cases = append(b.Cases, c)
}

// at is content in the place that all of it is for.
func (b *sealedBuilder) at(v verdict, content []byte) sealedCase {
	return sealedCase{
		verdict: v, Key: "bob", From: b.c.alice.Public.String(), To: b.c.bob.Public.String(), RecordID: sealedRecordID,
		Content: base64.StdEncoding.EncodeToString(content),
	}
}

// plaintext is length, header, zero byte, body and zeros up to size.
func plaintext(header string, body []byte, size int) []byte {
	plain := make([]byte, size)
	n := len(header) + 1 + len(body)
	binary.BigEndian.PutUint32(plain, uint32(n))
	copy(plain[4:], header)
	copy(plain[4+len(header)+1:], body)
	return plain
}

// What alice writes to bob in session.json, and the name of the case here.
const sessionMessage, sessionBody = "message", "Meet me at the old mill at noon."

func sealedTopicOf(c cast, previous map[string][]byte) *sealedBuilder {
	b := &sealedBuilder{c: c, previous: previous, made: make(map[string][]byte), sealedTopic: sealedTopic{
		topic: topic{
			Description: "Sealed content (base64), opened with the sealing key named, from a record of from to to under recordId with tag. " +
				"The seeds are X-Wing seeds. info, aad and plaintext are what HPKE takes and gives; header and body are the parts of the plaintext. " +
				"Sealing is randomized: these cases are kept from one run of the generator to the next.",
			Keys: c.keys(),
		},
		Sealing: map[string]sealingActor{"bob": newSealingActor("bob"), "carol": newSealingActor("carol")},
	}}
	b.validSealed()
	b.moved(b.made[sessionMessage])
	b.altered(b.made[sessionMessage])
	b.wrongPlaintexts()
	return b
}

const plainHeader = `{"contentType":"text/plain","device":"00112233445566ff","seq":1}`

func (b *sealedBuilder) validSealed() {
	valid := func(name, tag, header string, body []byte, size int) {
		b.add(recipe{good(name), plaintext(header, body, size), tag, header, body})
	}
	valid(sessionMessage, "", plainHeader, []byte(sessionBody), 256)
	valid("tag", "ack", plainHeader, []byte("hi"), 256)
	valid("body-empty", "", plainHeader, nil, 256)
	valid("body-with-zero-bytes", "", plainHeader, []byte("a\x00b\x00\x00"), 256)
	valid("name", "", `{"contentType":"image/png","device":"00112233445566ff","name":"Müsli.png","seq":9007199254740991}`, []byte{0x89, 'P', 'N', 'G'}, 256)
	valid("header-with-unknown-member", "", `{"aaa":[1,{"b":true}],"contentType":"text/plain; charset=utf-8","device":"ffffffffffffffff","seq":2,"zzz":"é"}`, []byte("hi"), 256)
	valid("fills-256", "", plainHeader, bytes.Repeat([]byte("x"), 252-len(plainHeader)-1), 256)
	valid("one-byte-over-256", "", plainHeader, bytes.Repeat([]byte("x"), 253-len(plainHeader)-1), 272)
	valid("of-1500-bytes", "", plainHeader, bytes.Repeat([]byte("y"), 1500-len(plainHeader)-1), 1536)
}

// moved adds the message in places it is not for.
func (b *sealedBuilder) moved(message []byte) {
	for _, m := range []struct {
		name   string
		change func(*sealedCase)
	}{
		{"moved-to-another-record-id", func(c *sealedCase) { c.RecordID = "0193-a_C" }},
		{"moved-under-a-tag", func(c *sealedCase) { c.Tag = "ack" }},
		{"moved-to-another-sender", func(c *sealedCase) { c.From = b.c.carol.Public.String() }},
		{"moved-to-another-receiver", func(c *sealedCase) { c.To = b.c.carol.Public.String() }},
		{"sender-and-receiver-swapped", func(c *sealedCase) { c.From, c.To = c.To, c.From }},
		{"opened-with-another-key", func(c *sealedCase) { c.Key = "carol" }},
	} {
		c := b.at(bad(m.name, protocol.CodeBadSignature), message)
		m.change(&c)
		b.Cases = append(b.Cases, c)
	}
	tagged := b.at(bad("moved-from-under-a-tag", protocol.CodeBadSignature), b.made["tag"])
	b.Cases = append(b.Cases, tagged)
}

// altered adds the message with a bit changed in each region, cut and lengthened.
func (b *sealedBuilder) altered(message []byte) {
	flip := func(name string, code protocol.Code, at int) {
		changed := bytes.Clone(message)
		changed[at] ^= 1
		b.Cases = append(b.Cases, b.at(bad(name, code), changed))
	}
	last := len(message) - 1
	flip("suite-unknown", protocol.CodeMalformed, 0)
	flip("bit-of-ml-kem-ciphertext", protocol.CodeBadSignature, 1)
	flip("bit-of-ml-kem-ciphertext-end", protocol.CodeBadSignature, 1088)
	flip("bit-of-x25519-key", protocol.CodeBadSignature, 1089)
	flip("bit-of-x25519-key-end", protocol.CodeBadSignature, 1120)
	flip("bit-of-ciphertext", protocol.CodeBadSignature, 1121)
	flip("bit-of-padding", protocol.CodeBadSignature, last-16)
	flip("bit-of-tag", protocol.CodeBadSignature, last)
	same := func(name string, code protocol.Code, content []byte) {
		b.Cases = append(b.Cases, b.at(bad(name, code), content))
	}
	zeroX25519 := append(append(bytes.Clone(message[:1089]), make([]byte, 32)...), message[1121:]...)
	same("x25519-key-zero", protocol.CodeBadSignature, zeroX25519)
	same("one-byte-longer", protocol.CodeBadSignature, append(bytes.Clone(message), 0))
	same("one-byte-shorter", protocol.CodeMalformed, message[:last])
	long := b.made["of-1500-bytes"]
	same("longer-one-cut", protocol.CodeBadSignature, long[:len(long)-1])
	same("without-suite", protocol.CodeMalformed, message[1:])
	same("encapsulation-alone", protocol.CodeMalformed, message[:1121])
	same("suite-alone", protocol.CodeMalformed, message[:1])
	same("empty", protocol.CodeMalformed, nil)
}

// wrongPlaintexts adds content that opens, and holds what nobody may seal.
func (b *sealedBuilder) wrongPlaintexts() {
	wrong := func(name string, code protocol.Code, plain []byte) {
		b.add(recipe{verdict: bad(name, code), plain: plain})
	}
	malformed := protocol.CodeMalformed
	hi := []byte("hi")
	set := func(plain []byte, at int, value byte) []byte {
		plain[at] = value
		return plain
	}
	wrong("padding-not-zero", malformed, set(plaintext(plainHeader, hi, 256), 255, 1))
	wrong("padding-first-byte-not-zero", malformed, set(plaintext(plainHeader, hi, 256), 4+len(plainHeader)+3, 1))
	wrong("padded-to-272", malformed, plaintext(plainHeader, hi, 272))
	wrong("padded-to-257", malformed, plaintext(plainHeader, hi, 257))
	wrong("not-padded-above-256", malformed, plaintext(plainHeader, bytes.Repeat([]byte("x"), 253-len(plainHeader)-1), 257))
	wrong("length-beyond-plaintext", malformed, set(plaintext(plainHeader, hi, 256), 3, 253))
	wrong("length-enormous", malformed, set(plaintext(plainHeader, hi, 256), 0, 0xff))
	wrong("length-zero", malformed, make([]byte, 256))
	wrong("length-little-endian", malformed, append([]byte{byte(len(plainHeader) + 3), 0, 0, 0}, plaintext(plainHeader, hi, 256)[4:]...))
	wrong("header-missing", malformed, plaintext("", hi, 256))
	wrong("header-array", malformed, plaintext("["+plainHeader+"]", hi, 256))
	noEnd := plaintext(plainHeader, nil, 256)
	wrong("zero-byte-after-header-missing", malformed, set(noEnd, 3, noEnd[3]-1))
	wrong("header-cut", malformed, plaintext(plainHeader[:20], hi, 256))
	wrong("header-order", protocol.CodeNotCanonical, plaintext(`{"device":"00112233445566ff","contentType":"text/plain","seq":1}`, hi, 256))
	wrong("header-space", protocol.CodeNotCanonical, plaintext(strings.Replace(plainHeader, ",", ", ", 1), hi, 256))
	wrong("header-member-twice", malformed, plaintext(`{"contentType":"text/plain","contentType":"text/html","device":"00112233445566ff","seq":1}`, hi, 256))
	header := members{"contentType": `"text/plain"`, "device": `"00112233445566ff"`, "seq": "1"}
	for _, h := range []struct {
		name    string
		code    protocol.Code
		changes members
	}{
		{"content-type-missing", malformed, members{"contentType": ""}},
		{"content-type-empty", protocol.CodeInvalidValue, members{"contentType": `""`}},
		{"content-type-of-256-characters", protocol.CodeInvalidValue, members{"contentType": quote(strings.Repeat("a", 256))}},
		{"content-type-with-newline", protocol.CodeInvalidValue, members{"contentType": `"text/plain\n"`}},
		{"content-type-number", malformed, members{"contentType": "1"}},
		{"device-missing", malformed, members{"device": ""}},
		{"device-short", protocol.CodeInvalidValue, members{"device": `"0011"`}},
		{"device-upper-case", protocol.CodeInvalidValue, members{"device": `"00112233445566FF"`}},
		{"device-number", malformed, members{"device": "112233445566"}},
		{"seq-missing", malformed, members{"seq": ""}},
		{"seq-zero", protocol.CodeInvalidValue, members{"seq": "0"}},
		{"seq-negative", protocol.CodeInvalidValue, members{"seq": "-1"}},
		{"seq-float", protocol.CodeNotCanonical, members{"seq": "1.5"}},
		{"seq-string", malformed, members{"seq": `"1"`}},
		{"name-null", protocol.CodeNotCanonical, members{"name": "null"}},
		{"name-number", malformed, members{"name": "1"}},
	} {
		text := object(header.with(h.changes))
		wrong("header-"+h.name, h.code, plaintext(text, hi, max(256, paddedOf(len(text)+3))))
	}
}

// paddedOf is Padmé(4+n) for the few lengths used here that pass 256: below 512 it rounds up to 16.
func paddedOf(n int) int { return (n + 4 + 15) / 16 * 16 }
