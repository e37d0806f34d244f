// Package chain asks a Bitcoin node, btcd or Bitcoin Core, over JSON-RPC: what the best chain is, block by block
// through reorganizations ([Client.Next]), whether a coin is there, what block space costs; and hands it transactions.
// Both sides of a contract use it; it knows nothing of contracts.
//
// Requests are HTTP POST, with TLS or, for a node on loopback, without. A node that is down, hangs or restarts is an
// error of the call ([ErrUnreachable]), never of the client: the next call tries again by itself. Nothing is kept between
// calls but how many are under way, so a client needs no start and no end.
//
// The node needs its transaction index (btcd: --txindex, Core: txindex=1), else transactions that are in a block are not
// found. All tests run with btcd; the few places where Core answers otherwise are written after its documentation and are
// untried.
package chain
