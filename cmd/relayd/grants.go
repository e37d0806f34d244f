package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relaymarket/internal/relaynode"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// What a new grant is when its operator says nothing more.
const (
	defaultStored = byteSize(1e9)
	defaultMoved  = byteSize(10e9)
	defaultYears  = 1
)

// wished is what the flags of grant say; unset ones keep what a grant has.
type wished struct {
	stored, moved byteSize
	until, note   string
}

func (p program) grantCommand() *cobra.Command {
	s := newSettings(p.environ)
	w := wished{stored: defaultStored, moved: defaultMoved}
	cmd := &cobra.Command{
		Use:   "grant KEY",
		Short: "Give a key space on this relay, or change what it has",
		Long: `grant gives a key space: bytes stored at once, bytes moved in a calendar month (UTC),
and the last day on which it may write. For a key that has a grant, what is not named
stays as it was; a revoked grant is in force again.

A write counts its size once for itself and once for each pull that it allows; pulls
that were not made are given back when the record ends in the same month. Bytes moved
should therefore be about nine times what is written, with the usual eight pulls.

It works while relayd serves and while it does not.`,
		Example: "  relayd grant relay1… --stored 1GB --moved 10GB --until 2027-01-31 --note 'Ann, from the club'",
		Args:    oneArg("a user's key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := protocol.ParsePublicKey(args[0])
			if err != nil {
				return usagef("%q is no key, write relay1… or 64 hex digits: %w", args[0], err)
			}
			return p.withBooks(cmd, s, func(ctx context.Context, b *books.Store) error {
				grant, err := w.apply(ctx, b, key, cmd.Flags().Changed)
				if err != nil {
					return err
				}
				if err := b.Put(ctx, grant); err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.out, "%s may store %s and move %s a month until %s\n", key.Bech32(),
					byteSize(grant.QuotaStored), byteSize(grant.QuotaMoved), grant.LastDay)
				return err
			})
		},
	}
	cmd.Flags().Var(&w.stored, "stored", "bytes stored at once, for example 500MB or 2GiB")
	cmd.Flags().Var(&w.moved, "moved", "bytes moved a calendar month")
	cmd.Flags().StringVar(&w.until, "until", "", "last day (UTC) on which it may write, as 2027-01-31 (default in a year)")
	cmd.Flags().StringVar(&w.note, "note", "", "for yourself: whose key it is")
	p.booksFlags(cmd, s)
	return cmd
}

// apply makes the grant: what the flags say, over what the key has, over the defaults.
func (w wished) apply(ctx context.Context, b *books.Store, key protocol.PublicKey, changed func(string) bool) (books.Grant, error) {
	now := time.Now()
	grant := books.Grant{Key: key, QuotaStored: int64(defaultStored), QuotaMoved: int64(defaultMoved), LastDay: books.DayOf(now.AddDate(defaultYears, 0, 0))}
	account, err := b.Get(ctx, key)
	if err == nil {
		grant = account.Grant
	} else if !errors.Is(err, protocol.CodeNoAccount) {
		return grant, err
	}
	if changed("stored") {
		grant.QuotaStored = int64(w.stored)
	}
	if changed("moved") {
		grant.QuotaMoved = int64(w.moved)
	}
	if changed("note") {
		grant.Note = w.note
	}
	if changed("until") {
		if grant.LastDay, err = books.ParseDay(w.until); err != nil {
			return grant, usageError{err}
		}
	}
	if grant.LastDay < books.DayOf(now) {
		return grant, usagef("the last day %s has passed: name a later one with --until, or end the grant with relayd revoke", grant.LastDay)
	}
	if err := grant.Validate(); err != nil {
		return grant, usageError{err}
	}
	return grant, nil
}

func (p program) grantsCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "grants",
		Example: "  relayd grants\n  relayd grants --json",
		Short:   "List the grants and what was used of them",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withBooks(cmd, s, func(ctx context.Context, b *books.Store) error {
				accounts, err := b.List(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return writeAccountsJSON(p.out, accounts)
				}
				return writeAccounts(p.out, accounts)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	p.booksFlags(cmd, s)
	return cmd
}

func (p program) revokeCommand() *cobra.Command {
	s := newSettings(p.environ)
	cmd := &cobra.Command{
		Use:     "revoke KEY",
		Example: "  relayd revoke relay1…",
		Short:   "End a grant: no new writes, what is stored stays readable until it expires",
		Args:    oneArg("a user's key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := protocol.ParsePublicKey(args[0])
			if err != nil {
				return usagef("%q is no key, write relay1… or 64 hex digits: %w", args[0], err)
			}
			return p.withBooks(cmd, s, func(ctx context.Context, b *books.Store) error {
				err := b.Revoke(ctx, key)
				if errors.Is(err, protocol.CodeNotFound) {
					return fmt.Errorf("%s has no grant: relayd grants lists those that have one", key.Bech32())
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.out, "%s may write no more, unless by a contract; what it stored stays until it expires\n", key.Bech32())
				return err
			})
		},
	}
	p.booksFlags(cmd, s)
	return cmd
}

func (p program) booksFlags(cmd *cobra.Command, s *settings) {
	s.flags(cmd.Flags(), "dir", "database-url", "postgres-bin", "log-format", "log-level")
	s.quiet(cmd.Flags())
}

// quiet is for a command that a person waits for: it tells its result, not how what it needs started.
func (s *settings) quiet(flags *pflag.FlagSet) {
	s.logLevel = slog.LevelWarn
	flags.Lookup("log-level").DefValue = formatLevel(s.logLevel)
}

// withBooks runs an administrative command on the relay's accounts, whether or not the relay runs.
func (p program) withBooks(cmd *cobra.Command, s *settings, do func(context.Context, *books.Store) error) error {
	if err := p.loadRelay(cmd, s); err != nil {
		return err
	}
	return relaynode.WithBooks(cmd.Context(), s.databaseConfig(p.logger(s)), do)
}

// loadRelay loads the settings of a relay that was set up: a folder that was not would get a database that
// nobody serves.
func (p program) loadRelay(cmd *cobra.Command, s *settings) error {
	if err := s.load(p.environ, cmd.Flags()); err != nil {
		return err
	}
	_, err := s.readKey()
	return err
}

func state(a books.Account) string {
	switch {
	case a.Revoked:
		return "revoked"
	case !a.Active:
		return "ended"
	}
	return "active"
}

// given says how an account came about.
func given(b books.Bound) string {
	switch b.For {
	case books.ForKey:
		return "to an allowed key"
	case books.ForTopic:
		return "for topic " + string(b.Topic)
	}
	return "by hand"
}

func writeAccounts(out io.Writer, accounts []books.Account) error {
	if len(accounts) == 0 {
		_, err := fmt.Fprintln(out, "no grants yet: relayd grant KEY makes one")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KEY\tSTORED\tOF\tMOVED\tOF\tMONTH\tLAST DAY\tSTATE\tGIVEN\tNOTE")
	for _, a := range accounts {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Key.Bech32(),
			byteSize(a.Stored).human(), byteSize(a.QuotaStored).human(), byteSize(a.Moved).human(), byteSize(a.QuotaMoved).human(),
			a.Month, a.LastDay, state(a), given(a.Bound), a.Note)
	}
	return table.Flush()
}

func writeAccountsJSON(out io.Writer, accounts []books.Account) error {
	lines := json.NewEncoder(out)
	for _, a := range accounts {
		if err := lines.Encode(struct {
			Key         protocol.PublicKey `json:"key"`
			Relay       string             `json:"relay"`
			Stored      int64              `json:"stored"`
			QuotaStored int64              `json:"quotaStored"`
			Moved       int64              `json:"moved"`
			QuotaMoved  int64              `json:"quotaMoved"`
			Month       string             `json:"month"`
			LastDay     books.Day          `json:"lastDay"`
			State       string             `json:"state"`
			Given       books.For          `json:"given"` // key or topic: by itself, to who asked; empty: by hand
			Topic       protocol.Tag       `json:"topic,omitempty"`
			Note        string             `json:"note"`
		}{a.Key, a.Key.Bech32(), a.Stored, a.QuotaStored, a.Moved, a.QuotaMoved, a.Month, a.LastDay, state(a), a.Bound.For, a.Bound.Topic, a.Note}); err != nil {
			return err
		}
	}
	return nil
}
