// Package keyfile makes, keeps and restores the secret that a user is: one
// seed, written as 24 words, from which every key of his is derived, in a file
// that only his passphrase opens. The user's client and command line call it.
//
// # Seed and keys
//
// The seed is 256 bits of entropy, shown to people as a BIP39 mnemonic of 24
// English words. There is no BIP39 passphrase (it is the empty string), so the
// words alone restore everything derived here. PBKDF2 of the words (BIP39)
// gives the seed of a BIP32 master key, and each purpose has a branch of its
// own below it:
//
//	m/29293'/0'/0'   identity: the 32-byte secp256k1 scalar (BIP340 signing)
//	m/29293'/1'/n'   sealing key n: its 32-byte private key is the X-Wing seed
//	m/29293'/2'      bitcoin: the extended private key, for wallet and contracts
//	m/29293'/3'/0'   backup: 32 bytes, whose hex digits are the age passphrase of backups (package backup)
//
// Below the bitcoin branch each network has a branch of its own, 0' mainnet, 1' testnet4, 2' signet, 3' regtest, and in it
// 0' is the root of the wallet and 1'/a'/b' the key of a contract, a and b from the contract's id: package escrow derives
// them (DeriveWallet, DeriveKey), so that the words and a contract's id restore its key. A relay's seed is used alike.
//
// Every step is hardened, so no public key and no leaked child tells anything
// about a sibling or a parent. Derivation is the standard one of BIP32, with
// private keys padded to 32 bytes. A child that BIP32 calls invalid (less than
// once in 2^127) is an error and never skipped to the next index: two programs
// that skip differently would restore different keys from the same words.
// testdata holds vectors, those that must fail included.
//
// # File
//
// The file is an age file (age-encryption.org/v1, ASCII armor, scrypt), so
// `age -d` opens it too. Its plaintext is one JSON object:
//
//	{"version":1,"words":"abandon … art","created":1763683200000}
//
// Fields that this version does not know are ignored when read and kept, byte
// for byte, by [ChangePassphrase]. Duplicate fields are refused. Another
// version is [ErrVersion]. Passphrases are used as the bytes they are, without
// Unicode normalization, as age does.
//
// # Guarantees
//
//   - A key file is replaced in one step or not at all: after a crash at any
//     instant the path holds the old file or the new one, whole and synced. (A
//     temporary file beside it, encrypted as well, may be left behind.) Only
//     where the file system has no hard links may a crash in [Create] leave an
//     empty file, where nothing was before.
//   - No key file is overwritten unless [Options.Replace] says so, also when
//     two processes create one at the same time.
//   - Files are made with mode 0600, and one that others could read is refused
//     (on Windows its access list is not examined).
//   - Reading is bounded: 64 KiB of file, and a cap on the scrypt work that a
//     file may ask for.
//   - Secrets do not print: every secret type here formats as "[secret]", also
//     in logs, and refuses to be marshalled.
//
// Nothing here takes a context: scrypt and fsync cannot be interrupted, so a
// context would promise what is not kept.
//
// # Limits of wiping
//
// Wipe and the functions here overwrite the buffers that they own as soon as
// they are done. Go gives no more than that: age and PBKDF2 take strings, which
// cannot be overwritten, the JSON decoder and the runtime may have made copies,
// and memory may have been swapped out. Treat wiping as shortening the time
// that a secret is in memory, not as its end; a process that must keep a seed
// for hours uses package keyagent, which holds it outside of Go's heap.
package keyfile
