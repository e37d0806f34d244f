package main

import (
	"context"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"relaymarket/escrow"
	"relaymarket/escrow/handover"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

func (p *program) walletCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "wallet", Short: "Your coins, which contracts are paid from", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `A Bitcoin wallet whose keys come from your 24 words, for what you pay relays with. It keeps native SegWit coins, and needs a
Bitcoin node, btcd or Bitcoin Core: relay wallet connect. Keep in it what you would carry in a purse.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(p.connectCommand(), p.balanceCommand(), p.addressCommand(), p.paySomebodyCommand())
	return cmd
}

// balanceLine is the balance in JSON, satoshi.
type balanceLine struct {
	Network     protocol.Network `json:"network"`
	Height      uint32           `json:"height"`
	Confirmed   int64            `json:"confirmed"`
	Leased      int64            `json:"leased"` // of the confirmed: kept for a contract
	Unconfirmed int64            `json:"unconfirmed"`
	Immature    int64            `json:"immature"`
}

func (p *program) balanceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "balance", Short: "Show what is in the wallet", Args: cobra.NoArgs,
		Example: "  relay wallet balance",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return p.withWallet(ctx, func(m *money) error {
				b, err := m.wallet.Balance(ctx)
				if err != nil {
					return err
				}
				tip, err := m.node.Tip(ctx)
				if err != nil {
					return err
				}
				return p.showBalance(balanceLine{Network: m.settings.Network, Height: tip.Height, Confirmed: int64(b.Confirmed),
					Leased: int64(b.Leased), Unconfirmed: int64(b.Unconfirmed), Immature: int64(b.Immature)})
			})
		},
	}
}

func (p *program) showBalance(b balanceLine) error {
	if p.json {
		return p.printJSON(b)
	}
	text := fmt.Sprintf("%s, on %s at block %d", sat(btcutil.Amount(b.Confirmed)), b.Network, b.Height)
	for _, part := range []struct {
		amount int64
		what   string
	}{{b.Leased, "of it kept for a contract"}, {b.Unconfirmed, "more when the next block comes"}, {b.Immature, "more when a mined block is old enough"}} {
		if part.amount != 0 {
			text += fmt.Sprintf("; %s %s", sat(btcutil.Amount(part.amount)), part.what)
		}
	}
	return p.say("%s\n", text)
}

func (p *program) addressCommand() *cobra.Command {
	var qr, taproot bool
	var amount int64
	cmd := &cobra.Command{
		Use: "address", Short: "Make an address to be paid at", Args: cobra.NoArgs,
		Example: "  relay wallet address --amount 200000 --qr",
		Long: `Makes an address that was never given out before. A payment counts from its first confirmation on, and so long as the
wallet has seen it once, it may be made at any time.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if amount < 0 || btcutil.Amount(amount) > btcutil.MaxSatoshi {
				return usagef("--amount is 1 to %d satoshi", int64(btcutil.MaxSatoshi))
			}
			ctx := cmd.Context()
			return p.withWallet(ctx, func(m *money) error {
				kind := wallet.P2WPKH
				if taproot {
					kind = wallet.P2TR
				}
				a, err := m.wallet.NewAddress(ctx, kind)
				if err != nil {
					return err
				}
				return p.showAddress(a, btcutil.Amount(amount), qr)
			})
		},
	}
	cmd.Flags().BoolVar(&qr, "qr", false, "show a payment link as QR code, too")
	cmd.Flags().BoolVar(&taproot, "taproot", false, "make a Taproot address, bc1p…")
	cmd.Flags().Int64Var(&amount, "amount", 0, "satoshi that the payment link asks for")
	return cmd
}

// showAddress shows an address and its link, BIP21.
func (p *program) showAddress(a address.Address, amount btcutil.Amount, qr bool) error {
	link := handover.PaymentLink(a, amount, "")
	if p.json {
		return p.printJSON(map[string]string{"address": a.EncodeAddress(), "link": link})
	}
	if qr {
		// Upper case makes a smaller code, and both parts of the link may be (BIP21, BIP173).
		scheme, rest, _ := strings.Cut(link, "?")
		text := strings.ToUpper(scheme)
		if rest != "" {
			text += "?" + rest
		}
		handover.WriteQR(p.out, text)
	}
	if amount > 0 {
		return p.say("%s\n%s\n", a.EncodeAddress(), link)
	}
	return p.say("%s\n", a.EncodeAddress())
}

func (p *program) paySomebodyCommand() *cobra.Command {
	feerate, yes := "", false
	cmd := &cobra.Command{
		Use: "send ADDRESS SATOSHI|all", Short: "Pay from the wallet", Args: twoArgs("an address and an amount"),
		Example: "  relay wallet send bc1q… 20000 --feerate 3\n  relay wallet send bc1q… all",
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := parseFeerate(feerate)
			if err != nil {
				return exitError{exitUsage, err}
			}
			all := args[1] == "all"
			var amount btcutil.Amount
			if !all {
				if amount, err = parseSatoshi(args[1]); err != nil {
					return exitError{exitUsage, err}
				}
			}
			return p.paySomebody(cmd.Context(), args[0], amount, all, rate, yes)
		},
	}
	cmd.Flags().StringVar(&feerate, "feerate", "", "satoshi per vB; else as your node estimates")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (p *program) paySomebody(ctx context.Context, to string, amount btcutil.Amount, all bool, rate escrow.Feerate, yes bool) error {
	return p.withWallet(ctx, func(m *money) error {
		params, err := escrow.Params(m.settings.Network)
		if err != nil {
			return err
		}
		a, err := address.DecodeAddress(to, params)
		if err != nil || !a.IsForNet(params) {
			return usagef("%q is no address on %s", to, m.settings.Network)
		}
		if rate, err = m.rate(ctx, rate); err != nil {
			return err
		}
		what := sat(amount)
		if all {
			what = "all that is free"
		}
		if err := p.confirm(yes, fmt.Sprintf("Send %s to %s at %s sat/vB?", what, a.EncodeAddress(), perVByte(rate))); err != nil {
			return err
		}
		tx, err := m.wallet.Send(ctx, wallet.SendRequest{Key: uuid.NewString(), To: a, Amount: amount, Feerate: rate, All: all})
		if err != nil {
			return err
		}
		if p.json {
			return p.printJSON(map[string]string{"txid": tx.TxHash().String()})
		}
		return p.say("Sent with transaction %s\n", tx.TxHash())
	})
}

// rate is the given feerate, or what the node estimates for the next blocks.
func (m *money) rate(ctx context.Context, given escrow.Feerate) (escrow.Feerate, error) {
	if given != 0 {
		return given, nil
	}
	const soon = 6 // blocks
	return m.node.Feerate(ctx, soon)
}

// sat shows an amount.
func sat(a btcutil.Amount) string {
	digits := strconv.FormatInt(int64(a), 10)
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits + " sat"
}

// parseSatoshi reads an amount, in satoshi, with commas or underscores if one likes.
func parseSatoshi(typed string) (btcutil.Amount, error) {
	n, err := strconv.ParseInt(strings.NewReplacer(",", "", "_", "").Replace(typed), 10, 64)
	if err != nil || n < 0 || n > btcutil.MaxSatoshi {
		return 0, fmt.Errorf("%q is not an amount in satoshi", typed)
	}
	return btcutil.Amount(n), nil
}

// parseFeerate reads satoshi per vB with up to three decimals; empty is 0.
func parseFeerate(typed string) (escrow.Feerate, error) {
	if typed == "" {
		return 0, nil
	}
	rate, ok := new(big.Rat), len(typed) < 12 && !strings.ContainsAny(typed, "eE/")
	if ok {
		rate, ok = rate.SetString(typed)
	}
	if ok {
		rate.Mul(rate, big.NewRat(1000, 1))
		ok = rate.IsInt() && rate.Num().IsInt64()
	}
	if !ok || escrow.Feerate(rate.Num().Int64()).Validate() != nil {
		return 0, fmt.Errorf("--feerate %q is not 1 to 1000 satoshi per vB, like 2.5", typed)
	}
	return escrow.Feerate(rate.Num().Int64()), nil
}

// perVByte shows a feerate.
func perVByte(r escrow.Feerate) string {
	text := big.NewRat(int64(r), 1000).FloatString(3)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}
