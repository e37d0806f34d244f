// Package regtest runs a real Bitcoin node on a private chain: btcd in regtest mode, built at the version that
// tools/go.mod pins, with --rejectnonstd, so that the policy of real networks counts. Tests call [Start]; the demo and
// local networks call [Launch].
//
// The chain begins with [FirstBlocks] blocks, whose subsidies are the miner's money: [Node.Fund] and [Node.Pay] spend it.
// btcd removes its regtest database whenever it starts: the best chain is kept in a file while it is stopped, and played
// back to it.
//
// Segwit, taproot and relative locktimes are in force from block 1, and coinbases mature after 100 blocks. A test makes
// the chain do what others fear: [Node.Reorg], [Node.Invalidate], [Node.MineWith] a double spend, [Node.Stop] and
// [Node.Restart], [Node.Kill], [Node.Pause].
//
// A node ends by its process id, or with the process that started it, and leaves no goroutine.
package regtest
