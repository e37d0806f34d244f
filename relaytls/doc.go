// Package relaytls is how relays are reached over TLS, and how a client knows that he reached the right one.
//
// A relay has a certificate of a public authority, in files ([FromFiles]) or by ACME ([FromACME]), or, where there is no host name
// to certify, one of its own ([Own]) that its key vouches for: on a bare IP address nobody else can.
//
// # A relay's own certificate
//
// It is self-signed, X.509 v3 (RFC 5280), of an ECDSA P-256 key. Besides the relay's addresses its subject alternative names hold one URI
//
//	relaymarket-tls:<relay's public key, 64 hex digits>:<signature, 128 hex digits>
//
// where the signature is BIP340, by the relay's key, of
//
//	TaggedHash("relaymarket/v1/tls", notAfter, SubjectPublicKeyInfo)
//
// with notAfter in seconds since 1970 as 8 bytes, big-endian, and the SubjectPublicKeyInfo in DER. Whoever copies the certificate cannot finish a handshake
// with it, and whoever steals its key can use it until notAfter and no longer.
//
// # What a client checks
//
// [Transport] takes a certificate that a public authority vouches for, by the usual rules, or one that a relay vouches
// for which is expected at that address, within its time. What is expected comes from cards, announcements and addresses that were typed with a key, see
// [Transport.Expect]. TLS only keeps others from reading along and from learning who asks: what relays and people say is signed
// besides, whatever brought it.
package relaytls
