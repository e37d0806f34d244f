package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/protocol"
)

func (p *program) termsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "terms", Short: "Say on what terms relays may serve you, and ask one", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `A relay may serve you because its operator granted it, as a volunteer, or by a contract that you pay. You keep
a list of what you would take, what you like best first; a relay that is asked takes the first that it can.

A volunteer serves keys that he listed, or whoever writes on his topics: the account then takes messages with that
tag only (relay send --tag). He may want to be able to read what he carries (plaintext), or that you are shown a line of his
(ads). You are never asked for either unless you put it on your list.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listTerms(cmd.Context()) }}
	cmd.AddCommand(p.termsListCommand(), p.termsAddCommand(), p.termsRemoveCommand(), p.termsMoveCommand(), p.termsAskCommand())
	return cmd
}

func (p *program) termsListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List what you would take, and what relays said to it", Args: cobra.NoArgs,
		Example: "  relay terms list",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.listTerms(cmd.Context()) },
	}
}

// wishItem is a wish in JSON.
type wishItem struct {
	Type      string `json:"type"`
	Payment   bool   `json:"payment"`
	Topic     string `json:"topic,omitempty"`
	Plaintext bool   `json:"plaintext"`
	Ads       bool   `json:"ads"`
}

func wishItems(wishes []client.Wish) []wishItem {
	items := make([]wishItem, 0, len(wishes))
	for _, w := range wishes {
		items = append(items, wishItem{w.Type, w.Payment, string(w.Topic), w.Plaintext, w.Ads})
	}
	return items
}

// answerItem is a relay's answer in JSON.
type answerItem struct {
	Key       string                 `json:"key"`
	Address   string                 `json:"address"`
	Asked     []wishItem             `json:"asked"`
	Refused   []protocol.Refused     `json:"refused"`
	Accepted  *int                   `json:"accepted"` // index of asked
	Account   *protocol.TermsAccount `json:"account"`
	Offers    []protocol.Terms       `json:"offers"`
	Notice    string                 `json:"notice"`
	At        *string                `json:"at"`
	Contracts *announcedItem         `json:"contracts"`
}

// announcedItem is an announcement that a contract can be opened on.
type announcedItem struct {
	Hash       string  `json:"hash"`
	ValidUntil *string `json:"validUntil"`
}

func answerJSON(a *client.TermsAnswer) answerItem {
	item := answerItem{Key: a.Relay.String(), Address: a.Address, Asked: wishItems(a.Asked), Refused: a.Refused, Account: a.Account,
		Offers: a.Offer.Terms, Notice: a.Offer.Notice, At: stamp(a.At)}
	for i := range a.Asked {
		if a.Accepted != nil && a.Asked[i] == *a.Accepted {
			item.Accepted = &i
		}
	}
	if a.Offer.Contracts != nil {
		item.Contracts = &announcedItem{a.Envelope.Hash().String(), stamp(a.Offer.ValidUntil)}
	}
	return item
}

func (p *program) listTerms(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	wishes, own, err := c.Wishes(ctx)
	if err != nil {
		return err
	}
	answers, err := c.TermsAnswers(ctx)
	if err != nil {
		return err
	}
	if p.json {
		items := make([]answerItem, 0, len(answers))
		for i := range answers {
			items = append(items, answerJSON(&answers[i]))
		}
		return p.printJSON(map[string]any{"wishes": wishItems(wishes), "own": own, "answers": items})
	}
	rows := [][]string{{"", "TERMS", "PAYMENT", "TOPIC", "YOU WOULD PUT UP WITH"}}
	for i, w := range wishes {
		rows = append(rows, []string{strconv.Itoa(i + 1), w.Type, yesNo(w.Payment), string(w.Topic), flags(w.Plaintext, w.Ads)})
	}
	if err := p.table(rows); err != nil {
		return err
	}
	if !own {
		p.complain("These are usual; relay terms add, rm and move change them.\n")
	}
	for i := range answers {
		a := &answers[i]
		if err := p.say("\n%s, asked %s: ", a.Address, when(a.At)); err != nil {
			return err
		}
		if err := p.sayAnswer(a); err != nil {
			return err
		}
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func flags(plaintext, ads bool) string {
	var all []string
	if plaintext {
		all = append(all, "plaintext")
	}
	if ads {
		all = append(all, "ads")
	}
	return strings.Join(all, ", ")
}

func (p *program) termsAddCommand() *cobra.Command {
	var topic string
	var w client.Wish
	var place int
	cmd := &cobra.Command{
		Use: "add grant|volunteer|contract", Short: "Add what you would take", Args: oneArg("what you would take: grant, volunteer or contract"),
		ValidArgs: []string{protocol.TermsGrant, protocol.TermsVolunteer, protocol.TermsContract},
		Long: `Adds terms to the list, at its end or at --place. With --topic, which only a volunteer has, all that you leave on such
a relay is to have this tag; a relay that volunteers for other topics does not take it.`,
		Example: "  relay terms add volunteer --topic weather --place 1\n  relay terms add volunteer --ads",
		RunE: func(cmd *cobra.Command, args []string) error {
			w.Type, w.Topic = args[0], protocol.Tag(topic)
			w.Payment = w.Type == protocol.TermsContract
			switch w.Type {
			case protocol.TermsGrant, protocol.TermsVolunteer, protocol.TermsContract:
			default:
				return usagef("%q is none of grant, volunteer and contract", w.Type)
			}
			if w.Type != protocol.TermsVolunteer && (topic != "" || w.Plaintext || w.Ads) {
				return usagef("--topic, --plaintext and --ads are for a volunteer")
			}
			return p.changeTerms(cmd.Context(), func(list []client.Wish) ([]client.Wish, error) {
				at := len(list)
				if cmd.Flags().Changed("place") {
					at = place - 1
				}
				if at < 0 || at > len(list) {
					return nil, usagef("--place is 1 to %d", len(list)+1)
				}
				return append(list[:at:at], append([]client.Wish{w}, list[at:]...)...), nil
			})
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "all that you would write there has this tag")
	cmd.Flags().BoolVar(&w.Plaintext, "plaintext", false, "you would write what is not sealed, for everybody on the way to read")
	cmd.Flags().BoolVar(&w.Ads, "ads", false, "you would be shown a line of the relay's")
	cmd.Flags().IntVar(&place, "place", 0, "where in the list, from 1; else at its end")
	return cmd
}

func (p *program) termsRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm NUMBER", Short: "Take terms off your list; without any, the usual ones are back", Args: oneArg("the number in relay terms"),
		Example: "  relay terms rm 2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeTerms(cmd.Context(), func(list []client.Wish) ([]client.Wish, error) {
				i, err := placeOf(args[0], list)
				if err != nil {
					return nil, err
				}
				return append(list[:i:i], list[i+1:]...), nil
			})
		},
	}
}

func (p *program) termsMoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "move NUMBER PLACE", Short: "Like terms better, or less", Args: cobra.ExactArgs(2), Example: "  relay terms move 3 1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeTerms(cmd.Context(), func(list []client.Wish) ([]client.Wish, error) {
				from, err := placeOf(args[0], list)
				if err != nil {
					return nil, err
				}
				to, err := placeOf(args[1], list)
				if err != nil {
					return nil, err
				}
				w := list[from]
				list = append(list[:from:from], list[from+1:]...)
				return append(list[:to:to], append([]client.Wish{w}, list[to:]...)...), nil
			})
		},
	}
}

func placeOf(typed string, list []client.Wish) (int, error) {
	n, err := strconv.Atoi(typed)
	if err != nil || n < 1 || n > len(list) {
		return 0, usagef("%q is no number from 1 to %d: see relay terms", typed, len(list))
	}
	return n - 1, nil
}

func (p *program) changeTerms(ctx context.Context, change func([]client.Wish) ([]client.Wish, error)) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	_, err = c.ChangeWishes(ctx, change)
	if err = errors.Join(err, c.Close()); err != nil {
		var refusal *protocol.Error
		if errors.As(err, &refusal) {
			return usagef("%s", refusal.Detail)
		}
		return err
	}
	return p.listTerms(ctx)
}

func (p *program) termsAskCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ask ADDRESS", Short: "Ask a relay to serve you on terms of your list, and use it", Args: oneArg("the relay's address"), ValidArgsFunction: p.completeRelay,
		Long: `Asks the relay to serve you on the first of your terms that it takes. If it serves you for nothing, it is one of your
relays from then on; if it takes a contract, the command that opens one is shown. It exits with 1 if it takes none, and says then what
it offers, and how to put that on your list.

An account that a volunteer gave ends when he said; ask again before, and it lasts as long from then on.`,
		Example: "  relay terms ask https://relay.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := client.NormalizeAddress(args[0]); err != nil {
				return exitError{exitUsage, err}
			}
			return p.askTerms(cmd.Context(), args[0])
		},
	}
}

func (p *program) askTerms(ctx context.Context, typed string) error {
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	finish := p.busy("asking the relay")
	a, err := c.AskTerms(ctx, typed)
	if err == nil && a.Account != nil {
		_, _, err = c.AddRelay(ctx, a.Address)
	}
	finish()
	if err != nil {
		return err
	}
	if p.json {
		err = p.printJSON(answerJSON(a))
	} else {
		err = p.sayAnswer(a)
	}
	if err == nil && a.Accepted == nil {
		err = exitError{exitFailed, nil}
	}
	return err
}
