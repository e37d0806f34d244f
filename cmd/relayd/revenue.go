package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// The ways to group revenue.
const (
	byBoth     = "both"
	byDay      = "day"
	byContract = "contract"
)

// everDay is before any contract.
const everDay = books.Day("0001-01-01")

func (p program) revenueCommand() *cobra.Command {
	s := newSettings(p.environ)
	var from, to, by string
	var asJSON, asCSV bool
	cmd := &cobra.Command{
		Use:   "revenue",
		Short: "What contracts earned, by day and contract",
		Long: `revenue shows what contracts brought, by day (UTC) and contract, in satoshi:

  EARNED       used: it does not come back. What is only reserved counts when it is used
  PAID         by states that users signed, beyond the opening price
  WRITTEN OFF  of what was earned: refused and dropped, or never paid
  DISPUTED     refused on that day and not dropped
  OWED         at the end of the day, reservations included

Opening prices and fees are not in it: relayd contracts list shows what came in on the
chain.`,
		Example: "  relayd revenue --from 2027-01-01 --to 2027-01-31\n  relayd revenue --by day --csv > revenue.csv\n  relayd revenue --by contract --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			first, last, err := span(from, to)
			if err != nil {
				return err
			}
			if asJSON && asCSV {
				return usagef("--json and --csv are two forms of one answer: name one")
			}
			if by != byBoth && by != byDay && by != byContract {
				return usagef("--by is %s, %s or %s, not %q", byBoth, byDay, byContract, by)
			}
			return p.withBooks(cmd, s, func(ctx context.Context, b *books.Store) error {
				if err := b.Post(ctx); err != nil {
					return err
				}
				list, err := b.Revenues(ctx, everDay, last)
				if err != nil {
					return err
				}
				rows := group(list, first, by)
				switch {
				case asJSON:
					return writeRevenueJSON(p.out, rows)
				case asCSV:
					return writeRevenueCSV(p.out, rows, by)
				}
				return writeRevenue(p.out, rows, by)
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "first day (UTC), as 2027-01-01 (default the first there is)")
	cmd.Flags().StringVar(&to, "to", "", "last day (default today)")
	cmd.Flags().StringVar(&by, "by", byBoth, "rows by day, contract or both")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line, amounts in msat")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "comma-separated values with a header, amounts in msat")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{byBoth, byDay, byContract}, cobra.ShellCompDirectiveNoFileComp))
	p.booksFlags(cmd, s)
	return cmd
}

// span reads the days from and to.
func span(from, to string) (first, last books.Day, err error) {
	first, last = everDay, books.DayOf(time.Now())
	if from != "" {
		if first, err = books.ParseDay(from); err != nil {
			return "", "", usageError{err}
		}
	}
	if to != "" {
		if last, err = books.ParseDay(to); err != nil {
			return "", "", usageError{err}
		}
	}
	if last < first {
		return "", "", usagef("the last day %s is before the first, %s", last, first)
	}
	return first, last, nil
}

// revenueRow is a row as it is shown; a row by day has no contract, one by contract no day.
type revenueRow struct {
	Day        books.Day `json:"day,omitempty"`
	Contract   string    `json:"contract,omitempty"`
	Payer      string    `json:"payer,omitempty"`
	Earned     int64     `json:"earnedMsat"`
	Paid       int64     `json:"paidMsat"`
	WrittenOff int64     `json:"writtenOffMsat"`
	Disputed   int64     `json:"disputedMsat"`
	Owed       int64     `json:"owedMsat"`
}

// group adds up what came in since a day, which the list has by day and then by contract. What is owed is a balance:
// it is that of the last day of a row, with what was owed before it began.
func group(list []books.Revenue, first books.Day, by string) []*revenueRow {
	var rows []*revenueRow
	index := make(map[string]*revenueRow)
	owed := make(map[protocol.ContractID]protocol.Msat)
	total := protocol.Msat(0)
	for i := range list {
		r := &list[i]
		total += r.Owed - owed[r.Contract]
		owed[r.Contract] = r.Owed
		if r.Day < first && by != byContract {
			continue
		}
		row := &revenueRow{Day: r.Day, Contract: r.Contract.String(), Payer: r.Payer.String()}
		balance := r.Owed
		switch by {
		case byDay:
			row.Contract, row.Payer, balance = "", "", total
		case byContract:
			row.Day = ""
		}
		key := string(row.Day) + row.Contract
		if known := index[key]; known != nil {
			row = known
		} else {
			index[key] = row
			rows = append(rows, row)
		}
		row.Owed = int64(balance)
		if r.Day < first {
			continue
		}
		row.Earned += int64(r.Earned)
		row.Paid += int64(r.Paid)
		row.WrittenOff += int64(r.WrittenOff)
		row.Disputed += int64(r.Disputed)
	}
	return rows
}

// cells are a row's names and amounts.
func (r *revenueRow) cells(by string, amount func(int64) string) []string {
	var cells []string
	if by != byContract {
		cells = append(cells, string(r.Day))
	}
	if by != byDay {
		cells = append(cells, r.Contract, r.Payer)
	}
	for _, n := range []int64{r.Earned, r.Paid, r.WrittenOff, r.Disputed, r.Owed} {
		cells = append(cells, amount(n))
	}
	return cells
}

func writeRevenueJSON(out io.Writer, rows []*revenueRow) error {
	lines := json.NewEncoder(out)
	for _, r := range rows {
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func writeRevenueCSV(out io.Writer, rows []*revenueRow, by string) error {
	var head []string
	if by != byContract {
		head = append(head, "day")
	}
	if by != byDay {
		head = append(head, "contract", "payer")
	}
	w := csv.NewWriter(out)
	_ = w.Write(append(head, "earned_msat", "paid_msat", "written_off_msat", "disputed_msat", "owed_msat"))
	for _, r := range rows {
		_ = w.Write(r.cells(by, func(n int64) string { return strconv.FormatInt(n, 10) }))
	}
	w.Flush()
	return w.Error()
}

func writeRevenue(out io.Writer, rows []*revenueRow, by string) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "EARNED\tPAID\tWRITTEN OFF\tDISPUTED\tOWED"
	if by != byDay {
		head = "CONTRACT\tPAYER\t" + head
	}
	if by != byContract {
		head = "DAY\t" + head
	}
	_, _ = fmt.Fprintln(table, head)
	sum := &revenueRow{}
	for _, r := range rows {
		for i, cell := range r.cells(by, func(n int64) string { return sats(protocol.Msat(n)) }) {
			if i > 0 {
				_, _ = fmt.Fprint(table, "\t")
			}
			_, _ = fmt.Fprint(table, cell)
		}
		_, _ = fmt.Fprintln(table)
		sum.Earned, sum.Paid, sum.WrittenOff, sum.Disputed = sum.Earned+r.Earned, sum.Paid+r.Paid, sum.WrittenOff+r.WrittenOff, sum.Disputed+r.Disputed
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nEarned: %s sat. Paid: %s sat. Written off: %s sat. Disputed: %s sat.\n", sats(protocol.Msat(sum.Earned)), sats(protocol.Msat(sum.Paid)),
		sats(protocol.Msat(sum.WrittenOff)), sats(protocol.Msat(sum.Disputed)))
	return err
}
