package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

func (p program) accountsCommand() *cobra.Command {
	s := newSettings(p.environ)
	var all, disputed, asJSON bool
	var payer string
	cmd := &cobra.Command{
		Use:   "accounts [CONTRACT]",
		Short: "Who owes what under contracts, what was paid, what is disputed",
		Long: `accounts shows what contracts owe, who owes most first, in satoshi:

  BILLED       used, and reserved for what is stored, since the contract began
  PAID         by the states that its user signed, beyond the opening price
  WRITTEN OFF  refused by the user and dropped, or never paid before the contract ended
  CARRIED ON   to the contract that renewed it
  OWED         the rest; below 0 it is paid ahead
  CREDIT LEFT  what may be used before it has to be paid
  DISPUTED     refused and not dropped; it is part of what is owed

Every column is kept in double entry, by a rule of the database: what is billed is paid,
written off, carried on or owed. With CONTRACT it shows that one alone. See also relayd
refusals and relayd revenue. It works while relayd serves and while it does not.`,
		Example: "  relayd accounts\n  relayd accounts --disputed\n  relayd accounts --payer relay1… --all --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := accountsFilter(args, payer)
			if err != nil {
				return err
			}
			filter.All, filter.Disputed = all || filter.Contract != nil, disputed
			return p.withBooks(cmd, s, func(ctx context.Context, b *books.Store) error {
				if err := b.Post(ctx); err != nil { // what a relay that was stopped left
					return err
				}
				list, err := b.Statements(ctx, filter)
				if err != nil {
					return err
				}
				if asJSON {
					return writeStatementsJSON(p.out, list)
				}
				return writeStatements(p.out, list)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also contracts that are over and settled up")
	cmd.Flags().BoolVar(&disputed, "disputed", false, "only those of which something is disputed")
	cmd.Flags().StringVar(&payer, "payer", "", "only contracts of this key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line, amounts in msat")
	p.booksFlags(cmd, s)
	return cmd
}

func accountsFilter(args []string, payer string) (f books.Filter, err error) {
	if len(args) == 1 {
		id, err := contractArgument(args[0])
		if err != nil {
			return f, err
		}
		f.Contract = &id
	}
	if payer != "" {
		key, err := protocol.ParsePublicKey(payer)
		if err != nil {
			return f, usagef("%q is no key, write relay1… or 64 hex digits: %w", payer, err)
		}
		f.Payer = &key
	}
	return f, nil
}

// sats writes an amount of msat in satoshi, to the msat.
func sats(m protocol.Msat) string {
	sign := ""
	if m < 0 {
		sign, m = "-", -m
	}
	if m%1000 == 0 {
		return fmt.Sprintf("%s%d", sign, int64(m/1000))
	}
	return fmt.Sprintf("%s%d.%03d", sign, int64(m/1000), int64(m%1000))
}

func writeStatements(out io.Writer, list []books.Statement) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no such contract: relayd accounts --all shows those that are over, too")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "CONTRACT\tPAYER\tBILLED\tPAID\tWRITTEN OFF\tCARRIED ON\tOWED\tCREDIT LEFT\tDISPUTED")
	for i := range list {
		s := &list[i]
		left := "ended"
		if s.CreditLeft != nil {
			left = sats(*s.CreditLeft)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Contract, s.Payer.Bech32(), sats(s.Billed), sats(s.Paid),
			sats(s.WrittenOff), sats(s.CarriedOn), sats(s.Owed), left, sats(s.Disputed))
	}
	return table.Flush()
}

// statementJSON is a statement for programs: msat as integers, which may be below 0.
type statementJSON struct {
	Contract   protocol.ContractID `json:"contract"`
	Payer      protocol.PublicKey  `json:"payer"`
	Closed     bool                `json:"closed"`
	Billed     int64               `json:"billedMsat"`
	Reserved   int64               `json:"reservedMsat"`
	Paid       int64               `json:"paidMsat"`
	WrittenOff int64               `json:"writtenOffMsat"`
	CarriedOn  int64               `json:"carriedOnMsat"`
	Owed       int64               `json:"owedMsat"`
	Disputed   int64               `json:"disputedMsat"`
	CreditLeft *int64              `json:"creditLeftMsat,omitempty"`
}

func writeStatementsJSON(out io.Writer, list []books.Statement) error {
	lines := json.NewEncoder(out)
	for i := range list {
		s := &list[i]
		if err := lines.Encode(statementJSON{s.Contract, s.Payer, s.Closed, int64(s.Billed), int64(s.Reserved), int64(s.Paid), int64(s.WrittenOff),
			int64(s.CarriedOn), int64(s.Owed), int64(s.Disputed), (*int64)(s.CreditLeft)}); err != nil {
			return err
		}
	}
	return nil
}

func (p program) refusalsCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "refusals CONTRACT",
		Short: "Lines of a contract's bill that its user refused, and what became of them",
		Long: `refusals lists the lines that a user does not pay for, with his word for the reason. A line
that was dropped costs him nothing any more; one that is disputed is still owed, and the
contract is settled for it. The reasons are those of relay audit, see docs/users.md.`,
		Example: "  relayd refusals 1f3c…\n  relayd refusals 1f3c… --json",
		Args:    oneArg("a contract"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := contractArgument(args[0])
			if err != nil {
				return err
			}
			return p.withBooks(cmd, s, func(ctx context.Context, b *books.Store) error {
				if asJSON {
					return b.Refusals(ctx, id, refusalsJSON(p.out))
				}
				table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(table, "LINE\tKIND\tREASON\tBYTE-MS\tBYTES\tSTATE\tON")
				if err := b.Refusals(ctx, id, func(l books.RefusedLine) error {
					_, err := fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Line, l.Kind, l.Reason, l.Usage.Stored, l.Usage.Moved, stateOf(l), dayOf(l.At))
					return err
				}); err != nil {
					return err
				}
				return table.Flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	p.booksFlags(cmd, s)
	return cmd
}

func stateOf(l books.RefusedLine) string {
	if l.Dropped {
		return "dropped"
	}
	return "disputed"
}

func refusalsJSON(out io.Writer) func(books.RefusedLine) error {
	lines := json.NewEncoder(out)
	return func(l books.RefusedLine) error {
		return lines.Encode(struct {
			Line   int64                  `json:"line"`
			Kind   ledger.Kind            `json:"kind"`
			Reason protocol.RefusalReason `json:"reason"`
			Stored ledger.Quantity        `json:"byteMilliseconds"`
			Moved  ledger.Quantity        `json:"bytes"`
			State  string                 `json:"state"`
			At     protocol.Timestamp     `json:"at"`
		}{l.Line, l.Kind, l.Reason, l.Usage.Stored, l.Usage.Moved, stateOf(l), l.At})
	}
}
