package keyfile

import (
	"errors"
	"fmt"
)

// What can be wrong with the words. Errors of [ParseWords] match one of these.
var (
	// ErrWordCount: not 24 words.
	ErrWordCount = errors.New("wrong number of words")
	// ErrUnknownWord: a word is not in the BIP39 English list. The error is a
	// [*WordError], which names the position.
	ErrUnknownWord = errors.New("unknown word")
	// ErrChecksum: 24 known words that do not belong together.
	ErrChecksum = errors.New("the words do not fit together")
)

// What can be wrong with a seed in memory.
var (
	// ErrNoSeed: the seed was wiped, or never set.
	ErrNoSeed = errors.New("no seed: it was wiped or never set")
	// ErrEntropy: the seed's entropy is not 32 bytes.
	ErrEntropy = errors.New("the entropy of a seed is 32 bytes")
	// ErrIndex: a sealing key number of 2^31 or more.
	ErrIndex = errors.New("the number of a sealing key is below 2^31")
	// ErrDerivation: BIP32 gives no key at this place. It happens less than
	// once in 2^127 times and means that another seed must be used.
	ErrDerivation = errors.New("no key can be derived from this seed here: make a new seed")
	// ErrSecret: something tried to marshal a secret.
	ErrSecret = errors.New("a secret is not to be written out")
)

// What can be wrong with a key file or the passphrase for it.
var (
	// ErrNotFound: there is no file at the path. It matches fs.ErrNotExist too.
	ErrNotFound = errors.New("no key file")
	// ErrExists: [Create] found something at the path and left it alone.
	ErrExists = errors.New("a key file is already there")
	// ErrPermissions: people other than the owner may read or write the file.
	ErrPermissions = errors.New("the key file is open to others")
	// ErrNotRegular: the path is a folder, a pipe or a device.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge: more than [MaxFileSize].
	ErrTooLarge = errors.New("too large for a key file")
	// ErrNotKeyFile: not an age file in ASCII armor, or encrypted to something
	// other than a passphrase.
	ErrNotKeyFile = errors.New("not a key file")
	// ErrTruncated: the file ends too early.
	ErrTruncated = errors.New("the key file is cut short")
	// ErrDamaged: the file was changed after it was written.
	ErrDamaged = errors.New("the key file is damaged")
	// ErrWorkFactor: opening the file would take more work than is allowed, or
	// [Options.WorkFactor] is out of range.
	ErrWorkFactor = errors.New("scrypt work factor out of range")
	// ErrPassphrase: the passphrase does not open the file.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrPassphraseLength: empty, or longer than [MaxPassphrase].
	ErrPassphraseLength = fmt.Errorf("a passphrase has 1 to %d bytes", MaxPassphrase)
	// ErrVersion: the file was written by another version of this program.
	ErrVersion = errors.New("unknown version of the key file")
	// ErrDocument: the file opened, and what is inside is not a key document.
	ErrDocument = errors.New("the content of the key file is malformed")
)

// WordError names the word that is not in the list. It does not repeat the
// word: errors end up in logs, and a mistyped word gives most of it away.
type WordError struct {
	Position int // counted from 1, as people do
}

func (e *WordError) Error() string {
	return fmt.Sprintf("word %d is not in the word list: check its spelling", e.Position)
}

// Is reports that a WordError is an ErrUnknownWord.
func (e *WordError) Is(target error) bool { return target == ErrUnknownWord }
