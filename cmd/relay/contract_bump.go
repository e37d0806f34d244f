package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
)

func (p *program) contractBumpCommand() *cobra.Command {
	feerate := ""
	cmd := &cobra.Command{
		Use: "bump CONTRACT", Short: "Hurry a closing that no block takes, without the relay", Args: oneArg("a contract"), ValidArgsFunction: p.completeContract,
		Long: `A closing whose fee turned out too low, or that somebody keeps from being outbid, waits in no block. This spends what it leaves
you to your wallet again, at a fee with which the two together pay the feerate: whoever mines the second has to mine the first. The fee is
yours alone. Called again, it bids higher. With the relay's help a new closing may cost less: relay contract close CONTRACT --feerate N.`,
		Example: "  relay contract bump 95426a9d\n  relay contract bump 95426a9d --feerate 30",
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := parseFeerate(feerate)
			if err != nil {
				return exitError{exitUsage, err}
			}
			ctx := cmd.Context()
			return p.onContract(ctx, args[0], true, func(m *money, r *userside.Record) error {
				r, err := m.manager.Bump(ctx, r.ID, m.wallet, rate)
				p.tell(ctx, m.store)
				if errors.Is(err, wallet.ErrRequest) {
					return fmt.Errorf("%w. If it goes to a wallet of your own, spend it there, at a high fee", err)
				}
				if err != nil {
					return err
				}
				return p.paid(r, "Sent. It is yours when both are in a block: relay contract show "+r.ID.Short()+"\n")
			})
		},
	}
	cmd.Flags().StringVar(&feerate, "feerate", "", "satoshi per vB that both pay together; else as your node estimates")
	return cmd
}
