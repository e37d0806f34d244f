package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
)

// fileLine is a file that came, in JSON.
type fileLine struct {
	ID       string  `json:"id"`
	From     string  `json:"from"`
	Name     string  `json:"name"`
	File     string  `json:"file"`
	SavedAs  string  `json:"savedAs"`
	Bytes    int64   `json:"bytes"`
	Here     int64   `json:"here"`
	Sent     *string `json:"sent"`
	Expires  *string `json:"expires"`
	Path     *string `json:"path"`
	Finished *string `json:"finished"`
	Fault    *string `json:"fault"`
}

func fileJSON(f *client.IncomingFile, names map[protocol.PublicKey]string) fileLine {
	m := &f.Message
	line := fileLine{ID: string(m.ID), From: m.From.String(), Name: names[m.From], File: m.Name, SavedAs: f.Name, Bytes: f.Size, Here: f.Here,
		Sent: stamp(m.Sent), Expires: stamp(f.Expires), Finished: stamp(f.Finished)}
	if f.Saved != "" {
		line.Path, line.Here = &f.Saved, f.Size
	}
	if f.Fault != "" {
		line.Fault = &f.Fault
	}
	return line
}

func (p *program) getCommand() *cobra.Command {
	var out string
	offline := false
	patience := patienceFlag
	cmd := &cobra.Command{
		Use: "get [ID|latest]", Short: "List the files that friends sent, or fetch one", Args: cobra.MaximumNArgs(1),
		Long: `Without an id, asks the relays what is new and lists the files that friends sent. With one, or its beginning or end, fetches that file, checks
all of it, and puts it into the working folder under its name: never over a file that is there, and never outside the folder. --out
names another folder, or another name.

What is interrupted, by Ctrl-C or a cut line or a full disk, is kept, and the same command goes on with the rest. The pieces come
from whichever of the friend's relays has them.`,
		Example:           "  relay get\n  relay get latest\n  relay get 71ed8815 --out ~/films/\n  relay get 71ed8815 --out holiday-2.mp4",
		ValidArgsFunction: p.completeFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return p.listFiles(cmd.Context(), offline)
			}
			if offline {
				return usagef("--offline only lists")
			}
			return p.get(cmd.Context(), args[0], out, patience)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder, or name, for the file")
	cmd.Flags().BoolVar(&offline, "offline", false, "list only what is known here; needs no passphrase")
	cmd.Flags().DurationVar(&patience, "patience", patience, "for how long nothing may move before it gives up for now")
	return cmd
}

func (p *program) listFiles(ctx context.Context, offline bool) error {
	if offline {
		c, err := p.open(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return p.showFiles(ctx, c)
	}
	c, contracts, err := p.openWatching(ctx)
	if err != nil {
		return err
	}
	defer endWatching(c, contracts)
	defer p.glance(ctx, contracts)
	result, err := p.sync(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(p.showFiles(ctx, c), p.failures(append(result.Pulled, result.Sent...)))
}

// sync asks the relays for what is new.
func (p *program) sync(ctx context.Context, c *client.Client) (*client.SyncResult, error) {
	limited, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	done := p.busy("asking relays")
	defer done()
	return c.SyncUnseen(limited)
}

func (p *program) showFiles(ctx context.Context, c *client.Client) error {
	all, err := c.Files(ctx)
	if err != nil {
		return err
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		lines := make([]fileLine, 0, len(all))
		for i := range all {
			lines = append(lines, fileJSON(&all[i], names))
		}
		return p.printJSON(map[string]any{"files": lines})
	}
	if len(all) == 0 {
		return p.say("No files came.\n")
	}
	rows := [][]string{{"ID", "FROM", "SENT", "SIZE", "UNTIL", "FILE", "HERE"}}
	for i := range all {
		f := &all[i]
		here := "no"
		switch {
		case f.Fault != "":
			here = "cannot be fetched: " + escape(f.Fault)
		case f.Saved != "":
			here = "yes, " + escape(f.Saved)
		case f.Here > 0:
			here = fmt.Sprintf("%s of it", bytesize.Text(f.Here))
		case f.Expires.Time().Before(time.Now()):
			here = "expired"
		}
		rows = append(rows, []string{short(f.Message.ID), nameOf(f.Message.From, names), when(f.Message.Sent), bytesize.Text(f.Size), when(f.Expires), escape(f.Name), here})
	}
	return p.table(rows)
}

func (p *program) get(ctx context.Context, id, out string, patience time.Duration) error {
	c, contracts, err := p.openWatching(ctx)
	if err != nil {
		return err
	}
	defer endWatching(c, contracts)
	defer p.glance(ctx, contracts)
	boundMemory()
	f, err := p.chosenFile(ctx, c, id)
	if err != nil {
		return err
	}
	shown := p.fileProgress()
	o := client.FetchOptions{Patience: patience, Progress: shown.show}
	if o.Dir, o.Name, err = p.outPath(out); err != nil {
		return err
	}
	path, err := c.FetchFile(ctx, f.Message, o)
	shown.end()
	if err != nil {
		return err
	}
	if err := c.MarkRead(ctx, f.Message); err != nil {
		return err
	}
	if f, err = c.File(ctx, f.Message); err != nil {
		return err
	}
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		return p.printLine(map[string]fileLine{"file": fileJSON(f, names)})
	}
	if f.Message.Name != filepath.Base(path) {
		p.complain("%s calls it %s.\n", nameOf(f.Message.From, names), escape(f.Message.Name))
	}
	return p.say("Got %s, %s.\n", escape(path), bytesize.Text(f.Size))
}

// outPath takes what was typed as a folder, if there is one or it ends like one, or as a name in a folder.
func (p *program) outPath(typed string) (dir, name string, _ error) {
	if typed == "" {
		return p.path("."), "", nil
	}
	out := p.path(typed)
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		return out, "", nil
	}
	if os.IsPathSeparator(typed[len(typed)-1]) {
		return "", "", fmt.Errorf("there is no folder %s: make it first", typed)
	}
	return filepath.Dir(out), filepath.Base(out), nil
}

// chosenFile finds a file that came. What is not known here may be new.
func (p *program) chosenFile(ctx context.Context, c *client.Client, id string) (*client.IncomingFile, error) {
	f, err := p.knownFile(ctx, c, id)
	var exit exitError
	if id != "latest" && (err == nil || !errors.As(err, &exit) || exit.code != exitNothing) {
		return f, err
	}
	if _, err := p.sync(ctx, c); err != nil {
		return nil, err
	}
	return p.knownFile(ctx, c, id)
}

func (p *program) knownFile(ctx context.Context, c *client.Client, id string) (*client.IncomingFile, error) {
	if id == "latest" {
		all, err := c.Files(ctx)
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, exitError{exitNothing, errors.New("no files came")}
		}
		return &all[len(all)-1], nil
	}
	m, err := chosenMessage(ctx, c, []string{id})
	if err != nil {
		return nil, err
	}
	return c.File(ctx, *m)
}

func (p *program) completeFile(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(c *client.Client) (ids []string, err error) {
		all, err := c.Files(cmd.Context())
		for i := range all {
			ids = append(ids, string(all[i].Message.ID)+"\t"+escape(all[i].Name))
		}
		return append(ids, "latest"), err
	})
}
