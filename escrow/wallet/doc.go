// Package wallet keeps the coins of one owner, a relay or a user, with btcwallet as a library: keys, addresses, what the
// chain says of them, coin selection, signatures. It follows the chain through the same client as the contracts
// (package escrow/chain), and knows nothing of them but how their keys are derived.
//
// # Keys
//
// All keys come from the Bitcoin branch of the owner's seed (m/29293'/2', see package client/keyfile), so the words
// restore them:
//
//	network' / 0'            root of the wallet, below it 84'/0'/0' (P2WPKH) and 86'/0'/0' (P2TR), as btcwallet derives:
//	                         coin 0 on every network, and, for one key in 256, not by BIP32 (hdkeychain's
//	                         DeriveNonStandard). Restore with this program or btcwallet.
//	network' / 1' / a' / b'  the key of a contract, see [Wallet.ContractKey]
//
// network' is 0 mainnet, 1 testnet4, 2 signet, 3 regtest. A wallet made anew from the same branch finds its coins by
// itself: it looks through the blocks from its birthday on, with 100 unused addresses ahead of the last used one. That
// reads every block of that time whole, hours for a year of mainnet.
//
// # Coins
//
// Only native P2WPKH and P2TR coins are made and spent, since others would let the txid of a funding change. [Wallet.Fund]
// selects and leases in one step under one lock, and writes the lease down: no two requests get the same coin unless both
// said that they share, the same request gets the same coins again, and leases outlive a crash. [Wallet.SignFunding] signs
// for the coins that were leased to the request and for no others, however many of the owner's coins a stranger puts
// into the transaction.
//
// # Storage
//
// One folder, one bbolt file, synced at every commit: after SIGKILL at any instant it opens again. Private keys in it are
// encrypted under the passphrase with scrypt; the wallet is unlocked while it is open, because a relay signs when nobody
// is there. A payment from outside is seen when it is in a block, not before.
//
// btcwallet logs through package variables. The first wallet that a process opens gives them its logger, at debug.
package wallet
