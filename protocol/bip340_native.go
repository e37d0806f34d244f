//go:build cgo && !purego

package protocol

/*
#cgo pkg-config: --cflags libsecp256k1
#cgo linux LDFLAGS: -l:libsecp256k1.a
#cgo !linux LDFLAGS: -lsecp256k1
#include <secp256k1.h>
#include <secp256k1_extrakeys.h>
#include <secp256k1_schnorrsig.h>

// Each returns 1 for yes. A public key is used only after it parsed: verifying with one that did
// not would call libsecp256k1's illegal-argument handler, which aborts the process.
static int rm_on_curve(const unsigned char *x) {
	secp256k1_xonly_pubkey pk;
	return secp256k1_xonly_pubkey_parse(secp256k1_context_static, &pk, x);
}

static int rm_verify(const unsigned char *x, const unsigned char *msg32, const unsigned char *sig64) {
	secp256k1_xonly_pubkey pk;
	if (secp256k1_xonly_pubkey_parse(secp256k1_context_static, &pk, x) != 1) return 0;
	return secp256k1_schnorrsig_verify(secp256k1_context_static, sig64, msg32, 32, &pk);
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
	"errors"
	"unsafe"
)

// Implementation names the library that makes and checks signatures in this build.
const Implementation = "libsecp256k1"

func ucharPtr(b *byte) *C.uchar { return (*C.uchar)(unsafe.Pointer(b)) }

func onCurve(k *PublicKey) bool { return C.rm_on_curve(ucharPtr(&k[0])) == 1 }

func verifyBIP340(k *PublicKey, digest *Hash, sig *Signature) bool {
	return C.rm_verify(ucharPtr(&k[0]), ucharPtr(&digest[0]), ucharPtr(&sig[0])) == 1
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
