package main

import (
	"context"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/escrow/userside"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// policyOptions are the flags of relay contract policy.
type policyOptions struct {
	pay, limit, daily, cushion string
	closes, forget             bool
}

func (p *program) contractPolicyCommand() *cobra.Command {
	var o policyOptions
	cmd := &cobra.Command{
		Use: "policy [CONTRACT]", Short: "Say how relays are paid: by itself within limits, after asking, or never", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeContract,
		Long: `Shows how you want to pay, or with --pay stores it: for one contract, or for all that have no policy of their own. It holds for
relay contract watch, relay listen, and relay audit --pay policy.

  auto    watch audits the bill by itself and pays what was accepted, up to --limit satoshi for each contract beyond its opening
          price, and --daily satoshi in 24 hours; payments run ahead of what was accepted by --cushion satoshi, which is what you risk
  ask     watch audits the bill and tells what the relay asks for; relay audit --pay policy asks you on the terminal
  never   nothing is paid, and nothing asked

With --close-on-dispute a contract is ended whose relay stands by lines that your audit refused. Without any policy watch pays what a
relay asks for as far as you accepted usage before, and your cushion goes, and audits nothing.`,
		Example: "  relay contract policy\n  relay contract policy --pay auto --limit 20000 --daily 2000\n  relay contract policy 1a2b --pay ask\n  relay contract policy 1a2b --forget",
		RunE:    func(cmd *cobra.Command, args []string) error { return p.policy(cmd, args, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.pay, "pay", "", "auto, ask or never")
	f.StringVar(&o.limit, "limit", "0", "satoshi that are paid for a contract without asking, beyond its opening price")
	f.StringVar(&o.daily, "daily", "0", "satoshi that are paid for a contract within 24 hours without asking; 0 is no limit of this kind")
	f.StringVar(&o.cushion, "cushion", "", "satoshi that payments run ahead of accepted usage; else what the contract says")
	f.BoolVar(&o.closes, "close-on-dispute", false, "end a contract whose relay stands by what is disputed")
	f.BoolVar(&o.forget, "forget", false, "remove the policy")
	cmd.MarkFlagsMutuallyExclusive("pay", "forget")
	for _, flag := range []string{"limit", "daily", "cushion", "close-on-dispute"} {
		cmd.MarkFlagsMutuallyExclusive(flag, "forget")
	}
	completeWords(cmd, "pay", string(ledger.PayAuto), string(ledger.PayAsk), string(ledger.PayNever))
	return cmd
}

// completeWords offers the words that a flag takes.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag is not there
	}
}

func (p *program) policy(cmd *cobra.Command, args []string, o policyOptions) error {
	ctx := cmd.Context()
	if o.pay == "" && !o.forget {
		for _, flag := range []string{"limit", "daily", "cushion", "close-on-dispute"} {
			if cmd.Flags().Changed(flag) {
				return usagef("--%s is part of a policy: say --pay auto, ask or never with it", flag)
			}
		}
	}
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var contract *protocol.ContractID
	if len(args) == 1 {
		if contract, err = p.contractID(ctx, args[0]); err != nil {
			return err
		}
	}
	switch {
	case o.forget:
		found, err := c.ForgetPaymentPolicy(ctx, contract)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("there is no such policy: relay contract policy")
		}
	case o.pay != "":
		policy, err := o.read(contract)
		if err != nil {
			return err
		}
		if err := c.SetPaymentPolicy(ctx, policy); err != nil {
			return exitError{exitUsage, err}
		}
	}
	return p.showPolicies(ctx, c)
}

// contractID finds the id of a contract by its first digits.
func (p *program) contractID(ctx context.Context, typed string) (*protocol.ContractID, error) {
	store, err := p.contractStore(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	r, err := findContract(ctx, store, typed)
	if err != nil {
		return nil, err
	}
	return &r.ID, nil
}

func (o policyOptions) read(contract *protocol.ContractID) (client.PaymentPolicy, error) {
	policy := client.PaymentPolicy{Contract: contract, Mode: ledger.Mode(o.pay), Closes: o.closes}
	for _, one := range []struct {
		flag, typed string
		to          *btcutil.Amount
	}{{"limit", o.limit, &policy.Limit}, {"daily", o.daily, &policy.Daily}} {
		amount, err := parseSatoshi(one.typed)
		if err != nil {
			return policy, exitError{exitUsage, fmt.Errorf("--%s: %w", one.flag, err)}
		}
		*one.to = amount
	}
	if o.cushion != "" {
		amount, err := parseSatoshi(o.cushion)
		if err != nil {
			return policy, exitError{exitUsage, fmt.Errorf("--cushion: %w", err)}
		}
		policy.Cushion = &amount
	}
	if policy.Mode == ledger.PayAuto && policy.Limit == 0 {
		return policy, usagef("--pay auto needs a --limit: the satoshi that it may pay for a contract without asking")
	}
	return policy, nil
}

// policyItem is a policy in JSON. Amounts are satoshi.
type policyItem struct {
	Contract       *string `json:"contract"` // null: all that have none of their own
	Pay            string  `json:"pay"`
	Limit          int64   `json:"limitSat"`
	Daily          int64   `json:"dailySat"`   // 0: no limit of this kind
	Cushion        *int64  `json:"cushionSat"` // null: what the contract says
	CloseOnDispute bool    `json:"closeOnDispute"`
}

func (p *program) showPolicies(ctx context.Context, c *client.Client) error {
	policies, err := c.PaymentPolicies(ctx)
	if err != nil {
		return err
	}
	items := make([]policyItem, 0, len(policies))
	rows := [][]string{{"CONTRACT", "PAY", "LIMIT", "A DAY", "CUSHION", "IN DISPUTE"}}
	for _, policy := range policies {
		item := policyItem{Pay: string(policy.Mode), Limit: int64(policy.Limit), Daily: int64(policy.Daily), CloseOnDispute: policy.Closes}
		row := []string{"all others", item.Pay, "", "", "", "go on"}
		if policy.Contract != nil {
			id := policy.Contract.String()
			item.Contract, row[0] = &id, policy.Contract.Short()
		}
		if policy.Mode == ledger.PayAuto {
			row[2], row[3] = sat(policy.Limit), "any"
			if policy.Daily > 0 {
				row[3] = sat(policy.Daily)
			}
		}
		if row[4] = "the contract's"; policy.Cushion != nil {
			cushion := int64(*policy.Cushion)
			item.Cushion, row[4] = &cushion, sat(*policy.Cushion)
		}
		if policy.Closes {
			row[5] = "close"
		}
		items, rows = append(items, item), append(rows, row)
	}
	if p.json {
		return p.printJSON(map[string]any{"policies": items})
	}
	if len(items) == 0 {
		return p.say("You stored no policy: relay contract watch pays what you accepted and your cushion, and audits nothing.\n" +
			"Store one: relay contract policy --pay auto --limit SATOSHI\n")
	}
	return p.table(rows)
}

// unasked is what a relay is paid without asking when it says that an amount is due: what the stored policy says, with the cushion
// of its own, or without one all that was accepted and the contract's cushion.
func (m *money) unasked(ctx context.Context, r *userside.Record, due btcutil.Amount) (btcutil.Amount, error) {
	stored, err := m.client.PaymentPolicy(ctx, r.ID)
	if err != nil {
		return 0, err
	}
	if stored == nil {
		return btcutil.MaxSatoshi, nil
	}
	at := paying(r, time.Now())
	switch stored.Mode {
	case ledger.PayNever:
		return 0, nil
	case ledger.PayAsk:
		return 0, fmt.Errorf("the relay asks for %s more. Look at its bill, and pay: relay audit %s --pay policy", sat(due-at.Paid), r.ID.Short())
	}
	policy := policyFrom(stored, r)
	// What the contract allows, payDue knows; the policy may risk less.
	most := min(policy.Unasked(at), at.Opening+ledger.Sat(at.Accepted)+policy.Cushion)
	return most, fmt.Errorf("the relay asks for %s more, and your policy has paid all that it may. Look at the bill: relay audit %s --pay policy; or pay: relay contract pay %s",
		sat(due-at.Paid), r.ID.Short(), r.ID.Short())
}
