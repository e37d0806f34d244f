package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"relaymarket/protocol"
)

func (p *program) contractConsentCommand() *cobra.Command {
	var payer, contract string
	cmd := &cobra.Command{
		Use: "consent ADDRESS", Short: "Let somebody else's contract pay for what you write", Args: oneArg("the relay's address"), ValidArgsFunction: p.completeRelay,
		Example: "  relay contract consent relay.example --payer relay1… --contract 95426a9d…",
		Long: `Signs your consent that the contract of another key, with this relay, pays for what you write there. Its owner gives the
file to relay contract open --id CONTRACT --writer FILE. Without --contract a fresh id is drawn and shown, for both of you.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.consent(cmd.Context(), args[0], payer, contract)
		},
	}
	cmd.Flags().StringVar(&payer, "payer", "", "key that pays: relay1… or 64 hex digits")
	cmd.Flags().StringVar(&contract, "contract", "", "the contract's id")
	_ = cmd.MarkFlagRequired("payer")
	return cmd
}

func (p *program) consent(ctx context.Context, typed, payer, contract string) error {
	key, err := protocol.ParsePublicKey(payer)
	if err != nil {
		return exitError{exitUsage, fmt.Errorf("--payer: %w", err)}
	}
	id, err := contractID(contract)
	if err != nil {
		return exitError{exitUsage, err}
	}
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, e, _, err := c.Offer(ctx, typed)
	if err != nil {
		return err
	}
	consent, err := c.Consent(ctx, e.From, id, key)
	if err != nil {
		return err
	}
	p.complain("Contract id: %s\n", hex.EncodeToString(id[:]))
	return p.say("%s\n", consent.Bytes())
}
