package protocol

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/btcsuite/btcd/address/v2/bech32"
)

// PublicKeySize is the length in bytes of a BIP340 x-only public key.
const PublicKeySize = 32

// bech32Prefix is the human-readable part of a key as people type it (BIP350, bech32m).
const bech32Prefix = "relay"

// PublicKey is a BIP340 x-only secp256k1 public key. On the wire it is 64 lower-case hex digits;
// people may type and see it as bech32m, relay1…. A value need not lie on the curve: only a
// signature check, or [PublicKey.Validate], tells.
type PublicKey [PublicKeySize]byte

// ParsePublicKey reads what a person types: 64 hex digits, lower case, or relay1….
// The key must lie on the curve. Errors have code [CodeMalformed].
func ParsePublicKey(s string) (PublicKey, error) {
	var k PublicKey
	if strings.HasPrefix(strings.ToLower(s), bech32Prefix+"1") {
		if err := k.fromBech32(s); err != nil {
			return PublicKey{}, err
		}
	} else if err := k.UnmarshalText([]byte(s)); err != nil {
		return PublicKey{}, err
	}
	if err := k.Validate(); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

func (k *PublicKey) fromBech32(s string) error {
	hrp, data, version, err := bech32.DecodeGeneric(s)
	if err != nil {
		return Errorf(CodeMalformed, "not a relay1… key: %v", err)
	}
	if hrp != bech32Prefix || version != bech32.VersionM {
		return Errorf(CodeMalformed, "not a relay1… key: it must be bech32m with the prefix %q", bech32Prefix)
	}
	raw, err := bech32.ConvertBits(data, 5, 8, false)
	if err != nil || len(raw) != PublicKeySize {
		return Errorf(CodeMalformed, "a relay1… key holds exactly %d bytes", PublicKeySize)
	}
	copy(k[:], raw)
	return nil
}

// String is the wire form, 64 lower-case hex digits.
func (k PublicKey) String() string { return hex.EncodeToString(k[:]) }

// Bech32 is the form for people, relay1….
func (k PublicKey) Bech32() string {
	data, err := bech32.ConvertBits(k[:], 8, 5, true)
	if err == nil {
		var s string
		if s, err = bech32.EncodeM(bech32Prefix, data); err == nil {
			return s
		}
	}
	// 32 bytes and a constant prefix leave neither call a reason to fail.
	panic(fmt.Sprintf("protocol: bech32m of a key: %v", err))
}

// Short is the first and last digits of the bech32m form, for tables and logs.
func (k PublicKey) Short() string {
	s := k.Bech32()
	return s[:len(bech32Prefix)+7] + "…" + s[len(s)-4:]
}

// MarshalText implements encoding.TextMarshaler: the wire form.
func (k PublicKey) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only and does not
// check that the key lies on the curve.
func (k *PublicKey) UnmarshalText(text []byte) error { return decodeHex(k[:], text, "public key") }

// Validate tells whether the key is the x coordinate of a curve point.
func (k PublicKey) Validate() error {
	if !onCurve(&k) {
		return Errorf(CodeMalformed, "%s is no point of secp256k1", k)
	}
	return nil
}

// PrivateKey is a secp256k1 secret with its x-only public key. It prints as nothing of itself.
type PrivateKey struct {
	secret [32]byte
	public PublicKey
}

// NewPrivateKey takes the 32 bytes of a secret scalar, which must be in 1 … n−1.
func NewPrivateKey(secret [32]byte) (*PrivateKey, error) {
	public, ok := derivePublic(&secret)
	if !ok {
		return nil, Errorf(CodeMalformed, "the secret is not a valid secp256k1 scalar")
	}
	return &PrivateKey{secret: secret, public: public}, nil
}

// GeneratePrivateKey makes a key from the operating system's entropy.
func GeneratePrivateKey() (*PrivateKey, error) {
	for {
		var secret [32]byte
		if _, err := rand.Read(secret[:]); err != nil {
			return nil, fmt.Errorf("read entropy: %w", err)
		}
		if k, err := NewPrivateKey(secret); err == nil {
			return k, nil // all but 2^-128 of the draws
		}
	}
}

// Public is the x-only public key.
func (k *PrivateKey) Public() PublicKey { return k.public }

// Secret is a copy of the scalar, for the key file and nothing else.
func (k *PrivateKey) Secret() [32]byte { return k.secret }

// String names the key without its secret.
func (k PrivateKey) String() string { return "private key of " + k.public.String() }

// Format implements fmt.Formatter. It hides the secret from every verb, of the value as well as of
// a pointer to it: %d and %x would print the bytes of a type that has only a String method.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// Signature is a BIP340 signature, 128 lower-case hex digits on the wire.
type Signature [64]byte

// String is the wire form.
func (s Signature) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler.
func (s Signature) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (s *Signature) UnmarshalText(text []byte) error { return decodeHex(s[:], text, "signature") }

// SignDigest makes a BIP340 signature of a 32-byte digest with the auxiliary randomness given.
// Everything but test vectors wants [Sign], which draws fresh randomness.
func (k *PrivateKey) SignDigest(digest Hash, aux [32]byte) (Signature, error) {
	return signBIP340(&k.secret, &digest, &aux)
}

// VerifyDigest tells whether sig is key's BIP340 signature of digest. A key that is not on the
// curve verifies nothing.
func VerifyDigest(key PublicKey, digest Hash, sig Signature) bool {
	return verifyBIP340(&key, &digest, &sig)
}
