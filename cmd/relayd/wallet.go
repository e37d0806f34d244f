package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/relaynode"
	"relaymarket/protocol"
)

func (p program) walletCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "wallet",
		Short: "Show the relay's Bitcoin wallet: where to pay, and what is in it",
		Long: `wallet shows an address to pay to, as text and as a QR code, and what the wallet has.
It asks the relay if it runs, and looks into the wallet itself if not.

Users pay for their deposits; the wallet needs coins of its own only for a bond
(bond-percent) and for settlements that have to pay more than they bring.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var view relaynode.WalletView
			err := p.withWallet(cmd, s, func(ctx context.Context, operator string, key *protocol.PrivateKey) (err error) {
				view, err = relaynode.AskWallet(ctx, operator, key)
				return err
			}, func(ctx context.Context, w *wallet.Wallet) (err error) {
				view, err = relaynode.LookAtWallet(ctx, w, s.bitcoin.network)
				return err
			})
			if err != nil {
				return err
			}
			return p.showWallet(view, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON object, amounts in satoshi")
	p.walletFlags(cmd, s)
	cmd.AddCommand(p.walletInitCommand(), p.walletWordsCommand(), p.walletSendCommand())
	return cmd
}

// walletFlags are those of the folder and of the node.
func (p program) walletFlags(cmd *cobra.Command, s *settings) {
	names := []string{"dir", "operator-listen", "log-format", "log-level"}
	for _, item := range s.bitcoinNode() {
		names = append(names, item.name)
	}
	s.flags(cmd.Flags(), names...)
	s.quiet(cmd.Flags())
}

// withWallet asks the relay that keeps the wallet, or opens it when none runs.
func (p program) withWallet(cmd *cobra.Command, s *settings, ask func(context.Context, string, *protocol.PrivateKey) error,
	open func(context.Context, *wallet.Wallet) error) error {
	if err := s.load(p.environ, cmd.Flags()); err != nil {
		return err
	}
	key, err := s.readKey()
	if err != nil {
		return err
	}
	if s.bitcoin.rpc == "" {
		return errNoNode
	}
	err = ask(cmd.Context(), dialable(s.operatorListen), key)
	if !errors.Is(err, relaynode.ErrNotRunning) {
		return err
	}
	cfg, err := s.bitcoinConfig()
	if err != nil {
		return err
	}
	cfg.Wallet = s.walletFolder()
	return relaynode.WithWallet(cmd.Context(), cfg, p.logger(s), open)
}

// dialable is where a listener on an address is reached from this machine.
func dialable(listens string) string {
	host, port, err := net.SplitHostPort(listens)
	if ip, ipErr := netip.ParseAddr(host); err == nil && (host == "" || ipErr == nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listens
}

func (p program) showWallet(v relaynode.WalletView, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.out).Encode(v)
	}
	if _, err := fmt.Fprintf(p.out, "network     %s\nbalance     %d sat\n", v.Network, int64(v.Confirmed)); err != nil {
		return err
	}
	for _, part := range []struct {
		name   string
		amount btcutil.Amount
		note   string
	}{{"leased", v.Leased, "of these: promised to contracts in the making"}, {"unconfirmed", v.Unconfirmed, "change, in no block yet"},
		{"immature", v.Immature, "mined, to be spent after 100 blocks"}} {
		if part.amount != 0 {
			if _, err := fmt.Fprintf(p.out, "%-11s %d sat  (%s)\n", part.name, int64(part.amount), part.note); err != nil {
				return err
			}
		}
	}
	if _, err := fmt.Fprintf(p.out, "pay to      %s\n\n", v.Address); err != nil {
		return err
	}
	qrterminal.GenerateHalfBlock("bitcoin:"+v.Address, qrterminal.L, p.out)
	return nil
}

func (p program) walletInitCommand() *cobra.Command {
	s := newSettings(p.environ)
	var restore bool
	cmd := &cobra.Command{
		Use:     "init",
		Example: "  relayd wallet init\n  relayd wallet init --restore",
		Short:   "Draw the seed of the relay's wallet and contract keys, once",
		Long: `init draws a seed of 24 words and writes it to bitcoin.words in the relay's folder. It
never overwrites one. Write the words down: with them a relay that lost its disk has
its coins again, and its keys in contracts.

With --restore it reads words that were drawn before from standard input. The wallet
then reads the chain from its beginning, which takes hours.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			if _, err := s.readKey(); err != nil {
				return err
			}
			words := ""
			if restore {
				line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4<<10)).ReadString('\n')
				if err != nil && err != io.EOF {
					return fmt.Errorf("read the words: %w", err)
				}
				if words = strings.TrimSpace(line); words == "" {
					return usagef("--restore reads the 24 words from standard input, in one line: there were none")
				}
			}
			if _, err := s.newSeed(words, time.Now()); err != nil {
				return err
			}
			_, err := fmt.Fprintf(p.out, "%s\n\nNext:\n  relayd wallet words%[2]s   show the words, to write them down\n  relayd wallet%[2]s         where to pay coins for bonds to\n", s.seedFile(), s.dirFlag())
			return err
		},
	}
	cmd.Flags().BoolVar(&restore, "restore", false, "read the words from standard input instead of drawing new ones")
	s.flags(cmd.Flags(), "dir")
	return cmd
}

func (p program) walletWordsCommand() *cobra.Command {
	s := newSettings(p.environ)
	cmd := &cobra.Command{
		Use:     "words",
		Example: "  relayd wallet words",
		Short:   "Show the words of the wallet's seed, to write them down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			seed, err := s.readSeed()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.out, seed.words)
			return err
		},
	}
	s.flags(cmd.Flags(), "dir")
	return cmd
}

func (p program) walletSendCommand() *cobra.Command {
	s := newSettings(p.environ)
	var rate int64
	cmd := &cobra.Command{
		Use:     "send ADDRESS SATOSHI|all --feerate RATE",
		Example: "  relayd wallet send bc1q… 20000 --feerate 3",
		Short:   "Pay out of the relay's wallet",
		Args:    twoArgs("an address and an amount"),
		RunE: func(cmd *cobra.Command, args []string) error {
			payment := relaynode.WalletPayment{To: args[0], Key: rand.Text(), Feerate: escrow.Feerate(rate)}
			if payment.All = args[1] == "all"; !payment.All {
				sat, err := strconv.ParseInt(args[1], 10, 64)
				if err != nil || sat < 1 || sat > btcutil.MaxSatoshi {
					return usagef("%q is no amount: write whole satoshi, or all", args[1])
				}
				payment.Amount = btcutil.Amount(sat)
			}
			if err := payment.Feerate.Validate(); err != nil {
				return usagef("--feerate: %w", err)
			}
			var txid string
			err := p.withWallet(cmd, s, func(ctx context.Context, operator string, key *protocol.PrivateKey) (err error) {
				txid, err = relaynode.PayFromWallet(ctx, operator, key, payment)
				return err
			}, func(ctx context.Context, w *wallet.Wallet) (err error) {
				txid, err = payment.Pay(ctx, w, s.bitcoin.network)
				return err
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.out, txid)
			return err
		},
	}
	cmd.Flags().Int64Var(&rate, "feerate", 0, "satoshi per 1000 vB")
	p.walletFlags(cmd, s)
	return cmd
}
