package escrow

import (
	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/protocol"
)

// Heights in the life of a contract, in blocks. A day has 144 of them.
const (
	DefaultLifetime  uint32 = 4320   // T − tip of a new contract, unless asked otherwise
	SettlementMargin uint32 = 432    // M: from T − M on nothing new is taken, and the relay settles
	MinLifetime      uint32 = 864    // T − tip at least, when the relay signs the funding: twice M
	MaxLifetime      uint32 = 26_280 // T − tip at most: half a year
	FullCredit       int64  = 6      // confirmations of the funding from which the credit limit is full
	ClosedDepth      int64  = 6      // confirmations at which a contract is closed
	ArchiveDepth     int64  = 100    // confirmations at which nothing is watched any more

	maxHeight = 499_999_999 // BIP65: from 500,000,000 on a locktime is a time
)

// CheckExpiry refuses an expiry that is nearer to the tip than [MinLifetime] or farther than
// [MaxLifetime], with code contract_expiry. The relay asks it when the contract is opened and again
// just before it signs the funding.
func CheckExpiry(expiry, tip uint32) error {
	if expiry < tip || expiry-tip < MinLifetime {
		return protocol.Errorf(protocol.CodeContractExpiry, "the expiry %d is less than %d blocks above the tip %d", expiry, MinLifetime, tip)
	}
	if expiry-tip > MaxLifetime || expiry > maxHeight {
		return protocol.Errorf(protocol.CodeContractExpiry, "the expiry %d is more than %d blocks above the tip %d", expiry, MaxLifetime, tip)
	}
	return nil
}

// LastUsage is T − M: from this height on the relay takes nothing new and settles.
func (c *Contract) LastUsage() uint32 { return c.Expiry - min(SettlementMargin, c.Expiry) }

// TakesUsage tells whether a block at this tip may still be followed by new usage.
func (c *Contract) TakesUsage(tip uint32) bool { return tip < c.LastUsage() }

// SettlementDue tells whether a settlement must be on its way at this tip.
func (c *Contract) SettlementDue(tip uint32) bool { return tip >= c.LastUsage() }

// RefundDue tells whether a refund may be in the next block: a transaction with locktime T is final
// in block T + 1 and later (BIP113 and BIP65), so it is relayed once the tip is T.
func (c *Contract) RefundDue(tip uint32) bool { return tip >= c.Expiry }

// Credit is what the relay gives at this many confirmations of the funding: nothing before it is in
// a block, the limit from [FullCredit] on, in equal steps between.
func (c *Contract) Credit(confirmations int64) btcutil.Amount {
	if confirmations >= FullCredit {
		return c.CreditLimit
	}
	return c.CreditLimit / btcutil.Amount(FullCredit) * btcutil.Amount(max(confirmations, 0))
}

// Allowance is how much usage, in satoshi, the relay serves in all while it holds the amount A: the
// credit and what was paid beyond c₀. Until the funding is [FullCredit] deep the payments do not
// raise it above Δ: whoever has much work can still undo the funding, and all that was paid under it
// with it.
func (c *Contract) Allowance(amount btcutil.Amount, confirmations int64) btcutil.Amount {
	paid := max(amount-c.OpeningPrice, 0)
	switch {
	case confirmations >= FullCredit:
		return c.CreditLimit + paid
	case confirmations < 1:
		return 0
	}
	return min(c.Credit(confirmations)+paid, c.CreditLimit)
}
