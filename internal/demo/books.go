package main

import (
	"context"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// theBooks reads from the chain what went into contracts and where it went, and compares it with what everybody has.
func theBooks(ctx context.Context, s *stage, c *cast) error {
	scene("The books.")
	alice, err := c.alice.balance(ctx)
	if err != nil {
		return err
	}
	relays, err := c.relaysHave(ctx)
	if err != nil {
		return err
	}
	for _, k := range c.contracts {
		c.sum.Contracts++
		c.sum.PaidSat += k.Paid
		if err := c.sum.add(s, k); err != nil {
			return err
		}
	}
	t := &c.sum
	const had = purse + operatorsPurse
	tell("she and the relays had %d; she has %d, they have %d, and the miners got %d", had, alice, relays, had-alice-relays)
	tell("%d were locked in contracts, fees of the fundings included: relays received %d, she was refunded %d, and fees were %d", t.DepositedSat, t.ReceivedSat,
		t.RefundedSat, t.FeesSat)
	if t.DepositedSat != t.ReceivedSat+t.RefundedSat+t.FeesSat {
		return fmt.Errorf("the books do not balance: %d is not %d + %d + %d", t.DepositedSat, t.ReceivedSat, t.RefundedSat, t.FeesSat)
	}
	if alice+relays+t.FeesSat != had {
		return fmt.Errorf("the books do not balance: %d + %d + %d is not %d", alice, relays, t.FeesSat, had)
	}
	t.OK = true
	return nil
}

// relaysHave is what the wallets of the relays hold. That of a dead one its operator opens himself.
func (c *cast) relaysHave(ctx context.Context) (sum int64, err error) {
	for _, r := range []*relay{c.north, c.south, c.home} {
		w, err := r.wallet(ctx)
		if err != nil {
			return 0, err
		}
		sum += w.Confirmed
	}
	return sum, nil
}

// add adds what a contract's mined transactions moved. Which output is whose the protocol says: see docs/contract.md.
func (t *summary) add(s *stage, k *contract) error {
	for _, x := range k.Transactions {
		if x.Height == nil {
			continue
		}
		id, err := chainhash.NewHashFromStr(x.TxID)
		if err != nil {
			return err
		}
		tx, err := s.node.Transaction(*id)
		if err != nil {
			return err
		}
		fee, err := s.fee(tx)
		if err != nil {
			return err
		}
		t.FeesSat += fee
		switch x.Kind {
		case "funding":
			t.DepositedSat += tx.TxOut[0].Value + fee
		case "closing": // hers, and the relay's
			t.RefundedSat += tx.TxOut[0].Value
			t.ReceivedSat += value(tx.TxOut[1:])
		case "settlement": // hers is swept by a transaction of its own
			t.ReceivedSat += value(tx.TxOut[1:])
		case "refund", "sweep":
			t.RefundedSat += value(tx.TxOut)
		default:
			return fmt.Errorf("contract %s has a transaction of the kind %q", k.ID, x.Kind)
		}
	}
	return nil
}

func value(outs []*wire.TxOut) (sum int64) {
	for _, out := range outs {
		sum += out.Value
	}
	return sum
}

// fee is what a transaction leaves to the miner, from the chain itself.
func (s *stage) fee(tx *wire.MsgTx) (int64, error) {
	fee := -value(tx.TxOut)
	for _, in := range tx.TxIn {
		from, err := s.node.Transaction(in.PreviousOutPoint.Hash)
		if err != nil {
			return 0, err
		}
		fee += from.TxOut[in.PreviousOutPoint.Index].Value
	}
	return fee, nil
}
