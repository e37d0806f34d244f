// Command relayd is the operator's daemon. It parses flags, environment and the configuration file, and wires
// internal/relaynode; the rules are elsewhere.
//
// Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	p := program{environ: os.Environ(), out: os.Stdout, err: os.Stderr}
	os.Exit(p.run(context.Background(), os.Args[1:]))
}

// program is what commands share: where their settings come from and where they write.
type program struct {
	environ  []string
	out, err io.Writer
}

// usageError is a mistake in what the operator wrote: flags, environment or file.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (p program) run(ctx context.Context, args []string) int {
	began := false
	root := p.root(&began)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(p.err, "relayd:", err)
	var usage usageError
	if began && !errors.As(err, &usage) {
		return exitFailed
	}
	if !began {
		_, _ = fmt.Fprintf(p.err, "Run: %s --help\n", cmd.CommandPath())
	}
	return exitUsage
}

// twoArgs wants exactly two arguments and says which.
func twoArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("%s needs %s, and got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// oneArg wants exactly one argument and says which.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("%s needs %s", cmd.CommandPath(), what)
		case len(args) > 1:
			return fmt.Errorf("%s takes one argument, %s, and got %d: quote what has spaces in it", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// root makes the command tree. began is set once the command line was understood.
func (p program) root(began *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "relayd",
		Short: "Run a message relay",
		Long: `relayd stores sealed messages for the people its operator grants space to.

  relayd init                     a key and a commented configuration file
  relayd grant KEY --stored 1GB   space for one person's key
  relayd allow KEY                a friend, who then takes his space himself
  relayd wallet                   where its Bitcoin is, for contracts
  relayd serve                    run it
  relayd top                      watch it
  relayd doctor                   see whether all is well with it
  relayd backup TO                a copy of all of it, proved

Settings come from flags, then the environment (RELAYD_LISTEN for --listen), then
relayd.toml in the relay's folder, then the defaults. See docs/operators.md.`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { *began = true },
	}
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.AddCommand(p.initCommand(), p.serveCommand(), p.grantCommand(), p.grantsCommand(), p.revokeCommand(),
		p.termsCommand(), p.allowCommand(), p.denyCommand(), p.unlistCommand(),
		p.walletCommand(), p.contractsCommand(), p.accountsCommand(), p.refusalsCommand(), p.revenueCommand(), p.backupCommand(), p.restoreCommand(), p.restoredCommand(), p.doctorCommand(),
		p.hubPolicyCommand(), p.idCommand(), p.configCommand(), p.topCommand(), p.unitCommand(), p.versionCommand())
	return root
}
