package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/protocol"
)

func (p *program) idCommand() *cobra.Command {
	var card string
	var link, qr bool
	cmd := &cobra.Command{
		Use: "id", Short: "Show your key; write your card for friends", Args: cobra.NoArgs,
		Example: "  relay id\n  relay id --card me.relayid\n  relay id --link --qr",
		Long: `Shows your key and your link. Friends add you by your card, a file, or by the link, with which they fetch the
card from your relays.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			switch {
			case card != "":
				return p.writeCard(cmd, c, card)
			case link || qr:
				return p.showLink(cmd, c, qr)
			}
			return p.showID(cmd, c)
		},
	}
	cmd.Flags().StringVar(&card, "card", "", "write your card to this file, or to standard output (-)")
	cmd.Flags().BoolVar(&link, "link", false, "print only your link")
	cmd.Flags().BoolVar(&qr, "qr", false, "show your link as a QR code")
	cmd.MarkFlagsMutuallyExclusive("card", "link", "qr")
	return cmd
}

// identityResult is what id prints with --json.
type identityResult struct {
	Key    string      `json:"key"`
	Bech32 string      `json:"bech32"`
	Label  string      `json:"label"`
	Link   string      `json:"link"`
	Relays []relayLink `json:"relays"`
}

type relayLink struct {
	Address string `json:"address"`
	Key     string `json:"key"`
}

func (p *program) showID(cmd *cobra.Command, c *client.Client) error {
	link, err := c.Link(cmd.Context())
	if err != nil {
		return err
	}
	label, err := c.Label(cmd.Context())
	if err != nil {
		return err
	}
	relays, err := c.Relays(cmd.Context())
	if err != nil {
		return err
	}
	if p.json {
		result := identityResult{Key: c.Key().String(), Bech32: c.Key().Bech32(), Label: label, Link: link.String(), Relays: []relayLink{}}
		for _, r := range relays {
			result.Relays = append(result.Relays, relayLink{Address: r.Address, Key: r.Key.String()})
		}
		return p.printJSON(result)
	}
	if err := p.say("key    %s\n", c.Key().Bech32()); err != nil {
		return err
	}
	if label != "" {
		if err := p.say("label  %s\n", escape(label)); err != nil {
			return err
		}
	}
	return p.say("link   %s\n", link)
}

func (p *program) showLink(cmd *cobra.Command, c *client.Client, qr bool) error {
	link, err := c.Link(cmd.Context())
	if err != nil {
		return err
	}
	if len(link.Relays) == 0 {
		return fmt.Errorf("a link leads to the card on your relays: %w", client.ErrNoRelays)
	}
	if qr {
		qrterminal.GenerateHalfBlock(link.String(), qrterminal.L, p.out)
	}
	return p.say("%s\n", link)
}

func (p *program) writeCard(cmd *cobra.Command, c *client.Client, path string) error {
	card, err := c.Card(cmd.Context())
	if err != nil {
		return err
	}
	data := append(card.Bytes(), '\n')
	if path == "-" {
		_, err := p.out.Write(data)
		return err
	}
	if err := onlyOverCard(path, c.Key()); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	var id protocol.Identity
	if err := card.Decode(&id); err != nil {
		return err
	}
	if len(id.Relays) == 0 {
		p.complain("The card names no relay yet. After relay relays add, write it again: friends could not find your messages.\n")
	}
	if p.json {
		return p.printJSON(map[string]string{"card": path})
	}
	return p.say("Wrote %s. Give it to your friends; it holds no secret.\n", path)
}

// onlyOverCard lets an older card of the same key be replaced, and nothing else.
func onlyOverCard(path string, key protocol.PublicKey) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if e, err := protocol.ParseEnvelope(trimNewline(data)); err != nil || e.From != key || e.Type != protocol.TypeIdentity {
		return fmt.Errorf("%s is there already and is not your card: choose another file name", path)
	}
	return nil
}

func trimNewline(data []byte) []byte {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		return data[:n-1]
	}
	return data
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		Example: "  relay version --json",
		RunE: func(*cobra.Command, []string) error {
			version, built := "(unknown)", "(unknown)"
			if info, ok := debug.ReadBuildInfo(); ok {
				version, built = info.Main.Version, info.GoVersion
			}
			if p.json {
				return p.printJSON(map[string]string{"version": version, "go": built, "signatures": protocol.Implementation})
			}
			return p.say("relay %s (%s, signatures by %s)\n", version, built, protocol.Implementation)
		},
	}
}
