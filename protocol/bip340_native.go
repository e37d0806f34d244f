//go:build cgo && !purego

package protocol

/*
#cgo pkg-config: --cflags libsecp256k1
#cgo linux LDFLAGS: -l:libsecp256k1.a
#cgo !linux LDFLAGS: -lsecp256k1
#include <secp256k1.h>
#include <secp256k1_extrakeys.h>
#include <secp256k1_schnorrsig.h>
#cgo noescape rm_verify
#cgo nocallback rm_verify

// Each returns 1 for yes. A public key is used only after it parsed: verifying with one that did
// not would call libsecp256k1's illegal-argument handler, which aborts the process.
static int rm_on_curve(const unsigned char *x) {
	secp256k1_xonly_pubkey pk;
	return secp256k1_xonly_pubkey_parse(secp256k1_context_static, &pk, x);
}

// pk is the key x in parsed form if parsed is not 0, and becomes it otherwise.
static int rm_verify(secp256k1_xonly_pubkey *pk, int parsed, const unsigned char *x,
                     const unsigned char *msg32, const unsigned char *sig64) {
	if (!parsed && secp256k1_xonly_pubkey_parse(secp256k1_context_static, pk, x) != 1) return 0;
	return secp256k1_schnorrsig_verify(secp256k1_context_static, sig64, msg32, 32, pk);
}

// Signing takes a context of its own, blinded with the caller's randomness against side channels.
// It costs some microseconds, and no state is shared between threads.
static int rm_sign(unsigned char *sig64, const unsigned char *secret, const unsigned char *msg32,
                   const unsigned char *aux, const unsigned char *blind, unsigned char *x) {
	int ok = 0;
	secp256k1_keypair pair;
	secp256k1_xonly_pubkey pk;
	secp256k1_context *ctx = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
	if (ctx == NULL) return 0;
	if (secp256k1_context_randomize(ctx, blind) &&
	    secp256k1_keypair_create(ctx, &pair, secret) &&
	    secp256k1_keypair_xonly_pub(ctx, &pk, NULL, &pair) &&
	    secp256k1_xonly_pubkey_serialize(ctx, x, &pk)) {
		ok = sig64 == NULL ? 1 : secp256k1_schnorrsig_sign32(ctx, sig64, msg32, &pair, aux);
	}
	secp256k1_context_destroy(ctx);
	volatile unsigned char *p = (volatile unsigned char *)&pair;
	for (size_t i = 0; i < sizeof pair; i++) p[i] = 0;
	return ok;
}
*/
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"
)

// Implementation names the library that makes and checks signatures in this build.
const Implementation = "libsecp256k1"

func ucharPtr(b *byte) *C.uchar { return (*C.uchar)(unsafe.Pointer(b)) }

func onCurve(k *PublicKey) bool { return C.rm_on_curve(ucharPtr(&k[0])) == 1 }

func verifyBIP340(k *PublicKey, digest *Hash, sig *Signature) bool {
	slot := &parsedKeys[binary.LittleEndian.Uint16(k[:])%numParsedKeys]
	known := slot.Load()
	if known != nil && known.key == *k {
		return C.rm_verify(&known.point, 1, ucharPtr(&k[0]), ucharPtr(&digest[0]), ucharPtr(&sig[0])) == 1
	}
	var point C.secp256k1_xonly_pubkey
	if C.rm_verify(&point, 0, ucharPtr(&k[0]), ucharPtr(&digest[0]), ucharPtr(&sig[0])) != 1 {
		return false
	}
	slot.Store(&parsedKey{*k, point})
	return true
}

// parsedKeys remembers keys in the form that libsecp256k1 computes with: finding a key's y coordinate is a square
// root, a tenth of a check. Only a key whose signature was right comes in, so forgeries push nobody out; and whoever is pushed out, by
// a key that shares his slot, pays that square root. There is no lock, for what a pointer here points to never changes.
var parsedKeys [numParsedKeys]atomic.Pointer[parsedKey]

// numParsedKeys is a power of two; a full table is 1 MB.
const numParsedKeys = 1 << 13

type parsedKey struct {
	key   PublicKey
	point C.secp256k1_xonly_pubkey
}

func derivePublic(secret *[32]byte) (public PublicKey, ok bool) {
	var blind [32]byte
	if _, err := rand.Read(blind[:]); err != nil {
		return PublicKey{}, false
	}
	ok = C.rm_sign(nil, ucharPtr(&secret[0]), nil, nil, ucharPtr(&blind[0]), ucharPtr(&public[0])) == 1
	return public, ok
}

func signBIP340(secret *[32]byte, digest *Hash, aux *[32]byte) (sig Signature, err error) {
	var blind [32]byte
	if _, err := rand.Read(blind[:]); err != nil {
		return Signature{}, err
	}
	var public PublicKey
	if C.rm_sign(ucharPtr(&sig[0]), ucharPtr(&secret[0]), ucharPtr(&digest[0]), ucharPtr(&aux[0]),
		ucharPtr(&blind[0]), ucharPtr(&public[0])) != 1 {
		return Signature{}, errors.New("libsecp256k1 refused to sign")
	}
	return sig, nil
}
