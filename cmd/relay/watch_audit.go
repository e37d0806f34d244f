package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// auditEvery is how often a contract with a policy of payment is audited while nobody asks for money.
const auditEvery = 6 * time.Hour

// triedEvery is how many looks at the chain lie between two audits of a contract at least.
const triedEvery = 4

// watcher audits contracts now and then, as their policies say.
type watcher struct {
	p *program
	m *money

	tried map[protocol.ContractID]time.Time
	said  map[protocol.ContractID]string // the last that was said about each, so that it is said once
}

func (p *program) watcher(m *money) *watcher {
	return &watcher{p: p, m: m, tried: map[protocol.ContractID]time.Time{}, said: map[protocol.ContractID]string{}}
}

// audit audits the contracts whose turn it is. A relay that cannot be asked holds up no other.
func (w *watcher) audit(ctx context.Context) error {
	records, err := w.m.store.Contracts(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for i := range records {
		r := &records[i]
		if _, _, ok := r.Terms(); !ok || !escrow.TakesPayments(r.State) || r.Address == "" || r.Network != w.m.settings.Network {
			continue
		}
		if err := w.auditOne(ctx, r); err != nil {
			failures = append(failures, fmt.Errorf("contract %s: %w", r.ID.Short(), err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(failures...)
}

func (w *watcher) auditOne(ctx context.Context, r *userside.Record) error {
	stored, err := w.m.client.PaymentPolicy(ctx, r.ID)
	if err != nil || stored == nil || stored.Mode == ledger.PayNever {
		return err
	}
	if due, err := w.due(ctx, r); err != nil || !due {
		return err
	}
	if time.Since(w.tried[r.ID]) < triedEvery*w.m.manager.Poll { // a relay that cannot be asked is not asked at every look
		return nil
	}
	w.tried[r.ID] = time.Now()
	a, err := w.p.auditOne(ctx, w.m.client, r, false)
	if err != nil {
		return err
	}
	policy := policyFrom(stored, r)
	asks := policy.Mode == ledger.PayAsk
	if asks {
		policy.Mode = ledger.PayNever // nobody is asked here: it is said what there is to pay
		if r, err = w.m.manager.Accept(ctx, r.ID, a.audit.Bill.Accepted); err != nil {
			return err
		}
	}
	if err := w.p.actAs(ctx, w.m.client, w.m, r, a, policy, actions{pays: !asks, dispute: true, closes: stored.Closes, quiet: true}); err != nil {
		return err
	}
	if asks {
		policy.Mode = ledger.PayAsk
		at := paying(r, time.Now())
		a.decision, a.before = policy.Decide(at), at.Paid
	}
	w.tell(r.ID, a)
	return nil
}

// due tells whether it is time to audit a contract: it is long ago, or the relay asks to be paid.
func (w *watcher) due(ctx context.Context, r *userside.Record) (bool, error) {
	last, err := w.m.client.LastAudit(ctx, r.ID)
	if err != nil {
		return false, err
	}
	since := time.Since(last.Time())
	s, err := r.Status()
	if err != nil {
		return false, err
	}
	paid, _ := r.Last()
	asked := s != nil && s.Due != nil && s.Due.Amount > paid.Amount
	return since >= auditEvery || asked && since >= 2*w.m.manager.Poll, nil
}

// tell says what an audit found and did, if that is news.
func (w *watcher) tell(id protocol.ContractID, a *auditedContract) {
	b := a.audit.Bill
	var parts []string
	if a.audit.Fault != nil {
		parts = append(parts, fmt.Sprintf("its report cannot be true: %v", a.audit.Fault))
	}
	if b.Disputed > 0 {
		parts = append(parts, fmt.Sprintf("%s are disputed: relay audit %s --offline --refused", msat(int64(b.Disputed)), id.Short()))
	}
	for _, note := range a.disputeNotes() {
		parts = append(parts, strings.TrimSuffix(note, "."))
	}
	if a.decision.Ask > 0 {
		parts = append(parts, fmt.Sprintf("%s more are to be paid for what was accepted: relay audit %s --pay ask", sat(a.decision.Ask-a.before-a.paid), id.Short()))
	}
	text := strings.Join(parts, ". ")
	said := w.said[id]
	w.said[id] = text
	if a.paid == 0 && (text == "" || text == said) || w.p.json {
		return
	}
	head := fmt.Sprintf("Contract %s: audited %d lines, %s are accepted", id.Short(), a.audit.Lines, msat(int64(b.Accepted)))
	if a.paid > 0 {
		head += ", paid " + sat(a.paid)
	}
	if text != "" {
		head += ". " + text
	}
	w.p.complain("%s.\n", escape(head))
}
