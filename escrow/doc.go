// Package escrow is the contract between a user and a relay: a one-way payment channel in a Bitcoin
// output that both must sign for until block height T and the user alone can spend from T on.
//
// It is pure: scripts, transaction templates, what each side must check before it signs, signing,
// sizes, the bounds of what either side can lose, the table of states, and the document that a
// refund is made from. Keys, clocks, coins, feerates and the chain's word on previous outputs are
// arguments; nothing here does I/O or remembers anything. Both sides build the same transactions
// from the same few numbers, so what travels is signatures, and what is verified is what would be
// built. docs/contract.md has the byte layouts and the diagram.
//
// The relay's manager is package escrow/relayside, the user's escrow/userside. All functions are
// safe for concurrent use on values that nobody writes to.
//
// Refusals are *protocol.Error with a stable code, whoever of the two sides finds them.
package escrow
