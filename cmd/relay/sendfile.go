package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"relaymarket/client"
	"relaymarket/client/state"
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
	o.Due = func(ctx context.Context, refusal *client.RelayError) bool {
		return errors.Is(refusal, protocol.CodePaymentDue) && p.settleUp(ctx, contracts)
	}
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
	text := fmt.Sprintf("Sent %s to %s, %s, as %s: all of it on %s", escape(f.Name), nameOf(f.To, names), bytesText(f.Size), short(f.ID), count(whole, "relay"))
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
