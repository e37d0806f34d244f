package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"relaymarket/protocol"
)

// topic is one vector file.
type topic struct {
	Description string           `json:"description"`
	Keys        map[string]actor `json:"keys,omitempty"` // whoever signs in this file
	Cases       []any            `json:"cases"`
}

// verdict starts every case.
type verdict struct {
	Name  string        `json:"name"`
	Valid bool          `json:"valid"`
	Code  protocol.Code `json:"code,omitempty"` // of the refusal
}

func good(name string) verdict { return verdict{Name: name, Valid: true} }

func bad(name string, code protocol.Code) verdict { return verdict{Name: name, Code: code} }

// input is text, or the hex of bytes that are no UTF-8 and therefore cannot stand in JSON.
type input struct {
	Text *string `json:"input,omitempty"`
	Hex  string  `json:"inputHex,omitempty"`
}

func inputOf(s string) input {
	if utf8.ValidString(s) {
		return input{Text: &s}
	}
	return input{Hex: hex.EncodeToString([]byte(s))}
}

// bytes is what the case feeds to a parser.
func (i input) bytes() []byte {
	if i.Text != nil {
		return []byte(*i.Text)
	}
	raw, err := hex.DecodeString(i.Hex)
	return must(raw, err)
}

// must ends a run that cannot make its vectors: nothing here depends on anybody's input.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("vectors: %v", err))
	}
	return v
}

// actor is a key pair of the vectors, for everybody to know and nobody to use.
type actor struct {
	Secret string             `json:"secret"`
	Public protocol.PublicKey `json:"public"`

	key *protocol.PrivateKey
}

func newActor(name string) actor {
	secret := sha256.Sum256([]byte("relaymarket test vector: " + name))
	key := must(protocol.NewPrivateKey(secret))
	return actor{Secret: hex.EncodeToString(secret[:]), Public: key.Public(), key: key}
}

// cast is everybody who acts in the vectors.
type cast struct{ alice, bob, carol, relay, other actor }

func newCast() cast {
	return cast{
		alice: newActor("alice"), bob: newActor("bob"), carol: newActor("carol"),
		relay: newActor("relay"), other: newActor("other relay"),
	}
}

func (c cast) keys() map[string]actor {
	return map[string]actor{"alice": c.alice, "bob": c.bob, "carol": c.carol, "relay": c.relay, "otherRelay": c.other}
}

// now is the clock of all vectors: 2025-11-21T00:00:00Z.
const now protocol.Timestamp = 1763683200000

// signed is an envelope over a request given as canonical text. Its auxiliary randomness is 32
// zero bytes, so that anybody can make the same one.
func signed(from actor, to protocol.PublicKey, at protocol.Timestamp, request string) *protocol.Envelope {
	return must(protocol.SignRaw(from.key, to, at, []byte(request), [32]byte{}))
}

// members are the members of an object by name, each value as JSON text.
type members map[string]string

// object writes members in the canonical order of their names, which are ASCII without escapes.
// It does not look at the values, so that it can write what no encoder would.
func object(m members) string {
	parts := make([]string, 0, len(m))
	for name, value := range m {
		parts = append(parts, quote(name)+":"+value)
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ",") + "}"
}

// with is m with some members set, or left out where the value is empty.
func (m members) with(changes members) members {
	next := make(members, len(m))
	for name, value := range m {
		next[name] = value
	}
	for name, value := range changes {
		if value == "" {
			delete(next, name)
		} else {
			next[name] = value
		}
	}
	return next
}

// quote puts quotation marks around text that needs no escape.
func quote(s string) string { return `"` + s + `"` }

// list is a JSON array of values given as JSON text.
func list(values ...string) string { return "[" + strings.Join(values, ",") + "]" }

func upper(s string) string { return strings.ToUpper(s) }
