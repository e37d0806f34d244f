package wallet

import "errors"

// What a caller tells apart.
var (
	// ErrFunds says that the coins that are free do not reach.
	ErrFunds = errors.New("not enough confirmed coins")
	// ErrPassphrase says that the wallet does not open with this passphrase.
	ErrPassphrase = errors.New("wrong wallet passphrase")
	// ErrOtherSeed says that the wallet in the folder was made from another seed.
	ErrOtherSeed = errors.New("the wallet belongs to another seed")
	// ErrInUse says that another process has the wallet open.
	ErrInUse = errors.New("wallet in use")
	// ErrNotLeased says that a transaction spends a coin of the wallet that was not leased to this request, or that the
	// request has no lease.
	ErrNotLeased = errors.New("coin not leased to this request")
	// ErrSpent says that a leased coin is no longer there.
	ErrSpent = errors.New("leased coin is spent")
	// ErrRequest says that a request cannot be what was meant: another under the same key, no amount, no key.
	ErrRequest = errors.New("bad wallet request")
)
