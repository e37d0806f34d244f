package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/protocol"
)

func (p *program) friendCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "friend", Short: "Add, list and remove friends", Args: subcommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(p.friendAddCommand(), p.friendListCommand(), p.friendRemoveCommand())
	return cmd
}

func (p *program) friendAddCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "add FILE|LINK|-", Short: "Add a friend by card or link", Args: oneArg("a card file, a link or -"),
		Example: "  relay friend add anna.relayid --name anna\n  relay friend add 'relaymarket:relay1…?relay=https%3A%2F%2Frelay.example' --name anna",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			f, err := p.addFriend(cmd.Context(), c, args[0], name)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(friendJSON(f))
			}
			return p.say("Added %s, %s\n", escape(f.Name), f.Key.Bech32())
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what you call the friend (default the label of the card)")
	return cmd
}

func (p *program) addFriend(ctx context.Context, c *client.Client, source, name string) (*client.Friend, error) {
	if strings.HasPrefix(strings.ToLower(source), "relaymarket:") {
		defer p.busy("fetching the card")()
		return c.AddFriendByLink(ctx, source, name)
	}
	var in io.Reader = p.in
	if source != "-" {
		if _, err := protocol.ParsePublicKey(source); err == nil {
			return nil, usagef("a key alone does not say where your friend is: ask for the card (relay id --card me.relayid) or the link (relay id --link)")
		}
		f, err := os.Open(p.path(source))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no file %s: name a card file, a link (relaymarket:…) or - for standard input", source)
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, protocol.MaxCardSize+2))
	if err != nil {
		return nil, fmt.Errorf("read the card: %w", err)
	}
	if text := strings.TrimSpace(string(data)); strings.HasPrefix(text, "relaymarket:") {
		return c.AddFriendByLink(ctx, text, name)
	}
	return c.AddFriend(ctx, data, name)
}

// friendLine is a friend in JSON.
type friendLine struct {
	Name   string      `json:"name"`
	Key    string      `json:"key"`
	Bech32 string      `json:"bech32"`
	Label  string      `json:"label"`
	Added  *string     `json:"added"`
	Dated  *string     `json:"cardDated"`
	Relays []relayLink `json:"relays"`
}

func friendJSON(f *client.Friend) friendLine {
	line := friendLine{Name: f.Name, Key: f.Key.String(), Bech32: f.Key.Bech32(), Label: f.Card.Label,
		Added: stamp(f.Added), Dated: stamp(f.Dated), Relays: []relayLink{}}
	for _, r := range f.Card.Relays {
		line.Relays = append(line.Relays, relayLink{Address: r.Address, Key: r.PubKey.String()})
	}
	return line
}

func (p *program) friendListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List friends", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			friends, err := c.Friends(cmd.Context())
			if err != nil {
				return err
			}
			if p.json {
				lines := make([]friendLine, 0, len(friends))
				for i := range friends {
					lines = append(lines, friendJSON(&friends[i]))
				}
				return p.printJSON(map[string]any{"friends": lines})
			}
			if len(friends) == 0 {
				return p.say("You have no friends here yet. Add one: relay friend add FILE|LINK --name NAME\n")
			}
			rows := [][]string{{"NAME", "KEY", "LABEL", "RELAYS"}}
			for _, f := range friends {
				var addresses []string
				for _, r := range f.Card.Relays {
					addresses = append(addresses, r.Address)
				}
				rows = append(rows, []string{escape(f.Name), f.Key.Short(), escape(f.Card.Label), strings.Join(addresses, " ")})
			}
			return p.table(rows)
		},
	}
}

func (p *program) friendRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm FRIEND", Short: "Remove a friend; the messages stay", Args: oneArg("a friend"), ValidArgsFunction: p.completeFriend,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			f, err := c.FindFriend(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := c.RemoveFriend(cmd.Context(), f.Key); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]string{"removed": f.Name, "key": f.Key.String()})
			}
			return p.say("Removed %s.\n", escape(f.Name))
		},
	}
}

// oneArg wants exactly one argument and says which.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("%s needs %s", cmd.CommandPath(), what)
		case len(args) > 1:
			return fmt.Errorf("%s takes one argument, %s, and got %d: quote what has spaces in it", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}
