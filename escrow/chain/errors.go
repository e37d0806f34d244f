package chain

import "errors"

// What a caller tells apart. Errors wrap one of these and what the node said.
var (
	// ErrUnreachable says that the node did not answer: it is down, hangs, is starting, or refuses the login. Nothing is
	// known about the effect of a Broadcast; repeating it is safe.
	ErrUnreachable = errors.New("the Bitcoin node cannot be asked")
	// ErrStale says that the node answers, but what it knows is too old to open contracts on.
	ErrStale = errors.New("the Bitcoin node is behind the network")
	// ErrNetwork says that the node is on another network.
	ErrNetwork = errors.New("the Bitcoin node is on another network")
	// ErrNotFound says that the node knows no such transaction, block or unspent output.
	ErrNotFound = errors.New("not found on the chain")

	// ErrUpToDate says that there is no block after the newest known one.
	ErrUpToDate = errors.New("no newer block")
	// ErrBehind says that the node's chain is shorter than the one known: it is catching up. Nothing that is known is
	// taken back for it.
	ErrBehind = errors.New("the Bitcoin node has fewer blocks than are known")
	// ErrTooDeep says that none of the known blocks is on the best chain any more.
	ErrTooDeep = errors.New("reorganization deeper than what is known")

	// ErrConflict says that another transaction has spent one of the inputs, in a block or in the mempool.
	ErrConflict = errors.New("an input is spent by another transaction")
	// ErrFeeTooLow says that the transaction pays too little to be relayed, or to replace the one in the mempool.
	ErrFeeTooLow = errors.New("the fee is too low")
	// ErrNotFinal says that a locktime, a relative locktime or a coinbase's maturity is not reached: try again after the
	// next block.
	ErrNotFinal = errors.New("the transaction is too early")
	// ErrOrphan says that the node does not know the transaction that an input is from.
	ErrOrphan = errors.New("an input is not known")
	// ErrRejected says that the node refuses the transaction for any other reason. Repeating it does not help.
	ErrRejected = errors.New("the transaction is refused")
)
