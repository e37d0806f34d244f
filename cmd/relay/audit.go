package main

import (
	"context"
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
	record  string
	line    int64
	refused bool
	after   int64
	most    int
	pay     string
	limit   string
	dispute bool
	insists bool // --dispute was typed
	closes  bool
	yes     bool
}

// payStored is the word for the stored policy.
const payStored = "policy"

func (p *program) auditCommand() *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use: "audit [CONTRACT]", Short: "Check the bills of your contracts, line by line", Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeContract,
		Long: `Takes each relay's signed report on what you used, and checks every line of it: against what this device wrote, against the
signatures of those who read it, and against the lines before. What you then see is

  accepted   used and proven, storage until now included
  waiting    reserved, or read and not signed for yet, or written by another writer of the contract, or with your keys in
             another folder or before you restored them, and not known here yet: it will be used, or comes back
  disputed   refused, with the reasons: nothing of it is paid

The relay is told which lines are refused. It drops them from the bill, or ends the contract with what it was paid. With
--close-on-dispute a contract whose relay does neither is ended from this side. What audits found is kept: relay relays.

Lines of which this folder only does not know what was written wait for three days, and are then refused: not paid. They may be right,
if you restored your keys or use them in two folders, so the relay is told of them only if you type --dispute.

With --pay auto what was accepted is paid, up to --limit satoshi for the whole contract and with its cushion ahead
(relay contract pay --cushion); with --pay ask you are asked first; with --pay policy it is done as you stored it
(relay contract policy).

--friend, --record, --line and --refused show the parts, --limit-lines of them at a time from --after on; --csv shows all.`,
		Example: "  relay audit\n  relay audit 1a2b --friend anna\n  relay audit 1a2b --refused --after 4711\n  relay audit 1a2b --dispute\n  relay audit --pay auto --limit 5000\n  relay audit --pay policy\n  relay audit 1a2b --csv > bill.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.insists = cmd.Flags().Changed("dispute")
			return p.audit(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.offline, "offline", false, "show what was audited before; asks no relay and no passphrase")
	f.BoolVar(&o.csv, "csv", false, "print every record and every refused line as CSV")
	f.StringVar(&o.friend, "friend", "", "show the records for one friend")
	f.StringVar(&o.record, "record", "", "show what the bill says of one record: its id, or the end of it")
	f.Int64Var(&o.line, "line", 0, "show the record that this line of the bill is about")
	f.BoolVar(&o.refused, "refused", false, "show the refused lines")
	f.Int64Var(&o.after, "after", 0, "show only what comes after this line of the bill")
	f.IntVar(&o.most, "limit-lines", 100, "how many records or lines to show; 0 is all")
	f.StringVar(&o.pay, "pay", string(ledger.PayNever), "pay what was accepted: auto, ask, never, or policy for what you stored")
	f.StringVar(&o.limit, "limit", "0", "satoshi that --pay auto may pay for a contract, beyond its opening price, without asking")
	f.BoolVar(&o.dispute, "dispute", true, "tell the relay which lines are refused; typed out, also those that this folder only does not know")
	f.BoolVar(&o.closes, "close-on-dispute", false, "end a contract whose relay neither drops refused lines nor ends it")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("csv", "friend", "record", "line", "refused", "pay")
	cmd.MarkFlagsMutuallyExclusive("offline", "pay")
	cmd.MarkFlagsMutuallyExclusive("offline", "close-on-dispute")
	completeWords(cmd, "pay", string(ledger.PayAuto), string(ledger.PayAsk), string(ledger.PayNever), payStored)
	err := cmd.RegisterFlagCompletionFunc("friend", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return p.completeFriend(cmd, nil, typed)
	})
	if err != nil {
		panic(err) // the flag is not there
	}
	return cmd
}

func (p *program) audit(ctx context.Context, args []string, o auditOptions) error {
	if _, err := o.policy(); err != nil {
		return err
	}
	if o.line != 0 && len(args) == 0 {
		return usagef("--line is a line of one contract's bill: name the contract")
	}
	if o.pay != string(ledger.PayNever) || o.closes {
		return p.withMoney(ctx, func(m *money) error { return p.auditAll(ctx, m.client, m.store, m, args, o) })
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
	return p.auditAll(ctx, c, store, nil, args, o)
}

// auditAll audits the contracts in question, one after the other. A relay that cannot be asked holds up no other.
func (p *program) auditAll(ctx context.Context, c *client.Client, store *userside.Store, m *money, args []string, o auditOptions) error {
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
			p.complain("relay: %s\n", escape(err.Error()))
		} else if !o.offline {
			if err := p.actOn(ctx, c, m, &records[i], a, o); err != nil {
				return err
			}
		}
		if err != nil || a.audit.Fault != nil {
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

// auditedContract is an audit and what was done because of it.
type auditedContract struct {
	audit    *client.Audit
	address  string
	decision ledger.Decision
	before   btcutil.Amount  // A
	paid     btcutil.Amount  // by which it was raised
	told     *client.Refused // what the relay said to refused lines; nil: it was not told
	untold   error           // why it could not be told
	closing  bool            // the contract is ended from this side
	unclosed error           // why it could not be
}

// metered is a contract as the audit wants it.
func metered(r *userside.Record) client.Metered {
	terms, _, _ := r.Terms()
	return client.Metered{Contract: r.ID, Relay: r.Relay, Address: r.Address, Writers: terms.Writers, Prices: ledger.Prices{
		Storage: protocol.Msat(terms.Prices.StorageMsatPerGBDay), Bandwidth: protocol.Msat(terms.Prices.BandwidthMsatPerGB)}}
}

// auditOne audits one contract. The error is a relay that could not be asked, and the audit then what was found before; without an audit,
// this side failed.
func (p *program) auditOne(ctx context.Context, c *client.Client, r *userside.Record, offline bool) (*auditedContract, error) {
	ask := c.Audit
	if offline {
		ask = c.Audited
	}
	done := p.busy("checking the bill of contract " + r.ID.Short())
	audit, err := ask(ctx, metered(r))
	done()
	if audit == nil {
		return nil, err
	}
	return &auditedContract{audit: audit, address: relayName(r)}, err
}
