package main

import (
	"github.com/spf13/cobra"

	"relaymarket/client"
)

// What completion offers is read from the state alone: it asks for no passphrase and no relay.

func (p *program) completeFriend(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(c *client.Client) (names []string, err error) {
		friends, err := c.Friends(cmd.Context())
		for _, f := range friends {
			names = append(names, f.Name+"\t"+f.Key.Short())
		}
		return names, err
	})
}

func (p *program) completeRelay(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(c *client.Client) (addresses []string, err error) {
		relays, err := c.Relays(cmd.Context())
		for _, r := range relays {
			addresses = append(addresses, r.Address)
		}
		return addresses, err
	})
}

func (p *program) completeMessage(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(c *client.Client) (ids []string, err error) {
		messages, err := c.Messages(cmd.Context(), client.Filter{Limit: 50})
		for i := range messages {
			ids = append(ids, string(messages[i].ID)+"\t"+glance(&messages[i]))
		}
		if err != nil || cmd.Name() != "rm" {
			return append(ids, "latest"), err
		}
		sent, err := c.Outbox(cmd.Context(), 50)
		for _, m := range sent {
			ids = append(ids, string(m.ID)+"\tsent")
		}
		return ids, err
	})
}

func (p *program) complete(cmd *cobra.Command, args []string, list func(*client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := p.open(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer c.Close()
	offers, err := list(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return offers, cobra.ShellCompDirectiveNoFileComp
}
