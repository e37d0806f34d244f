package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
)

// sentFileLine is a file that is sent, in JSON.
type sentFileLine struct {
	ID       string          `json:"id"`
	To       string          `json:"to"`
	Name     string          `json:"name"`
	File     string          `json:"file"`
	Path     string          `json:"path"`
	Bytes    int64           `json:"bytes"`
	Pieces   int64           `json:"pieces"`
	MaxPulls int64           `json:"maxPulls"`
	Created  *string         `json:"created"`
	Expires  *string         `json:"expires"`
	Told     bool            `json:"told"`
	Relays   []fileRelayLine `json:"relays"`
}

type fileRelayLine struct {
	Address  string  `json:"address"`
	Relay    string  `json:"relay"`
	Queued   int64   `json:"queued"`
	Stored   int64   `json:"stored"`
	Pulled   int64   `json:"pulled"`
	Removing int64   `json:"removing"`
	Gone     int64   `json:"gone"`
	Failed   int64   `json:"failed"`
	Error    *string `json:"error"`
}

func sentFileJSON(f *client.SentFile, name string) sentFileLine {
	line := sentFileLine{ID: string(f.ID), To: f.To.String(), Name: name, File: f.Name, Path: f.Path, Bytes: f.Size, Pieces: f.Pieces,
		MaxPulls: f.MaxPulls, Created: stamp(f.Created), Expires: stamp(f.Expires), Told: f.Told != nil, Relays: []fileRelayLine{}}
	for _, r := range f.Relays {
		item := fileRelayLine{Address: r.Address, Relay: r.Relay.String(), Queued: r.Pieces[state.CopyQueued], Stored: r.Pieces[state.CopyStored],
			Pulled: r.Pulled, Removing: r.Pieces[state.CopyRemoving], Gone: r.Pieces[state.CopyGone], Failed: r.Pieces[state.CopyFailed]}
		if r.Error != "" {
			item.Error = &r.Error
		}
		line.Relays = append(line.Relays, item)
	}
	return line
}

// sendFiles sends files to a friend, one after the other, or goes on with those that were interrupted.
func (p *program) sendFiles(ctx context.Context, paths []string, args []string, resume bool, o client.FileOptions) error {
	var friend protocol.PublicKey
	if len(args) > 0 {
		var err error
		if friend, err = p.findFriend(ctx, args[0]); err != nil {
			return err
		}
	}
	c, contracts, err := p.openWatching(ctx)
	if err != nil {
		return err
	}
	defer endWatching(c, contracts)
	defer p.glance(ctx, contracts)
	boundMemory()
	o.Due = p.paysDue(contracts)
	names, err := friendNames(ctx, c)
	if err != nil {
		return err
	}
	if resume || len(args) == 0 {
		if len(paths) == 0 {
			paths = []string{""}
		}
		return p.resumeFiles(ctx, c, paths, names, o)
	}
	for _, path := range paths {
		shown := p.fileProgress()
		o.Progress = shown.show
		sent, err := c.SendFile(ctx, friend, path, o)
		shown.end()
		if err := errors.Join(p.showSentFile(sent, names), p.fileCode(sent, err)); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) resumeFiles(ctx context.Context, c *client.Client, paths []string, names map[protocol.PublicKey]string, o client.FileOptions) error {
	shown := p.fileProgress()
	o.Progress = shown.show
	var failures []error
	found := 0
	for _, path := range paths {
		all, err := c.ResumeFiles(ctx, path, o)
		shown.end()
		found += len(all)
		for _, sent := range all {
			failures = append(failures, p.showSentFile(sent, names))
		}
		if err != nil {
			found++
			failures = append(failures, err)
		}
	}
	if found == 0 {
		return exitError{exitNothing, errors.New("no file waits to be sent; to send one, name a friend: relay send --file PATH FRIEND")}
	}
	return errors.Join(failures...)
}

// fileCode tells a file of which something is on relays from one of which nothing is.
func (p *program) fileCode(f *client.SentFile, err error) error {
	if err == nil || f == nil {
		return err
	}
	for _, r := range f.Relays {
		if r.Pieces[state.CopyStored] > 0 {
			return exitError{exitPartial, err}
		}
	}
	return err
}

func (p *program) showSentFile(f *client.SentFile, names map[protocol.PublicKey]string) error {
	if f == nil {
		return nil
	}
	if p.json {
		return p.printLine(map[string]sentFileLine{"sent": sentFileJSON(f, names[f.To])})
	}
	whole, waiting := 0, 0
	for _, r := range f.Relays {
		if r.Pieces[state.CopyStored] == f.Pieces {
			whole++
		} else {
			waiting++
			if r.Error != "" {
				p.complain("%s\n", escape(r.Error))
			}
		}
	}
	if f.Told == nil {
		return nil // the error says why
	}
	text := fmt.Sprintf("Sent %s to %s, %s, as %s: all of it on %s", escape(f.Name), nameOf(f.To, names), bytesize.Text(f.Size), short(f.ID), count(whole, "relay"))
	if f.Pieces == 0 {
		text = fmt.Sprintf("Sent %s to %s, an empty file, as %s", escape(f.Name), nameOf(f.To, names), short(f.ID))
	}
	if waiting > 0 {
		text += fmt.Sprintf(", waiting for %d more (relay send --resume)", waiting)
	}
	return p.say("%s.\n", text)
}

// patienceFlag is for how long nothing may move.
const patienceFlag = client.DefaultFilePatience

func roundLeft(left time.Duration) string {
	switch {
	case left <= 0:
		return ""
	case left < time.Minute:
		return fmt.Sprintf("%d s left", left/time.Second)
	case left < time.Hour:
		return fmt.Sprintf("%d min left", (left+30*time.Second)/time.Minute)
	case left < 48*time.Hour:
		return fmt.Sprintf("%d h %d min left", left/time.Hour, left%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days left", left/(24*time.Hour))
}

// fileCopiesText is where a file stands: on how many relays all of it is, how much of it on others, and how much was fetched.
func fileCopiesText(f *client.SentFile) string {
	whole, pulled, gone := 0, int64(0), 0
	var parts []string
	for _, r := range f.Relays {
		switch stored := r.Pieces[state.CopyStored]; {
		case stored == f.Pieces:
			whole++
		case stored+r.Pieces[state.CopyQueued] == 0:
			gone++
		default:
			parts = append(parts, fmt.Sprintf("%d %% on 1", stored*100/f.Pieces))
		}
		pulled += r.Pulled
	}
	if gone > 0 {
		parts = append([]string{fmt.Sprintf("%d gone", gone)}, parts...)
	}
	if whole > 0 {
		parts = append([]string{fmt.Sprintf("%d stored", whole)}, parts...)
	}
	if pulled > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d pieces pulled", min(pulled, f.Pieces), f.Pieces))
	}
	if len(parts) == 0 {
		return "nothing to store"
	}
	return strings.Join(parts, ", ")
}

// piecesOn is how many pieces of a file a relay has.
func piecesOn(f *client.SentFile, relay protocol.PublicKey) string {
	if f == nil {
		return ""
	}
	for _, r := range f.Relays {
		if r.Relay == relay {
			text := fmt.Sprintf("%d of %d", r.Pieces[state.CopyStored], f.Pieces)
			if r.Pulled > 0 {
				text += fmt.Sprintf(", %d pulled", r.Pulled)
			}
			return text
		}
	}
	return "none"
}

// unsentNamed finds a file that is still being sent; nil if none, or several, have that id.
func unsentNamed(ctx context.Context, c *client.Client, id string) (*client.SentFile, error) {
	unsent, err := c.UnsentFiles(ctx)
	var found *client.SentFile
	for _, f := range unsent {
		if f.Told == nil && (strings.HasPrefix(string(f.ID), id) || strings.HasSuffix(string(f.ID), id)) {
			if found != nil {
				return nil, err
			}
			found = f
		}
	}
	return found, err
}

// removeFile stops sending a file and deletes its pieces.
func (p *program) removeFile(ctx context.Context, id protocol.RecordID) error {
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	done := p.busy("deleting")
	err = c.RemoveFile(ctx, id)
	done()
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]string{"removed": string(id)})
	}
	return p.say("Stopped, and deleted what was there.\n")
}

func (p *program) completeSent(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.complete(cmd, args, func(c *client.Client) (ids []string, err error) {
		sent, err := c.Outbox(cmd.Context(), 50)
		for i := range sent {
			ids = append(ids, string(sent[i].ID)+"\tsent")
		}
		return ids, err
	})
}
