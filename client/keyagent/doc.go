// Package keyagent keeps a secret, the entropy of the user's seed, in a
// background process for some hours, so that one passphrase serves a session
// (`relay unlock --for 8h`). The command line starts it with [Spawn], its
// hidden subcommand runs [ServeSpawned], and every other command asks [Fetch].
//
// # Guarantees
//
//   - Only processes with the same effective user id are served; root is not an
//     exception. The kernel tells who the peer is (SO_PEERCRED), on both ends: a
//     client does not believe an agent that belongs to somebody else. Beside
//     that the socket has mode 0600 in a folder of mode 0700.
//   - Nothing is served after the deadline. It is measured on the wall clock and
//     on the monotonic clock, and the earlier one counts: a suspended laptop is
//     locked when it wakes up, and setting the clock back gives no more time to
//     one that stays awake.
//   - At the deadline, on [Lock] and when it is replaced, the agent overwrites
//     the secret and ends. When Lock returns nil, the secret is overwritten.
//   - The secret travels in pipes and sockets only, never in arguments, in the
//     environment or in a file.
//   - In the agent, the secret stands outside of Go's heap in one page, locked
//     into memory and left out of core dumps where the system allows; the process
//     [ServeSpawned] runs in refuses debuggers of the same user (Linux) and makes
//     no core dump.
//   - A new agent on the same socket replaces the old one, which wipes its secret
//     and ends; in between there is no moment without an answer. What a killed
//     agent left behind is replaced, too.
//   - Memory is bounded: requests have at most 256 bytes, at most 16 are
//     handled at once (the others wait in the kernel's queue), and each has two
//     seconds.
//
// What it does not guard against: any program that runs as the same user may
// ask and is answered, as with ssh-agent. Hibernation writes all memory to disk.
// A suspended process (SIGSTOP) overwrites its secret only when it goes on.
//
// # Protocol
//
// A Unix stream socket, one request a connection, one line of JSON each way:
//
//	request   {"v":1,"op":"fetch"} LF            op: fetch, status or lock
//	reply     {"v":1,"remainingMs":28799000,"pid":4711,"secretBytes":32} LF
//	          and then secretBytes raw bytes     only fetch has any
//	refusal   {"v":1,"error":"locked"} LF        locked, malformed or version
//
// A peer with another user id gets no reply at all.
//
// # Systems
//
// Linux and macOS. Elsewhere every function fails with [ErrUnsupported], and the
// user types his passphrase each time.
package keyagent
