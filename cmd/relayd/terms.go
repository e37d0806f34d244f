package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

// termsShown is what relayd terms --json prints.
type termsShown struct {
	Terms  []protocol.Terms `json:"terms"`  // as announced
	Notice string           `json:"notice"` // shown to those who took terms with ads
	// What strangers can take at most, in all: bytes at once, bytes a month.
	StoredAtMost int64         `json:"storedAtMost"`
	MovedAtMost  int64         `json:"movedAtMost"`
	Accounts     int64         `json:"accounts"` // for topics, that are taken
	Allowed      []listedShown `json:"allowed"`
	Denied       []listedShown `json:"denied"`
}

type listedShown struct {
	Kind   willing.Kind `json:"kind"`
	Name   string       `json:"name"`
	Stored *int64       `json:"stored,omitempty"`
	Moved  *int64       `json:"moved,omitempty"`
	Note   string       `json:"note"`
}

func (p program) termsCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "terms",
		Example: "  relayd terms\n  relayd terms --json",
		Short:   "Show on what terms this relay serves, and its lists of keys and topics",
		Long: `terms shows the alternatives that this relay announces: by contract, if it has a Bitcoin node; for nothing, to
keys and topics that it allows; and by its operator's hand (relayd grant). And what strangers can take at most. It
checks the settings, too. It works while relayd serves and while it does not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withLists(cmd, s, func(ctx context.Context, lists *willing.Store) error {
				shown, err := s.shownTerms(ctx, lists)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(p.out).Encode(shown)
				}
				return p.writeTerms(s, shown)
			})
		},
	}
	s.flags(cmd.Flags())
	s.quiet(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON object")
	return cmd
}

func (s *settings) shownTerms(ctx context.Context, lists *willing.Store) (*termsShown, error) {
	if err := lists.Refresh(ctx); err != nil {
		return nil, err
	}
	entries, err := lists.List(ctx)
	if err != nil {
		return nil, err
	}
	shown := &termsShown{Terms: []protocol.Terms{}, Notice: lists.Notice(), Allowed: []listedShown{}, Denied: []listedShown{}}
	if s.bitcoin.rpc != "" && s.bitcoin.contracts {
		shown.Terms = append(shown.Terms, protocol.Terms{Type: protocol.TermsContract, Payment: true, Contact: s.contact})
	}
	shown.Terms = append(shown.Terms, protocol.Terms{Type: protocol.TermsGrant, Contact: s.contact})
	shown.Terms = append(shown.Terms, lists.Offers()...)
	strangers := false
	for _, e := range entries {
		line := listedShown{Kind: e.Kind, Name: e.Name, Stored: e.Stored, Moved: e.Moved, Note: e.Note}
		if e.Allowed {
			shown.Allowed = append(shown.Allowed, line)
			strangers = strangers || e.Kind == willing.Topic
		} else {
			shown.Denied = append(shown.Denied, line)
		}
	}
	if policy := s.policy(); strangers && policy.Topics != nil {
		shown.StoredAtMost, shown.MovedAtMost = policy.Accounts*policy.Stored, policy.Accounts*policy.Moved
		shown.Accounts = lists.Taken()
	}
	return shown, nil
}

func (p program) writeTerms(s *settings, shown *termsShown) error {
	table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "TERMS\tFOR\tSTORED\tMOVED A MONTH\tDAYS\tCONDITIONS")
	for _, t := range shown.Terms {
		row := [5]string{"who pays", "", "", "", ""}
		switch {
		case t.Type == protocol.TermsGrant:
			row[0] = "keys that you grant"
		case t.Type == protocol.TermsVolunteer:
			row = [5]string{"allowed keys", byteSize(t.StoredBytes).human(), byteSize(t.MovedBytes).human(), fmt.Sprint(t.Days), conditions(t)}
			if t.Topic != "" {
				row[0] = "topic " + t.Topic
			}
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Type, row[0], row[1], row[2], row[3], row[4])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, list := range []struct {
		head    string
		entries []listedShown
	}{{"Allowed", shown.Allowed}, {"Denied", shown.Denied}} {
		if len(list.entries) == 0 {
			continue
		}
		_, _ = fmt.Fprintf(p.out, "\n%s:\n", list.head)
		table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
		for _, e := range list.entries {
			own := ""
			if e.Stored != nil {
				own += byteSize(*e.Stored).human() + " at once "
			}
			if e.Moved != nil {
				own += byteSize(*e.Moved).human() + " a month"
			}
			_, _ = fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", e.Kind, shownName(e.Kind, e.Name), own, e.Note)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if shown.StoredAtMost == 0 {
		return nil
	}
	_, err := fmt.Fprintf(p.out, "\nStrangers store %s at most, and move %s a month: %d accounts, of which %d are taken.\n",
		byteSize(shown.StoredAtMost).human(), byteSize(shown.MovedAtMost).human(), s.volunteer.accounts, shown.Accounts)
	return err
}

func conditions(t protocol.Terms) string {
	switch {
	case t.Plaintext && t.Ads:
		return "plaintext, ads"
	case t.Plaintext:
		return "plaintext"
	case t.Ads:
		return "ads"
	}
	return ""
}
