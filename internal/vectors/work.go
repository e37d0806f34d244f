package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"relaymarket/protocol"
)

// workCase is an announcement whose proof of work is judged, and nothing else of it.
type workCase struct {
	verdict
	Envelope string        `json:"envelope"`
	Bits     int64         `json:"bits"`    // that the reader asks for
	Subject  protocol.Hash `json:"subject"` // what work is over
	Work     protocol.Hash `json:"work"`    // what has to begin with zeros
}

// workBits is what the valid cases prove: little, so that anybody can make them again.
const workBits = 12

func workTopic(c cast) topic {
	t := topic{Description: "Proof of work of announcements. subject = H(relaymarket/v1/announcement; msg without the member pow of its request " +
		"and the comma after it), work = H(relaymarket/v1/announcement; subject || nonce), and pow is true when work begins with pow.bits zero " +
		"bits at least; a reader asks for bits of them. Invalid cases have a false or a missing pow, or too little.", Keys: c.keys()}
	bare := announcementMembers().with(members{"network": `"regtest"`})
	plain := string(signed(c.relay, c.relay.Public, now, object(bare)).Bytes())
	subject := subjectByHand(plain)
	nonce := search(subject, func(zeros int) bool { return zeros >= workBits })
	said := func(bits int, nonce protocol.Nonce) string {
		text := string(must(nonce.MarshalText()))
		return string(signed(c.relay, c.relay.Public, now, object(bare.with(members{"pow": fmt.Sprintf(`{"bits":%d,"nonce":%q}`, bits, text)}))).Bytes())
	}
	add := func(v verdict, envelope string, asked int64, nonce protocol.Nonce) {
		t.Cases = append(t.Cases, workCase{v, envelope, asked, subject, workByHand(subject, nonce)})
	}
	add(good("as-much-as-asked"), said(workBits, nonce), workBits, nonce)
	add(good("less-is-asked"), said(workBits, nonce), 1, nonce)
	add(good("less-is-claimed-than-done"), said(3, nonce), 3, nonce)
	add(bad("more-is-asked", protocol.CodeInvalidValue), said(workBits, nonce), workBits+1, nonce)
	add(bad("more-is-claimed-than-done", protocol.CodeInvalidValue), said(100, nonce), workBits, nonce)
	idle := search(subject, func(zeros int) bool { return zeros == workBits-1 })
	add(bad("one-bit-is-missing", protocol.CodeInvalidValue), said(workBits, idle), workBits, idle)
	add(bad("no-proof", protocol.CodeInvalidValue), plain, 1, protocol.Nonce{})
	add(bad("bits-257", protocol.CodeInvalidValue), said(257, nonce), 1, nonce)
	other := strings.Replace(said(workBits, nonce), `"nonce":"`, `"nonce":"A`, 1)
	add(bad("nonce-is-no-hex", protocol.CodeMalformed), strings.Replace(other, `"nonce":"A0`, `"nonce":"A`, 1), 1, nonce)
	return t
}

// subjectByHand takes the text of an announcement without pow apart, independent of the package under test.
func subjectByHand(envelope string) protocol.Hash {
	msg := strings.TrimPrefix(envelope[:strings.Index(envelope, `,"sig":`)], `{"msg":`)
	return byHand(protocol.TagAnnouncement, []byte(msg))
}

func workByHand(subject protocol.Hash, nonce protocol.Nonce) protocol.Hash {
	return byHand(protocol.TagAnnouncement, append(subject[:len(subject):len(subject)], nonce[:]...))
}

// search finds the first nonce whose work has a number of zero bits that will do.
func search(subject protocol.Hash, enough func(zeros int) bool) (nonce protocol.Nonce) {
	for n := uint64(0); ; n++ {
		binary.BigEndian.PutUint64(nonce[:], n)
		work := workByHand(subject, nonce)
		zeros := 0
		for zeros < 8*sha256.Size && work[zeros/8]>>(7-zeros%8)&1 == 0 {
			zeros++
		}
		if enough(zeros) {
			return nonce
		}
	}
}
