package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"relaymarket/client"
	"relaymarket/protocol"
)

// sendPatience is how long a message is tried.
const sendPatience = 30 * time.Second

func (p *program) sendCommand() *cobra.Command {
	var o client.SendOptions
	ttl, tag := "30d", ""
	patience := sendPatience
	var paths []string
	resume := false
	cmd := &cobra.Command{
		Use: "send FRIEND TEXT|- or send --file PATH FRIEND", Short: "Send a message or files to a friend", ValidArgsFunction: p.completeFriend,
		Args: func(cmd *cobra.Command, args []string) error {
			if resume || len(paths) > 0 {
				return fileArgs(resume, args)
			}
			return sendArgs(cmd, args)
		},
		Long: `Seals the text to the friend and leaves it on all your relays. It is done when --copies of them have it on disk.
What could not be delivered is kept, and goes out with the next send or inbox. With - the text is read from standard input.

With --file (more than once for several) files of any size are sent, in pieces, to all your relays that have room; the friend is
told when --copies of them have all of it, and fetches it with relay get. If it is interrupted, the same command goes on where it was, or
relay send --resume does for all that wait. Leave the file as it is until then.`,
		Example: "  relay send anna \"see you at eight\"\n  git log -1 | relay send anna -\n  relay send --file holiday.mp4 anna\n  relay send --resume",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.TTL, err = parseTTL(ttl); err != nil {
				return exitError{exitUsage, err}
			}
			if resume || len(paths) > 0 {
				for i := range paths {
					paths[i] = p.path(paths[i])
				}
				return p.sendFiles(cmd.Context(), paths, args, resume, fileOptions(cmd, o, patience))
			}
			if o.Tag = protocol.Tag(tag); tag != "" && o.Tag.Validate() != nil {
				return usagef("--tag is 1 to %d letters, digits, - and _", protocol.MaxTag)
			}
			if o.MaxPulls < 1 || o.MaxPulls > protocol.MaxPullsLimit {
				return usagef("--max-pulls is 1 to %d", protocol.MaxPullsLimit)
			}
			if o.Copies < 1 {
				return usagef("--copies is 1 or more")
			}
			return p.send(cmd.Context(), args[0], args[1], o, patience)
		},
	}
	cmd.Flags().StringArrayVar(&paths, "file", nil, "a file to send")
	cmd.Flags().BoolVar(&resume, "resume", false, "go on with the files that wait, or those named by --file")
	cmd.Flags().StringVar(&ttl, "ttl", ttl, "how long relays keep it: 90m, 12h, 30d, 2w; a file 14d if you do not say")
	cmd.Flags().StringVar(&tag, "tag", "", "a word that the relays can see")
	cmd.Flags().BoolVar(&o.Plain, "plain", false, "do not seal it: every relay that carries it can read it")
	cmd.Flags().Int64Var(&o.MaxPulls, "max-pulls", client.DefaultMaxPulls, "how often each relay serves it at most; a file 3 times if you do not say")
	cmd.Flags().IntVar(&o.Copies, "copies", client.DefaultCopies, "how many relays must have it")
	cmd.Flags().DurationVar(&patience, "patience", patience, "how long to try; for files, how long nothing may move, 2m if you do not say")
	cmd.MarkFlagsMutuallyExclusive("file", "tag")
	return cmd
}

// fileOptions are those that were given; files have other defaults than messages.
func fileOptions(cmd *cobra.Command, o client.SendOptions, patience time.Duration) client.FileOptions {
	files := client.FileOptions{Copies: o.Copies}
	if cmd.Flags().Changed("ttl") {
		files.TTL = o.TTL
	}
	if cmd.Flags().Changed("max-pulls") {
		files.MaxPulls = o.MaxPulls
	}
	if cmd.Flags().Changed("patience") {
		files.Patience = patience
	}
	return files
}

func fileArgs(resume bool, args []string) error {
	switch {
	case resume && len(args) > 0:
		return errors.New("--resume needs no friend: the files know where they go")
	case len(args) > 1:
		return fmt.Errorf("send --file takes one friend, and got %d words: give each file its own --file", len(args))
	}
	return nil
}

func sendArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) < 2:
		return errors.New("send needs a friend and a text, or - to read the text from standard input")
	case len(args) > 2:
		return fmt.Errorf("send takes a friend and one text, and got %d words: put the text in quotes", len(args)-1)
	}
	return nil
}

// parseTTL reads Go's durations, and days and weeks.
func parseTTL(s string) (time.Duration, error) {
	wrong := fmt.Errorf("--ttl %q is not a time: write 90m, 12h, 30d or 2w", s)
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n < 1 || n > math.MaxInt64/int64(length) {
				return 0, wrong
			}
			return time.Duration(n) * length, nil
		}
	}
	ttl, err := time.ParseDuration(s)
	if err != nil || ttl < time.Second {
		return 0, wrong
	}
	return ttl, nil
}

func (p *program) send(ctx context.Context, friend, text string, o client.SendOptions, patience time.Duration) error {
	body := []byte(text)
	if text == "-" {
		var err error
		if body, err = io.ReadAll(io.LimitReader(p.in, protocol.MaxEnvelopeSize+1)); err != nil {
			return fmt.Errorf("read the text: %w", err)
		}
	}
	if len(body) == 0 {
		return usagef("the text is empty")
	}
	// Found first, so that nobody types a passphrase for a name that is misspelled.
	key, err := p.findFriend(ctx, friend)
	if err != nil {
		return err
	}
	m, err := p.trySend(ctx, key, body, o, patience)
	if m != nil && err != nil && p.host != nil && p.canOffer(err) {
		p.from.ask(string(m.ID)) // he who sits at the terminal is asked there
		return exitError{code: exitFailed}
	}
	if m != nil && err != nil {
		if opened := p.offerContract(ctx, err); opened {
			m, err = p.tryAgain(ctx, m, patience)
		}
	}
	if m == nil {
		return err
	}
	return errors.Join(p.showSent(m), p.sentCode(m, err))
}

// trySend sends, and looks after the contracts by the way. Without a message nothing was sealed.
func (p *program) trySend(ctx context.Context, key protocol.PublicKey, body []byte, o client.SendOptions, patience time.Duration) (*client.Outgoing, error) {
	c, contracts, err := p.openWatching(ctx)
	if err != nil {
		return nil, err
	}
	defer endWatching(c, contracts)
	defer p.glance(ctx, contracts)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := p.busy("sending")
	defer p.showNotices(ctx, c)
	defer done()
	m, err := c.Send(ctx, key, body, o)
	if m != nil && contracts != nil && errors.Is(err, protocol.CodePaymentDue) {
		p.settleUp(ctx, contracts) // a state that was signed before may reach the relay only now, and nothing more be paid
		m, err = sendAgain(ctx, c, m, err)
	}
	return m, err
}

// offerContract offers on a terminal to open a contract with a relay that refused for want of one, on the very offer that it refused with,
// and tells whether there is one now.
func (p *program) offerContract(ctx context.Context, refused error) bool {
	if !p.canOffer(refused) {
		return false
	}
	for _, r := range unpaid(refused) {
		if r.Offer.Contracts == nil {
			continue
		}
		deposit := usualDeposit(r.Offer)
		p.complain("relay: %s\n", escape(r.Error()))
		if p.confirm(false, fmt.Sprintf("Open one with a deposit of %s, and send then? You are told first what it costs.", sat(deposit))) != nil {
			return false
		}
		open := openOptions{deposit: strconv.FormatInt(int64(deposit), 10), days: usualDays, wait: 1, offer: r.OfferHash.String()}
		if err := p.openContract(ctx, r.Address, nil, open); err != nil {
			p.complain("relay: %s\n", escapeText(err.Error()))
			return false
		}
		return true
	}
	return false
}

// canOffer tells whether there is a contract to offer, and somebody to offer it to.
func (p *program) canOffer(refused error) bool {
	terminal := p.from.asks
	if p.host == nil {
		terminal = term.IsTerminal(int(p.in.Fd()))
	}
	return terminal && !p.json && slices.ContainsFunc(unpaid(refused), func(r *client.RelayError) bool { return r.Offer.Contracts != nil })
}

// goOn is the end of a send that a daemon began, and left to whoever sits at the terminal: the message waits for a contract.
func (p *program) goOn(ctx context.Context, id string, copies int) error {
	m, refused, err := p.flushOne(ctx, id, copies)
	if m == nil || err != nil {
		return err
	}
	if p.offerContract(ctx, refused) {
		m, refused = p.tryAgain(ctx, m, sendPatience)
	}
	return errors.Join(p.showSent(m), p.sentCode(m, refused))
}

// flushOne has what waits go out, and tells how one message stands then, and why.
func (p *program) flushOne(ctx context.Context, id string, copies int) (_ *client.Outgoing, refused, err error) {
	c, err := p.openKeys(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	reports, err := c.Flush(ctx)
	if err != nil {
		return nil, nil, err
	}
	var failures []error
	for _, r := range reports {
		if r.Err != nil {
			failures = append(failures, r.Err)
		}
	}
	found, err := c.FindOutgoing(ctx, id)
	if err != nil || len(found) != 1 {
		return nil, nil, err
	}
	stored := 0
	for _, copied := range found[0].Copies {
		if copied.State == "stored" {
			stored++
		}
	}
	if stored < copies && len(failures) > 0 {
		refused = fmt.Errorf("%w (%d of %d): %w", client.ErrNotStored, stored, copies, errors.Join(failures...))
	} else if stored < copies {
		refused = client.ErrNotStored
	}
	return &found[0], refused, nil
}

// tryAgain has a message that waits go out.
func (p *program) tryAgain(ctx context.Context, m *client.Outgoing, patience time.Duration) (*client.Outgoing, error) {
	c, err := p.openKeys(ctx)
	if err != nil {
		return m, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return sendAgain(ctx, c, m, client.ErrNotStored)
}

func (p *program) findFriend(ctx context.Context, typed string) (protocol.PublicKey, error) {
	c, err := p.open(ctx)
	if err != nil {
		return protocol.PublicKey{}, err
	}
	defer c.Close()
	f, err := c.FindFriend(ctx, typed)
	if err != nil {
		return protocol.PublicKey{}, err
	}
	return f.Key, nil
}

// sentCode tells a message that is on some relays from one that is on none.
func (p *program) sentCode(m *client.Outgoing, err error) error {
	if err == nil {
		return nil
	}
	for _, c := range m.Copies {
		if c.State == "stored" {
			return exitError{exitPartial, err}
		}
	}
	return err
}

func (p *program) showSent(m *client.Outgoing) error {
	if p.json {
		return p.printJSON(outgoingJSON(m, ""))
	}
	stored, waiting := 0, 0
	for _, c := range m.Copies {
		switch c.State {
		case "stored":
			stored++
		case "queued":
			waiting++
			if c.Error != "" && stored > 0 {
				p.complain("%s\n", escape(c.Error))
			}
		case "failed":
			p.complain("%s\n", escape(c.Error))
		}
	}
	if stored == 0 {
		return nil // the error says it
	}
	text := fmt.Sprintf("Sent %s: stored on %s", short(m.ID), count(stored, "relay"))
	if waiting > 0 {
		text += fmt.Sprintf(", waiting for %d more", waiting)
	}
	return p.say("%s.\n", text)
}
