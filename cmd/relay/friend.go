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
	cmd := &cobra.Command{Use: "friend", Short: "Add, list, look at and remove friends", Args: subcommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(p.friendAddCommand(), p.friendListCommand(), p.friendShowCommand(), p.friendAcceptCommand(), p.friendRemoveCommand())
	return cmd
}

// addFlags are those of relay friend add.
type addFlags struct {
	name, hello string
	noAdmit     bool
}

func (p *program) friendAddCommand() *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use: "add FILE|LINK|-", Short: "Add a friend by card, link or invitation", Args: oneArg("a card file, a link or -"),
		Long: `Adds a friend by card or link. He may then leave a little for you on your relays, so that he can tell you when he moves: see
"relay admit --help". With --no-admit he may not.

An invitation is a link with a secret in it (#invite=…): give it on standard input or in a file, not among the words of the command, which others
on this machine can see. It leaves your card and what you say with --hello with your new friend, who then can write to you.`,
		Example: "  relay friend add anna.relayid --name anna\n  relay friend add 'relaymarket:relay1…?relay=https%3A%2F%2Frelay.example' --name anna\n" +
			"  relay friend add - --name anna --hello \"we met on the train\" < invitation.txt",
		RunE: func(cmd *cobra.Command, args []string) error { return p.addFriend(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.name, "name", "", "what you call the friend (default the label of the card)")
	cmd.Flags().StringVar(&f.hello, "hello", "", "with an invitation: what you say first, up to 1,000 characters")
	cmd.Flags().BoolVar(&f.noAdmit, "no-admit", false, "he may leave nothing for you on your relays")
	return cmd
}

func (p *program) addFriend(ctx context.Context, source string, f addFlags) error {
	card, link, err := p.readFriend(source)
	if err != nil {
		return err
	}
	invited := link != "" && protocol.IsInvitation(link)
	if f.hello != "" && !invited {
		return usagef("--hello goes with an invitation, a link that ends in #invite=…; send a message instead: relay send FRIEND TEXT")
	}
	openClient := p.open
	if invited {
		openClient = p.openKeys
	}
	c, err := openClient(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var friend *client.Friend
	var word *client.Outgoing
	var wordErr error
	switch done := p.busy("fetching the card"); {
	case invited:
		friend, word, wordErr = c.AddFriendByInvitation(ctx, link, f.name, f.hello)
		done()
		if friend == nil {
			return wordErr
		}
	case link != "":
		friend, err = c.AddFriendByLink(ctx, link, f.name)
		done()
	default:
		friend, err = c.AddFriend(ctx, card, f.name)
		done()
	}
	if err != nil {
		return err
	}
	if f.noAdmit {
		if err := c.Admit(ctx, friend.Key, 0, 0); err != nil {
			return err
		}
	}
	return errors.Join(p.showAdded(friend, word, !errors.Is(wordErr, client.ErrUsedUp)), wordErr)
}

// showAdded tells of the friend, and of the first word, if it waits still where it is stored nowhere.
func (p *program) showAdded(friend *client.Friend, word *client.Outgoing, waits bool) error {
	if p.json {
		line := friendJSON(friend)
		line.Refused = stamp(friend.Refused)
		if word != nil {
			sent := outgoingJSON(word, friend.Name)
			line.FirstWord = &sent
		}
		return p.printJSON(line)
	}
	if err := p.say("Added %s, %s\n", escape(friend.Name), friend.Key.Bech32()); err != nil {
		return err
	}
	if friend.Refused != 0 {
		p.complain("You know a newer card of %s, of %s: this one, of %s, was refused.\n", escape(friend.Name), when(friend.Dated), when(friend.Refused))
	}
	if word == nil {
		return nil
	}
	stored := 0
	for _, at := range word.Copies {
		if at.State == client.CopyStored {
			stored++
		}
	}
	switch {
	case stored > 0:
		return p.say("Your first word lies on %s of %s. When you are a friend there too, you can write: relay send %s TEXT\n",
			count(stored, "relay"), escape(friend.Name), escape(friend.Name))
	case len(word.Copies) > 0 && waits:
		return p.say("No relay of %s answers now: your first word waits, and goes out with the next relay inbox.\n", escape(friend.Name))
	}
	return nil
}

// readFriend reads what names a friend: a card, or a link. An invitation, which is a secret, comes from a file or standard input.
func (p *program) readFriend(source string) (card []byte, link string, err error) {
	if strings.HasPrefix(strings.ToLower(source), "relaymarket:") {
		if protocol.IsInvitation(source) {
			return nil, "", usagef("an invitation is a secret, which others on this machine can see among the words of a command: give it on standard input (relay friend add - < FILE)")
		}
		return nil, source, nil
	}
	var in io.Reader = p.in
	if source != "-" {
		if _, err := protocol.ParsePublicKey(source); err == nil {
			return nil, "", usagef("a key alone does not say where your friend is: ask for the card (relay id --card me.relayid) or the link (relay id --link)")
		}
		f, err := os.Open(p.path(source))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, "", fmt.Errorf("there is no file %s: name a card file, a link (relaymarket:…) or - for standard input", source)
		}
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, protocol.MaxCardSize+2))
	if err != nil {
		return nil, "", fmt.Errorf("read the card: %w", err)
	}
	if text := strings.TrimSpace(string(data)); strings.HasPrefix(text, "relaymarket:") {
		return nil, text, nil
	}
	return data, "", nil
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
	// Refused is the date of the card that was given, when a newer one is known.
	Refused   *string       `json:"refused,omitempty"`
	FirstWord *outgoingLine `json:"firstWord,omitempty"`
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
		Example: "  relay friend list",
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
		Example: "  relay friend rm anna",
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

// twoArgs wants exactly two arguments and says which.
func twoArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("%s needs %s, and got %s: quote what has spaces in it", cmd.CommandPath(), what, count(len(args), "argument"))
		}
		return nil
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
