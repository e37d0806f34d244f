// Package api is the relay's HTTP interface: it turns requests into calls on records and books, and
// their refusals into problem documents (RFC 9457). It holds no rule of the business. Routes and
// shapes are generated from openapi.yaml; cmd/relayd wires a [Server] and serves its two handlers.
//
// A request goes through these checks, the cheap before the dear, and is refused for the first
// that fails:
//
//	size → path, query, media type → shape and canonical form → audience, type, target, time
//	     → rate by address → signature → rate by key → account and what is stored
//
// By key only after the signature: else a forged signer would lock the owner of a key out. The
// size of a body without Content-Length is known only once it has arrived, so it is checked then.
//
// # Guarantees
//
// Memory is bounded: a body is never read past its limit, all bodies together never past
// [Config.MaxBodyBytes], and requests beyond [Config.MaxConcurrent] are shed, unsigned ones first,
// then readers, then writers. Each that is dropped is counted under its reason. A reader that does not read is cut off:
// every reply has a write deadline, and each flush of a listener its own.
//
// A stranger learns nothing from a refusal that he may not know: a record that is not his looks
// like one that never was, and an unexpected error is "internal" to him and everything to the log.
package api
