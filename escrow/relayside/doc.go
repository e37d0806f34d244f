// Package relayside is the relay's manager of contracts: it answers the messages of the exchange, keeps every contract in
// Postgres, follows the chain, gives the accounts their credit, and sees to it that what was earned is settled before the
// user can take it back. Package escrow says what is right; this package remembers, and does it in the right order.
//
// # Who calls it
//
// The HTTP layer calls the handlers ([Manager.Open], [Manager.Signed], [Manager.Pay], [Manager.Refund], [Manager.Status],
// [Manager.List]) with requests whose signature and audience it has verified. They may run in any number of processes on
// one database. The operator's commands call [Manager.Show], [Manager.Settle] and the rest of operator.go.
//
// One process at a time does the work that nobody asks for ([Manager.Run]): it holds a lease, a row of the database that
// each of its transactions locks, so that a second one cannot act beside it, whatever the clocks say. A process without a
// wallet answers requests and leaves that work to the others. What needs the wallet has a loop of its own beside it, so that a
// wallet that recovers or hangs keeps no block and no settlement waiting; a third one measures what the metrics show.
//
// # What is durable when
//
// Each step is one transaction, and what goes out was stored before:
//
//	Open        an opening: nothing is held, coins are only offered
//	Signed      the user's witnesses and state 0, the coin; the account (without credit), unless the payer has a grant,
//	            which serves until a block has the funding
//	work        the signed funding, before it is broadcast
//	Pay         the higher state, together with the credit that it gives
//	Refund      the account is stopped, and the closing stored with both signatures, before it is broadcast
//	work        each settlement before it is broadcast, each higher bid beside the one before
//
// So whatever is on disk is enough to go on from; everything is done again until the chain shows it, and doing it twice
// has one effect. Blocks are taken one by one in a transaction each, together with what they change; a block that leaves
// the best chain takes it back, however deep; where none of the known blocks is left, the chain is read again from well
// below.
//
// # Losses
//
// The relay's loss is bounded by the credit limit and fees as long as a settlement confirms before T: usage stops, and the
// settlement is sent, at T − M, and bids higher with every block. While a funding has fewer than six confirmations, what
// was paid under it does not raise the credit above the limit, so a funding that is undone costs no more either.
//
// A relay whose database was restored from an older copy holds an older state than it once did. It takes any higher one
// that the user shows (sequence numbers may jump), and tells its own in each status, so that the user's client shows it;
// and it never releases a closing below what it held, holds, or has seen on the chain.
package relayside
