//go:build !cgo || purego

package protocol

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
)

// Implementation names the library that makes and checks signatures in this build.
const Implementation = "btcec"

func onCurve(k *PublicKey) bool {
	_, err := schnorr.ParsePubKey(k[:])
	return err == nil
}

func verifyBIP340(k *PublicKey, digest *Hash, sig *Signature) bool {
	pub, err := schnorr.ParsePubKey(k[:])
	if err != nil {
		return false
	}
	parsed, err := schnorr.ParseSignature(sig[:])
	if err != nil {
		return false
	}
	return parsed.Verify(digest[:], pub)
}

func derivePublic(secret *[32]byte) (public PublicKey, ok bool) {
	var scalar btcec.ModNScalar
	if overflow := scalar.SetBytes(secret); overflow != 0 || scalar.IsZero() {
		return PublicKey{}, false
	}
	_, pub := btcec.PrivKeyFromBytes(secret[:])
	copy(public[:], schnorr.SerializePubKey(pub))
	return public, true
}

func signBIP340(secret *[32]byte, digest *Hash, aux *[32]byte) (sig Signature, err error) {
	priv, _ := btcec.PrivKeyFromBytes(secret[:])
	defer priv.Zero()
	made, err := schnorr.Sign(priv, digest[:], schnorr.CustomNonce(*aux))
	if err != nil {
		return Signature{}, err
	}
	copy(sig[:], made.Serialize())
	return sig, nil
}
