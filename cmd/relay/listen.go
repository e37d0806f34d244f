package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"relaymarket/client"
)

func (p *program) listenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "listen", Short: "Show messages as they arrive, until you end it", Args: cobra.NoArgs,
		Example: "  relay listen\n  relay listen --json",
		Long: `Shows each message the moment a relay has it. What arrives stays unread. With --json, each message is one line,
{"message": …}, and so is each change of a relay's state, {"relay": …}, and what is noticed of a friend, {"notice": …}. End it with Ctrl-C.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			c, m, err := p.openWatching(ctx)
			if err != nil {
				return err
			}
			defer endWatching(c, m)
			friends, err := c.Friends(ctx)
			if err != nil {
				return err
			}
			if len(friends) == 0 && !p.json {
				p.complain("You have no friends here yet; those you add now are listened to at once.\n")
			}
			err = p.listen(ctx, c, m)
			if errors.Is(err, context.Canceled) && ctx.Err() != nil {
				return nil // ended by the user
			}
			return err
		},
	}
}

// listen shows messages, and looks after contracts on the side.
func (p *program) listen(ctx context.Context, c *client.Client, m *money) error {
	if p.host != nil {
		return p.host.follow(ctx, func(e client.Event) error { return p.showEvent(ctx, c, e) })
	}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Listen(work, func(e client.Event) error { return p.showEvent(work, c, e) }) })
	if m != nil {
		group.Go(func() error { return p.watch(work, m) })
	}
	return group.Wait()
}

func (p *program) showEvent(ctx context.Context, c *client.Client, e client.Event) error {
	if e.Relay != nil {
		switch {
		case p.json:
			return p.printLine(map[string]relayLine{"relay": relayLines([]client.RelayReport{*e.Relay})[0]})
		case e.Relay.Err != nil:
			p.complain("relay: %s (it is tried again)\n", escape(e.Relay.Err.Error()))
		default:
			p.complain("Listening on %s\n", e.Relay.Address)
		}
		return nil
	}
	if e.Notice != nil {
		return p.showFriendNotice(ctx, c, e.Notice)
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	m := e.Message
	if p.json {
		return p.printLine(map[string]messageLine{"message": messageJSON(m, names)})
	}
	text := glance(m)
	if m.Fault == "" && isText(m) {
		text = escapeText(string(m.Body))
	}
	return p.say("%s  %s: %s\n", when(m.Sent), nameOf(m.From, names), text)
}

// showFriendNotice tells of a friend who moved, or of what is wrong, and notes that the user saw it.
func (p *program) showFriendNotice(ctx context.Context, c *client.Client, n *client.FriendNotice) error {
	if p.json {
		if err := p.printLine(map[string]noticeLine{"notice": noticeLines([]client.FriendNotice{*n})[0]}); err != nil {
			return err
		}
	} else if text := noticeText(n); text != "" {
		p.complain("%s\n", text)
	}
	return c.ShowNotice(ctx, *n)
}
