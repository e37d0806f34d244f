package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/escrow/relayside"
	"relaymarket/internal/relaynode"
	"relaymarket/protocol"
)

func (p program) contractsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "contracts",
		Short: "List the relay's contracts, look into one, settle it, export it",
		Long: `contracts reads the relay's database, whether the relay runs or not. What it asks for, a
settlement or a payment request, is done by the relay that keeps the wallet, as soon
as it runs.`,
	}
	cmd.AddCommand(p.contractsListCommand(), p.contractsShowCommand(), p.contractsSettleCommand(), p.contractsRequestCommand(), p.contractsExportCommand())
	return cmd
}

// contractsFlags are those of the database and of the node.
func (p program) contractsFlags(cmd *cobra.Command, s *settings) {
	names := []string{"dir", "database-url", "postgres-bin", "log-format", "log-level"}
	for _, item := range s.bitcoinNode() {
		names = append(names, item.name)
	}
	s.flags(cmd.Flags(), names...)
	s.quiet(cmd.Flags())
}

func (p program) withContracts(cmd *cobra.Command, s *settings, do func(context.Context, *relayside.Manager) error) error {
	if err := s.load(p.environ, cmd.Flags()); err != nil {
		return err
	}
	key, err := s.readKey()
	if err != nil {
		return err
	}
	if s.bitcoin.rpc == "" {
		return errNoNode
	}
	cfg, err := s.bitcoinConfig()
	if err != nil {
		return err
	}
	log := p.logger(s)
	return relaynode.WithContracts(cmd.Context(), s.databaseConfig(log), key, cfg, log, do)
}

func (p program) contractsListCommand() *cobra.Command {
	s := newSettings(p.environ)
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Example: "  relayd contracts list\n  relayd contracts list --all --json",
		Short:   "List contracts, newest first, and what they bring",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withContracts(cmd, s, func(ctx context.Context, m *relayside.Manager) error {
				list, err := m.Contracts(ctx, all)
				if err != nil {
					return err
				}
				if asJSON {
					lines := json.NewEncoder(p.out)
					for _, c := range list {
						if err := lines.Encode(c); err != nil {
							return err
						}
					}
					return nil
				}
				sum, err := m.Revenue(ctx)
				if err != nil {
					return err
				}
				return writeContracts(p.out, list, sum)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line, amounts in satoshi")
	p.contractsFlags(cmd, s)
	return cmd
}

func writeContracts(out io.Writer, list []relayside.Summary, sum relayside.Revenue) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "CONTRACT\tSTATE\tPAYER\tOPENED\tDEPOSIT\tPAID\tOWED\tEXPIRES AT\tNOW AT")
	for _, c := range list {
		st := c.Status
		state := string(st.State)
		if c.Settle {
			state += ", to be settled"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", st.Contract, state, c.Payer.Bech32(), dayOf(c.Opened),
			int64(st.Deposit), int64(st.Amount), int64(st.Owed), st.Expiry, st.Height)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d contracts, %d live. In blocks: %d sat. Paid and to be settled: %d sat. Used and not paid: %d sat. Bonds: %d sat.\n",
		sum.Contracts, sum.Live, int64(sum.Settled), int64(sum.Held), int64(sum.Unpaid), int64(sum.Bonds))
	return err
}

func dayOf(at protocol.Timestamp) string { return at.Time().UTC().Format(time.DateOnly) }

// contractArgument reads the id that every other command takes.
func contractArgument(text string) (id protocol.ContractID, err error) {
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return id, usagef("%q is no contract: write the 64 hex digits that relayd contracts list shows", text)
	}
	return id, nil
}

// onContract is a command on one contract.
func (p program) onContract(use, short, long string, do func(context.Context, *relayside.Manager, protocol.ContractID) error) *cobra.Command {
	s := newSettings(p.environ)
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Example: "  relayd contracts " + strings.Fields(use)[0] + " CONTRACT   # the id that relayd contracts list shows",
		Args:    oneArg("a contract"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := contractArgument(args[0])
			if err != nil {
				return err
			}
			return p.withContracts(cmd, s, func(ctx context.Context, m *relayside.Manager) error { return do(ctx, m, id) })
		},
	}
	p.contractsFlags(cmd, s)
	return cmd
}

func (p program) contractsShowCommand() *cobra.Command {
	return p.onContract("show CONTRACT", "Everything about one contract, as JSON", "",
		func(ctx context.Context, m *relayside.Manager, id protocol.ContractID) error {
			details, err := m.Show(ctx, id)
			if err != nil {
				return err
			}
			return p.writeIndented(details)
		})
}

func (p program) contractsSettleCommand() *cobra.Command {
	return p.onContract("settle CONTRACT", "End a contract now: broadcast the highest state that its user signed",
		`settle ends a contract, for good. The relay broadcasts the highest state that the user
signed, at its own fee, and takes no more writes under it; what was used and not paid is
lost. To give the user the chance to pay that first, use relayd contracts request.`,
		func(ctx context.Context, m *relayside.Manager, id protocol.ContractID) error {
			if err := m.Settle(ctx, id); err != nil {
				return err
			}
			_, err := fmt.Fprintf(p.out, "contract %s will be settled by the relay that keeps the wallet: relayd contracts show %s\n", id.Short(), id)
			return err
		})
}

func (p program) contractsRequestCommand() *cobra.Command {
	return p.onContract("request CONTRACT", "End a contract and ask its user for what is due",
		`request stops a contract and signs a transaction that pays the relay what is due and the
user the rest. The user's client signs and broadcasts it; if it does not, the relay
settles with what it holds after a day.`,
		func(ctx context.Context, m *relayside.Manager, id protocol.ContractID) error {
			if err := m.RequestPayment(ctx, id); err != nil {
				return err
			}
			_, err := fmt.Fprintf(p.out, "contract %s takes no more writes; its user is asked to pay what is due\n", id.Short())
			return err
		})
}

func (p program) contractsExportCommand() *cobra.Command {
	return p.onContract("export CONTRACT", "What the relay's money of one contract hangs on, as JSON",
		`export writes what is needed, beside the words of the wallet, to settle a contract
elsewhere: its script, its funding, and the highest state that the user signed.`,
		func(ctx context.Context, m *relayside.Manager, id protocol.ContractID) error {
			export, err := m.Export(ctx, id)
			if err != nil {
				return err
			}
			return p.writeIndented(export)
		})
}

func (p program) writeIndented(value any) error {
	out := json.NewEncoder(p.out)
	out.SetIndent("", "  ")
	return out.Encode(value)
}
