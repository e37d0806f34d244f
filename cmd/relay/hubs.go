package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	relaybook "relaymarket/broadcast/market"
	"relaymarket/client"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// marketFile is the book of the market, in the folder.
const marketFile = "market.db"

// marketPlace opens the book of a network: the one that is named; else that of the Bitcoin node, else that of the
// hubs, else mainnet.
func (p *program) marketPlace(ctx context.Context, named string) (*relaybook.Book, error) {
	dir, err := p.folder()
	if err != nil {
		return nil, err
	}
	// The book needs no keys, and is no good without: there is nobody who could rent.
	c, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	c.Close()
	path := filepath.Join(dir, marketFile)
	network := protocol.Network(named)
	if named == "" {
		if network, err = p.usualNetwork(ctx, path); err != nil {
			return nil, err
		}
	}
	if err := network.Validate(); err != nil {
		return nil, exitError{exitUsage, err}
	}
	proxy, err := p.proxyURL()
	if err != nil {
		return nil, err
	}
	return relaybook.Open(ctx, relaybook.Config{Path: path, Network: network, HTTP: client.NewHTTP(proxy, time.Now), Logger: p.logger()})
}

func (p *program) usualNetwork(ctx context.Context, path string) (protocol.Network, error) {
	if store, err := p.contractStore(ctx, nil); err == nil {
		settings, err := readNode(ctx, store)
		_ = store.Close()
		if err == nil {
			return settings.Network, nil
		}
		if !errors.Is(err, userside.ErrNoNode) {
			return "", err
		}
	}
	networks, err := relaybook.Networks(ctx, path)
	if err != nil {
		return "", err
	}
	switch len(networks) {
	case 0:
		return protocol.Mainnet, nil
	case 1:
		return networks[0], nil
	}
	return "", usagef("your hubs are on several networks: say which with --network")
}

func networkFlag(cmd *cobra.Command, network *string) {
	cmd.PersistentFlags().StringVar(network, "network", "", "mainnet, testnet4, signet or regtest (default: that of your Bitcoin node, else of your hubs, else mainnet)")
}

func (p *program) hubsCommand() *cobra.Command {
	var network string
	cmd := &cobra.Command{Use: "hubs", Aliases: []string{"hub"}, Short: "Add, list and remove the hubs that you learn of relays from", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `Hubs keep public lists of relays. They are trusted with nothing: what they tell is checked, and several of them
make it hard to hide a relay from you. None is known from the start: ask a friend, or an operator; relays name theirs.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	networkFlag(cmd, &network)
	cmd.AddCommand(p.hubsAddCommand(&network), p.hubsListCommand(&network), p.hubsRemoveCommand(&network))
	return cmd
}

// hubAddress makes an address of what people type: a NATS server keeps its scheme, anything else is a relay.
func hubAddress(typed string) (string, error) {
	typed = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(typed)), "/")
	if strings.HasPrefix(typed, "nats://") || strings.HasPrefix(typed, "tls://") {
		return typed, protocol.ValidateHub(typed)
	}
	address, key, err := client.ParseAddress(typed)
	if err == nil && key != nil {
		err = errors.New("a hub is named without a key: nothing that it tells is believed unchecked")
	}
	return address, err
}

func (p *program) hubsAddCommand(network *string) *cobra.Command {
	return &cobra.Command{
		Use: "add ADDRESS", Short: "Learn of relays from a hub", Args: oneArg("the hub's address"),
		Long: `The address of a hub is that of its relay, or of its NATS server, which also tells at once what changes.
Nothing is asked of the hub yet; "relay market" does.`,
		Example: "  relay hubs add https://relay.example\n  relay hubs add tls://relay.example:4222",
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := hubAddress(args[0])
			if err != nil {
				return exitError{exitUsage, err}
			}
			b, err := p.marketPlace(cmd.Context(), *network)
			if err != nil {
				return err
			}
			defer b.Close()
			if err := b.AddHub(cmd.Context(), address); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]any{"added": address, "network": b.Network()})
			}
			return p.say("Added %s, for %s. See its relays: relay market\n", address, b.Network())
		},
	}
}

// hubItem is a hub in JSON.
type hubItem struct {
	Address string  `json:"address"`
	Added   *string `json:"added"`
	Heard   *string `json:"heard"` // when its book was last read to the end
	Error   *string `json:"error"` // why not since
}

func (p *program) hubsListCommand(network *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your hubs, and others that relays and friends name", Args: cobra.NoArgs,
		Example: "  relay hubs list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := p.marketPlace(cmd.Context(), *network)
			if err != nil {
				return err
			}
			defer b.Close()
			hubs, err := b.Hubs(cmd.Context())
			if err != nil {
				return err
			}
			found, err := p.foundHubs(cmd.Context(), b, hubs)
			if err != nil {
				return err
			}
			if p.json {
				items := make([]hubItem, 0, len(hubs))
				for _, h := range hubs {
					item := hubItem{Address: h.Address, Added: stamp(h.Added), Heard: stamp(h.Heard)}
					if h.Fault != "" {
						item.Error = &h.Fault
					}
					items = append(items, item)
				}
				return p.printJSON(map[string]any{"network": b.Network(), "hubs": items, "found": found})
			}
			return p.showHubs(hubs, found)
		},
	}
}

func (p *program) showHubs(hubs []relaybook.Hub, found []string) error {
	if len(hubs) == 0 {
		if err := p.say("You have no hub yet. Add one: relay hubs add ADDRESS\n"); err != nil {
			return err
		}
	} else {
		rows := [][]string{{"ADDRESS", "ADDED", "READ", "STATE"}}
		for _, h := range hubs {
			heard, state := "never", "ok"
			if h.Heard > 0 {
				heard = when(h.Heard)
			}
			if h.Fault != "" {
				state = escape(h.Fault)
			}
			rows = append(rows, []string{h.Address, when(h.Added), heard, state})
		}
		if err := p.table(rows); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	return p.say("\nNamed by relays and friends, and not yours:\n  %s\n", strings.Join(found, "\n  "))
}

// maxFound are shown at most.
const maxFound = 20

// foundHubs are those that friends' cards name, and then those that relays do.
func (p *program) foundHubs(ctx context.Context, b *relaybook.Book, mine []relaybook.Hub) ([]string, error) {
	c, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	found, err := c.FriendsHubs(ctx)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(h string) bool {
		return slices.ContainsFunc(mine, func(m relaybook.Hub) bool { return m.Address == h })
	})
	announced, err := b.FoundHubs(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range announced {
		if !slices.Contains(found, h) {
			found = append(found, h)
		}
	}
	return found[:min(len(found), maxFound)], nil
}

func (p *program) hubsRemoveCommand(network *string) *cobra.Command {
	return &cobra.Command{
		Use: "rm ADDRESS", Short: "Learn nothing more from a hub; what it told stays until it expires", Args: oneArg("the hub's address"),
		Example: "  relay hubs rm https://hub.example.org",
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := hubAddress(args[0])
			if err != nil {
				return exitError{exitUsage, err}
			}
			b, err := p.marketPlace(cmd.Context(), *network)
			if err != nil {
				return err
			}
			defer b.Close()
			if err := b.RemoveHub(cmd.Context(), address); err != nil {
				return fmt.Errorf("%w: %s", err, address)
			}
			if p.json {
				return p.printJSON(map[string]any{"removed": address})
			}
			return p.say("Removed %s.\n", address)
		},
	}
}
