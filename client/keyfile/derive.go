package keyfile

import (
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/tyler-smith/go-bip39"
)

// The paths, without the hardening mark that every step carries. They are part
// of the format: another number is another key for everybody.
const (
	purpose        = 29293 // BIP43
	branchIdentity = 0
	branchSealing  = 1
	branchBitcoin  = 2
	branchBackup   = 3
)

// Identity derives the secret that signs for the user, m/29293'/0'/0'. Each
// derivation costs about a millisecond (PBKDF2): keep what you use often.
func (s *Seed) Identity() (IdentitySecret, error) {
	secret, err := s.secret(purpose, branchIdentity, 0)
	return IdentitySecret(secret), err
}

// Sealing derives the seed of sealing key n, m/29293'/1'/n'. Keys are numbered
// from 0, below 2^31.
func (s *Seed) Sealing(n uint32) (SealingSeed, error) {
	if n >= hdkeychain.HardenedKeyStart {
		return SealingSeed{}, fmt.Errorf("%w, not %d", ErrIndex, n)
	}
	secret, err := s.secret(purpose, branchSealing, n)
	return SealingSeed(secret), err
}

// Bitcoin derives the extended private key of the branch that belongs to the
// wallet and the contracts, m/29293'/2'. It carries mainnet's version bytes (xprv); a wallet for
// another network calls its SetNet and derives a hardened child of its own for
// each network, so that no two networks share keys. The caller calls its Zero.
func (s *Seed) Bitcoin() (*hdkeychain.ExtendedKey, error) {
	return s.derive(purpose, branchBitcoin)
}

// Backup derives the secret that backups of the user's folder are encrypted with, m/29293'/3'/0'.
func (s *Seed) Backup() (BackupSecret, error) {
	secret, err := s.secret(purpose, branchBackup, 0)
	return BackupSecret(secret), err
}

// secret is the private key at the path, padded to 32 bytes.
func (s *Seed) secret(path ...uint32) (secret [32]byte, err error) {
	key, err := s.derive(path...)
	if err != nil {
		return secret, err
	}
	defer key.Zero()
	// The extended key keeps its number without leading zeros; going through
	// the scalar is what pads it.
	private, err := key.ECPrivKey()
	if err != nil {
		return secret, fmt.Errorf("%w: %w", ErrDerivation, err)
	}
	defer private.Zero()
	bytes := private.Serialize()
	defer clear(bytes)
	copy(secret[:], bytes)
	return secret, nil
}

// derive walks the hardened path from the master key.
func (s *Seed) derive(path ...uint32) (*hdkeychain.ExtendedKey, error) {
	words, err := s.Words()
	if err != nil {
		return nil, err
	}
	seed := bip39.NewSeed(words, "")
	defer clear(seed)
	key, err := hdkeychain.NewMaster(seed, &chaincfg.MainNetParams)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDerivation, err)
	}
	for _, index := range path {
		// Derive is BIP32. DeriveNonStandard differs from it for one key in 256.
		child, err := key.Derive(hdkeychain.HardenedKeyStart + index)
		key.Zero()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDerivation, err)
		}
		if zero, err := isZero(child); zero || err != nil {
			return nil, ErrDerivation
		}
		key = child
	}
	return key, nil
}

// isZero reports a child whose private key is 0, which BIP32 calls invalid and
// hdkeychain does not look for.
func isZero(key *hdkeychain.ExtendedKey) (bool, error) {
	private, err := key.ECPrivKey()
	if err != nil {
		return false, err
	}
	defer private.Zero()
	return private.Key.IsZero(), nil
}
