package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"relaymarket/client"
)

func (p *program) relaysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "relays", Aliases: []string{"relay"}, Short: "Add, list and remove the relays you use", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: "Lists the relays you use, and how they did in your audits, as relay relays list does.",
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listRelays(cmd.Context()) }}
	cmd.AddCommand(p.relaysAddCommand(), p.relaysListCommand(), p.relaysRemoveCommand())
	return cmd
}

// relayItem is a relay in JSON.
type relayItem struct {
	Address string     `json:"address"`
	Key     string     `json:"key"`
	Added   *string    `json:"added"`
	Audits  *scoreItem `json:"audits,omitempty"` // absent: none of its bills was audited
	Told    *toldItem  `json:"told,omitempty"`   // of one that was added: how far friends know
}

func relayJSON(r client.Relay) relayItem {
	return relayItem{Address: r.Address, Key: r.Key.String(), Added: stamp(r.Added)}
}

func (p *program) relaysAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add ADDRESS", Short: "Use a relay whose operator knows your key", Args: oneArg("the relay's address"),
		Long: `Asks the relay who it is, and leaves your card there. Your friends are told where you are now, on your relays and on theirs. It fails if the relay does not know your key: then send
the key that it shows to the relay's operator, and run it again when he has granted it.`,
		Example: "  relay relays add https://relay.example\n  relay relays add http://127.0.0.1:7447",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := client.NormalizeAddress(args[0]); err != nil {
				return exitError{exitUsage, err}
			}
			c, err := p.openKeys(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			done := p.busy("asking the relay")
			r, _, err := c.AddRelay(cmd.Context(), args[0])
			done()
			if err != nil {
				return err
			}
			told, err := p.tellFriends(cmd.Context(), c)
			if err != nil {
				return err
			}
			if p.json {
				item := relayJSON(*r)
				item.Told = told
				return p.printJSON(item)
			}
			if err := p.say("Added %s, %s\n", r.Address, r.Key.Short()); err != nil {
				return err
			}
			return p.sayTold(told)
		},
	}
}

func (p *program) relaysListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the relays you use, and how they did in your audits", Args: cobra.NoArgs,
		Long: `Lists the relays you use. For those that you pay, it says how they did in your audits (relay audit): how often you audited, what
of their bills you accepted and disputed, and what share that was. A relay that you audited and use no more is listed, too.`,
		Example: "  relay relays list\n  relay relays list --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.listRelays(cmd.Context()) },
	}
}

func (p *program) relaysRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ADDRESS|KEY", Short: "Stop using a relay; what is stored there stays until it expires",
		Long: `Stops using a relay: it is taken out of your card, which your friends get, and nothing more is sent there. What is stored there stays until it
expires. What still waited for it alone is told: relay heal sends it to the relays that you have.`,
		Example: "  relay relays rm https://old.example",
		Args:    oneArg("a relay's address or key"), ValidArgsFunction: p.completeRelay,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.openKeys(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.FindRelay(cmd.Context(), args[0])
			if err != nil {
				return fmt.Errorf("%w: %s", err, args[0])
			}
			reports, err := c.RemoveRelay(cmd.Context(), r.Key)
			if err != nil {
				return err
			}
			told, err := p.tellFriends(cmd.Context(), c)
			if err != nil {
				return err
			}
			stranded, err := c.Stranded(cmd.Context())
			if err != nil {
				return err
			}
			if p.json {
				err = p.printJSON(map[string]any{"removed": relayJSON(*r), "relays": relayLines(reports), "told": told, "stranded": stranded})
			} else {
				err = errors.Join(p.say("Removed %s.\n", r.Address), p.sayTold(told))
				if stranded > 0 {
					err = errors.Join(err, p.say("No relay has %s of yours now: relay heal sends what is missing to the relays that you have.\n", count(int(stranded), "message")))
				}
			}
			return errors.Join(err, p.failures(reports))
		},
	}
}

// toldItem says how far friends know the user's new card, in JSON.
type toldItem struct {
	Friends int `json:"friends"`
	Reached int `json:"reached"`
}

// tellFriends leaves the new card for the friends, as far as relays answer in a while; the rest waits.
func (p *program) tellFriends(ctx context.Context, c *client.Client) (*toldItem, error) {
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	defer p.busy("telling your friends")()
	told, err := c.TellFriends(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		told, err = c.Told(ctx)
	}
	return &toldItem{Friends: told.Friends, Reached: told.Reached}, err
}

func (p *program) sayTold(t *toldItem) error {
	switch {
	case t.Friends == 0:
		return nil
	case t.Friends == t.Reached:
		return p.say("Your new card lies where %s will find it.\n", count(t.Friends, "friend"))
	}
	return p.say("Your new card lies where %d of %s will find it; the rest is tried again with each relay inbox. Who is not reached: give him your card (relay id --card).\n",
		t.Reached, count(t.Friends, "friend"))
}

func (p *program) accountCommand() *cobra.Command {
	return &cobra.Command{
		Use: "account [RELAY]", Short: "Show what you may use on your relays and have used", Args: cobra.MaximumNArgs(1),
		Example:           "  relay account\n  relay account relay.example --json",
		ValidArgsFunction: p.completeRelay,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.openKeys(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			relays, err := chosenRelays(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			return p.showAccounts(cmd.Context(), c, relays)
		},
	}
}

func chosenRelays(ctx context.Context, c *client.Client, args []string) ([]client.Relay, error) {
	if len(args) == 1 {
		r, err := c.FindRelay(ctx, args[0])
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, args[0])
		}
		return []client.Relay{*r}, nil
	}
	relays, err := c.Relays(ctx)
	if err == nil && len(relays) == 0 {
		err = client.ErrNoRelays
	}
	return relays, err
}

// accountLine is an account in JSON.
type accountLine struct {
	Address string          `json:"address"`
	Account *client.Account `json:"account"`
	Error   *string         `json:"error"`
}

func (p *program) showAccounts(ctx context.Context, c *client.Client, relays []client.Relay) error {
	rows := [][]string{{"RELAY", "STORED", "MOVED THIS MONTH", "LAST DAY", "STATE"}}
	var lines []accountLine
	var reports []client.RelayReport
	for _, r := range relays {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		account, err := c.Account(ctx, r)
		cancel()
		reports = append(reports, client.RelayReport{Relay: r.Key, Address: r.Address, Err: err})
		if err != nil {
			text := err.Error()
			lines = append(lines, accountLine{Address: r.Address, Error: &text})
			continue
		}
		lines = append(lines, accountLine{Address: r.Address, Account: account})
		state := "active"
		if !account.Active {
			state = "no new messages"
		}
		if c := account.Contract; c != nil {
			rows = append(rows, []string{r.Address, humanize.Bytes(uint64(max(account.Stored, 0))), humanize.Bytes(uint64(max(account.Moved, 0))),
				"contract " + c.Contract.Short(), fmt.Sprintf("%s, %s of %s msat", state, escape(c.CostMsat), escape(c.CreditMsat))})
			continue
		}
		rows = append(rows, []string{r.Address, used(account.Stored, account.QuotaStored), used(account.Moved, account.QuotaMoved),
			escape(account.LastDay), state})
	}
	var err error
	if p.json {
		err = p.printJSON(map[string]any{"accounts": lines})
	} else if len(rows) > 1 {
		err = p.table(rows)
	}
	return errors.Join(err, p.failures(reports))
}

func used(n, of int64) string {
	return humanize.Bytes(uint64(max(n, 0))) + " of " + humanize.Bytes(uint64(max(of, 0)))
}
