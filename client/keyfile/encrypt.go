package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const (
	// DefaultWorkFactor is the base-2 logarithm of scrypt's N for new files:
	// half a second to a second, and 256 MiB.
	DefaultWorkFactor = 18
	// MinWorkFactor is the least that [Options.WorkFactor] takes. It is for
	// tests: a passphrase behind it can be guessed fast.
	MinWorkFactor = 10
	// MaxWorkFactor is the most that a file may ask for: two to four seconds and
	// 1 GiB. It bounds what a planted file can make this program do.
	MaxWorkFactor = 20
	// MaxPassphrase is the longest passphrase, in bytes.
	MaxPassphrase = 1024
)

// errInspected stops age after the header, before any scrypt.
var errInspected = errors.New("inspected")

func checkPassphrase(p Passphrase) error {
	if len(p) == 0 || len(p) > MaxPassphrase {
		return fmt.Errorf("%w, this one has %d", ErrPassphraseLength, len(p))
	}
	return nil
}

// encrypt makes the bytes of a key file.
func encrypt(plaintext []byte, p Passphrase, workFactor int) ([]byte, error) {
	recipient, err := age.NewScryptRecipient(string(p))
	if err != nil {
		return nil, err
	}
	recipient.SetWorkFactor(workFactor)
	var out bytes.Buffer
	lines := armor.NewWriter(&out)
	body, err := age.Encrypt(lines, recipient)
	if err != nil {
		return nil, err
	}
	if _, err := body.Write(plaintext); err != nil {
		return nil, err
	}
	if err := errors.Join(body.Close(), lines.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decrypt gives the plaintext in the bytes of a key file. The caller wipes it.
func decrypt(data []byte, p Passphrase) ([]byte, error) {
	binary, err := dearmor(data)
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(string(p))
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(MaxWorkFactor)
	body, err := age.Decrypt(bytes.NewReader(binary), cappedIdentity{identity})
	if err != nil {
		return nil, ageError(err)
	}
	plaintext, err := io.ReadAll(body)
	if err != nil {
		clear(plaintext)
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return plaintext, nil
}

// inspect checks all that can be checked without the passphrase, and gives the
// work factor.
func inspect(data []byte) (workFactor int, err error) {
	binary, err := dearmor(data)
	if err != nil {
		return 0, err
	}
	identity := &inspectingIdentity{}
	if _, err := age.Decrypt(bytes.NewReader(binary), identity); !errors.Is(err, errInspected) {
		return 0, ageError(err)
	}
	return identity.workFactor, nil
}

// dearmor takes the ASCII armor off and tells a cut file from a changed one:
// only the armor says where a file was meant to end.
func dearmor(data []byte) ([]byte, error) {
	text := bytes.TrimSpace(data)
	header, footer := []byte(armor.Header), []byte(armor.Footer)
	switch {
	case bytes.HasPrefix(header, text): // also an empty file
		return nil, fmt.Errorf("%w: restore it from a backup or from your words", ErrTruncated)
	case !bytes.HasPrefix(text, header):
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrNotKeyFile, armor.Header)
	case !bytes.Contains(text, footer):
		return nil, fmt.Errorf("%w: restore it from a backup or from your words", ErrTruncated)
	}
	binary, err := io.ReadAll(armor.NewReader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return binary, nil
}

// ageError names what age found. Only errors that this package made itself, and
// a passphrase that does not fit, are not damage.
func ageError(err error) error {
	switch {
	case errors.Is(err, ErrWorkFactor), errors.Is(err, ErrNotKeyFile), errors.Is(err, ErrDamaged):
		return err
	case errors.Is(err, age.ErrIncorrectIdentity):
		// Damage to the 32 bytes that hold the file's key looks the same.
		return fmt.Errorf("%w: try again; if it is forgotten, only your words restore the key", ErrPassphrase)
	default:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
}

// cappedIdentity looks at the work factor before scrypt does, since age's own
// error for too much of it has no type.
type cappedIdentity struct{ *age.ScryptIdentity }

var _ age.Identity = cappedIdentity{}

func (i cappedIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if _, err := scryptWorkFactor(stanzas); err != nil {
		return nil, err
	}
	return i.ScryptIdentity.Unwrap(stanzas)
}

// inspectingIdentity notes the work factor and opens nothing.
type inspectingIdentity struct{ workFactor int }

var _ age.Identity = (*inspectingIdentity)(nil)

func (i *inspectingIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	workFactor, err := scryptWorkFactor(stanzas)
	if err != nil {
		return nil, err
	}
	i.workFactor = workFactor
	return nil, errInspected
}

func scryptWorkFactor(stanzas []*age.Stanza) (int, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return 0, fmt.Errorf("%w: it is encrypted, but not with a passphrase", ErrNotKeyFile)
	}
	if len(stanzas[0].Args) != 2 {
		return 0, fmt.Errorf("%w: malformed scrypt header", ErrDamaged)
	}
	logN, err := strconv.ParseUint(stanzas[0].Args[1], 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%w: malformed scrypt work factor", ErrDamaged)
	}
	if err != nil || logN > MaxWorkFactor {
		return 0, fmt.Errorf("%w: opening this file takes more than 2^%d steps; if you trust it, decrypt it with age and restore from its words",
			ErrWorkFactor, MaxWorkFactor)
	}
	return int(logN), nil
}
