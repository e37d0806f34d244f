package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

func (p *program) contractListCommand() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your contracts", Args: cobra.NoArgs,
		Example: "  relay contract list\n  relay contract list --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.listContracts(cmd.Context(), all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "list also what is long over, or came to nothing")
	return cmd
}

func (p *program) listContracts(ctx context.Context, all bool) error {
	store, err := p.contractStore(ctx, nil)
	var records []userside.Record
	if err == nil {
		defer store.Close()
		records, err = store.Contracts(ctx)
	}
	if err != nil && !errors.Is(err, userside.ErrNone) {
		return err
	}
	items := []contractItem{}
	rows := [][]string{{"CONTRACT", "RELAY", "STATE", "DEPOSIT", "PAID", "OWED", "UNTIL BLOCK"}}
	for i := range records {
		r := &records[i]
		if !all && (r.State == protocol.StateArchived || r.Step == userside.StepOver) {
			continue
		}
		item := contractJSON(r)
		items = append(items, item)
		owed := "?"
		if item.Owed != nil {
			owed = fmt.Sprint(*item.Owed)
		}
		paid := fmt.Sprint(item.Paid)
		if r.State == escrow.Abandoned {
			paid, owed = "-", "-"
		}
		rows = append(rows, []string{r.ID.Short(), escape(relayName(r)), stateText(r), fmt.Sprint(item.Deposit), paid, owed, fmt.Sprint(item.Expiry)})
	}
	if p.json {
		return p.printJSON(map[string]any{"contracts": items})
	}
	if len(items) == 0 {
		return p.say("You have no contract. Open one: relay contract open ADDRESS --deposit SATOSHI\n")
	}
	return p.table(rows)
}

// relayName is the relay's address, or its key if that is all that a backup told.
func relayName(r *userside.Record) string {
	if r.Address == "" {
		return r.Relay.Short()
	}
	return r.Address
}

func (p *program) contractShowCommand() *cobra.Command {
	offline := false
	cmd := &cobra.Command{
		Use: "show CONTRACT", Short: "Show a contract, its transactions, and what was done", Args: oneArg("a contract"), ValidArgsFunction: p.completeContract,
		Example: "  relay contract show 95426a9d\n  relay contract show 95426a9d --offline",
		RunE:    func(cmd *cobra.Command, args []string) error { return p.showContract(cmd.Context(), args[0], offline) },
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "show only what is here already; needs no passphrase")
	return cmd
}

func (p *program) showContract(ctx context.Context, typed string, offline bool) error {
	if offline {
		store, err := p.contractStore(ctx, nil)
		if err != nil {
			return err
		}
		defer store.Close()
		r, err := findContract(ctx, store, typed)
		if err != nil {
			return err
		}
		return p.showRecord(ctx, store, r)
	}
	return p.onContract(ctx, typed, false, func(m *money, r *userside.Record) (err error) {
		if err := m.manager.Step(ctx); err != nil {
			p.complain("relay: %s\n", escape(err.Error()))
		}
		if r.Step == userside.StepTaken || r.Step == userside.StepRestored {
			if _, err := m.manager.Refresh(ctx, r.ID); err != nil {
				p.complain("relay: %s\n", escape(err.Error()))
			}
		}
		if r, err = m.store.Contract(ctx, r.ID); err != nil {
			return err
		}
		return p.showRecord(ctx, m.store, r)
	})
}

func (p *program) showRecord(ctx context.Context, store *userside.Store, r *userside.Record) error {
	notes, err := store.Journal(ctx, r.ID)
	if err != nil {
		return err
	}
	item := contractJSON(r)
	for _, n := range notes {
		item.Journal = append(item.Journal, journalLine{At: stamp(n.At), Text: n.Text})
	}
	if p.json {
		return p.printJSON(item)
	}
	rows := [][]string{{"Contract:", item.ID}, {"Relay:", escape(relayName(r)) + "  " + r.Relay.Bech32()}, {"State:", stateText(r)}}
	if item.Fault != nil {
		rows = append(rows, []string{"Why:", escape(*item.Fault)})
	}
	if item.Deposit > 0 {
		rows = append(rows, []string{"Deposit:", fmt.Sprintf("%d sat until block %d; the relay takes writes until block %d", item.Deposit, item.Expiry, item.LastUsage)},
			[]string{"Paid:", fmt.Sprintf("%d sat (%d opening price); payments may go up to %d", item.Paid, item.OpeningPrice, item.Allowance)})
	}
	if item.Owed != nil {
		rows = append(rows, []string{"Owed:", fmt.Sprintf("%d sat, as the relay counts", *item.Owed)})
	}
	for _, t := range item.Transactions {
		place := "in no block yet"
		if t.Height != nil {
			place = fmt.Sprintf("in block %d", *t.Height)
		}
		rows = append(rows, []string{t.Kind + ":", t.TxID + ", " + place})
	}
	if item.Descriptor != "" {
		rows = append(rows, []string{"Escrow:", item.Descriptor})
	}
	if err := p.headless(rows); err != nil {
		return err
	}
	for _, n := range notes {
		if err := p.say("%s  %s\n", when(n.At), escape(n.Text)); err != nil {
			return err
		}
	}
	return nil
}

// headless prints rows of cells and an empty line.
func (p *program) headless(rows [][]string) error {
	if err := p.table(rows); err != nil {
		return err
	}
	return p.say("\n")
}

// tell shows on standard error what was done about contracts and not told yet. With --json the journal of contract show has it.
func (p *program) tell(ctx context.Context, store *userside.Store) {
	if p.json || p.unseen {
		return
	}
	notes, err := store.Untold(context.WithoutCancel(ctx))
	if err != nil {
		p.complain("relay: %s\n", escape(err.Error()))
	}
	for _, n := range notes {
		p.complain("Contract %s: %s\n", n.Contract.Short(), escape(n.Text))
	}
}

func (p *program) completeContract(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(*client.Client) (ids []string, err error) {
		store, err := p.contractStore(cmd.Context(), nil)
		if err != nil {
			return nil, err
		}
		defer store.Close()
		records, err := store.Contracts(cmd.Context())
		for i := range records {
			ids = append(ids, records[i].ID.Short()+"\t"+relayName(&records[i])+", "+stateText(&records[i]))
		}
		return ids, err
	})
}
