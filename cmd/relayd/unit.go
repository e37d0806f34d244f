package main

import (
	"io"

	"github.com/spf13/cobra"

	"relaymarket/packaging/systemd"
)

func (p program) unitCommand() *cobra.Command {
	var users bool
	cmd := &cobra.Command{
		Use:   "unit",
		Short: "Print a systemd service for relayd, with few rights",
		Long: `unit prints a service for systemd in which relayd runs as a user of its own, sees no other
folder than its own as writable, and may do nothing that it does not need. The lines at its
beginning say how to install it. --sysusers prints what makes the user.`,
		Example: "  relayd unit --sysusers > /etc/sysusers.d/relayd.conf\n  relayd unit > /etc/systemd/system/relayd.service",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text := systemd.Unit
			if users {
				text = systemd.Sysusers
			}
			_, err := io.WriteString(p.out, text)
			return err
		},
	}
	cmd.Flags().BoolVar(&users, "sysusers", false, "print the user for systemd-sysusers instead")
	return cmd
}
