package escrow

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// Closing is what a closing transaction is made of, beside the contract: both sides build the same
// from it, and only a signature travels.
type Closing struct {
	Amount btcutil.Amount // A: the relay gets A + B, the user P − A
	Fee    btcutil.Amount // taken from the output of the side that asked
	Asked  Side           // [User]: cooperative refund; [Relay]: payment request
}

// NewClosing is the closing transaction's terms at a feerate.
func NewClosing(c *Contract, amount btcutil.Amount, asked Side, feerate Feerate) (Closing, error) {
	if err := feerate.Validate(); err != nil {
		return Closing{}, err
	}
	closing := Closing{Amount: amount, Fee: feerate.Fee(c.weightClosing()), Asked: asked}
	_, err := ClosingTx(c, wire.OutPoint{}, closing)
	return closing, err
}

func (c *Contract) weightClosing() Weight {
	return weightBase + weightEscrow + weightOutput(c.UserScript) + weightOutput(c.RelayScript)
}

// ClosingTx builds the closing transaction: the escrow to the user's payout, then the relay's. An
// output below dust is left out, its amount goes to the fee. The amount is one of the contract; the
// fee is that of 1 to 1000 sat/vB, and the side that asked can pay it. Codes are wrong_amount,
// feerate and dust.
func ClosingTx(c *Contract, funding wire.OutPoint, closing Closing) (*Tx, error) {
	if err := c.CheckAmount(closing.Amount); err != nil {
		return nil, err
	}
	w := c.weightClosing()
	if least, most := MinFeerate.Fee(w), MaxFeerate.Fee(w); closing.Fee < least || closing.Fee > most {
		return nil, protocol.Errorf(protocol.CodeFeerate, "a closing fee of %d satoshi is out of bounds, take %d to %d",
			int64(closing.Fee), int64(least), int64(most))
	}
	user, relay := c.Deposit-closing.Amount, c.Bond+closing.Amount
	switch closing.Asked {
	case User:
		user -= closing.Fee
	case Relay:
		relay -= closing.Fee
	default:
		return nil, protocol.Errorf(protocol.CodeInvalidValue, "a closing is asked for by the user or the relay")
	}
	if user < 0 || relay < 0 {
		return nil, protocol.Errorf(protocol.CodeFeerate, "the %s cannot pay a closing fee of %d satoshi from its output", closing.Asked, int64(closing.Fee))
	}
	t, err := c.spendEscrow(funding, sequenceReplaceable, 0)
	if err != nil {
		return nil, err
	}
	t.addOutput(c.UserScript, user)
	t.addOutput(c.RelayScript, relay)
	if len(t.TxOut) == 0 {
		return nil, protocol.Errorf(protocol.CodeDust, "both outputs of the closing would be dust")
	}
	return t, nil
}

// SignClosing makes one side's signature, SIGHASH_ALL, of a closing transaction. After the relay
// released one it extends no more credit.
func SignClosing(c *Contract, funding wire.OutPoint, closing Closing, key *btcec.PrivateKey) (protocol.ContractSignature, error) {
	t, err := ClosingTx(c, funding, closing)
	if err != nil {
		return nil, err
	}
	script, err := c.Script()
	if err != nil {
		return nil, err
	}
	return t.sign(0, script, sighashAll, key)
}

// VerifyClosing judges one side's signature of a closing transaction. Whether its amount is what is
// owed is the caller's.
func VerifyClosing(c *Contract, funding wire.OutPoint, closing Closing, by Side, sig protocol.ContractSignature) error {
	t, err := ClosingTx(c, funding, closing)
	if err != nil {
		return err
	}
	script, err := c.Script()
	if err != nil {
		return err
	}
	key := c.UserKey
	if by == Relay {
		key = c.RelayKey
	}
	return t.checkSignature(0, script, sighashAll, key, sig)
}

// FinishClosing is the closing transaction with both signatures, ready to be broadcast.
func FinishClosing(c *Contract, funding wire.OutPoint, closing Closing, user, relay protocol.ContractSignature) (*Tx, error) {
	t, err := ClosingTx(c, funding, closing)
	if err != nil {
		return nil, err
	}
	script, err := c.Script()
	if err != nil {
		return nil, err
	}
	if err := t.checkSignature(0, script, sighashAll, c.UserKey, user); err != nil {
		return nil, err
	}
	if err := t.checkSignature(0, script, sighashAll, c.RelayKey, relay); err != nil {
		return nil, err
	}
	t.TxIn[0].Witness = bothSign(user, relay, script)
	return t, t.verifyInput(0)
}
