package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"relaymarket/internal/relaynode"
)

func (p program) restoredCommand() *cobra.Command {
	s := newSettings(p.environ)
	cmd := &cobra.Command{
		Use:     "restored",
		Example: "  relayd restored --dir /var/lib/relayd",
		Short:   "Run once after the database was put back from a backup",
		Long: `restored tells the relay that its database was put back from a backup. Readers remember
how far they read; a database from the past would count up to there again with other
records, and they would miss those. After restored they start over, and recognize
what they have.

Stop every relayd of this database first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.loadRelay(cmd, s); err != nil {
				return err
			}
			if err := relaynode.Restored(cmd.Context(), s.databaseConfig(p.logger(s))); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.out, "readers will start over; now run relayd serve"+s.dirFlag())
			return err
		},
	}
	p.booksFlags(cmd, s)
	return cmd
}
