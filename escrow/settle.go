package escrow

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// MaxBatch bounds how many contracts one settlement settles: together they stay below the size
// that nodes relay.
const MaxBatch = 100

// Unsettled is one contract that a settlement settles.
type Unsettled struct {
	Contract *Contract
	Funding  wire.OutPoint
	Payment  Payment // the highest held
}

// Settle builds the unsigned settlement of one or more contracts: input i is the escrow i, output i
// is P − A to its user; then come the relay's extra coins, for the fee, and one output to the relay
// with all the rest. When the rest is dust it goes to the fee; when there is less than nothing the
// error has code wrong_amount: add a coin. Every input can be replaced, so that a settlement that
// is stuck is built again at a higher feerate.
//
// Each escrow is signed with [SignSettlement], the extra coins by the wallet, in any order.
func Settle(contracts []Unsettled, extra []Coin, payTo protocol.Script, feerate Feerate) (*Tx, error) {
	if len(contracts) < 1 || len(contracts) > MaxBatch {
		return nil, protocol.Errorf(protocol.CodeInvalidValue, "a settlement settles 1 to %d contracts", MaxBatch)
	}
	if err := feerate.Validate(); err != nil {
		return nil, err
	}
	if err := payTo.Validate(); err != nil {
		return nil, err
	}
	t := &Tx{MsgTx: wire.NewMsgTx(txVersion)}
	weight := weightBase
	amounts := make([]btcutil.Amount, 0, len(contracts)+len(extra))
	for _, u := range contracts {
		if err := VerifyState(u.Contract, u.Funding, u.Payment.Amount, u.Payment.Signature); err != nil {
			return nil, err
		}
		one, err := StateTx(u.Contract, u.Funding, u.Payment.Amount)
		if err != nil {
			return nil, err
		}
		t.AddTxIn(one.TxIn[0])
		t.Prev = append(t.Prev, one.Prev[0])
		t.AddTxOut(one.TxOut[0])
		weight += weightEscrow + weightOutput(one.TxOut[0].PkScript)
		amounts = append(amounts, u.Contract.Bond+u.Payment.Amount)
	}
	for _, coin := range extra {
		if err := coin.checkType(); err != nil {
			return nil, err
		}
		t.addInput(coin.OutPoint, coin.Output(), sequenceReplaceable)
		weight += weightCoin(coin.PkScript)
		amounts = append(amounts, coin.Value)
	}
	total, err := sum(amounts...)
	if err != nil {
		return nil, err
	}
	if missing := feerate.Fee(weight) - total; missing > 0 {
		return nil, protocol.Errorf(protocol.CodeWrongAmount, "the fee is %d satoshi more than the relay gets: add a coin", int64(missing))
	}
	t.addOutput(payTo, total-feerate.Fee(weight+weightOutput(payTo)))
	return t, nil
}

// SignSettlement puts the witness of escrow i into a settlement: the user's signature of the state,
// and the relay's, which is always SIGHASH_ALL and so commits to the whole transaction.
func SignSettlement(t *Tx, i int, u Unsettled, key *btcec.PrivateKey) error {
	if i < 0 || i >= len(t.TxIn) || t.TxIn[i].PreviousOutPoint != u.Funding {
		return protocol.Errorf(protocol.CodeWrongInput, "input %d is not the escrow of contract %s", i, u.Contract.ID)
	}
	if err := checkTemplate(t.MsgTx); err != nil {
		return err
	}
	script, err := u.Contract.Script()
	if err != nil {
		return err
	}
	sig, err := t.sign(i, script, sighashAll, key)
	if err != nil {
		return err
	}
	t.TxIn[i].Witness = bothSign(u.Payment.Signature, sig, script)
	return t.verifyInput(i)
}
