// Package daemon is the long-running process of a user, `relay daemon`: it listens to friends' relays, delivers what is
// queued, puts back what relays lose, looks after what expires, and runs commands for the command line, with the keys
// unlocked and the connections open.
//
// # Guarantees
//
//   - One daemon a folder: a lock that the kernel frees when its process ends, however that is, keeps a second one out, which
//     is told the first one's process id. What a killed daemon left behind, the next one replaces.
//   - Only processes of the same user are answered, whatever the modes of the socket and its folders say; root is not an
//     exception. A client does not believe a daemon that belongs to somebody else.
//   - It holds nothing that the folder does not: all it does is done through package client, which has it on disk before it
//     says so. Killed at any moment it loses nothing, and beside it other programs may use the folder.
//   - What it does by itself goes on when one thing fails: a task that fails is begun again after a pause.
//   - What it finds when nobody looks (a friend's new card, a gap, a message that expires) stays to be told to the user.
//   - Memory is bounded: requests, how many commands run at once, and what is kept for whoever follows.
//
// # Interface
//
// HTTP over a Unix socket, as openapi.yaml in this folder says, from which package localapi is generated. The commands are
// the command line's: who makes a daemon says how they run, see [Config].Run.
//
// Linux and macOS. Elsewhere [Run] fails with localsock.ErrUnsupported, and every command works without a daemon.
package daemon
