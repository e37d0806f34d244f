package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// auditOptions are the flags of relay audit.
type auditOptions struct {
	offline bool
	csv     bool
	friend  string
	refused bool
	pay     string
	limit   string
	yes     bool
}

func (p *program) auditCommand() *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use: "audit [CONTRACT]", Short: "Check the bills of your contracts, line by line", Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeContract,
		Long: `Takes each relay's signed report on what you used, and checks every line of it: against what this device wrote, against the
signatures of those who read it, and against the lines before. What you then see is

  accepted   used and proven, storage until now included
  waiting    reserved, or read and not signed for yet: it will be used, or comes back
  disputed   refused, with the reasons: nothing of it is paid

Records that another device or writer of yours wrote are not known here, and are disputed as unknown.

With --pay auto what was accepted is paid, up to --limit satoshi for the whole contract and with its cushion ahead
(relay contract pay --cushion); with --pay ask you are asked first.`,
		Example: "  relay audit\n  relay audit 1a2b --friend anna\n  relay audit 1a2b --refused\n  relay audit --pay auto --limit 5000",
		RunE:    func(cmd *cobra.Command, args []string) error { return p.audit(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.offline, "offline", false, "show what was audited before; asks no relay and no passphrase")
	f.BoolVar(&o.csv, "csv", false, "print every record and every refused line as CSV")
	f.StringVar(&o.friend, "friend", "", "show the records for one friend")
	f.BoolVar(&o.refused, "refused", false, "show the refused lines")
	f.StringVar(&o.pay, "pay", string(ledger.PayNever), "pay what was accepted: auto, ask or never")
	f.StringVar(&o.limit, "limit", "0", "satoshi that --pay auto may pay for a contract, beyond its opening price, without asking")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("csv", "friend", "refused", "pay")
	cmd.MarkFlagsMutuallyExclusive("offline", "pay")
	return cmd
}

func (p *program) audit(ctx context.Context, args []string, o auditOptions) error {
	policy, err := o.policy()
	if err != nil {
		return err
	}
	if policy.Mode != ledger.PayNever {
		return p.withMoney(ctx, func(m *money) error { return p.auditAll(ctx, m.client, m.store, m, args, o, policy) })
	}
	open := p.openKeys
	if o.offline {
		open = p.open
	}
	c, err := open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	store, err := p.contractStore(ctx, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	return p.auditAll(ctx, c, store, nil, args, o, policy)
}

func (o auditOptions) policy() (ledger.Policy, error) {
	limit, err := parseSatoshi(o.limit)
	if err != nil {
		return ledger.Policy{}, exitError{exitUsage, fmt.Errorf("--limit: %w", err)}
	}
	policy := ledger.Policy{Mode: ledger.Mode(o.pay), Limit: limit}
	if err := policy.Validate(); err != nil {
		return policy, exitError{exitUsage, err}
	}
	return policy, nil
}

// auditAll audits the contracts in question, one after the other. A relay that cannot be asked holds up no other.
func (p *program) auditAll(ctx context.Context, c *client.Client, store *userside.Store, m *money, args []string, o auditOptions, policy ledger.Policy) error {
	records, err := audited(ctx, store, args)
	if err != nil {
		return err
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	var shown []*auditedContract
	failed := 0
	for i := range records {
		a, err := p.auditOne(ctx, c, &records[i], o.offline)
		if a == nil {
			return err
		}
		if err != nil {
			failed++
			p.complain("relay: %s\n", escape(err.Error()))
		} else if m != nil && a.audit.Fault == nil {
			if err := p.payAudited(ctx, m, &records[i], a, policy, o.yes); err != nil {
				return err
			}
		}
		if a.audit.Fault != nil {
			failed++
		}
		shown = append(shown, a)
	}
	if err := p.showAudits(ctx, c, shown, names, o); err != nil {
		return err
	}
	switch failed {
	case 0:
		return nil
	case len(records):
		return exitError{code: exitFailed}
	}
	return exitError{code: exitPartial}
}

// audited are the contracts to audit: the one that is named, or all that have a bill.
func audited(ctx context.Context, store *userside.Store, args []string) ([]userside.Record, error) {
	if len(args) == 1 {
		r, err := findContract(ctx, store, args[0])
		if err != nil {
			return nil, err
		}
		if _, _, ok := r.Terms(); !ok {
			return nil, fmt.Errorf("contract %s is not open yet", r.ID.Short())
		}
		return []userside.Record{*r}, nil
	}
	all, err := store.Contracts(ctx)
	if err != nil {
		return nil, err
	}
	var open []userside.Record
	for _, r := range all {
		if _, _, ok := r.Terms(); ok && escrow.TakesPayments(r.State) {
			open = append(open, r)
		}
	}
	return open, nil
}

// auditedContract is an audit and what was paid because of it.
type auditedContract struct {
	audit    *client.Audit
	address  string
	decision ledger.Decision
	paid     btcutil.Amount // A raised by
}

// auditOne audits one contract. The error is a relay that could not be asked, and the audit then what was found before; without an audit,
// this side failed.
func (p *program) auditOne(ctx context.Context, c *client.Client, r *userside.Record, offline bool) (*auditedContract, error) {
	terms, _, _ := r.Terms()
	metered := client.Metered{Contract: r.ID, Relay: r.Relay, Address: r.Address, Prices: ledger.Prices{
		Storage: protocol.Msat(terms.Prices.StorageMsatPerGBDay), Bandwidth: protocol.Msat(terms.Prices.BandwidthMsatPerGB)}}
	ask := c.Audit
	if offline {
		ask = c.Audited
	}
	done := p.busy("checking the bill of contract " + r.ID.Short())
	audit, err := ask(ctx, metered)
	done()
	if audit == nil {
		return nil, err
	}
	return &auditedContract{audit: audit, address: relayName(r)}, err
}

// payAudited accepts what an audit found right, and pays as the policy says.
func (p *program) payAudited(ctx context.Context, m *money, r *userside.Record, a *auditedContract, policy ledger.Policy, yes bool) error {
	r, err := m.manager.Accept(ctx, r.ID, a.audit.Bill.Accepted)
	if err != nil {
		return err
	}
	terms, _, _ := r.Terms()
	last, _ := r.Last()
	policy.Cushion = r.Cushion
	at := ledger.Paying{Opening: terms.OpeningPrice, Paid: last.Amount, Most: terms.Deposit - escrow.MinUserRest, Accepted: r.Accepted}
	if s, err := r.Status(); err == nil && s != nil && s.Due != nil {
		at.Due = s.Due.Amount
	}
	a.decision = policy.Decide(at)
	pay := a.decision.Pay
	if a.decision.Ask > 0 {
		question := fmt.Sprintf("Pay %s more for contract %s, of whose usage %s are accepted?", sat(a.decision.Ask-last.Amount), r.ID.Short(), msat(int64(r.Accepted)))
		err := p.confirm(yes && policy.Mode == ledger.PayAsk, question)
		var said exitError
		switch {
		case err == nil:
			pay = a.decision.Ask
		case policy.Mode == ledger.PayAuto || errors.As(err, &said) && said.code == exitFailed:
			// Not agreed, or nobody there to ask: what needs no question is paid.
		default:
			return err
		}
	}
	if pay == 0 {
		return nil
	}
	if _, err := m.manager.Pay(ctx, r.ID, pay); err != nil {
		return err
	}
	a.paid = pay - last.Amount
	return nil
}
