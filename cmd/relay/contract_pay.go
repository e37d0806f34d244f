package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/spf13/cobra"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

func (p *program) contractResumeCommand() *cobra.Command {
	var o openOptions
	cmd := &cobra.Command{
		Use: "resume [CONTRACT]", Short: "Go on with a contract whose opening was interrupted, or with all of them", Args: cobra.MaximumNArgs(1),
		Long: `Goes on where an opening stopped, whatever stopped it: Ctrl-C, a crash, the power, a relay that did not answer. Nothing is
asked for twice and nothing is locked twice. Without a contract, it goes on with all that wait.`,
		Example:           "  relay contract resume\n  relay contract resume 95426a9d",
		ValidArgsFunction: p.completeContract,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			if len(args) == 0 {
				if o.psbtIn != "" || o.psbtOut != "" {
					return usagef("--psbt-in and --psbt-out are of one contract: say which")
				}
				return p.resumeAll(ctx, o)
			}
			var signed protocol.PSBT
			if o.psbtIn != "" {
				if signed, _, err = readPSBT(o.psbtIn); err != nil {
					return err
				}
			}
			m, err := p.openMoney(ctx, !o.fileOnly)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.close()) }()
			err = p.resume(ctx, m, args[0], o, signed)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.psbtIn, "psbt-in", "", "the funding, signed and finalized by your own wallet")
	f.StringVar(&o.psbtOut, "psbt-out", "", "file for the funding, to be signed by your own wallet")
	f.BoolVar(&o.fileOnly, "backup-file-only", false, "do not leave a sealed backup on another relay")
	f.Int64Var(&o.wait, "wait", 1, "confirmations to wait for; 0 does not wait")
	return cmd
}

func (p *program) resume(ctx context.Context, m *money, typed string, o openOptions, signed protocol.PSBT) error {
	r, err := findContract(ctx, m.store, typed)
	if err != nil {
		return err
	}
	if signed != "" {
		if r, err = m.manager.SignedElsewhere(ctx, r.ID, signed); err != nil {
			return err
		}
	}
	if !r.Foreign && r.Opening() {
		if err := m.openWallet(ctx); err != nil {
			return err
		}
	}
	return p.bringAbout(ctx, m, r, o, nil)
}

func (p *program) contractPayCommand() *cobra.Command {
	var accept, cushion string
	var yes bool
	cmd := &cobra.Command{
		Use: "pay CONTRACT [SATOSHI]", Short: "Pay a relay for what you use", Args: cobra.RangeArgs(1, 2), ValidArgsFunction: p.completeContract,
		Example: "  relay contract pay 95426a9d 500\n  relay contract pay 95426a9d --accept 4200",
		Long: `Lets the relay have that many satoshi more of the deposit; without a number, what it asks for. It cannot be taken back,
and costs no fee. More than the usage that you accepted and your cushion is not paid: --accept says what the relay's count is right
to have come to, in satoshi since the contract began, and --cushion how far payments may run ahead of that.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.pay(cmd.Context(), args, accept, cushion, yes)
		},
	}
	cmd.Flags().StringVar(&accept, "accept", "", "satoshi of usage, since the contract began, that you accept as right")
	cmd.Flags().StringVar(&cushion, "cushion", "", "satoshi that payments may run ahead of accepted usage, from now on")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (p *program) pay(ctx context.Context, args []string, accept, cushion string, yes bool) error {
	return p.onContract(ctx, args[0], false, func(m *money, r *userside.Record) (err error) {
		if r, err = m.allow(ctx, r, accept, cushion); err != nil {
			return err
		}
		c, _, ok := r.Terms()
		if !ok {
			return fmt.Errorf("contract %s is not open yet", r.ID.Short())
		}
		last, _ := r.Last()
		amount, err := p.toPay(ctx, m, r, last.Amount, args[1:])
		if err != nil {
			return err
		}
		if amount <= last.Amount {
			if r, err = m.manager.Pay(ctx, r.ID, amount); err != nil { // what was signed and perhaps not sent
				return err
			}
			return p.paid(r, "There is nothing to pay.\n")
		}
		question := fmt.Sprintf("Pay %s? The relay then has %s of %s for usage you cannot take back, of which you accepted %s.",
			sat(amount-last.Amount), sat(amount), sat(c.Deposit), msat(int64(r.Accepted)))
		if err := p.confirm(yes, question); err != nil {
			return err
		}
		if r, err = m.manager.Pay(ctx, r.ID, amount); err != nil {
			return err
		}
		return p.paid(r, fmt.Sprintf("Paid %s. The relay has %s of the deposit.\n", sat(amount-last.Amount), sat(amount)))
	})
}

func (p *program) paid(r *userside.Record, text string) error {
	if p.json {
		return p.printJSON(contractJSON(r))
	}
	return p.say("%s", text)
}

// allow notes accepted usage and cushion.
func (m *money) allow(ctx context.Context, r *userside.Record, accept, cushion string) (*userside.Record, error) {
	if accept != "" {
		amount, err := parseSatoshi(accept)
		if err != nil {
			return r, exitError{exitUsage, fmt.Errorf("--accept: %w", err)}
		}
		if r, err = m.manager.Accept(ctx, r.ID, protocol.Msat(amount)*1000); err != nil {
			return r, err
		}
	}
	if cushion != "" {
		amount, err := parseSatoshi(cushion)
		if err != nil {
			return r, exitError{exitUsage, fmt.Errorf("--cushion: %w", err)}
		}
		if r, err = m.manager.SetCushion(ctx, r.ID, amount); err != nil {
			return r, err
		}
	}
	return r, nil
}

// toPay is the amount that A is to reach: what is typed beyond what it is, or what the relay asks for.
func (p *program) toPay(ctx context.Context, m *money, r *userside.Record, have btcutil.Amount, typed []string) (btcutil.Amount, error) {
	if len(typed) == 1 {
		more, err := parseSatoshi(typed[0])
		if err != nil {
			return 0, exitError{exitUsage, err}
		}
		return have + more, nil
	}
	r, err := m.manager.Refresh(ctx, r.ID)
	if err != nil {
		return 0, err
	}
	s, err := r.Status()
	if err != nil {
		return 0, err
	}
	if s.Due != nil {
		return s.Due.Amount, nil
	}
	return s.Owed, nil
}

func (p *program) contractCloseCommand() *cobra.Command {
	feerate, most, yes := "", "", false
	cmd := &cobra.Command{
		Use: "close CONTRACT", Short: "End a contract and get the rest back, with the relay", Args: oneArg("a contract"), ValidArgsFunction: p.completeContract,
		Example: "  relay contract close 95426a9d",
		Long: `Asks the relay what it is owed, and to agree to a transaction that pays it that and you the rest. If the relay asks to be
paid and the contract to end, this agrees to it. A contract whose funding is not in a block yet is given up: its coins are spent back
to you if the relay may have your signatures.

A write pays at once for all the time and all the pulls that it may take, and what it does not use is given back to its contract
when it ends. A contract that is over gets nothing back: end it when little is stored, or delete first (relay rm) what you need no more.

If the relay does not answer, nothing is lost: ask again, or wait until relay contract refund can do it without it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := parseFeerate(feerate)
			if err != nil {
				return exitError{exitUsage, err}
			}
			return p.closeContract(cmd.Context(), args[0], rate, most, yes)
		},
	}
	cmd.Flags().StringVar(&feerate, "feerate", "", "satoshi per vB; else as your node estimates")
	cmd.Flags().StringVar(&most, "pay-up-to", "", "satoshi that the relay may get in all; else what you accepted and your cushion")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (p *program) closeContract(ctx context.Context, typed string, rate escrow.Feerate, most string, yes bool) error {
	return p.onContract(ctx, typed, false, func(m *money, r *userside.Record) (err error) {
		if err := m.manager.Step(ctx); err != nil {
			p.complain("relay: %s\n", escape(err.Error()))
		}
		if r, err = m.store.Contract(ctx, r.ID); err != nil {
			return err
		}
		if r.Step != userside.StepRestored && r.Confirmed(protocol.TxFunding) == nil {
			return p.giveUp(ctx, m, r, rate, yes)
		}
		if t := r.Confirmed(protocol.TxSettlement, protocol.TxClosing, protocol.TxRefund, protocol.TxRenewal); t != nil {
			p.tell(ctx, m.store)
			return p.paid(r, fmt.Sprintf("It is over already: %s %s\n", t.Kind, t.TxID))
		}
		return p.closeAt(ctx, m, r, rate, most, yes)
	})
}

// closeAt asks the relay what it is owed, and closes at that if it is within what is allowed.
func (p *program) closeAt(ctx context.Context, m *money, r *userside.Record, rate escrow.Feerate, most string, yes bool) error {
	limit := r.Allowance()
	if most != "" {
		var err error
		if limit, err = parseSatoshi(most); err != nil {
			return exitError{exitUsage, fmt.Errorf("--pay-up-to: %w", err)}
		}
	}
	r, err := m.manager.Refresh(ctx, r.ID)
	if err != nil {
		return err
	}
	s, err := r.Status()
	if err != nil {
		return err
	}
	last, _ := r.Last()
	amount := max(s.Owed, last.Amount)
	if s.Closing != nil {
		amount = s.Closing.Amount
	}
	if amount > limit {
		return fmt.Errorf("%w: it wants %s, and %s are allowed. Agree with --pay-up-to %d", userside.ErrOwed, sat(amount), sat(limit), int64(amount))
	}
	c, _, _ := r.Terms()
	if err := p.confirm(yes, fmt.Sprintf("The relay gets %s, and you %s less the fee; %s.\nEnd the contract?", sat(amount), sat(c.Deposit-amount), forfeit)); err != nil {
		return err
	}
	if r, err = m.manager.Close(ctx, r.ID, amount, rate); err != nil {
		return err
	}
	p.tell(ctx, m.store)
	return p.paid(r, fmt.Sprintf("Closing. The rest is yours when the transaction is in a block: relay contract show %s\nShould it wait there for long, hurry it: relay contract bump %s\n", r.ID.Short(), r.ID.Short()))
}

// giveUp ends a contract that is not funded.
func (p *program) giveUp(ctx context.Context, m *money, r *userside.Record, rate escrow.Feerate, yes bool) error {
	if err := p.confirm(yes, "The contract is not funded yet. Give it up?"); err != nil {
		return err
	}
	if !r.Foreign {
		if err := m.openWallet(ctx); err != nil {
			return err
		}
	}
	r, err := m.manager.Cancel(ctx, r.ID, m.purse(), rate)
	p.tell(ctx, m.store)
	if err != nil {
		return err
	}
	return p.paid(r, "Given up.\n")
}

func (p *program) contractRefundCommand() *cobra.Command {
	feerate, yes := "", false
	cmd := &cobra.Command{
		Use: "refund CONTRACT", Short: "Get a deposit back alone, when its time has come", Args: oneArg("a contract"), ValidArgsFunction: p.completeContract,
		Example: "  relay contract refund 95426a9d",
		Long: `From the block on that was fixed when the contract was opened, takes back all that is locked in it, without the relay. It is
also done by itself whenever relay watches. Called again, it bids a higher fee.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := parseFeerate(feerate)
			if err != nil {
				return exitError{exitUsage, err}
			}
			return p.refund(cmd.Context(), args[0], rate, yes)
		},
	}
	cmd.Flags().StringVar(&feerate, "feerate", "", "satoshi per vB; else as your node estimates")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (p *program) refund(ctx context.Context, typed string, rate escrow.Feerate, yes bool) error {
	return p.onContract(ctx, typed, false, func(m *money, r *userside.Record) (err error) {
		if c, _, ok := r.Terms(); ok {
			tip, err := m.node.Tip(ctx)
			if err != nil {
				return err
			}
			if c.RefundDue(tip.Height) {
				if err := p.confirm(yes, fmt.Sprintf("Take back the %s of contract %s, less the fee?", sat(c.Value()), r.ID.Short())); err != nil {
					return err
				}
			}
		}
		if r, err = m.manager.Refund(ctx, r.ID, rate); err != nil {
			return err
		}
		p.tell(ctx, m.store)
		return p.paid(r, "Refunding. It is yours when the transaction is in a block.\n")
	})
}

func (p *program) contractRenewCommand() *cobra.Command {
	var o openOptions
	cmd := &cobra.Command{
		Use: "renew CONTRACT", Short: "Move a contract into a new one, without locking money twice", Args: oneArg("a contract"), ValidArgsFunction: p.completeContract,
		Example: "  relay contract renew 95426a9d --days 60",
		Long: `Opens a contract whose funding spends the old one: the relay gets what it has a claim on, the rest goes into the new deposit,
and what that lacks comes from the wallet. Writing goes on all the time. What the old one paid for storage and pulls still to come is
not given back after that.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := p.contractStore(cmd.Context(), nil)
			if err != nil {
				return err
			}
			r, err := findContract(cmd.Context(), store, args[0])
			if err := errors.Join(err, store.Close()); err != nil {
				return err
			}
			if c, _, ok := r.Terms(); ok && o.deposit == "" {
				o.deposit = fmt.Sprint(int64(c.Deposit))
			}
			return p.openContract(cmd.Context(), r.Address, r, o)
		},
	}
	o.flags(cmd)
	cmd.Flags().Lookup("deposit").Usage = "satoshi to lock; else as many as before"
	return cmd
}
