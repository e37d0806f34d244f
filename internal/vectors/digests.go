package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"relaymarket/protocol"
)

type taggedCase struct {
	verdict
	Tag  string `json:"tag"`
	Data string `json:"data"`
	Hash string `json:"hash"`
}

func taggedTopic() topic {
	t := topic{Description: "hash = SHA-256(SHA-256(tag) || SHA-256(tag) || data), tag in UTF-8, data and hash in hex. " +
		"Invalid cases are what a hash made another way would be."}
	data := []byte(`{"type":"got"}`)
	for _, tag := range []string{protocol.TagEnvelope, protocol.TagLeaf, protocol.TagNode, protocol.TagLine, protocol.TagRequest, protocol.TagQuery} {
		for _, d := range [][]byte{nil, data} {
			h := byHand(tag, d)
			t.Cases = append(t.Cases, taggedCase{good(fmt.Sprintf("%s-%d-bytes", shortTag(tag), len(d))), tag, hex.EncodeToString(d), hex.EncodeToString(h[:])})
		}
	}
	invalid := func(name string, h [32]byte) {
		t.Cases = append(t.Cases, taggedCase{bad(name, ""), protocol.TagEnvelope, hex.EncodeToString(data), hex.EncodeToString(h[:])})
	}
	tag := sha256.Sum256([]byte(protocol.TagEnvelope))
	invalid("no-tag", sha256.Sum256(data))
	invalid("tag-once", sha256.Sum256(append(tag[:], data...)))
	invalid("tag-not-hashed", sha256.Sum256([]byte(protocol.TagEnvelope+protocol.TagEnvelope+string(data))))
	invalid("tag-of-other-case", byHand("Relaymarket/v1/envelope", data))
	invalid("tag-of-leaf", byHand(protocol.TagLeaf, data))
	return t
}

// byHand is the tagged hash written out, independent of the package under test.
func byHand(tag string, data []byte) [32]byte {
	t := sha256.Sum256([]byte(tag))
	return sha256.Sum256([]byte(string(t[:]) + string(t[:]) + string(data)))
}

func shortTag(tag string) string { return tag[strings.LastIndexByte(tag, '/')+1:] }

type digestCase struct {
	verdict
	Envelope    string `json:"envelope"`
	Msg         string `json:"msg"`
	Request     string `json:"request"`
	Digest      string `json:"digest"`
	Hash        string `json:"hash"`
	RequestHash string `json:"requestHash"`
}

func digestsTopic(c cast) topic {
	t := topic{
		Description: "The three hashes of an envelope. msg and request are parts of the envelope's bytes. " +
			"digest = tagged hash (…/envelope) of msg; hash = tagged hash (…/leaf) of the whole envelope; " +
			"requestHash = tagged hash (…/request) of from (32 bytes) || to (32 bytes) || request. " +
			"Invalid cases have one hash that is another's.",
		Keys: c.keys(),
	}
	digest := func(name string, e *protocol.Envelope) digestCase {
		text := string(e.Bytes())
		msg := text[len(`{"msg":`):strings.LastIndex(text, `,"sig":"`)]
		d, h := byHand(protocol.TagEnvelope, []byte(msg)), byHand(protocol.TagLeaf, []byte(text))
		r := byHand(protocol.TagRequest, []byte(string(e.From[:])+string(e.To[:])+string(e.Request)))
		return digestCase{good(name), text, msg, string(e.Request), hex.EncodeToString(d[:]), hex.EncodeToString(h[:]), hex.EncodeToString(r[:])}
	}
	write := object(writeMembers(c))
	first := digest("write", signed(c.alice, c.bob.Public, now, write))
	t.Cases = append(t.Cases, first,
		digest("write-a-day-later-same-request-hash", signed(c.alice, c.bob.Public, now.Add(24*time.Hour), write)),
		digest("write-to-another-receiver", signed(c.alice, c.carol.Public, now, write)),
		digest("write-by-another-sender", signed(c.carol, c.bob.Public, now, write)),
		digest("got", signed(c.bob, c.relay.Public, now, object(gotMembers()))),
		digest("timestamp-zero", signed(c.bob, c.relay.Public, 0, object(gotMembers()))),
		digest("text-beyond-ascii", signed(c.alice, c.alice.Public, now, object(cardMembers(c).with(members{"label": quote("Zoë 😀")})))))
	invalid := func(name string, change func(*digestCase)) {
		wrong := first
		wrong.verdict = bad(name, "")
		change(&wrong)
		t.Cases = append(t.Cases, wrong)
	}
	invalid("digest-of-whole-envelope", func(d *digestCase) {
		h := byHand(protocol.TagEnvelope, []byte(d.Envelope))
		d.Digest = hex.EncodeToString(h[:])
	})
	invalid("hash-of-msg", func(d *digestCase) { d.Hash = d.Digest })
	invalid("request-hash-of-request-alone", func(d *digestCase) {
		h := byHand(protocol.TagRequest, []byte(d.Request))
		d.RequestHash = hex.EncodeToString(h[:])
	})
	return t
}

type merkleCase struct {
	verdict
	Leaves []string `json:"leaves"`
	Root   string   `json:"root"`
}

// leaf is an arbitrary, recognizable leaf hash.
func leaf(i int) [32]byte { return byHand(protocol.TagLeaf, []byte{byte(i)}) }

func node(left, right [32]byte) [32]byte {
	return byHand(protocol.TagNode, append(left[:], right[:]...))
}

func merkleTopic() topic {
	t := topic{Description: "Roots over leaf hashes in their order. Leaf i is the tagged hash (…/leaf) of the one byte i. " +
		"A page without records has no root. Invalid cases have a root that is not that of the leaves."}
	l := make([][32]byte, 10)
	leaves := make([]string, 10)
	for i := range l {
		l[i] = leaf(i)
		leaves[i] = hex.EncodeToString(l[i][:])
	}
	n01, n23 := node(l[0], l[1]), node(l[2], l[3])
	n03 := node(n01, n23)
	n45 := node(l[4], l[5])
	n47 := node(n45, node(l[6], l[7]))
	n07 := node(n03, n47)
	// Written out, so that the shape of each tree can be read here.
	roots := [][32]byte{
		1: l[0], 2: n01, 3: node(n01, l[2]), 4: n03, 5: node(n03, l[4]), 6: node(n03, n45),
		7: node(n03, node(n45, l[6])), 8: n07, 9: node(n07, l[8]), 10: node(n07, node(l[8], l[9])),
	}
	for n := 1; n <= 10; n++ {
		t.Cases = append(t.Cases, merkleCase{good(fmt.Sprintf("%d-leaves", n)), leaves[:n], hex.EncodeToString(roots[n][:])})
	}
	invalid := func(name string, leaves []string, root [32]byte) {
		t.Cases = append(t.Cases, merkleCase{bad(name, protocol.CodeRootMismatch), leaves, hex.EncodeToString(root[:])})
	}
	invalid("leaves-swapped", []string{leaves[1], leaves[0]}, n01)
	invalid("last-leaf-missing", leaves[:2], roots[3])
	invalid("odd-leaf-doubled", leaves[:3], node(n01, node(l[2], l[2])))
	invalid("odd-leaf-first", leaves[:3], node(l[0], node(l[1], l[2])))
	invalid("balanced-five", leaves[:5], node(node(n01, l[2]), node(l[3], l[4])))
	invalid("single-leaf-hashed-again", leaves[:1], byHand(protocol.TagNode, l[0][:]))
	invalid("node-with-tag-of-leaf", leaves[:2], byHand(protocol.TagLeaf, append(l[0][:], l[1][:]...)))
	invalid("nodes-of-rfc9162", leaves[:2], sha256.Sum256(append(append([]byte{1}, l[0][:]...), l[1][:]...)))
	return t
}

type paddingCase struct {
	verdict
	Content   int `json:"content"`
	Plaintext int `json:"plaintext"`
}

func paddingTopic() topic {
	t := topic{Description: "plaintext = max(256, Padmé(4 + content)), all in bytes; content is header, zero byte and body. " +
		"Invalid cases have another length."}
	// Lengths worked out from the definition by hand, not by the package.
	for _, p := range [][2]int{
		{0, 256}, {1, 256}, {60, 256}, {251, 256}, {252, 256}, {253, 272}, {268, 272}, {269, 288}, {300, 304},
		{508, 512}, {509, 544}, {540, 544}, {541, 576}, {1020, 1024}, {1021, 1088}, {1500, 1536}, {2044, 2048}, {2045, 2176},
		{4092, 4096}, {4093, 4352}, {65532, 65536}, {65533, 67584}, {100000, 100352}, {262140, 262144}, {262141, 270336},
		{1000000, 1015808}, {1048572, 1048576}, {1048573, 1081344}, {8388604, 8388608},
	} {
		t.Cases = append(t.Cases, paddingCase{good(fmt.Sprintf("%d", p[0])), p[0], p[1]})
	}
	for _, p := range [][2]int{{0, 4}, {252, 272}, {253, 256}, {253, 257}, {253, 512}, {1021, 1025}, {100000, 131072}} {
		t.Cases = append(t.Cases, paddingCase{bad(fmt.Sprintf("%d-in-%d", p[0], p[1]), protocol.CodeMalformed), p[0], p[1]})
	}
	return t
}

type freshCase struct {
	verdict
	Kind      string             `json:"kind"`
	Timestamp protocol.Timestamp `json:"timestamp"`
	Now       protocol.Timestamp `json:"now"`
}

func freshnessTopic() topic {
	t := topic{Description: "A timestamp against the reader's clock. kind request: within 300 s either way; " +
		"kind document: at most 300 s ahead, as old as it likes."}
	add := func(v verdict, kind string, timestamp, now protocol.Timestamp) {
		t.Cases = append(t.Cases, freshCase{v, kind, timestamp, now})
	}
	const window = 300_000
	add(good("request-now"), "request", now, now)
	add(good("request-oldest"), "request", now-window, now)
	add(good("request-newest"), "request", now+window, now)
	add(bad("request-stale-by-1-ms", protocol.CodeStale), "request", now-window-1, now)
	add(bad("request-ahead-by-1-ms", protocol.CodeFuture), "request", now+window+1, now)
	add(bad("request-zero", protocol.CodeStale), "request", 0, now)
	add(bad("request-greatest", protocol.CodeFuture), "request", protocol.MaxInteger, now)
	add(bad("request-in-seconds", protocol.CodeStale), "request", now/1000, now)
	add(good("request-clock-near-zero"), "request", 0, window-1)
	add(good("document-now"), "document", now, now)
	add(good("document-old"), "document", 0, now)
	add(good("document-newest"), "document", now+window, now)
	add(bad("document-ahead-by-1-ms", protocol.CodeFuture), "document", now+window+1, now)
	return t
}
