// Package broadcast is the public market: relays announce themselves with proof of work, hubs check and keep what they
// announce, and people read the book of all of it. It guarantees that nobody has a place in the book without having worked
// for it, that a newer announcement is never replaced by an older one, and that memory and disk stay within bounds
// whatever strangers send. Its parts:
//
//	broadcast            what everybody shares: subjects, checking, proving, the bounded [Index]
//	broadcast/feed       reading a hub's book over NATS, and following it
//	broadcast/hub        a hub: ingest, check, store, and taking from other hubs     (relayd)
//	broadcast/hubserver  the NATS server of a hub, and what strangers may do there   (relayd)
//	broadcast/publisher  a relay's end: keeps its announcement fresh on all hubs     (relayd)
//	broadcast/market     the reader's end: many hubs merged into one book on disk    (relay)
//
// # Flow
//
//	relay ── relaymarket.v1.<network>.ingest ──► hub: check ── relaymarket.v1.<network>.announce.<key> ──► stream, readers
//	newcomer ── $JS.API.DIRECT.GET.<stream> ──► the whole book, then he follows announce.*
//	hub ◄── announce.* of another hub, checked like anything else
//
// An announcement is a [protocol.Announcement] in its envelope, byte for byte as the relay signed it. The subject's last part is
// the relay's key in hex. The stream keeps the last message of each subject. A reader believes nothing that he has
// not checked himself with [Check]; a hub can hide an announcement and cannot make or alter one.
//
// # Order of announcements
//
// Of two announcements of a relay the higher seq wins; at equal seq the lower hash of the envelope. The winner is
// remembered when it has expired, until no older one can be valid any more: so a relay withdraws by announcing once more with
// a short validity.
package broadcast
