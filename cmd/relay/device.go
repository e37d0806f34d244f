package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/client/devices"
	"relaymarket/client/keyfile"
	"relaymarket/protocol"
)

func (p *program) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Aliases: []string{"devices"}, Short: "Use your keys on several devices", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `Several devices can have your keys. They tell each other, in records that only your keys open and that lie on your own relays,
of friends, relays, messages, what you have read, and what is sent and where it lies.

  relay device add        on the device that you have: shows a link, and waits
  relay device join       on the new one: paste the link, then type its code on the first
  relay device list       the devices that were heard of

The 24 words make a device, too: relay init --restore, then relay relays add ADDRESS of a relay of yours, and relay inbox.
Bitcoin coins and contracts stay with the device that has them.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(p.deviceAddCommand(), p.deviceJoinCommand(), p.deviceListCommand(), p.deviceRenameCommand(), p.deviceRemoveCommand())
	return cmd
}

func (p *program) deviceAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add", Short: "Give your keys to a new device, by link or QR code", Args: cobra.NoArgs,
		Long: `Shows a link, as text and as a QR code, and waits ten minutes for the new device. That shows a code, which you type here; then
your keys are sealed to it. The link alone gives nobody your keys, but bring it to the new device in private.

With --json the link is one line, {"link": …}, and the code is read from standard input.`,
		Example: "  relay device add",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.addDevice(cmd.Context()) },
	}
}

func (p *program) addDevice(ctx context.Context) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	seed, err := p.seed(ctx, dir)
	if err != nil {
		return err
	}
	defer seed.Wipe()
	c, err := p.openWith(ctx, dir, seed)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := nameOwnDevice(ctx, c, ""); err != nil {
		return err
	}
	entropy, err := seed.Entropy()
	if err != nil {
		return err
	}
	defer clear(entropy)
	typed := p.lines()
	name, done, err := c.AddDevice(ctx, entropy, client.Adding{
		Show: p.showDeviceLink,
		Code: func(ctx context.Context, name string, tries int) (string, error) {
			if tries > 0 {
				p.complain("That is not the code. Look again.\n")
			}
			p.complain("A device that calls itself %s asks for your keys. Type the code that it shows: ", escape(name))
			return typed.next(ctx)
		},
	})
	if err != nil {
		return err
	}
	if p.json {
		return p.printLine(map[string]any{"added": name, "confirmed": done})
	}
	if !done {
		return p.say("The keys were sent, and %s has not said that it has them. Look at it.\n", escape(name))
	}
	return p.say("%s has your keys. What you do on one device, the others are told.\n", escape(name))
}

func (p *program) showDeviceLink(link *devices.Link) error {
	if p.json {
		return p.printLine(map[string]any{"link": link.Text(), "until": stamp(link.Until)})
	}
	qrterminal.GenerateHalfBlock(link.Text(), qrterminal.L, p.out)
	return p.say(`On the new device, run: relay device join   and give it this link:

%s

Waiting for it until %s. Ctrl-C ends it, and the link with it.
`, link.Text(), when(link.Until))
}

func (p *program) deviceJoinCommand() *cobra.Command {
	var file, name string
	cmd := &cobra.Command{
		Use: "join", Short: "Make this the second device, by the link of the first", Args: noLink,
		Long: `Asks for the link that relay device add shows on the first device, or reads it from standard input or from a file: never from the
command line, which others on this machine can see. Then it shows a code to be typed on the first device. Keys that are
here already are never overwritten.`,
		Example: "  relay device join\n  relay device join --link-file link.txt --name phone",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.joinDevice(cmd.Context(), file, name) },
	}
	cmd.Flags().StringVar(&file, "link-file", "", "file with the link")
	cmd.Flags().StringVar(&name, "name", "", "what to call this device (default its host name)")
	return cmd
}

// noLink refuses arguments: a link in one is in the list of processes.
func noLink(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("the link holds a secret and is not given on the command line: paste it when asked, or give --link-file FILE")
	}
	return nil
}

func (p *program) joinDevice(ctx context.Context, file, name string) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, keyFileName)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, keyfile.ErrExists)
	}
	link, err := p.deviceLink(ctx, file)
	if err != nil {
		return err
	}
	passphrase, err := p.newPassphrase()
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	if name == "" {
		name = hostName()
	}
	proxy, err := p.proxyURL()
	if err != nil {
		return err
	}
	joined, err := client.Join(ctx, client.Config{Proxy: proxy, Logger: p.logger()}, link, name, func(code string) error {
		if p.json {
			return p.printLine(map[string]string{"code": code})
		}
		return p.say("Type this code on the first device:  %s\n", code)
	})
	if err != nil {
		return err
	}
	defer joined.Close()
	seed, err := keyfile.SeedFromEntropy(joined.Keys.Seed)
	if err != nil {
		return err
	}
	defer seed.Wipe()
	c, err := p.adopt(ctx, dir, path, seed, passphrase, link, joined, name)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := joined.Confirm(ctx); err != nil {
		p.complain("relay: the first device could not be told that the keys are here: %s\n", escape(err.Error()))
	}
	result, err := p.sync(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		err = p.printLine(map[string]any{"key": c.Key().Bech32(), "dir": dir, "name": name, "messages": len(result.Messages)})
	} else {
		err = p.say("This device has your keys, in %s\nYour key:  %s\n%s here. See: relay inbox\n", dir, c.Key().Bech32(), count(len(result.Messages), "message"))
	}
	return errors.Join(err, p.failures(append(result.Pulled, result.Sent...)))
}

// adopt puts what was given on disk: the state first, so that no key file is left that does not fit it.
func (p *program) adopt(ctx context.Context, dir, path string, seed *keyfile.Seed, passphrase keyfile.Passphrase, link *devices.Link, joined *client.Joined, name string) (*client.Client, error) {
	secret, err := seed.Identity()
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	if key, err := protocol.NewPrivateKey(secret); err != nil || key.Public() != link.Owner {
		return nil, errors.Join(err, errors.New("the keys that came are not those of the link: nothing was kept"))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c, err := p.openWith(ctx, dir, seed)
	if err != nil {
		return nil, err
	}
	err = c.Adopt(ctx, joined.Keys, name)
	if err == nil {
		err = keyfile.Create(path, seed, time.Now(), passphrase, keyfile.Options{})
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// deviceLink reads the link from a file, from standard input, or as it is typed.
func (p *program) deviceLink(ctx context.Context, file string) (*devices.Link, error) {
	var text string
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxTyped))
		if err != nil {
			return nil, err
		}
		text = string(data)
	} else {
		p.complain("The link that the first device shows: ")
		var err error
		if text, err = p.lines().next(ctx); err != nil {
			return nil, err
		}
	}
	link, err := devices.ParseLink(text)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return link, nil
}

// maxTyped bounds what is read of a line that a person types or pastes.
const maxTyped = 4096

// typedLines reads lines from standard input without holding up the end of the program.
type typedLines struct {
	lines  *bufio.Reader
	result chan typedLine
	asked  bool
}

type typedLine struct {
	text string
	err  error
}

func (p *program) lines() *typedLines {
	return &typedLines{lines: bufio.NewReader(p.in), result: make(chan typedLine, 1)}
}

// next is the next line, or the end of ctx: the read that was begun is left to itself, and its line to the next call.
func (l *typedLines) next(ctx context.Context) (string, error) {
	if !l.asked {
		l.asked = true
		go func() {
			var b strings.Builder
			for b.Len() < maxTyped {
				c, err := l.lines.ReadByte()
				if err != nil && (b.Len() == 0 || !errors.Is(err, io.EOF)) {
					l.result <- typedLine{err: errors.New("nothing was typed")}
					return
				}
				if err != nil || c == '\n' {
					break
				}
				b.WriteByte(c)
			}
			l.result <- typedLine{text: strings.TrimSpace(b.String())}
		}()
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case line := <-l.result:
		l.asked = false
		return line.text, line.err
	}
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "unnamed"
	}
	name, _, _ = strings.Cut(name, ".")
	return escape(name)
}

// nameOwnDevice gives this device a name if it has none.
func nameOwnDevice(ctx context.Context, c *client.Client, name string) error {
	all, err := c.Devices(ctx)
	if err != nil || len(all) > 0 && all[0].Name != "" {
		return err
	}
	if name == "" {
		name = hostName()
	}
	return c.NameDevice(ctx, c.OwnDevice(), name)
}

// deviceLine is a device in JSON.
type deviceLine struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Own     bool    `json:"own"`
	Removed bool    `json:"removed"`
	First   *string `json:"first"`
	Last    *string `json:"last"`
	Missing int64   `json:"missing"`
	Returns bool    `json:"returned"` // removed, and heard of after that
}

func deviceJSON(d *client.Device) deviceLine {
	return deviceLine{ID: string(d.ID), Name: d.Name, Own: d.Own, Removed: d.Removed, First: stamp(d.First), Last: stamp(d.Last), Missing: d.Missing,
		Returns: d.Removed && d.Last > d.Changed}
}

func (p *program) deviceListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your devices", Args: cobra.NoArgs,
		Long: `Lists the devices that have your keys, as far as they were heard of. One that was removed and is heard of again is shown as such: it
has your keys and uses them.`,
		Example: "  relay device list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			all, err := c.Devices(cmd.Context())
			if err != nil {
				return err
			}
			return p.showDevices(all)
		},
	}
}

func (p *program) showDevices(all []client.Device) error {
	lines := make([]deviceLine, 0, len(all))
	rows := [][]string{{"ID", "NAME", "HEARD OF", ""}}
	for i := range all {
		d, line := &all[i], deviceJSON(&all[i])
		lines = append(lines, line)
		heard, note := "never", ""
		if d.Last > 0 {
			heard = when(d.Last)
		}
		switch {
		case d.Own:
			heard, note = "", "this one"
		case line.Returns:
			note = "removed, and it uses your keys still"
		case d.Removed:
			continue
		case d.Missing > 0:
			note = fmt.Sprintf("%d of what it said did not come", d.Missing)
		}
		rows = append(rows, []string{string(d.ID[:8]), escape(d.Name), heard, note})
	}
	if p.json {
		return p.printJSON(map[string]any{"devices": lines})
	}
	return p.table(rows)
}

// chosenDevice finds a device by its name, or by the beginning of its id.
func chosenDevice(ctx context.Context, c *client.Client, typed string) (*client.Device, error) {
	all, err := c.Devices(ctx)
	if err != nil {
		return nil, err
	}
	var found []*client.Device
	for i := range all {
		d := &all[i]
		if strings.EqualFold(d.Name, typed) || typed != "" && strings.HasPrefix(string(d.ID), strings.ToLower(typed)) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %q", client.ErrNoDevice, typed)
	case 1:
		return found[0], nil
	}
	return nil, usagef("%d of your devices are called so: give the id", len(found))
}

func (p *program) deviceRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rename DEVICE NAME", Short: "Call a device something else", Args: twoArgs("a device and its new name"), ValidArgsFunction: p.completeDevice,
		Example: "  relay device rename 4fe0a1c2 laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withDevice(cmd.Context(), args[0], func(c *client.Client, d *client.Device) error {
				if err := c.NameDevice(cmd.Context(), d.ID, args[1]); err != nil {
					return err
				}
				if p.json {
					return p.printJSON(map[string]string{"id": string(d.ID), "name": args[1]})
				}
				return p.say("It is called %s. Your other devices are told with the next relay inbox.\n", escape(args[1]))
			})
		},
	}
}

func (p *program) deviceRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm DEVICE", Short: "Take a device off the list", Args: oneArg("a device"), ValidArgsFunction: p.completeDevice,
		Long: `Takes a device off the list: nothing is written for it any more. It takes nothing from the device. Whoever has it and its passphrase
has your keys: he reads what is sent to you, and writes in your name. If it was lost with its passphrase, or you cannot know, make
new keys in another folder (relay --dir FOLDER init) and tell your friends to add the new card, by a way other than your old keys.`,
		Example: "  relay device rm phone",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withDevice(cmd.Context(), args[0], func(c *client.Client, d *client.Device) error {
				if d.Own {
					return errors.New("this is the device that you are on: to be rid of it, delete its folder")
				}
				if err := c.RemoveDevice(cmd.Context(), d.ID); err != nil {
					return err
				}
				if p.json {
					return p.printJSON(map[string]string{"removed": string(d.ID), "name": d.Name})
				}
				return p.say(`It is off the list. It still has your keys: delete its folder if you have it. If somebody else has it and its passphrase, he can
read what is sent to you and write in your name, and only new keys help: relay device rm --help
`)
			})
		},
	}
}

func (p *program) withDevice(ctx context.Context, typed string, do func(*client.Client, *client.Device) error) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := chosenDevice(ctx, c, typed)
	if err != nil {
		return err
	}
	return do(c, d)
}

func (p *program) completeDevice(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(c *client.Client) (ids []string, err error) {
		all, err := c.Devices(cmd.Context())
		for i := range all {
			if !all[i].Removed {
				ids = append(ids, string(all[i].ID[:8])+"\t"+escape(all[i].Name))
			}
		}
		return ids, err
	})
}
