package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"relaymarket/client/daemon"
	"relaymarket/client/daemon/localapi"
	"relaymarket/internal/localsock"
	"relaymarket/protocol"
)

// servedCommands are those that a daemon runs for the command line: the everyday ones, that need keys, relays or messages. Of what is
// about money, or makes and keeps secrets, it runs none.
var servedCommands = []string{
	"send", "inbox", "read", "listen", "outbox", "rm", "get", "heal", "account",
	"friend list", "friend show", "friend add", "friend accept", "friend rm", "admit", "admit list", "admit rm",
	"relays", "relays list", "relays add", "relays rm",
}

// servedMark is on the commands that a daemon runs.
const servedMark = "served by a daemon"

// served marks them.
func served(root *cobra.Command) {
	for _, command := range root.Commands() {
		for _, each := range append([]*cobra.Command{command}, command.Commands()...) {
			path := each.CommandPath()[len(root.CommandPath())+1:]
			if slices.Contains(servedCommands, path) {
				each.Annotations = map[string]string{servedMark: path}
			}
		}
	}
}

// caller is who sits where a command that a daemon runs was typed.
type caller struct {
	folder string
	asks   bool         // he can be asked
	width  int          // of his terminal, 0: none
	ask    func(string) // has him go on with a message
}

// graceTime is how long an interrupted command may take in the daemon to say how far it came.
const graceTime = 15 * time.Second

// throughDaemon has a daemon run the command, if one runs that can. Then it returns how it ended, an exitError; nil: it is to be done here.
func (p *program) throughDaemon(cmd *cobra.Command) error {
	if p.host != nil {
		if cmd.Annotations[servedMark] == "" {
			return usagef("a daemon does not run %s", cmd.CommandPath())
		}
		return nil
	}
	if p.noDaemon || p.verbose || cmd.Annotations[servedMark] == "" {
		return nil
	}
	dir, err := p.folder()
	if err != nil {
		return nil // the command says it
	}
	at, err := daemon.Find(dir, p.getenv("XDG_RUNTIME_DIR"))
	if err != nil {
		return nil
	}
	defer at.Close()
	command, err := p.command()
	if err != nil {
		return err
	}
	if !sayable(&command) {
		return nil
	}
	last, err := p.follow(cmd.Context(), at, command)
	var refused *daemon.RefusedError
	switch {
	case errors.Is(err, daemon.ErrNotRunning), errors.Is(err, localsock.ErrForeign):
		return nil // it was killed, and its socket is left; or it is somebody else's, and not to be believed
	case errors.As(err, &refused):
		if refused.Problem.Code == localapi.OtherSettings && refused.Problem.Detail != nil && *refused.Problem.Detail == "version" {
			p.complain("relay: the daemon is of another version than this command, which goes on without it. End it, and start it again: relay daemon stop\n")
		}
		return nil
	case err != nil:
		return err
	case last.Ask != nil:
		copies, err := cmd.Flags().GetInt("copies")
		if err == nil {
			err = p.goOn(cmd.Context(), *last.Ask, copies)
		}
		if err == nil {
			err = exitError{}
		}
		return err
	}
	return exitError{code: *last.Exit}
}

// sayable tells whether a daemon would be told what was typed. JSON is UTF-8, and names of files are any bytes: it would look for others.
func sayable(c *localapi.Command) bool {
	return utf8.ValidString(c.Folder) && !slices.ContainsFunc(c.Arguments, func(a string) bool { return !utf8.ValidString(a) })
}

// command is what was typed, for a daemon.
func (p *program) command() (c localapi.Command, err error) {
	c = localapi.Command{Id: uuid.New(), Arguments: p.args}
	if c.Settings, err = p.settings(); err != nil {
		return c, err
	}
	if c.Folder, err = os.Getwd(); err != nil {
		return c, err
	}
	asks := term.IsTerminal(int(p.in.Fd()))
	if width := p.width(); asks || width > 0 {
		c.Terminal = &localapi.Terminal{Asks: asks, Width: width}
	}
	if slices.Contains(p.args, "-") { // standard input is the message, or the card
		input, err := io.ReadAll(io.LimitReader(p.in, protocol.MaxEnvelopeSize+1))
		if err != nil {
			return c, fmt.Errorf("read standard input: %w", err)
		}
		c.Input = &input
		if p.in, err = inputOf(input); err != nil { // it may be read again, here
			return c, err
		}
	}
	return c, nil
}

// settings are what a daemon must have in common with who has it run commands.
func (p *program) settings() (localapi.Settings, error) {
	s := localapi.Settings{Version: buildVersion(), Zone: p.getenv("TZ")}
	proxy, err := p.proxyURL()
	if proxy != nil {
		s.Proxy = proxy.String()
	}
	return s, err
}

// buildVersion tells builds apart as well as they can be.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" || s.Key == "vcs.time" || s.Key == "vcs.modified" {
			version += " " + s.Value
		}
	}
	return version
}

// inputOf is a standard input with that in it.
func inputOf(data []byte) (*os.File, error) {
	if len(data) == 0 {
		return os.Open(os.DevNull)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = w.Write(data) // who does not read to the end closes the other end
		_ = w.Close()
	}()
	return r, nil
}

// follow has the daemon run the command and writes what it does. Ctrl-C interrupts it there; it still says how far it came.
func (p *program) follow(ctx context.Context, at *daemon.Caller, command localapi.Command) (*localapi.OutputLine, error) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		defer cancel()
		// Again and again: it may not have begun yet.
		for began := time.Now(); time.Since(began) < graceTime; {
			if at.Interrupt(work, command) != nil {
				return
			}
			select {
			case <-work.Done():
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	defer stop()
	return at.Run(work, command, p.out, p.err)
}
