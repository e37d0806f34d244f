package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
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
	FileName    string     `json:"fileName"`
	Copies      []copyLine `json:"copies"`
	// Pieces is there for a file that was asked for by its id.
	Pieces *sentFileLine `json:"pieces,omitempty"`
}

type copyLine struct {
	Address string  `json:"address"`
	Relay   string  `json:"relay"`
	State   string  `json:"state"`
	Changed *string `json:"changed"`
	Error   *string `json:"error"`
	Pulled  *string `json:"pulled"`
	Pulls   int64   `json:"pulls"`
	Checked *string `json:"checked"`
}

func outgoingJSON(m *client.Outgoing, name string) outgoingLine {
	line := outgoingLine{ID: string(m.ID), To: m.To.String(), Name: name, Created: stamp(m.Created), Expires: stamp(m.Expires),
		Removed: stamp(m.Removed), Tag: string(m.Tag), MaxPulls: m.MaxPulls, ContentType: m.ContentType, Device: m.Device, Seq: m.Seq,
		FileName: m.Name, Copies: []copyLine{}}
	if text := string(m.Body); strings.HasPrefix(m.ContentType, "text/") && utf8.ValidString(text) {
		line.Text = &text
	} else {
		text = base64.StdEncoding.EncodeToString(m.Body)
		line.Base64 = &text
	}
	for _, c := range m.Copies {
		item := copyLine{Address: c.Address, Relay: c.Relay.String(), State: string(c.State), Changed: stamp(c.Changed),
			Pulled: stamp(c.Pulled), Pulls: c.Pulls, Checked: stamp(c.Seen)}
		if c.Error != "" {
			item.Error = &c.Error
		}
		line.Copies = append(line.Copies, item)
	}
	return line
}

func outgoingLines(all []client.Outgoing, names map[protocol.PublicKey]string) []outgoingLine {
	lines := make([]outgoingLine, 0, len(all))
	for i := range all {
		lines = append(lines, outgoingJSON(&all[i], names[all[i].To]))
	}
	return lines
}

func (p *program) outboxCommand() *cobra.Command {
	limit := 100
	cmd := &cobra.Command{
		Use: "outbox [ID]", Short: "List what you sent, and where each copy stands", Args: cobra.MaximumNArgs(1),
		Long: `Lists what you sent, and until when it lies where; with an id, relay by relay. A copy is queued (not on the relay yet), stored (the
relay has it on disk), pulled (your friend's program confirmed that he has it from there, or the relay says that he fetched it), removing, gone
(deleted, expired, used up or lost) or failed (refused for good). It shows what is known here: receipts come with relay inbox, and
relay heal asks the relays what they have.`,
		Example:           "  relay outbox\n  relay outbox 71ed8815",
		ValidArgsFunction: p.completeSent,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit is 0 or more")
			}
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if len(args) == 1 {
				return p.outboxOne(cmd.Context(), c, args[0])
			}
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
	unsent, err := c.UnsentFiles(ctx)
	if err != nil {
		return err
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		return p.outboxJSON(ctx, c, messages, unsent, names)
	}
	if len(messages)+len(unsent) == 0 {
		return p.say("You sent nothing yet.\n")
	}
	rows := [][]string{{"ID", "TO", "WRITTEN", "UNTIL", "COPIES", "TEXT"}}
	for i := range messages {
		m := &messages[i]
		copies := copiesText(m)
		file, err := c.FileOf(ctx, m)
		if err != nil {
			return err
		}
		if file != nil && m.Removed == 0 {
			copies = fileCopiesText(file)
		}
		rows = append(rows, []string{short(m.ID), nameOf(m.To, names), when(m.Created), when(m.Expires), copies,
			glance(&client.Message{ContentType: m.ContentType, Body: m.Body, Name: m.Name})})
		for _, copied := range m.Copies {
			if copied.Error != "" {
				p.complain("%s: %s\n", short(m.ID), escape(copied.Error))
			}
		}
	}
	for _, f := range unsent {
		if f.Told == nil {
			rows = append(rows, []string{short(f.ID), nameOf(f.To, names), when(f.Created), when(f.Expires), "being sent, " + fileCopiesText(f),
				fmt.Sprintf("(file, %s) %s", bytesize.Text(f.Size), escape(f.Name))})
		}
	}
	return errors.Join(p.table(rows), p.tellExpiring(ctx, c, names))
}

func (p *program) outboxJSON(ctx context.Context, c *client.Client, messages []client.Outgoing, unsent []*client.SentFile, names map[protocol.PublicKey]string) error {
	files := []sentFileLine{}
	for i := range messages {
		f, err := c.FileOf(ctx, &messages[i])
		if err != nil {
			return err
		}
		if f != nil {
			files = append(files, sentFileJSON(f, names[f.To]))
		}
	}
	for _, f := range unsent {
		if f.Told == nil {
			files = append(files, sentFileJSON(f, names[f.To]))
		}
	}
	expiring, err := c.Expiring(ctx)
	if err != nil {
		return err
	}
	ids := []string{}
	for _, m := range expiring {
		ids = append(ids, string(m.ID))
	}
	return p.printJSON(map[string]any{"messages": outgoingLines(messages, names), "files": files, "expiring": ids})
}

// tellExpiring warns of what expires and was not fetched.
func (p *program) tellExpiring(ctx context.Context, c *client.Client, names map[protocol.PublicKey]string) error {
	expiring, err := c.Expiring(ctx)
	for i := range expiring {
		p.complain("%s\n", expiringText(&expiring[i], names))
	}
	return err
}

func expiringText(m *client.Outgoing, names map[protocol.PublicKey]string) string {
	return fmt.Sprintf("%s to %s expires %s, and was not fetched yet as far as is known: send it again if it matters.", short(m.ID), nameOf(m.To, names), when(m.Expires))
}

// outboxOne shows one message relay by relay.
func (p *program) outboxOne(ctx context.Context, c *client.Client, id string) error {
	found, err := c.FindOutgoing(ctx, id)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return exitError{exitNothing, fmt.Errorf("no message of yours has the id %q: see relay outbox", id)}
	case len(found) > 1:
		var ids []string
		for _, m := range found {
			ids = append(ids, "\n  "+string(m.ID))
		}
		return ambiguousError{typed: id, ids: ids}
	}
	m := &found[0]
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	file, err := c.FileOf(ctx, m)
	if err != nil {
		return err
	}
	if p.json {
		line := outgoingJSON(m, names[m.To])
		if file != nil {
			told := sentFileJSON(file, line.Name)
			line.Pieces = &told
		}
		return p.printJSON(line)
	}
	if err := p.say("To:       %s  %s\nWritten:  %s\nUntil:    %s\nId:       %s\n\n", nameOf(m.To, names), m.To.Short(), when(m.Created), when(m.Expires), m.ID); err != nil {
		return err
	}
	rows := [][]string{{"RELAY", "COPY", "SINCE", "PIECES", "NOTE"}}
	for _, copied := range m.Copies {
		word, since := copyState(m, &copied)
		rows = append(rows, []string{copied.Address, word, when(since), piecesOn(file, copied.Relay), escape(copied.Error)})
	}
	return p.table(rows)
}

// copyState is the word for where a copy stands, and since when.
func copyState(m *client.Outgoing, c *client.Copy) (string, protocol.Timestamp) {
	switch {
	case c.State == "stored" && c.Pulled != 0:
		return "pulled", c.Pulled
	case c.State == "stored" && c.Pulls > 0:
		return "pulled", c.Seen
	case (c.State == "stored" || c.State == "queued") && m.Expires.Time().Before(time.Now()):
		return "gone", m.Expires
	}
	return string(c.State), c.Changed
}

func copiesText(m *client.Outgoing) string {
	counts := map[string]int{}
	for _, c := range m.Copies {
		word, _ := copyState(m, &c)
		counts[word]++
	}
	var parts []string
	for _, state := range []string{"pulled", "stored", "queued", "removing", "gone", "failed"} {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *program) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Short: "Delete a message: an own one from the relays, a received one from here", Args: oneArg("the id of a message"),
		Example: "  relay rm 71ed8815",
		Long: `Deletes an own message from all relays; whoever has pulled it keeps it. Of a file, with all its pieces; what
is still being sent is sent no further. Deletes a received message from this
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
	unsent, err := unsentNamed(ctx, c, id)
	if err != nil {
		return err
	}
	switch {
	case len(own)+len(received) == 0 && unsent != nil:
		return p.removeFile(ctx, unsent.ID)
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
