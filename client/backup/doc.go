// Package backup writes everything in a user's folder that his words cannot give back to one file, proves that the file can be
// restored, and restores it. Command relay is its caller.
//
// # The file
//
//	age file (age-encryption.org/v1, scrypt)  { gzip { tar { manifest.json, state.db, contracts.db, contracts.backup, market.db } } }
//
// Its passphrase is the hex digits of a secret that only the seed makes ([keyfile.Seed.Backup]): whoever has the words can open it,
// with age alone if need be, and there is nothing else to remember. The secret has 256 bits, so the scrypt in it is cheap. Because it is
// symmetric, a file that opens was written by somebody who has the seed, and nothing in it was changed: age authenticates
// every byte, the end of the file among them. The manifest comes first, and says whose it is, what follows with which
// SHA-256, and what was counted in each table. Parts that are not there are left out.
//
// # Guarantees
//
//   - Each database is copied as it is at one moment, while other processes go on. The contracts are copied last: what the state knows to
//     be paid is paid in them.
//   - [Write] does not give the file its name before it was read back from the disk, decrypted, unpacked, compared with what was
//     copied, opened with the program's own code, and the key of each contract derived anew.
//   - [Restore] changes nothing before all of that was done with the file, and never writes over anything of a folder that was used.
//     Who is interrupted in its last step, the renaming, runs it again.
//   - A restored state is a new device, and a restored contract signs nothing before its relay has said which state it has.
//   - What was unpacked on the way is in a folder of mode 0700 beside what it was made of, and is removed.
package backup
