// Package userside is the user's side of contracts: it opens, pays, renews, closes and refunds them, watches the chain,
// and remembers all of it in one SQLite file. It runs the one table of package escrow, and signs nothing that package escrow
// has not checked. The relay's side is package escrow/relayside; neither believes the other.
//
// # Opening
//
//	Draft      lease coins, ask the node; the caller shows the Quote            nothing on disk
//	Open       write the draft down                                            drawn
//	Advance    ask the relay, check its part and its coins on the chain         answered
//	Advance    backup file, and a sealed copy on another relay                  kept
//	Advance    sign our inputs of the funding, and state 0                      signed
//	Advance    give both to the relay, take the whole funding back              taken
//	Step       see it in a block                                               (state active)
//
// Each step is on disk before the next relies on it, and each message may be repeated: whoever died calls Advance again.
// A refusal or a wrong answer ends the exchange, by itself: before "signed" the coins are just free; after it they are spent
// back to the user, since the relay could still complete the funding ([Manager.Cancel]).
//
// # Guarantees
//
//   - A state (seq, A) is on disk before it is sent. Seq rises, A never falls, and A never exceeds the opening price, the
//     usage that the user accepted, and his cushion ([Record.Allowance]). What "accepted" means is the caller's: an audit, or a person.
//   - A transaction of ours is on disk before it is broadcast, and is broadcast again until it, or what contradicts it, is
//     in a block. Refunds and sweeps bid higher while none takes them.
//   - From block T on the whole escrow is refunded by [Manager.Step] alone. What a relay's settlement leaves is swept
//     to the user's payout. Neither needs the relay, nor the wallet.
//   - The backup file, or the sealed copy, and the seed are enough for both ([Manager.Restore]).
//   - Blocks are followed through reorganizations up to 100 deep; what a block said is written down, and taken back, together
//     with the block. What was done is told in words in the journal.
//
// # Processes
//
// Several processes may use one file. Each change is one transaction; two that follow the chain at once notice and look
// again. The wallet, of which a process has it alone, is an argument of the few calls that need it.
//
// Package client implements [Relay] and [Keeper]; command relay puts the parts together.
package userside
