package keyfile

import (
	"fmt"
	"io"
	"log/slog"
)

// IdentitySecret is the secp256k1 scalar of the user's identity: 32 bytes, big
// endian, in 1 … n-1.
type IdentitySecret [32]byte

// SealingSeed is the seed of an X-Wing key pair, as crypto/hpke takes it.
type SealingSeed [32]byte

// BackupSecret is what backups are encrypted with. It is as good as random.
type BackupSecret [32]byte

// Passphrase is what the user typed, as it is. The caller wipes it.
type Passphrase []byte

// Wipe overwrites the secret.
func (s *IdentitySecret) Wipe() { clear(s[:]) }

// Wipe overwrites the seed.
func (s *SealingSeed) Wipe() { clear(s[:]) }

// Wipe overwrites the secret.
func (s *BackupSecret) Wipe() { clear(s[:]) }

// Wipe overwrites the passphrase.
func (p Passphrase) Wipe() { clear(p) }

// redacted stands wherever a secret would have been printed.
const redacted = "[secret]"

func printRedacted(s fmt.State) { _, _ = io.WriteString(s, redacted) }

// Format prints "[secret]", whatever the verb.
func (BackupSecret) Format(s fmt.State, _ rune) { printRedacted(s) }

// LogValue logs "[secret]".
func (BackupSecret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (BackupSecret) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Format prints "[secret]", whatever the verb.
func (IdentitySecret) Format(s fmt.State, _ rune) { printRedacted(s) }

// LogValue logs "[secret]".
func (IdentitySecret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (IdentitySecret) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Format prints "[secret]", whatever the verb.
func (SealingSeed) Format(s fmt.State, _ rune) { printRedacted(s) }

// LogValue logs "[secret]".
func (SealingSeed) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (SealingSeed) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Format prints "[secret]", whatever the verb.
func (Passphrase) Format(s fmt.State, _ rune) { printRedacted(s) }

// LogValue logs "[secret]".
func (Passphrase) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (Passphrase) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Format prints "[secret]", whatever the verb.
func (Seed) Format(s fmt.State, _ rune) { printRedacted(s) }

// LogValue logs "[secret]".
func (Seed) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (Seed) MarshalText() ([]byte, error) { return nil, ErrSecret }
