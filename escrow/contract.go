package escrow

import (
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// ID names a contract.
type ID = protocol.ContractID

// Side is one of the two parties of a contract.
type Side uint8

// The sides.
const (
	User  Side = 1
	Relay Side = 2
)

// String is "user" or "relay".
func (s Side) String() string {
	switch s {
	case User:
		return "user"
	case Relay:
		return "relay"
	}
	return fmt.Sprintf("side %d", uint8(s))
}

// Contract is everything that both sides agreed on when they opened it; it never changes.
type Contract struct {
	ID          ID
	Network     protocol.Network
	User        protocol.PublicKey   // the payer's identity
	Relay       protocol.PublicKey   // the relay's identity
	UserKey     protocol.ContractKey // C
	RelayKey    protocol.ContractKey // S
	UserScript  protocol.Script      // where the user is paid to
	RelayScript protocol.Script      // where the relay is paid to

	Deposit      btcutil.Amount // P
	Bond         btcutil.Amount // B
	OpeningPrice btcutil.Amount // c₀, A of state 0
	CreditLimit  btcutil.Amount // Δ
	Prices       Prices
	Expiry       uint32 // T, block height

	Announcement protocol.Hash // the envelope that the prices are from
	Writers      []protocol.PublicKey
	Renews       *ID
}

// Prices are what usage costs, fixed when the contract was opened. A GB is 10^9 bytes.
type Prices struct {
	StorageMsatPerGBDay int64
	BandwidthMsatPerGB  int64
}

// Validate checks the contract against itself: keys on the curve and distinct, payout scripts, an
// opening price that leaves the user [MinUserRest], an expiry that is a height. What the
// announcement says, and how far the expiry is, are the caller's: see [CheckExpiry].
func (c *Contract) Validate() error {
	if err := c.Network.Validate(); err != nil {
		return err
	}
	if err := c.UserKey.Validate(); err != nil {
		return err
	}
	if err := c.RelayKey.Validate(); err != nil {
		return err
	}
	if c.UserKey == c.RelayKey {
		return protocol.Errorf(protocol.CodeInvalidValue, "both sides have the same contract key")
	}
	if err := c.UserScript.Validate(); err != nil {
		return err
	}
	if err := c.RelayScript.Validate(); err != nil {
		return err
	}
	if c.Expiry < 1 || c.Expiry > maxHeight {
		return protocol.Errorf(protocol.CodeContractExpiry, "the expiry %d is no block height", c.Expiry)
	}
	if c.Prices.StorageMsatPerGBDay < 0 || c.Prices.BandwidthMsatPerGB < 0 {
		return protocol.Errorf(protocol.CodeInvalidValue, "a price is never negative")
	}
	if len(c.Writers) > protocol.MaxContractWriters {
		return protocol.Errorf(protocol.CodeInvalidValue, "a contract pays for at most %d writers", protocol.MaxContractWriters)
	}
	if c.Renews != nil && *c.Renews == c.ID {
		return protocol.Errorf(protocol.CodeInvalidValue, "a contract does not renew itself")
	}
	if _, err := sum(c.Deposit, c.Bond); err != nil {
		return err
	}
	if c.CreditLimit < 0 || c.CreditLimit > btcutil.MaxSatoshi {
		return protocol.Errorf(protocol.CodeWrongAmount, "a credit limit of %d satoshi is no amount", int64(c.CreditLimit))
	}
	return c.CheckAmount(c.OpeningPrice)
}

// Value is the amount of the escrow output, P + B.
func (c *Contract) Value() btcutil.Amount { return c.Deposit + c.Bond }

// CheckAmount refuses an A outside c₀ … P − 1000, with code wrong_amount.
func (c *Contract) CheckAmount(a btcutil.Amount) error {
	if a < c.OpeningPrice || a < 0 {
		return protocol.Errorf(protocol.CodeWrongAmount, "%d satoshi is less than the opening price of %d",
			int64(a), int64(c.OpeningPrice))
	}
	if a > c.Deposit-MinUserRest {
		return protocol.Errorf(protocol.CodeWrongAmount, "%d satoshi leaves less than %d of the deposit of %d: open a larger contract, or renew",
			int64(a), int64(MinUserRest), int64(c.Deposit))
	}
	return nil
}

// Script is the witness script of the escrow output.
func (c *Contract) Script() ([]byte, error) { return escrowScript(c.UserKey, c.RelayKey, c.Expiry) }

// PkScript is the output script of the escrow, P2WSH.
func (c *Contract) PkScript() (protocol.Script, error) {
	script, err := c.Script()
	if err != nil {
		return nil, fmt.Errorf("contract %s: %w", c.ID, err)
	}
	return p2wsh(script), nil
}

// Output is output 0 of the funding.
func (c *Contract) Output() (*wire.TxOut, error) {
	script, err := c.PkScript()
	if err != nil {
		return nil, err
	}
	return wire.NewTxOut(int64(c.Value()), script), nil
}

// StatePkScript is the output script of what a settlement leaves to the user.
func (c *Contract) StatePkScript() (protocol.Script, error) {
	script, err := stateScript(c.UserKey)
	if err != nil {
		return nil, fmt.Errorf("contract %s: %w", c.ID, err)
	}
	return p2wsh(script), nil
}

// Descriptor is the escrow as an output script descriptor (BIP380, BIP382, BIP379) with its checksum:
// what a wallet needs beside the key to find and refund it.
func (c *Contract) Descriptor() string {
	text := fmt.Sprintf("wsh(and_v(v:pk(%s),or_d(pk(%s),after(%d))))", c.UserKey, c.RelayKey, c.Expiry)
	return text + "#" + descriptorChecksum(text)
}
