package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
)

// messageLine is a received message in JSON. Text is there for text, Base64 for everything else.
type messageLine struct {
	ID            string  `json:"id"`
	From          string  `json:"from"`
	Name          string  `json:"name"`
	Sent          *string `json:"sent"`
	Received      *string `json:"received"`
	Read          *string `json:"read"`
	Expires       *string `json:"expires"`
	Tag           string  `json:"tag"`
	ContentType   string  `json:"contentType"`
	FileName      string  `json:"fileName"`
	Device        string  `json:"device"`
	Seq           int64   `json:"seq"`
	Text          *string `json:"text,omitempty"`
	Base64        *string `json:"base64,omitempty"`
	Fault         *string `json:"fault"`
	Contradiction bool    `json:"contradiction"`
	Sealed        bool    `json:"sealed"`
	Relay         string  `json:"relay"`
}

func messageJSON(m *client.Message, names map[protocol.PublicKey]string) messageLine {
	line := messageLine{ID: string(m.ID), From: m.From.String(), Name: names[m.From], Sent: stamp(m.Sent), Received: stamp(m.Received),
		Read: stamp(m.Read), Expires: stamp(m.Expires), Tag: string(m.Tag), ContentType: m.ContentType, FileName: m.Name,
		Device: m.Device, Seq: m.Seq, Contradiction: m.Contradiction != nil, Sealed: !m.Plain, Relay: m.Relay.String()}
	switch {
	case m.Fault != "":
		line.Fault = &m.Fault
	case isText(m):
		text := string(m.Body)
		line.Text = &text
	default:
		text := base64.StdEncoding.EncodeToString(m.Body)
		line.Base64 = &text
	}
	return line
}

func isText(m *client.Message) bool {
	return strings.HasPrefix(m.ContentType, "text/") && utf8.Valid(m.Body)
}

// friendNames maps keys to names, for showing who wrote.
func friendNames(ctx context.Context, c *client.Client) (map[protocol.PublicKey]string, error) {
	friends, err := c.Friends(ctx)
	names := make(map[protocol.PublicKey]string, len(friends))
	for _, f := range friends {
		names[f.Key] = f.Name
	}
	return names, err
}

func nameOf(key protocol.PublicKey, names map[protocol.PublicKey]string) string {
	if name, ok := names[key]; ok {
		return escape(name)
	}
	return key.Short()
}

func (p *program) inboxCommand() *cobra.Command {
	var offline, all bool
	limit := 100
	cmd := &cobra.Command{
		Use: "inbox", Short: "Get what friends sent, and list what is unread", Args: cobra.NoArgs,
		Example: "  relay inbox\n  relay inbox --all --offline",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.inbox(cmd.Context(), offline, all, limit) },
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "list only what is here already; needs no passphrase")
	cmd.Flags().BoolVar(&all, "all", false, "list also what was read")
	cmd.Flags().IntVar(&limit, "limit", limit, "list the newest ones only; 0 lists all")
	return cmd
}

func (p *program) inbox(ctx context.Context, offline, all bool, limit int) error {
	if limit < 0 {
		return usagef("--limit is 0 or more")
	}
	openClient := p.openWatching
	if offline {
		openClient = func(ctx context.Context) (*client.Client, *money, error) {
			c, err := p.open(ctx)
			return c, nil, err
		}
	}
	c, contracts, err := openClient(ctx)
	if err != nil {
		return err
	}
	defer endWatching(c, contracts)
	defer p.glance(ctx, contracts)
	defer p.showNotices(ctx, c)
	result := &client.SyncResult{}
	if !offline {
		limited, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		done := p.busy("asking relays")
		result, err = c.Sync(limited)
		done()
		if err != nil {
			return err
		}
	}
	messages, err := c.Messages(ctx, client.Filter{Unread: !all, Limit: limit})
	if err != nil {
		return err
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	news, err := c.News(ctx)
	if err != nil {
		return err
	}
	gaps, err := c.Gaps(ctx)
	if err != nil {
		return err
	}
	if p.json {
		err = p.inboxJSON(messages, names, news, gaps, result)
	} else {
		err = p.inboxText(messages, names, news, gaps, result, all)
	}
	if err == nil { // what was printed is told once
		err = shown(ctx, c, news, gaps)
	}
	return errors.Join(err, p.failures(append(result.Pulled, result.Sent...)))
}

// shown notes what the user was told.
func shown(ctx context.Context, c *client.Client, news []client.FriendNotice, gaps []client.Gap) error {
	for _, n := range news {
		if err := c.ShowNotice(ctx, n); err != nil {
			return err
		}
	}
	for _, g := range gaps {
		if g.Shown != 0 {
			continue
		}
		if err := c.ShowGap(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// changesIn are the changes of cards among notices.
func changesIn(news []client.FriendNotice) []client.CardChange {
	var changes []client.CardChange
	for _, n := range news {
		if n.Change != nil && changeText(n.Change) != "" {
			changes = append(changes, *n.Change)
		}
	}
	return changes
}

func (p *program) inboxJSON(messages []client.Message, names map[protocol.PublicKey]string, news []client.FriendNotice, gaps []client.Gap, result *client.SyncResult) error {
	lines := make([]messageLine, 0, len(messages))
	for i := range messages {
		lines = append(lines, messageJSON(&messages[i], names))
	}
	return p.printJSON(map[string]any{
		"messages": lines, "gaps": gapLines(gaps, names), "changes": changeLines(changesIn(news)), "notices": noticeLines(news),
		"relays": relayLines(append(result.Pulled, result.Sent...)), "expiring": outgoingLines(result.Expiring, names),
	})
}

func (p *program) inboxText(messages []client.Message, names map[protocol.PublicKey]string, news []client.FriendNotice, gaps []client.Gap, result *client.SyncResult, all bool) error {
	for i := range news {
		if text := noticeText(&news[i]); text != "" {
			p.complain("%s\n", text)
		}
	}
	fresh := slices.DeleteFunc(slices.Clone(gaps), func(g client.Gap) bool { return g.Shown != 0 })
	for _, text := range gapTexts(fresh, names) {
		p.complain("%s\n", text)
	}
	for i := range result.Expiring {
		p.complain("%s\n", expiringText(&result.Expiring[i], names))
	}
	if len(messages) == 0 && all {
		return p.say("No messages.\n")
	}
	if len(messages) == 0 {
		return p.say("No unread messages.\n")
	}
	rows := [][]string{{"ID", "FROM", "SENT", "TEXT"}}
	for i := range messages {
		m := &messages[i]
		rows = append(rows, []string{short(m.ID), nameOf(m.From, names), when(m.Sent), glance(m)})
	}
	return p.table(rows)
}

// glance is the first line of a message, cut to fit.
func glance(m *client.Message) string {
	var text string
	switch {
	case m.Fault != "":
		text = "(cannot be read: " + escape(m.Fault) + ")"
	case m.ContentType == protocol.FileType:
		text = fileGlance(m)
	case m.ContentType == state.BackupType:
		text = "(part of your backup)"
	case !isText(m):
		text = fmt.Sprintf("(%s, %s)", escape(m.ContentType), count(len(m.Body), "byte"))
	default:
		first, rest, _ := strings.Cut(strings.TrimSpace(string(m.Body)), "\n")
		text = escape(strings.TrimSuffix(first, "\r"))
		if rest != "" {
			text += " …"
		}
	}
	if runes := []rune(text); len(runes) > 60 {
		text = string(runes[:59]) + "…"
	}
	if m.Contradiction != nil {
		text = "[CONTRADICTED] " + text
	}
	return text
}

// fileGlance is what a message says that tells of a file.
func fileGlance(m *client.Message) string {
	manifest, err := protocol.ParseFileManifest(m.Body)
	if err != nil {
		return "(a file that cannot be fetched: " + escape(err.Error()) + ")"
	}
	return fmt.Sprintf("(file, %s) %s", bytesize.Text(manifest.Size), escape(m.Name))
}

func (p *program) readCommand() *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use: "read [ID|latest]", Short: "Read the next unread message, or the one named", Args: cobra.MaximumNArgs(1),
		Example: "  relay read\n  relay read 71ed8815\n  relay read latest --raw > picture.png",
		Long: `Reads the oldest unread message, the latest one, or the one whose id is given, or begins or ends with what is given.
It shows what is here already; "relay inbox" gets what is new. It needs no passphrase.`,
		ValidArgsFunction: p.completeMessage,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			m, err := chosenMessage(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			names, err := friendNames(cmd.Context(), c)
			if err != nil {
				return err
			}
			if err := p.showMessage(m, names, raw); err != nil {
				return err
			}
			return c.MarkRead(cmd.Context(), *m)
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "write only the body, byte for byte")
	return cmd
}

func chosenMessage(ctx context.Context, c *client.Client, args []string) (*client.Message, error) {
	if len(args) == 1 && args[0] != "latest" {
		found, err := c.FindMessages(ctx, args[0])
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			return nil, exitError{exitNothing, fmt.Errorf("no message has the id %q: see relay inbox --all", args[0])}
		case len(found) > 1:
			var ids []string
			for _, m := range found {
				ids = append(ids, "\n  "+string(m.ID)+"  from "+m.From.Short())
			}
			return nil, ambiguousError{typed: args[0], ids: ids}
		}
		return &found[0], nil
	}
	found, err := c.Messages(ctx, client.Filter{Unread: len(args) == 0})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0 && len(args) == 0:
		return nil, exitError{exitNothing, errors.New("there is nothing unread: relay inbox gets what is new, relay read latest shows the last message again")}
	case len(found) == 0:
		return nil, exitError{exitNothing, errors.New("there is no message: relay inbox gets what is new")}
	case len(args) == 1:
		return &found[len(found)-1], nil
	}
	return &found[0], nil
}

// ambiguousError says that several messages are meant.
type ambiguousError struct {
	typed string
	ids   []string
}

func (e ambiguousError) Error() string {
	return fmt.Sprintf("%d messages have an id with %q, give more of it:%s", len(e.ids), e.typed, strings.Join(e.ids, ""))
}

func (p *program) showMessage(m *client.Message, names map[protocol.PublicKey]string, raw bool) error {
	switch {
	case raw && m.Fault != "":
		return fmt.Errorf("the message cannot be read: %s", m.Fault)
	case raw:
		_, err := p.out.Write(m.Body)
		return err
	case p.json:
		return p.printJSON(messageJSON(m, names))
	}
	head := fmt.Sprintf("From:  %s  %s\nSent:  %s\nId:    %s\n", nameOf(m.From, names), m.From.Short(), when(m.Sent), m.ID)
	if m.Tag != "" {
		head += "Tag:   " + string(m.Tag) + "\n"
	}
	if m.Name != "" {
		head += "File:  " + escape(m.Name) + "\n"
	}
	if m.Plain {
		head += "Note:  it was not sealed: whoever carried it could read it\n"
	}
	if m.Contradiction != nil {
		head += "Note:  the sender signed other content under the same id as well; this came first\n"
	}
	body := escapeText(string(m.Body))
	switch {
	case m.Fault != "":
		body = "(This message cannot be read: " + escape(m.Fault) + ".)"
	case m.ContentType == protocol.FileType:
		body = fmt.Sprintf("%s\nFetch it with: relay get %s", fileGlance(m), short(m.ID))
	case !isText(m):
		body = fmt.Sprintf("(%s of %s; save them with: relay read --raw %s > FILE)", count(len(m.Body), "byte"), escape(m.ContentType), short(m.ID))
	}
	return p.say("%s\n%s\n", head, strings.TrimSuffix(body, "\n"))
}
