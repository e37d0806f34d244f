// Package protocol is the wire of the relay market: keys, the signed envelope, strict canonical
// JSON, request and document types, paths, pages, the identity card and sealing.
//
// It imports nothing else of this module and performs no I/O, so that relays, clients and test
// vectors share one definition of every byte. docs/protocol.md says the same in prose, with the
// vectors of testdata/vectors beside it, for implementers in other languages.
//
// # The envelope
//
// Everything signed has one form, and the bytes on the wire are its RFC 8785 canonical form:
//
//	{"msg":{"from":<64 hex>,"request":{"type":…},"timestamp":<ms>,"to":<64 hex>},"sig":<128 hex>}
//
//	digest = SHA-256(T ‖ T ‖ msg),  T = SHA-256("relaymarket/v1/envelope"),  msg = the bytes of the msg object
//	sig    = BIP340 signature of digest by from
//
// # Guarantees
//
// Every parser of what is signed is strict: what it accepts encodes to the very bytes it was given,
// but for members of the future in documents. Keys and links have other spellings too. Every
// parser is bounded: it allocates in proportion to its input and refuses input over its limit
// first. Nothing panics on any input. Values are safe for concurrent use once made.
//
// Errors carry a [Code], the stable word that also crosses the wire in problem documents.
package protocol
