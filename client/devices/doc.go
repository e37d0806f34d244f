// Package devices is what the devices of one key say to each other: the log in which each tells the others what it did,
// how two accounts of one thing are joined, and how a new device gets the keys. It is pure: package client carries the
// records, package client/state keeps what they come to.
//
// # Log
//
// Each device writes [Batch] after batch, each the body of a record from the key to itself, sealed, of content type
// [LogType]. A batch is a list of entries that say how things are, not what was done. So it may arrive late, twice, out of order or never:
// what a later entry says of a thing stands without the earlier ones, and a device says everything again now and then
// for those who missed something.
//
// # Joining
//
// Join of two entries about one thing is commutative, associative and idempotent; devices that have seen the same entries agree,
// whatever came first. Names, relays and removals are registers: the last change wins, by its [Stamp]. What was read and
// removed stays so since the first time. Of a copy on a relay the latest word counts, and of two of one moment the one that is further on.
// Messages are a set that only grows.
//
// # Pairing
//
// The old device shows a [Link]; the new one answers at the place it names with a sealing key that it has just made, and shows a
// [Code]; the person types that at the old one, which then seals the seed to that key. See [Link] for who can do what with a link that was stolen.
package devices
