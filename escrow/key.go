package escrow

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"

	"relaymarket/protocol"
)

// Children of a Bitcoin branch (m/29293'/2' of a seed) below the network's number, all hardened.
const (
	branchWallet   = 0
	branchContract = 1
)

// KeyPath is where a contract's key is, below the Bitcoin branch: network' / 1' / a' / b', where a
// and b are the first two big-endian 32-bit words of the contract id with their top bits cleared.
// The numbers have the hardened bit set. Both sides use it, each below its own seed, so that words
// and contract id are enough to find the key again.
func KeyPath(n protocol.Network, id ID) ([]uint32, error) {
	number := slices.Index(protocol.Networks(), n)
	if number < 0 {
		return nil, n.Validate()
	}
	const hardened = hdkeychain.HardenedKeyStart
	return []uint32{
		hardened + uint32(number), hardened + branchContract,
		hardened | binary.BigEndian.Uint32(id[0:4]), hardened | binary.BigEndian.Uint32(id[4:8]),
	}, nil
}

// DeriveKey derives the key of a contract from the Bitcoin branch of a seed.
func DeriveKey(branch *hdkeychain.ExtendedKey, n protocol.Network, id ID) (*btcec.PrivateKey, error) {
	path, err := KeyPath(n, id)
	if err != nil {
		return nil, err
	}
	key, err := derive(branch, path)
	if err != nil {
		return nil, fmt.Errorf("derive the key of contract %s: %w", id, err)
	}
	defer key.Zero()
	private, err := key.ECPrivKey()
	if err != nil {
		return nil, fmt.Errorf("derive the key of contract %s: %w", id, err)
	}
	return private, nil
}

// DeriveWallet derives the root of a network's wallet, network' / 0', from the Bitcoin branch.
func DeriveWallet(branch *hdkeychain.ExtendedKey, n protocol.Network) (*hdkeychain.ExtendedKey, error) {
	path, err := KeyPath(n, ID{})
	if err != nil {
		return nil, err
	}
	path[1] = hdkeychain.HardenedKeyStart + branchWallet
	return derive(branch, path[:2])
}

func derive(key *hdkeychain.ExtendedKey, path []uint32) (*hdkeychain.ExtendedKey, error) {
	for i, child := range path {
		next, err := key.Derive(child)
		if i > 0 {
			key.Zero() // never the caller's
		}
		if err != nil {
			return nil, err
		}
		key = next
	}
	return key, nil
}

// KeyOf is the wire form of a key's public half.
func KeyOf(key *btcec.PrivateKey) (k protocol.ContractKey) {
	copy(k[:], key.PubKey().SerializeCompressed())
	return k
}
