package escrow

import (
	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/protocol"
)

// Bounds are what each side can lose, and what is locked until when, in satoshi. They are what a
// person is told before anything is signed.
type Bounds struct {
	User        btcutil.Amount // c₀ + cushion + fees
	Relay       btcutil.Amount // Δ + fees, as long as its settlement confirms before T
	RelayUnpaid btcutil.Amount // Δ + A + B + fees, when it does not
	Locked      btcutil.Amount // P, the user's
	LockedBond  btcutil.Amount // B, the relay's
	LockedUntil uint32         // T: the user alone can spend from this height on
}

// Costs are the fees that the two sides have paid, or will at most pay, for the contract's
// transactions.
type Costs struct {
	User  btcutil.Amount
	Relay btcutil.Amount
}

// LossBounds are the bounds of a contract whose user lets A run ahead of accepted usage by at most
// cushion, at the amount A. What the user paid for usage that he got is no loss.
func LossBounds(c *Contract, amount, cushion btcutil.Amount, fees Costs) (Bounds, error) {
	user, err := UserLoss(c, cushion, fees.User)
	if err != nil {
		return Bounds{}, err
	}
	relay, err := RelayLoss(c, fees.Relay)
	if err != nil {
		return Bounds{}, err
	}
	unpaid, err := RelayLossUnsettled(c, amount, fees.Relay)
	if err != nil {
		return Bounds{}, err
	}
	return Bounds{User: user, Relay: relay, RelayUnpaid: unpaid, Locked: c.Deposit, LockedBond: c.Bond, LockedUntil: c.Expiry}, nil
}

// UserLoss is the most a user can lose to a relay that takes all it can and serves nothing more:
// c₀ + cushion + fees.
func UserLoss(c *Contract, cushion, fees btcutil.Amount) (btcutil.Amount, error) {
	return sum(c.OpeningPrice, cushion, fees)
}

// RelayLoss is the most a relay can lose to a user who pays nothing more, as long as its settlement
// confirms before T: Δ + fees.
func RelayLoss(c *Contract, fees btcutil.Amount) (btcutil.Amount, error) {
	return sum(c.CreditLimit, fees)
}

// RelayLossUnsettled is the most a relay can lose when its settlement does not confirm before T: also
// the amount held, A, and its bond.
func RelayLossUnsettled(c *Contract, amount, fees btcutil.Amount) (btcutil.Amount, error) {
	return sum(c.CreditLimit, amount, c.Bond, fees)
}

// Estimate is the expected fee of each transaction of a contract at a feerate, for one input of each
// side at most.
type Estimate struct {
	Funding    btcutil.Amount // one P2WPKH input and change, the user's share
	Settlement btcutil.Amount
	Closing    btcutil.Amount
	Refund     btcutil.Amount
	Sweep      btcutil.Amount
}

// EstimateFees estimates the fees of a contract's transactions.
func EstimateFees(c *Contract, feerate Feerate) (Estimate, error) {
	if err := feerate.Validate(); err != nil {
		return Estimate{}, err
	}
	p2wpkh := make(protocol.Script, 22)
	state := make(protocol.Script, 34)
	return Estimate{
		Funding:    feerate.Fee(weightBase + weightOutput(state) + weightP2WPKH + weightOutput(p2wpkh)),
		Settlement: feerate.Fee(weightBase + weightEscrow + weightOutput(state) + weightOutput(c.RelayScript)),
		Closing:    feerate.Fee(c.weightClosing()),
		Refund:     feerate.Fee(weightBase + weightRefund + weightOutput(c.UserScript)),
		Sweep:      feerate.Fee(weightBase + weightState + weightOutput(c.UserScript)),
	}, nil
}
