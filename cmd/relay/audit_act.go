package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/client"
	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// policy is what the flags say; [payStored] is for each contract to say.
func (o auditOptions) policy() (ledger.Policy, error) {
	limit, err := parseSatoshi(o.limit)
	if err != nil {
		return ledger.Policy{}, exitError{exitUsage, fmt.Errorf("--limit: %w", err)}
	}
	policy := ledger.Policy{Mode: ledger.Mode(o.pay), Limit: limit}
	if o.pay == payStored {
		return ledger.Policy{Mode: ledger.PayNever}, nil
	}
	if err := policy.Validate(); err != nil {
		return policy, exitError{exitUsage, err}
	}
	return policy, nil
}

// errNoPolicy: nothing is stored that says how to pay.
var errNoPolicy = errors.New("you stored no policy of payment: relay contract policy --help")

// policyOf is the policy for a contract, and whether it is to be closed when its relay stands by what is disputed.
func (o auditOptions) policyOf(ctx context.Context, c *client.Client, r *userside.Record) (ledger.Policy, bool, error) {
	if o.pay != payStored {
		policy, err := o.policy()
		policy.Cushion = r.Cushion
		return policy, o.closes, err
	}
	stored, err := c.PaymentPolicy(ctx, r.ID)
	if err == nil && stored == nil {
		err = errNoPolicy
	}
	if err != nil {
		return ledger.Policy{}, false, err
	}
	return policyFrom(stored, r), o.closes || stored.Closes, nil
}

// policyFrom is a stored policy for a contract.
func policyFrom(stored *client.PaymentPolicy, r *userside.Record) ledger.Policy {
	policy := ledger.Policy{Mode: stored.Mode, Limit: stored.Limit, Daily: stored.Daily, Cushion: r.Cushion}
	if stored.Cushion != nil {
		policy.Cushion = *stored.Cushion
	}
	return policy
}

// paying is where the payments of a contract stand.
func paying(r *userside.Record, now time.Time) ledger.Paying {
	terms, _, _ := r.Terms()
	last, _ := r.Last()
	at := ledger.Paying{Opening: terms.OpeningPrice, Paid: last.Amount, Today: r.PaidSince(protocol.TimestampOf(now.Add(-24 * time.Hour))),
		Most: terms.Deposit - escrow.MinUserRest, Accepted: r.Accepted}
	if s, err := r.Status(); err == nil && s != nil && s.Due != nil {
		at.Due = s.Due.Amount
	}
	return at
}

// actions say what may be done because of an audit.
type actions struct {
	pays    bool
	dispute bool // tell the relay which lines are refused
	all     bool // also those that this folder only does not know
	closes  bool // end a contract whose relay stands by them
	yes     bool // do not ask
	quiet   bool // nobody is there to be asked
}

// actOn does what an audit asks for, as the flags and the stored policy say.
func (p *program) actOn(ctx context.Context, c *client.Client, m *money, r *userside.Record, a *auditedContract, o auditOptions) error {
	policy, closes, err := o.policyOf(ctx, c, r)
	if err != nil {
		return err
	}
	return p.actAs(ctx, c, m, r, a, policy, actions{pays: m != nil && policy.Mode != ledger.PayNever, dispute: o.dispute,
		all: o.dispute && o.insists, closes: closes && m != nil, yes: o.yes})
}

// actAs pays what was accepted, tells the relay what was not, and ends the contract if that is wished. The error is of this
// side; what relays say is in a. Without money m is nil.
func (p *program) actAs(ctx context.Context, c *client.Client, m *money, r *userside.Record, a *auditedContract, policy ledger.Policy, may actions) error {
	// A relay whose report cannot be true is told nothing and paid nothing.
	if a.audit.Fault == nil {
		if may.pays {
			if err := p.payAudited(ctx, m, r, a, policy, may); err != nil {
				return err
			}
		}
		if may.dispute {
			name := c.NameRefused
			if may.all {
				name = c.NameAllRefused
			}
			if a.told, a.untold = name(ctx, metered(r)); ctx.Err() != nil {
				return ctx.Err()
			}
			if may.all && a.untold == nil {
				a.audit.Untold = 0
			}
		}
	}
	if may.closes && a.stands() {
		a.closing, a.unclosed = closeDisputed(ctx, m, r.ID)
	}
	return nil
}

// stands tells whether the relay stands by what is disputed and does not end the contract either.
func (a *auditedContract) stands() bool {
	switch {
	case a.audit.Fault != nil:
		return true
	case a.audit.Bill.Disputed == 0 || a.audit.Ended || a.told == nil && a.untold == nil:
		return false
	case a.untold != nil:
		return refusesToHear(a.untold)
	case a.told.Lines > 0:
		return a.told.Outcome != protocol.RefusalDropped && a.told.Outcome != protocol.RefusalClosed
	}
	// It was told before. What it promised is on the bill with the next lines that it posts.
	return a.audit.Named > a.audit.Promised || a.audit.Named > 0 && a.audit.New > 0
}

// refusesToHear tells whether a relay that could not be told which lines are refused does not want to be told. One that cannot be reached,
// is busy, or says that the contract is past this, does not stand by them.
func refusesToHear(err error) bool {
	var refusal *client.RelayError
	if !errors.As(err, &refusal) || refusal.Temporary() {
		return false
	}
	switch refusal.Code {
	case "":
		return errors.Is(err, client.ErrTampered)
	case protocol.CodeContractState, protocol.CodeContractEnded, protocol.CodeStale, protocol.CodeFuture:
		return false
	}
	return true
}

// closeDisputed asks for the end of a contract at what was accepted, or paid if that is more.
func closeDisputed(ctx context.Context, m *money, id protocol.ContractID) (bool, error) {
	r, err := m.store.Contract(ctx, id)
	if err != nil {
		return false, err
	}
	terms, _, ok := r.Terms()
	if !ok || r.Confirmed(protocol.TxFunding) == nil || !escrow.TakesPayments(r.State) {
		return false, fmt.Errorf("contract %s is %s", id.Short(), stateText(r))
	}
	last, _ := r.Last()
	amount := min(max(last.Amount, terms.OpeningPrice+ledger.Sat(r.Accepted)), terms.Deposit-escrow.MinUserRest)
	_, err = m.manager.Close(ctx, id, amount, 0)
	return err == nil, err
}

// payAudited accepts what an audit found right, and pays as the policy says.
func (p *program) payAudited(ctx context.Context, m *money, r *userside.Record, a *auditedContract, policy ledger.Policy, may actions) error {
	if policy.Cushion != r.Cushion {
		if _, err := m.manager.SetCushion(ctx, r.ID, policy.Cushion); err != nil {
			return err
		}
	}
	r, err := m.manager.Accept(ctx, r.ID, a.audit.Bill.Accepted)
	if err != nil {
		return err
	}
	at := paying(r, time.Now())
	a.decision, a.before = policy.Decide(at), at.Paid
	pay := a.decision.Pay
	if a.decision.Ask > 0 && !may.quiet {
		if pay, err = p.askToPay(r, a, at.Paid, policy, may.yes); err != nil {
			return err
		}
	}
	if pay == 0 {
		return nil
	}
	if _, err := m.manager.Pay(ctx, r.ID, pay); err != nil {
		return err
	}
	a.paid = pay - at.Paid
	return nil
}

// askToPay asks whether to pay what is not paid without asking, and says what to raise A to.
func (p *program) askToPay(r *userside.Record, a *auditedContract, paid btcutil.Amount, policy ledger.Policy, yes bool) (btcutil.Amount, error) {
	question := fmt.Sprintf("Pay %s more for contract %s, of whose usage %s are accepted?", sat(a.decision.Ask-paid), r.ID.Short(), msat(int64(r.Accepted)))
	err := p.confirm(yes && policy.Mode == ledger.PayAsk, question)
	var said exitError
	switch {
	case err == nil:
		return a.decision.Ask, nil
	case policy.Mode == ledger.PayAuto || errors.As(err, &said) && said.code == exitFailed:
		return a.decision.Pay, nil // not agreed, or nobody there to ask: what needs no question is paid
	}
	return 0, err
}
