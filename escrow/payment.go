package escrow

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// Payment is one state of the channel: the relay may take Amount (and its bond), the user has the
// rest of his deposit. Seq 0 is the opening price.
type Payment struct {
	Seq       int64
	Amount    btcutil.Amount             // A, cumulative
	Signature protocol.ContractSignature // the user's, SINGLE|ANYONECANPAY
}

// StateTx is the template of state n: escrow → P − A to the user. It has no fee and is never
// broadcast as it is, see [Settle]. The signature of a state, 0x83, commits to its version, locktime,
// input and output, whatever the place and company of the two in the transaction that they end in.
func StateTx(c *Contract, funding wire.OutPoint, amount btcutil.Amount) (*Tx, error) {
	if err := c.CheckAmount(amount); err != nil {
		return nil, err
	}
	t, err := c.spendEscrow(funding, sequenceReplaceable, 0)
	if err != nil {
		return nil, err
	}
	script, err := c.StatePkScript()
	if err != nil {
		return nil, err
	}
	t.AddTxOut(wire.NewTxOut(int64(c.Deposit-amount), script))
	return t, nil
}

// SignState makes the user's signature of the state with this amount.
func SignState(c *Contract, funding wire.OutPoint, amount btcutil.Amount, key *btcec.PrivateKey) (protocol.ContractSignature, error) {
	t, script, err := c.stateAndScript(funding, amount)
	if err != nil {
		return nil, err
	}
	return t.sign(0, script, sighashState, key)
}

// VerifyState judges the user's signature of a state. Codes are wrong_amount, wrong_sighash and
// contract_signature.
func VerifyState(c *Contract, funding wire.OutPoint, amount btcutil.Amount, sig protocol.ContractSignature) error {
	t, script, err := c.stateAndScript(funding, amount)
	if err != nil {
		return err
	}
	return t.checkSignature(0, script, sighashState, c.UserKey, sig)
}

func (c *Contract) stateAndScript(funding wire.OutPoint, amount btcutil.Amount) (*Tx, []byte, error) {
	t, err := StateTx(c, funding, amount)
	if err != nil {
		return nil, nil, err
	}
	script, err := c.Script()
	return t, script, err
}

// VerifyOpening judges state 0, which the relay must hold before it signs the funding: seq 0, the
// opening price, the user's signature over this very funding.
func VerifyOpening(c *Contract, funding wire.OutPoint, p Payment) error {
	if p.Seq != 0 {
		return protocol.Errorf(protocol.CodeStateOrder, "the first state has seq 0")
	}
	if p.Amount != c.OpeningPrice {
		return protocol.Errorf(protocol.CodeWrongAmount, "state 0 pays %d satoshi, the opening price is %d",
			int64(p.Amount), int64(c.OpeningPrice))
	}
	return VerifyState(c, funding, p.Amount, p.Signature)
}

// VerifyPayment judges the state that follows the highest one held: seq rises, A does not fall. The
// relay makes it durable before it extends credit on it. A repetition of the state held is for the
// caller to recognize.
func VerifyPayment(c *Contract, funding wire.OutPoint, held, next Payment) error {
	if next.Seq <= held.Seq {
		return protocol.Errorf(protocol.CodeStateOrder, "seq %d does not rise above %d: ask for the status and continue from there", next.Seq, held.Seq)
	}
	if next.Amount < held.Amount {
		return protocol.Errorf(protocol.CodeWrongAmount, "the amount falls from %d to %d satoshi", int64(held.Amount), int64(next.Amount))
	}
	return VerifyState(c, funding, next.Amount, next.Signature)
}
