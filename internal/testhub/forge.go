package testhub

import (
	"strings"
	"testing"

	"relaymarket/protocol"
)

// Forge makes an announcement that [broadcast.Prover] would not make: its request is changed as text, and then proved with eight bits
// and signed, so that only the change is wrong with it.
func Forge(t testing.TB, key *protocol.PrivateKey, to protocol.PublicKey, at protocol.Timestamp, a *protocol.Announcement, change func(request string) string) []byte {
	t.Helper()
	a.Pow = &protocol.Work{}
	body, err := protocol.Sign(key, key.Public(), at, a)
	if err != nil {
		t.Fatal(err)
	}
	request := change(string(body.Request))
	for n := range byte(255) {
		for m := range byte(255) {
			nonce := protocol.Nonce{n, m}
			text, _ := nonce.MarshalText()
			e, err := protocol.SignRaw(key, to, at, []byte(strings.Replace(request,
				`"pow":{"bits":0,"nonce":"0000000000000000"}`, `"pow":{"bits":8,"nonce":"`+string(text)+`"}`, 1)), [32]byte{})
			if err != nil {
				t.Fatal(err)
			}
			subject, _, err := e.WorkSubject()
			if err != nil || nonce.Bits(subject) >= 8 {
				return e.Bytes()
			}
		}
	}
	t.Fatal("no proof is found")
	return nil
}
