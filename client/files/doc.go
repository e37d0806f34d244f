// Package files is the disk's side of files that come in pieces: what a file is to be called here, and the file that grows
// piece by piece until it is whole. Package client is its caller, talks to relays and keeps count of the pieces; how a
// file is cut and sealed is in package protocol.
//
// # Guarantees
//
//   - Nothing that a sender calls his file leaves the folder that the user named, hides there, or means something to a
//     terminal or to the system.
//   - No file that is there already is written to or replaced.
//   - A file stands under its name only when it is whole, and on disk.
package files
