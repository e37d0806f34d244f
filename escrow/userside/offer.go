package userside

import (
	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// Offer is what a relay's announcement says about contracts.
type Offer struct {
	OpeningPrice btcutil.Amount // c₀
	CreditLimit  btcutil.Amount // Δ
	MinDeposit   btcutil.Amount // the least P
	BondPercent  int64          // of the deposit, what the relay puts beside it
	Prices       escrow.Prices
}

// Bond is the relay's bond beside a deposit, rounded down.
func (o Offer) Bond(deposit btcutil.Amount) (btcutil.Amount, error) {
	if deposit < 0 || deposit > btcutil.MaxSatoshi || o.BondPercent < 0 || o.BondPercent > maxBondPercent {
		return 0, protocol.Errorf(protocol.CodeWrongAmount, "a deposit is 0 to %d satoshi", int64(btcutil.MaxSatoshi))
	}
	return deposit * btcutil.Amount(o.BondPercent) / 100, nil
}

// maxBondPercent keeps the product of percentage and deposit far from the end of 64 bits.
const maxBondPercent = 1000
