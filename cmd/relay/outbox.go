package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"relaymarket/client"
)

// outgoingLine is a sent message in JSON.
type outgoingLine struct {
	ID          string     `json:"id"`
	To          string     `json:"to"`
	Name        string     `json:"name"`
	Created     *string    `json:"created"`
	Expires     *string    `json:"expires"`
	Removed     *string    `json:"removed"`
	Tag         string     `json:"tag"`
	MaxPulls    int64      `json:"maxPulls"`
	ContentType string     `json:"contentType"`
	Device      string     `json:"device"`
	Seq         int64      `json:"seq"`
	Text        *string    `json:"text,omitempty"`
	Base64      *string    `json:"base64,omitempty"`
	Copies      []copyLine `json:"copies"`
}

type copyLine struct {
	Address string  `json:"address"`
	Relay   string  `json:"relay"`
	State   string  `json:"state"`
	Changed *string `json:"changed"`
	Error   *string `json:"error"`
}

func outgoingJSON(m *client.Outgoing, name string) outgoingLine {
	line := outgoingLine{ID: string(m.ID), To: m.To.String(), Name: name, Created: stamp(m.Created), Expires: stamp(m.Expires),
		Removed: stamp(m.Removed), Tag: string(m.Tag), MaxPulls: m.MaxPulls, ContentType: m.ContentType, Device: m.Device, Seq: m.Seq,
		Copies: []copyLine{}}
	if text := string(m.Body); strings.HasPrefix(m.ContentType, "text/") && utf8.ValidString(text) {
		line.Text = &text
	} else {
		text = base64.StdEncoding.EncodeToString(m.Body)
		line.Base64 = &text
	}
	for _, c := range m.Copies {
		item := copyLine{Address: c.Address, Relay: c.Relay.String(), State: string(c.State), Changed: stamp(c.Changed)}
		if c.Error != "" {
			item.Error = &c.Error
		}
		line.Copies = append(line.Copies, item)
	}
	return line
}

func (p *program) outboxCommand() *cobra.Command {
	limit := 100
	cmd := &cobra.Command{
		Use: "outbox", Short: "List what you sent, and where each copy stands", Args: cobra.NoArgs,
		Long: `Lists what you sent. A copy is queued (not on the relay yet), stored (the relay has it on disk), removing, gone
(deleted, expired or used up) or failed (refused for good).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usagef("--limit is 0 or more")
			}
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			return p.outbox(cmd.Context(), c, limit)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "list the newest ones only; 0 lists all")
	return cmd
}

func (p *program) outbox(ctx context.Context, c *client.Client, limit int) error {
	messages, err := c.Outbox(ctx, limit)
	if err != nil {
		return err
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		lines := make([]outgoingLine, 0, len(messages))
		for i := range messages {
			lines = append(lines, outgoingJSON(&messages[i], names[messages[i].To]))
		}
		return p.printJSON(map[string]any{"messages": lines})
	}
	if len(messages) == 0 {
		return p.say("You sent nothing yet.\n")
	}
	rows := [][]string{{"ID", "TO", "WRITTEN", "COPIES", "TEXT"}}
	for i := range messages {
		m := &messages[i]
		rows = append(rows, []string{short(m.ID), nameOf(m.To, names), when(m.Created), copiesText(m),
			glance(&client.Message{ContentType: m.ContentType, Body: m.Body, Name: m.Name})})
		for _, copied := range m.Copies {
			if copied.Error != "" {
				p.complain("%s: %s\n", short(m.ID), escape(copied.Error))
			}
		}
	}
	return p.table(rows)
}

func copiesText(m *client.Outgoing) string {
	counts := map[string]int{}
	for _, c := range m.Copies {
		counts[string(c.State)]++
	}
	var parts []string
	for _, state := range []string{"stored", "queued", "removing", "gone", "failed"} {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *program) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Short: "Delete a message: an own one from the relays, a received one from here", Args: oneArg("the id of a message"),
		Long: `Deletes an own message from all relays; whoever has pulled it keeps it. Deletes a received message from this
device only; its sender does not learn of it.`,
		ValidArgsFunction: p.completeMessage,
		RunE:              func(cmd *cobra.Command, args []string) error { return p.remove(cmd.Context(), args[0]) },
	}
}

func (p *program) remove(ctx context.Context, id string) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	own, err := c.FindOutgoing(ctx, id)
	if err != nil {
		return err
	}
	received, err := c.FindMessages(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case len(own)+len(received) == 0:
		return exitError{exitNothing, fmt.Errorf("no message has the id %q: see relay inbox --all and relay outbox", id)}
	case len(own)+len(received) > 1:
		var ids []string
		for _, m := range own {
			ids = append(ids, "\n  "+string(m.ID)+"  sent")
		}
		for _, m := range received {
			ids = append(ids, "\n  "+string(m.ID)+"  from "+m.From.Short())
		}
		return ambiguousError{typed: id, ids: ids}
	case len(received) == 1:
		if err := c.Forget(ctx, received[0]); err != nil {
			return err
		}
		if p.json {
			return p.printJSON(map[string]string{"forgotten": string(received[0].ID)})
		}
		return p.say("Deleted here.\n")
	}
	return p.removeOwn(ctx, &own[0])
}

func (p *program) removeOwn(ctx context.Context, m *client.Outgoing) error {
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	done := p.busy("deleting")
	m, err = c.Remove(ctx, m)
	done()
	if err != nil {
		return err
	}
	waiting := 0
	for _, copied := range m.Copies {
		if copied.State == "removing" {
			waiting++
			p.complain("%s\n", escape(copied.Error))
		}
	}
	if p.json {
		err = p.printJSON(outgoingJSON(m, ""))
	} else if waiting == 0 {
		err = p.say("Deleted from all relays.\n")
	} else {
		err = p.say("Deleted; %s could not be told yet, and will be with the next send or inbox.\n", count(waiting, "relay"))
	}
	if waiting > 0 {
		err = errors.Join(err, exitError{code: exitPartial})
	}
	return err
}
