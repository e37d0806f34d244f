package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
)

// admitFlags are those of relay admit.
type admitFlags struct {
	invite, friends, qr bool
	bytes               string
	records             int64
	ttl, note           string
}

func (p *program) admitCommand() *cobra.Command {
	f := admitFlags{ttl: "30d"}
	cmd := &cobra.Command{
		Use: "admit FRIEND | --invite | --friends", Short: "Say who may leave something for you on your relays", SuggestionsMinimumDistance: 2,
		Long: `Lets a friend leave records for you on your relays, on your account: so many bytes and records at once. If his own relays are all
gone, he can still tell you there where he is now. Friends may, unless you say otherwise, 256 KiB and 16 records each; --friends
changes that for all of whom you said nothing, and 0 bytes is no.

--invite makes a link with which a stranger can leave you a first word: who he is, and up to 1,000 characters. You see it in your inbox,
and make him a friend with "relay friend accept", or not. Who has the link can use it: send it as you would a key. It is shown once.`,
		Example: "  relay admit anna --bytes 1MB --records 50\n  relay admit --invite --note \"for the conference\"\n  relay admit --friends --bytes 0",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: p.completeFriend,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.invite && len(args) > 0:
				return usagef("an invitation is for a stranger: leave %q out, or --invite", args[0])
			case f.friends && len(args) > 0:
				return usagef("--friends is about all friends: leave %q out, or --friends", args[0])
			case f.invite && f.bytes != "":
				return usagef("a first word has a size of its own: leave --bytes out; --records says for how many strangers it is")
			case f.invite:
				return p.invite(cmd.Context(), f, cmd.Flags().Changed("records"))
			case f.friends:
				return p.admitAny(cmd.Context(), f)
			case len(args) == 0:
				return errors.New("admit needs a friend, --invite or --friends; relay admit list shows who is admitted")
			}
			return p.admitFriend(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.invite, "invite", false, "make a link for a stranger's first word")
	flags.BoolVar(&f.friends, "friends", false, "say it of any friend of whom you said nothing")
	flags.StringVar(&f.bytes, "bytes", "", "bytes at once, for example 1MB; 0 is no (default 256KiB)")
	flags.Int64Var(&f.records, "records", client.FriendRecords, "records at once; with --invite, for how many strangers, 1 if you do not say")
	flags.StringVar(&f.ttl, "ttl", f.ttl, "how long an invitation lasts: 12h, 30d, 2w")
	flags.StringVar(&f.note, "note", "", "what you call the invitation, for yourself")
	flags.BoolVar(&f.qr, "qr", false, "show the invitation as a QR code, too")
	cmd.MarkFlagsMutuallyExclusive("invite", "friends")
	cmd.AddCommand(p.admitListCommand(), p.admitRemoveCommand())
	return cmd
}

// quota reads --bytes and --records; no bytes are no records.
func (f *admitFlags) quota() (most, records int64, err error) {
	most = client.FriendBytes
	if f.bytes != "" {
		if most, err = readBytes(f.bytes, "--bytes"); err != nil {
			return 0, 0, err
		}
	}
	if records = f.records; most == 0 {
		records = 0
	}
	return most, records, nil
}

func (p *program) admitFriend(ctx context.Context, typed string, f admitFlags) error {
	most, records, err := f.quota()
	if err != nil {
		return exitError{exitUsage, err}
	}
	return p.changeAdmitted(ctx, func(c *client.Client) (string, error) {
		friend, err := c.FindFriend(ctx, typed)
		if err != nil {
			return "", err
		}
		if err := c.Admit(ctx, friend.Key, most, records); err != nil {
			return "", err
		}
		if most == 0 {
			return fmt.Sprintf("%s may leave nothing for you.", escape(friend.Name)), nil
		}
		return fmt.Sprintf("%s may leave %s for you, %s at once.", escape(friend.Name), bytesize.Text(most), count(int(records), "record")), nil
	})
}

func (p *program) admitAny(ctx context.Context, f admitFlags) error {
	most, records, err := f.quota()
	if err != nil {
		return exitError{exitUsage, err}
	}
	return p.changeAdmitted(ctx, func(c *client.Client) (string, error) {
		if err := c.AdmitFriends(ctx, most, records); err != nil {
			return "", err
		}
		if most == 0 {
			return "Friends may leave nothing for you, but those of whom you say otherwise.", nil
		}
		return fmt.Sprintf("Each friend may leave %s for you, %s at once, but those of whom you say otherwise.", bytesize.Text(most), count(int(records), "record")), nil
	})
}

// changeAdmitted changes whom the user admits, and tells the relays.
func (p *program) changeAdmitted(ctx context.Context, change func(*client.Client) (string, error)) error {
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	said, err := change(c)
	if err != nil {
		return err
	}
	reports, err := p.tellAdmitted(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		err = p.admittedJSON(ctx, c, reports)
	} else {
		err = p.say("%s\n", said)
	}
	return errors.Join(err, p.failures(reports))
}

func (p *program) tellAdmitted(ctx context.Context, c *client.Client) ([]client.RelayReport, error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer p.busy("telling your relays")()
	return c.PublishAdmitted(limited)
}

func (p *program) invite(ctx context.Context, f admitFlags, said bool) error {
	ttl, err := parseTTL(f.ttl)
	if err != nil {
		return exitError{exitUsage, err}
	}
	strangers := int64(client.InvitationRecords)
	if said {
		strangers = f.records
	}
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	invitation, err := c.Invite(ctx, strangers, ttl, f.note)
	if err != nil {
		return err
	}
	reports, err := p.tellAdmitted(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		err = p.printJSON(map[string]any{"invitation": invitation.Text(), "key": invitation.Key.Public().String(), "strangers": strangers, "relays": relayLines(reports)})
		return errors.Join(err, p.failures(reports))
	}
	if f.qr {
		qrterminal.GenerateHalfBlock(invitation.Text(), qrterminal.L, p.out)
	}
	err = p.say("%s\n", invitation.Text())
	p.complain("Who has this link can leave you a first word, %s. It is shown once; take it back with: relay admit rm %s\n",
		map[bool]string{true: "once", false: fmt.Sprintf("%d strangers in all", strangers)}[strangers == 1], invitation.Key.Public().Short())
	return errors.Join(err, p.failures(reports))
}

// admittedLine is who is admitted, in JSON.
type admittedLine struct {
	Key        string  `json:"key"`
	Name       string  `json:"name"`
	Invitation bool    `json:"invitation"`
	Note       string  `json:"note"`
	Bytes      int64   `json:"bytes"`
	Records    int64   `json:"records"`
	Own        bool    `json:"own"`
	Relays     int     `json:"relays"`
	Used       int64   `json:"used"`
	Created    *string `json:"created"`
	Until      *string `json:"until"`
}

// strangerLine is who left a first word, in JSON.
type strangerLine struct {
	Key        string  `json:"key"`
	Bech32     string  `json:"bech32"`
	Label      string  `json:"label"`
	Invitation string  `json:"invitation"`
	Received   *string `json:"received"`
}

func (p *program) admittedJSON(ctx context.Context, c *client.Client, reports []client.RelayReport) error {
	all, err := c.Admitted(ctx)
	if err != nil {
		return err
	}
	strangers, err := c.Strangers(ctx)
	if err != nil {
		return err
	}
	most, records, err := c.AnyFriend(ctx)
	if err != nil {
		return err
	}
	lines, waiting := make([]admittedLine, 0, len(all)), make([]strangerLine, 0, len(strangers))
	for _, a := range all {
		lines = append(lines, admittedLine{Key: a.Key.String(), Name: a.Name, Invitation: a.Invitation, Note: a.Note, Bytes: a.Bytes, Records: a.Records,
			Own: a.Own, Relays: a.On, Used: a.Used, Created: stamp(a.Created), Until: stamp(a.Until)})
	}
	for _, s := range strangers {
		waiting = append(waiting, strangerLine{Key: s.Key.String(), Bech32: s.Key.Bech32(), Label: s.Card.Label, Invitation: s.Invitation.String(), Received: stamp(s.Received)})
	}
	return p.printJSON(map[string]any{"admitted": lines, "strangers": waiting, "friends": map[string]int64{"bytes": most, "records": records},
		"relays": relayLines(reports)})
}

func (p *program) admitListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List who may leave something for you, your invitations, and the strangers who used them", Args: cobra.NoArgs,
		Long:    `Lists who may leave something for you and how much; what they use of it on each relay, "relay account --json" tells.`,
		Example: "  relay admit list\n  relay admit list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if p.json {
				return p.admittedJSON(cmd.Context(), c, nil)
			}
			return p.admittedTable(cmd.Context(), c)
		},
	}
}

func (p *program) admittedTable(ctx context.Context, c *client.Client) error {
	all, err := c.Admitted(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"WHO", "BYTES", "RECORDS", "ON", "UNTIL", "NOTE"}}
	now := time.Now()
	for _, a := range all {
		who, note := escape(a.Name), "as any friend"
		if a.Own {
			note = "as you said"
		}
		until := "always"
		if a.Invitation {
			who, note = "invitation "+a.Key.Short(), escape(a.Note)
			until = when(a.Until)
			switch {
			case a.Used >= a.Records:
				until = "used"
			case !now.Before(a.Until.Time()):
				until = "over"
			}
		}
		size, records := bytesize.Text(a.Bytes), fmt.Sprint(a.Records)
		if a.Bytes == 0 {
			size, records, until = "none", "none", "-"
		}
		rows = append(rows, []string{who, size, records, count(a.On, "relay"), until, note})
	}
	if len(rows) == 1 {
		if err := p.say("You admit nobody. Friends whom you add are, unless you said otherwise (relay admit --help).\n"); err != nil {
			return err
		}
	} else if err := p.table(rows); err != nil {
		return err
	}
	strangers, err := c.Strangers(ctx)
	if err != nil {
		return err
	}
	for _, s := range strangers {
		if err := p.say("%s, who calls himself %q, left a first word on %s. Make him a friend: relay friend accept %s --name NAME\n",
			s.Key.Short(), escape(s.Card.Label), when(s.Received), s.Key.Short()); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) admitRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm FRIEND|INVITATION", Short: "Let a friend leave nothing for you, or take an invitation back", Args: oneArg("a friend or an invitation"),
		Long: `A friend may leave nothing for you any more, until you say otherwise (relay admit FRIEND). An invitation, by the beginning of its
key as relay admit list shows it, takes no first word any more. What was left already stays.`,
		Example:           "  relay admit rm anna\n  relay admit rm relay1qqqsyq",
		ValidArgsFunction: p.completeFriend,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return p.changeAdmitted(ctx, func(c *client.Client) (string, error) {
				key, err := invitationNamed(ctx, c, args[0])
				if err != nil {
					return "", err
				}
				if key != nil {
					return "The invitation is taken back.", c.Uninvite(ctx, *key)
				}
				f, err := c.FindFriend(ctx, args[0])
				if err != nil {
					return "", err
				}
				return fmt.Sprintf("%s may leave nothing for you.", escape(f.Name)), c.Admit(ctx, f.Key, 0, 0)
			})
		},
	}
}

// invitationNamed finds an invitation by its key, or the beginning of that; nil: there is none.
func invitationNamed(ctx context.Context, c *client.Client, typed string) (*protocol.PublicKey, error) {
	all, err := c.Admitted(ctx)
	if err != nil {
		return nil, err
	}
	var keys []protocol.PublicKey
	for _, a := range all {
		if a.Invitation {
			keys = append(keys, a.Key)
		}
	}
	return keyNamed(keys, typed, "invitation")
}

// keyNamed finds the one of some keys that is typed: whole, by its beginning, or as lists show it; nil: none.
func keyNamed(keys []protocol.PublicKey, typed, what string) (*protocol.PublicKey, error) {
	head, tail, _ := strings.Cut(strings.ToLower(typed), "…") // as it is shown
	if len(head) < 4 {
		return nil, nil
	}
	var found *protocol.PublicKey
	for i := range keys {
		text := keys[i].Bech32()
		if !strings.HasPrefix(head, "relay1") {
			text = keys[i].String()
		}
		if !strings.HasPrefix(text, head) || !strings.HasSuffix(text, tail) {
			continue
		}
		if found != nil {
			return nil, usagef("more than one %s begins with %q: give more of the key", what, typed)
		}
		found = &keys[i]
	}
	return found, nil
}
