package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
)

// friendDetails is all that is known of a friend, in JSON.
type friendDetails struct {
	friendLine
	Sealing        []sealingLine `json:"sealing"`
	Admitted       *admittedLine `json:"admitted"` // null: he may leave nothing here
	Contradictions int64         `json:"contradictions"`
	Gaps           []gapLine     `json:"gaps"`
	Notices        []noticeLine  `json:"notices"`
	Relays         []relayLink   `json:"relays"`
}

// sealingLine is a sealing key in JSON, by its hash: the key itself has 1,216 bytes.
type sealingLine struct {
	Suite  int64  `json:"suite"`
	SHA256 string `json:"sha256"` // of the key as the card has it, base64
}

func sealingLines(id *protocol.Identity) []sealingLine {
	lines := make([]sealingLine, 0, len(id.Sealing))
	for _, s := range id.Sealing {
		sum := sha256.Sum256([]byte(s.Key))
		lines = append(lines, sealingLine{Suite: s.Suite, SHA256: hex.EncodeToString(sum[:])})
	}
	return lines
}

func (p *program) friendShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show FRIEND", Short: "Show all that is known of a friend: card, changes, what is missing, contradictions", Args: oneArg("a friend"),
		Long: `Shows the friend's key, card and relays, whether he may leave something for you, and what did not go as it should: messages that are
missing, two contents under one id, cards that changed, and cards that were refused because they are older, not his, or a second one of the same time.`,
		Example:           "  relay friend show anna\n  relay friend show anna --json",
		ValidArgsFunction: p.completeFriend,
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
			return p.showFriend(cmd.Context(), c, f)
		},
	}
}

func (p *program) showFriend(ctx context.Context, c *client.Client, f *client.Friend) error {
	notices, err := c.NoticesOf(ctx, f.Key)
	if err != nil {
		return err
	}
	contradictions, err := c.Contradictions(ctx, f.Key)
	if err != nil {
		return err
	}
	all, err := c.Gaps(ctx)
	if err != nil {
		return err
	}
	var gaps []client.Gap
	for _, g := range all {
		if g.From == f.Key {
			gaps = append(gaps, g)
		}
	}
	admitted, err := admittedFriend(ctx, c, f.Key)
	if err != nil {
		return err
	}
	names := map[protocol.PublicKey]string{f.Key: f.Name}
	if p.json {
		line := friendJSON(f)
		return p.printJSON(friendDetails{friendLine: line, Sealing: sealingLines(&f.Card), Admitted: admitted, Contradictions: contradictions,
			Gaps: gapLines(gaps, names), Notices: noticeLines(notices), Relays: line.Relays})
	}
	rows := [][]string{{"key", f.Key.Bech32()}, {"label", fmt.Sprintf("%q", escape(f.Card.Label))}, {"added", when(f.Added)}, {"card", "of " + when(f.Dated)}}
	for _, s := range sealingLines(&f.Card) {
		rows = append(rows, []string{"sealing key", fmt.Sprintf("suite %d, SHA-256 %s…", s.Suite, s.SHA256[:16])})
	}
	for _, r := range f.Card.Relays {
		rows = append(rows, []string{"relay", r.Address + "  " + r.PubKey.Short()})
	}
	if len(f.Card.Relays) == 0 {
		rows = append(rows, []string{"relay", "none: he can write to you only where you admit him"})
	}
	may := "nothing"
	if admitted != nil {
		may = fmt.Sprintf("%s, %s at once, on %s", bytesize.Text(admitted.Bytes), count(int(admitted.Records), "record"), count(admitted.Relays, "relay"))
	}
	rows = append(rows, []string{"may leave for you", may})
	if err := p.table(rows); err != nil {
		return err
	}
	return p.friendTroubles(notices, gaps, contradictions, names)
}

func admittedFriend(ctx context.Context, c *client.Client, key protocol.PublicKey) (*admittedLine, error) {
	all, err := c.Admitted(ctx)
	for _, a := range all {
		if a.Key == key && a.Bytes > 0 {
			return &admittedLine{Key: a.Key.String(), Name: a.Name, Bytes: a.Bytes, Records: a.Records, Own: a.Own, Relays: a.On}, err
		}
	}
	return nil, err
}

func (p *program) friendTroubles(notices []client.FriendNotice, gaps []client.Gap, contradictions int64, names map[protocol.PublicKey]string) error {
	texts := gapTexts(gaps, names)
	if contradictions > 0 {
		texts = append(texts, fmt.Sprintf("Contradicted: %s, of which two contents were signed under one id. relay inbox --all marks them.", count(int(contradictions), "message")))
	}
	if len(texts) > 0 {
		if err := p.say("\n%s\n", strings.Join(texts, "\n")); err != nil {
			return err
		}
	}
	for i := range notices {
		text := noticeText(&notices[i])
		if text == "" {
			continue
		}
		if err := p.say("\n%s  %s\n", when(notices[i].At), text); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) friendAcceptCommand() *cobra.Command {
	var name string
	var noAdmit bool
	cmd := &cobra.Command{
		Use: "accept KEY", Short: "Make a friend of a stranger who left you a first word", Args: oneArg("the stranger's key, as relay admit list shows it"),
		Long: `Makes a friend of who left you a first word by your invitation (relay admit --invite). His card came with it. Who he is, only his words
tell: the label in the card is what he chose.`,
		Example: "  relay admit list\n  relay friend accept relay1qqqsyq --name carol",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return p.complete(cmd, args, func(c *client.Client) (keys []string, err error) {
				strangers, err := c.Strangers(cmd.Context())
				for _, s := range strangers {
					keys = append(keys, s.Key.Bech32()+"\t"+escape(s.Card.Label))
				}
				return keys, err
			})
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := p.open(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			strangers, err := c.Strangers(ctx)
			if err != nil {
				return err
			}
			var keys []protocol.PublicKey
			for _, s := range strangers {
				keys = append(keys, s.Key)
			}
			key, err := keyNamed(keys, args[0], "stranger")
			if err != nil {
				return err
			}
			if key == nil {
				return fmt.Errorf("%w: %s", client.ErrNoStranger, args[0])
			}
			f, err := c.AcceptStranger(ctx, *key, name)
			if err != nil {
				return err
			}
			if noAdmit {
				if err := c.Admit(ctx, f.Key, 0, 0); err != nil {
					return err
				}
			}
			return p.showAdded(f, nil, false)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what you call the friend (default the label of the card)")
	cmd.Flags().BoolVar(&noAdmit, "no-admit", false, "he may leave nothing for you on your relays")
	return cmd
}
