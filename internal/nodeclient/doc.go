// Package nodeclient holds a second reader of the market, in JavaScript for Node, which was written from docs/protocol.md and
// docs/market.md alone: if it and the relays disagree, one of the documents is wrong. It reads and checks the book of a hub over NATS and
// over HTTP, hears of changes, and is held against the test vectors, those of pulls and acknowledgements among them. Nothing calls it but its test.
//
//	node market.mjs --network regtest --bits 8 nats://127.0.0.1:4222
package nodeclient
