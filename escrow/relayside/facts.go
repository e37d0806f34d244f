package relayside

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// facts are what the best chain, as far as it was followed, says about a contract.
type facts struct {
	tip           uint32
	fundingHeight *int32 // nil: in no block
	spent         *spend // of the escrow
	cancelled     *spend // of an input of the funding, by anything else; of a renewal also what cancelled the contract that it renews
}

// spend is a transaction in a block that spends what is watched.
type spend struct {
	kind   string
	txid   chainhash.Hash
	height int32
	amount btcutil.Amount             // A of a settlement
	state  protocol.ContractSignature // the user's signature of it
}

// confirmations of a block at a height, itself included; 0 for none.
func (f *facts) confirmations(height *int32) int64 {
	if height == nil {
		return 0
	}
	return max(int64(f.tip)-int64(*height)+1, 0)
}

// depth is [facts.confirmations] of a spend, 0 for none.
func (f *facts) depth(s *spend) int64 {
	if s == nil {
		return 0
	}
	return f.confirmations(&s.height)
}

func readFacts(ctx context.Context, q querier, r *record) (f facts, err error) {
	if f.tip, err = tip(ctx, q); err != nil {
		return f, err
	}
	err = q.QueryRow(ctx, `SELECT height FROM contract_transactions WHERE txid = $1`, r.funding[:]).Scan(&f.fundingHeight)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return f, err
	}
	rows, err := q.Query(ctx, `SELECT s.txid, s.height, s.tx, w.escrow FROM contract_spends s
		JOIN contract_watches w ON w.outpoint = s.outpoint AND w.contract = s.contract WHERE s.contract = $1`, r.terms.ID[:])
	if err != nil {
		return f, err
	}
	var id, raw []byte
	var height int32
	var ofEscrow bool
	_, err = pgx.ForEachRow(rows, []any{&id, &height, &raw, &ofEscrow}, func() error {
		s := &spend{kind: protocol.TxCancel, txid: chainhash.Hash(id), height: height}
		switch {
		case s.txid == r.funding: // its own inputs; also tells when the relay did not have the whole transaction
			f.fundingHeight = &s.height
		case ofEscrow:
			f.spent = s
			return s.identify(r, raw)
		case f.cancelled == nil || f.cancelled.height > height:
			f.cancelled = s
		}
		return nil
	})
	if err != nil || f.fundingHeight != nil || f.cancelled != nil || r.terms.Renews == nil {
		return f, err
	}
	f.cancelled, err = cancelledBefore(ctx, q, *r.terms.Renews)
	return f, err
}

// cancelledBefore is what made the funding of a renewed contract impossible, and with it the renewal's, which spends its escrow:
// no block will ever spend that.
func cancelledBefore(ctx context.Context, q querier, renewed escrow.ID) (*spend, error) {
	old, err := read(ctx, q, renewed)
	if err != nil {
		return nil, err
	}
	f, err := readFacts(ctx, q, old)
	if f.fundingHeight != nil {
		return nil, err
	}
	return f.cancelled, err
}

// identify tells what a transaction does with the escrow.
func (s *spend) identify(r *record, raw []byte) error {
	t, err := readTx(raw)
	if err != nil {
		return err
	}
	what, _ := escrow.Identify(&r.terms, r.outpoint(), t)
	s.kind, s.amount = what.Kind, what.Amount
	if witness := t.TxIn[what.Input].Witness; s.kind == protocol.TxSettlement && len(witness) == 3 {
		s.state = witness[1]
	}
	return nil
}
