// Command relay is the user's command line: keys, friends, relays, sending and reading messages. It parses
// what is typed and prints what package client says; the rules are there.
//
// Exit codes: 0 done, 1 it failed, 2 the command line is wrong, 3 there is nothing to read, 4 some
// relays failed and others did not, 5 the keys are locked and nobody can be asked for the passphrase.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. They are part of the interface.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitNothing = 3
	exitPartial = 4
	exitLocked  = 5
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &program{getenv: os.Getenv, in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// program is what commands share: where they read and write, and the global flags.
type program struct {
	getenv   func(string) string
	in       *os.File
	out, err io.Writer

	dir            string
	json           bool
	verbose        bool
	passphraseFile string
	proxy          string
	noDaemon       bool

	args []string // as they were typed
	// host is the daemon that runs this command for somebody, who sits at from; nil outside of a daemon.
	host *host
	from caller
	// unseen: nobody sees what it prints. What is told once is left to be told to somebody.
	unseen bool
}

// exitError ends a command with a code of its own. The message may be empty: all was said already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

func (p *program) run(ctx context.Context, args []string) int {
	began := false
	p.args = args
	root := p.root(&began)
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" {
		p.complain("relay: %s\n", escapeText(text))
	}
	if next := advice(err); next != "" {
		p.complain("%s\n", next)
	} else if !began {
		p.complain("Run: %s --help\n", command.CommandPath())
	}
	return exitCode(err, began)
}

func exitCode(err error, began bool) int {
	var exit exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case !began:
		return exitUsage
	}
	return exitFailed
}

// complain writes to standard error. There is nowhere to report that this failed.
func (p *program) complain(format string, args ...any) { _, _ = fmt.Fprintf(p.err, format, args...) }

// say writes to standard output.
func (p *program) say(format string, args ...any) error {
	_, err := fmt.Fprintf(p.out, format, args...)
	return err
}

const longHelp = `relay sends and reads sealed messages through relays that you and your friends rent.

  relay init                         make your keys
  relay relays add ADDRESS           use a relay whose operator knows your key
  relay market                       find relays that anybody can rent
  relay terms ask ADDRESS            or one that serves you for nothing, or for less
  relay contract open ADDRESS        or one that you pay (relay wallet --help)
  relay id --card me.relayid         write your card, for friends
  relay friend add FILE --name anna  add a friend by card or link
  relay admit --invite               or let a stranger who has a link find you
  relay send anna "hello"            send
  relay inbox                        get and list what friends sent
  relay read                         read the next message
  relay send --file FILE anna        send a file of any size
  relay get                          list the files that came, and fetch them
  relay device add                   use your keys on a second device
  relay daemon                       stay, and have all this done by itself
  relay backup FILE                  back up what your words cannot give back
  relay doctor                       look for what is wrong, and what to do

Your keys and messages are in a folder: --dir, else $RELAY_DIR, else "relay" in your configuration folder.
The passphrase is asked for when it is needed; or it is in the file --passphrase-file, or in
$RELAY_PASSPHRASE; "relay unlock" makes it serve for some hours.

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 nothing to read, 4 some relays failed and others did
not, 5 locked and nobody can be asked for the passphrase.`

// root makes the command tree. began is set once the command line was understood.
func (p *program) root(began *bool) *cobra.Command {
	root := &cobra.Command{
		Use: "relay", Short: "Send and read sealed messages through relays", Long: longHelp,
		SilenceErrors: true, SilenceUsage: true, Args: subcommand, SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			// Cobra looks at these after it, and would make them a failure of the command.
			if err := errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
				return err
			}
			*began = true
			return p.throughDaemon(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&p.dir, "dir", "", "folder of keys and messages (default $RELAY_DIR, or relay in your configuration folder)")
	flags.BoolVar(&p.json, "json", false, "print JSON, see docs/users.md for its shapes")
	flags.BoolVarP(&p.verbose, "verbose", "v", false, "tell on standard error what is done")
	flags.StringVar(&p.passphraseFile, "passphrase-file", "", "file with the passphrase")
	flags.StringVar(&p.proxy, "proxy", "", "proxy for all that is asked of relays, such as socks5://127.0.0.1:9050 (default $RELAY_PROXY, else $HTTPS_PROXY)")
	flags.BoolVar(&p.noDaemon, "no-daemon", false, "do it here, also if a daemon runs (relay daemon --help)")
	root.AddCommand(p.initCommand(), p.deviceCommand(), p.unlockCommand(), p.lockCommand(), p.agentCommand(), p.idCommand(), p.friendCommand(),
		p.relaysCommand(), p.admitCommand(), p.accountCommand(), p.walletCommand(), p.contractCommand(), p.auditCommand(), p.backupCommand(), p.restoreCommand(), p.doctorCommand(), p.hubsCommand(), p.marketCommand(), p.termsCommand(),
		p.sendCommand(), p.getCommand(), p.inboxCommand(), p.readCommand(), p.listenCommand(),
		p.outboxCommand(), p.healCommand(), p.removeCommand(), p.daemonCommand(), p.versionCommand())
	served(root)
	return root
}

// subcommand is for commands that only hold others: an argument is a misspelled one.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("there is no command %q, did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("there is no command %q", args[0])
}
