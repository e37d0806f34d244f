package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/internal/relaynode"
	"relaymarket/internal/top"
)

func (p program) topCommand() *cobra.Command {
	s := newSettings(p.environ)
	cfg := top.Config{Out: p.out, In: os.Stdin, Every: time.Second}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the running relay: traffic, refusals, latency, disk, memory, busiest accounts",
		Long: `top shows what the relay does and how it is, anew each second, until q is pressed:
what is written and pulled a second, how long it takes, what is refused and why, the
database, the disk and when it will be full, memory, and the accounts that move most.

It asks the relay on operator-listen, and shows that it may by the key in the relay's
folder. Where there is no terminal, one screen follows another; with --json there is an
object a line, whose rates are a second. --once shows one, and fails if the relay does not
answer.`,
		Example: "  relayd top\n  relayd top --once\n  relayd top --json --every 10s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Every < 100*time.Millisecond || cfg.Every > time.Hour {
				return usagef("every is %s: it can be 100ms to 1h", cfg.Every)
			}
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			key, err := s.readKey()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			cfg.Ask = relaynode.AskStatus(s.operatorListen, key)
			err = top.Run(ctx, cfg)
			if errors.Is(err, syscall.EPIPE) || ctx.Err() != nil {
				return nil // nobody looks any more
			}
			return err
		},
	}
	s.flags(cmd.Flags(), "dir", "operator-listen")
	cmd.Flags().DurationVar(&cfg.Every, "every", cfg.Every, "between two looks")
	cmd.Flags().BoolVar(&cfg.Once, "once", false, "show one screen and end")
	cmd.Flags().BoolVar(&cfg.JSON, "json", false, "a JSON object a look, one a line")
	return cmd
}
