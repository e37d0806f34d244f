package escrow

import (
	"bytes"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// Refund is the user's way out that needs nobody: from height T on he takes the whole escrow, P + B.
// The transaction has locktime T and one output, and is signed. Nodes take it once their tip is T,
// see [Contract.RefundDue].
func Refund(c *Contract, funding wire.OutPoint, payTo protocol.Script, feerate Feerate, key *btcec.PrivateKey) (*Tx, error) {
	// Every sequence but the last one leaves the locktime in force; this one also lets a dearer refund replace it (BIP125).
	t, err := c.spendEscrow(funding, sequenceReplaceable, c.Expiry)
	if err != nil {
		return nil, err
	}
	if err := t.payAll(payTo, feerate, weightRefund); err != nil {
		return nil, err
	}
	script, err := c.Script()
	if err != nil {
		return nil, err
	}
	sig, err := t.sign(0, script, sighashAll, key)
	if err != nil {
		return nil, err
	}
	// The empty element is the relay's missing signature: pk(S) fails, after(T) decides.
	t.TxIn[0].Witness = wire.TxWitness{nil, bytes.Clone(sig), script}
	return t, t.verifyInput(0)
}

// Sweep takes what a settlement left to the user, one block after the settlement is in a block. The
// transaction is signed.
func Sweep(c *Contract, output wire.OutPoint, amount btcutil.Amount, payTo protocol.Script, feerate Feerate, key *btcec.PrivateKey) (*Tx, error) {
	pkScript, err := c.StatePkScript()
	if err != nil {
		return nil, err
	}
	if _, err := sum(amount); err != nil {
		return nil, err
	}
	t := spend(output, wire.NewTxOut(int64(amount), pkScript), sequenceOneBlock, 0)
	if err := t.payAll(payTo, feerate, weightState); err != nil {
		return nil, err
	}
	script, err := stateScript(c.UserKey)
	if err != nil {
		return nil, err
	}
	sig, err := t.sign(0, script, sighashAll, key)
	if err != nil {
		return nil, err
	}
	t.TxIn[0].Witness = wire.TxWitness{bytes.Clone(sig), script}
	return t, t.verifyInput(0)
}

// payAll adds the one output, with all that the input has and the fee has not.
func (t *Tx) payAll(payTo protocol.Script, feerate Feerate, input Weight) error {
	if err := feerate.Validate(); err != nil {
		return err
	}
	if err := payTo.Validate(); err != nil {
		return err
	}
	rest := amountOf(t.Prev[0]) - feerate.Fee(weightBase+input+weightOutput(payTo))
	if rest < payTo.Dust() {
		return protocol.Errorf(protocol.CodeDust, "at %d sat per 1000 vB the fee leaves %d satoshi, which is dust: take a lower feerate", int64(feerate), int64(rest))
	}
	t.addOutput(payTo, rest)
	return nil
}
