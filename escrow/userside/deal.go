package userside

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/go-json-experiment/json"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// deal is what a contract's backup document says.
func deal(r *Record) (*escrow.Backup, error) {
	if r.Document == nil {
		return nil, fmt.Errorf("contract %s: the relay has not answered yet: there is nothing to sign or to spend", r.ID.Short())
	}
	b, err := escrow.ParseBackup(r.Document)
	if err != nil {
		return nil, fmt.Errorf("contract %s: %w", r.ID.Short(), err)
	}
	return b, nil
}

// Terms gives the contract and where its escrow is; false before the relay's answer was checked.
func (r *Record) Terms() (*escrow.Contract, wire.OutPoint, bool) {
	b, err := deal(r)
	if err != nil {
		return nil, wire.OutPoint{}, false
	}
	return &b.Contract, b.Funding, true
}

// asked is the request that opens a contract, as it is asked each time.
func asked(r *Record) (*protocol.ContractOpen, error) {
	var open protocol.ContractOpen
	if err := json.Unmarshal(r.Request, &open); err != nil {
		return nil, fmt.Errorf("contract %s: the stored request: %w", r.ID.Short(), err)
	}
	return &open, nil
}

// answered is the relay's answer to it, nil before there is one.
func answered(r *Record) (*protocol.ContractServerInputs, error) {
	if r.Answer == nil {
		return nil, nil
	}
	e, err := protocol.ParseEnvelope(r.Answer)
	if err != nil {
		return nil, fmt.Errorf("contract %s: the stored answer: %w", r.ID.Short(), err)
	}
	var answer protocol.ContractServerInputs
	if err := e.Decode(&answer); err != nil {
		return nil, fmt.Errorf("contract %s: the stored answer: %w", r.ID.Short(), err)
	}
	return &answer, nil
}

// funding is the funding transaction of a contract whose relay has answered: both parts, and the old escrow.
func (m *Manager) funding(ctx context.Context, r *Record) (*escrow.Funding, error) {
	b, err := deal(r)
	if err != nil {
		return nil, err
	}
	answer, err := answered(r)
	if err != nil {
		return nil, err
	}
	return m.readFunding(ctx, r, &b.Contract, answer)
}

// readFunding checks the whole funding in a relay's answer against what was asked for.
func (m *Manager) readFunding(ctx context.Context, r *Record, c *escrow.Contract, answer *protocol.ContractServerInputs) (*escrow.Funding, error) {
	open, err := asked(r)
	if err != nil {
		return nil, err
	}
	part, err := escrow.ParseOffer(open.PSBT)
	if err != nil {
		return nil, err
	}
	renewal, err := m.renewal(ctx, open, answer.RenewsAmount)
	if err != nil {
		return nil, err
	}
	return escrow.VerifyFunding(answer.PSBT, c, escrow.Feerate(open.Feerate), part, renewal)
}

// renewal is the old escrow that a funding spends at an amount that we signed; nil for a first contract.
func (m *Manager) renewal(ctx context.Context, open *protocol.ContractOpen, amount *btcutil.Amount) (*escrow.Renewal, error) {
	if open.Renews == nil {
		return nil, nil
	}
	old, err := m.Store.Contract(ctx, *open.Renews)
	if err != nil {
		return nil, err
	}
	b, err := deal(old)
	if err != nil {
		return nil, err
	}
	if amount == nil || !slices.ContainsFunc(old.Payments, func(p Payment) bool { return p.Amount == *amount }) {
		return nil, protocol.Errorf(protocol.CodeWrongAmount, "the renewed contract is to pay an amount that was never signed")
	}
	return &escrow.Renewal{Contract: &b.Contract, Funding: b.Funding, Amount: *amount}, nil
}

// serialize is a transaction as it is stored and broadcast (BIP144).
func serialize(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	_ = tx.Serialize(&b) // a bytes.Buffer takes everything
	return b.Bytes()
}
