package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/spf13/cobra"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// openOptions are what is typed to open or renew a contract.
type openOptions struct {
	deposit, feerate, cushion string
	days                      int
	writers                   []string
	id, payout                string
	psbtIn, psbtOut           string
	yes, fileOnly             bool
	wait                      int64
	offer                     string // digits of its hash; empty: what the relay announces now
}

// usualDays is how long a contract lasts if nobody says otherwise.
const usualDays = 30

func (o *openOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.deposit, "deposit", "", "satoshi to lock")
	f.IntVar(&o.days, "days", usualDays, "for how many days, 6 to 182")
	f.StringVar(&o.feerate, "feerate", "", "satoshi per vB of the funding; else as your node estimates")
	f.StringVar(&o.cushion, "cushion", "", "satoshi that payments may run ahead of usage you accepted; else the least of credit limit, opening price and 1 % of the deposit")
	f.StringVar(&o.payout, "payout", "", "address that your money goes to in the end; else a new one of the wallet")
	f.StringVar(&o.psbtIn, "psbt-in", "", "PSBT of your own wallet with the coins to lock; the funding is then signed there")
	f.StringVar(&o.psbtOut, "psbt-out", "", "file for the funding, to be signed by your own wallet")
	f.BoolVar(&o.fileOnly, "backup-file-only", false, "do not leave a sealed backup on another relay")
	f.Int64Var(&o.wait, "wait", 1, "confirmations to wait for; 0 does not wait")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.MarkFlagsRequiredTogether("psbt-in", "psbt-out")
}

func (p *program) contractOpenCommand() *cobra.Command {
	var o openOptions
	var best bestOptions
	cmd := &cobra.Command{
		Use: "open ADDRESS | --best N", Short: "Lock a deposit with a relay, or with the best of the market, and use it", ValidArgsFunction: p.completeRelay,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 1) == (best.n > 0) || len(args) > 1 {
				return errors.New("wanted is the relay's address, or --best and a number of relays")
			}
			return nil
		},
		Long: `Tells what a contract with the relay costs, what it locks until when, and what you can lose; asks; and then opens it.
When the funding has a confirmation, the relay takes what you write, and is added to your relays. Ctrl-C is safe at any time:
relay contract resume goes on.

With --best the relays are chosen from the market: those that cost you least in a month, as relay market --best shows them, that
differ in operator and place from each other and from those you rent already, and answer now. You are told all of it together, and asked once.
--deposit is for each. Each contract needs a confirmed coin of its own: if your wallet has too few, it splits one first, by a
payment to itself, and the contracts are opened a block later. relay contract resume, without a contract, goes on with all of them.

With --offer the terms are those that the relay gave with its refusal, which it keeps to as long as they are valid.

With --psbt-in the coins are those of your own wallet. Have it make a PSBT, unsigned, with native SegWit inputs and an output
that goes back to it; what that output gets is set right here. The whole funding is written to --psbt-out: sign it there, and give it
back with relay contract resume CONTRACT --psbt-in FILE.`,
		Example: "  relay contract open relay.example --deposit 100000\n  relay contract open relay.example --deposit 250000 --days 90 --cushion 2000 --yes\n" +
			"  relay contract open --best 2 --deposit 100000\n  relay contract open --best 3 --deposit 100000 --kept 5GB --moved 20GB --bond 10",
		RunE: func(cmd *cobra.Command, args []string) error {
			if best.n > 0 {
				return p.openBest(cmd.Context(), best, o)
			}
			if name := best.given(cmd.Flags()); name != "" {
				return usagef("--%s is for --best", name)
			}
			return p.openContract(cmd.Context(), args[0], nil, o)
		},
	}
	o.flags(cmd)
	best.flags(cmd)
	cmd.Flags().StringVar(&o.id, "id", "", "the contract's id, if writers have consented to it: 64 hex digits")
	cmd.Flags().StringVar(&o.offer, "offer", "", "take what the relay offered when it refused you, instead of what it announces now: the digits that were shown")
	cmd.Flags().StringArrayVar(&o.writers, "writer", nil, "file with another key's consent that the contract pays for it (relay contract consent)")
	_ = cmd.MarkFlagRequired("deposit")
	for _, alone := range []string{"id", "writer", "offer", "psbt-in", "psbt-out"} {
		cmd.MarkFlagsMutuallyExclusive("best", alone)
	}
	return cmd
}

// openContract opens a contract, or one that renews another.
func (p *program) openContract(ctx context.Context, typed string, renews *userside.Record, o openOptions) (err error) {
	w, err := o.wish()
	if err != nil {
		return exitError{exitUsage, err}
	}
	m, err := p.openMoney(ctx, !o.fileOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	var e *protocol.Envelope
	if o.offer != "" {
		w.Address, e, _, err = m.client.KeptOffer(ctx, typed, o.offer)
	} else {
		w.Address, e, _, err = m.client.Offer(ctx, typed)
	}
	if err != nil {
		return err
	}
	w.Announcement = e
	if renews != nil {
		w.Renews = &renews.ID
		if err := m.manager.Step(ctx); err != nil { // it may be in a block that nobody looked at
			p.complain("relay: %s\n", escape(err.Error()))
		}
	} else if err = m.alone(ctx, e.From); err != nil {
		return err
	}
	var given []byte
	if given, err = o.foreign(&w, m.settings.Network); err != nil {
		return err
	}
	if len(w.Coins) == 0 || w.Payout == nil {
		if err = m.openWallet(ctx); err != nil {
			return err
		}
	}
	err = p.draftAndOpen(ctx, m, w, o, given)
	return err
}

// alone refuses a second contract with a relay that one serves with: it would refuse it itself, after coins were reserved.
func (m *money) alone(ctx context.Context, relay protocol.PublicKey) error {
	records, err := m.store.Contracts(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Relay == relay && r.Network == m.settings.Network && escrow.TakesUsage(r.State) {
			return fmt.Errorf("you have contract %s with this relay already: renew it (relay contract renew %s), or close it first", r.ID.Short(), r.ID.Short())
		}
	}
	return nil
}

// wish reads what can be read without a relay.
func (o *openOptions) wish() (w userside.Wish, err error) {
	if w.Deposit, err = parseSatoshi(o.deposit); err != nil {
		return w, fmt.Errorf("--deposit: %w", err)
	}
	if w.Feerate, err = parseFeerate(o.feerate); err != nil {
		return w, err
	}
	const blocksPerDay = 144
	const least, most = int(escrow.MinLifetime / blocksPerDay), int(escrow.MaxLifetime / blocksPerDay)
	if o.days < least || o.days > most {
		return w, fmt.Errorf("--days is %d to %d", least, most)
	}
	// The blocks that come until the relay signs must not bring the shortest below what it takes.
	const whileSigning = 12
	w.Lifetime = max(uint32(o.days)*blocksPerDay, escrow.MinLifetime+whileSigning)
	if o.cushion != "" {
		cushion, err := parseSatoshi(o.cushion)
		if err != nil {
			return w, fmt.Errorf("--cushion: %w", err)
		}
		w.Cushion = &cushion
	}
	if o.id != "" {
		if err := w.ID.UnmarshalText([]byte(o.id)); err != nil {
			return w, fmt.Errorf("--id: %w", err)
		}
	}
	if o.wait < 0 {
		return w, errors.New("--wait is 0 or more")
	}
	if n := len(o.offer); n > 0 && (n < shownDigits || n > 64 || strings.Trim(o.offer, "0123456789abcdef") != "") {
		return w, fmt.Errorf("--offer is %d to 64 hex digits", shownDigits)
	}
	for _, file := range o.writers {
		writer, err := readConsent(file)
		if err != nil {
			return w, err
		}
		w.Writers = append(w.Writers, writer)
	}
	return w, nil
}

func readConsent(file string) (w protocol.ContractWriter, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return w, err
	}
	e, err := protocol.ParseEnvelope(trimNewline(data))
	if err != nil {
		return w, fmt.Errorf("%s is not a consent: %w", file, err)
	}
	return protocol.ContractWriter{Key: e.From, Consent: e.Bytes()}, nil
}

// foreign takes coins, change and payout that are not our wallet's. It answers the PSBT file as it was given.
func (o *openOptions) foreign(w *userside.Wish, network protocol.Network) (given []byte, err error) {
	if o.payout != "" {
		if w.Payout, err = payoutScript(o.payout, network); err != nil {
			return nil, exitError{exitUsage, err}
		}
	}
	if o.psbtIn == "" {
		return nil, nil
	}
	p, given, err := readPSBT(o.psbtIn)
	if err != nil {
		return nil, err
	}
	if w.Coins, w.Change, err = userside.ReadCoins(p, w.Payout); err != nil {
		return nil, fmt.Errorf("%s: %w", o.psbtIn, err)
	}
	return given, nil
}

func payoutScript(typed string, network protocol.Network) (protocol.Script, error) {
	params, err := escrow.Params(network)
	if err != nil {
		return nil, err
	}
	a, err := address.DecodeAddress(typed, params)
	if err != nil || !a.IsForNet(params) {
		return nil, fmt.Errorf("--payout %q is no address on %s", typed, network)
	}
	script, err := txscript.PayToAddrScript(a)
	if err != nil {
		return nil, err
	}
	return script, protocol.Script(script).Validate()
}

// draftAndOpen tells what the contract means, asks, and brings it about.
func (p *program) draftAndOpen(ctx context.Context, m *money, w userside.Wish, o openOptions, given []byte) error {
	d, err := m.manager.Draft(ctx, w, m.purse())
	if err != nil {
		return err
	}
	if !p.json {
		p.complain("%s", quoteText(d))
	}
	if err := p.confirm(o.yes, "Open this contract?"); err != nil {
		return errors.Join(err, m.manager.Discard(ctx, d, m.purse()))
	}
	r, err := m.manager.Open(ctx, d)
	if err != nil {
		return errors.Join(err, m.manager.Discard(ctx, d, m.purse()))
	}
	return p.bringAbout(ctx, m, r, o, given)
}

// purse is the wallet as the manager wants it: an untyped nil if it is not open.
func (m *money) purse() userside.Wallet {
	if m.wallet == nil {
		return nil
	}
	return m.wallet
}

// bringAbout advances a contract until it waits for the chain, for another wallet, or for nothing.
func (p *program) bringAbout(ctx context.Context, m *money, r *userside.Record, o openOptions, given []byte) (err error) {
	if r, err = p.exchange(ctx, m, r); err != nil {
		p.tell(ctx, m.store)
		return err
	}
	if r.Opening() {
		return p.writeFunding(r, o.psbtOut, given)
	}
	if o.wait > 0 {
		p.sayWaiting()
		if r, err = p.awaitFunding(ctx, m, r, o.wait); err != nil {
			return err
		}
	}
	return p.opened(ctx, m, r)
}

// exchange advances a contract until the relay has taken the funding, or another wallet has to sign it.
func (p *program) exchange(ctx context.Context, m *money, r *userside.Record) (_ *userside.Record, err error) {
	for r.Opening() {
		p.progress(r)
		if r.Foreign && r.Step == userside.StepKept {
			return r, nil
		}
		id := r.ID
		var next *userside.Record
		if next, err = m.manager.Advance(ctx, id, m.purse()); err != nil {
			if next != nil && !next.Opening() {
				return next, err
			}
			return r, fmt.Errorf("%w\nIt is not lost. Go on with: relay contract resume %s   or give it up: relay contract close %s", err, id.Short(), id.Short())
		}
		r = next
	}
	if r.Step != userside.StepTaken {
		return r, fmt.Errorf("contract %s came to nothing: %s", r.ID.Short(), r.Fault)
	}
	return r, nil
}

// progress tells which step comes next.
func (p *program) progress(r *userside.Record) {
	if p.json {
		return
	}
	switch r.Step {
	case userside.StepDrawn:
		p.complain("Contract %s: asking the relay …\n", r.ID.Short())
	case userside.StepAnswered:
		p.complain("Backing up what a refund needs …\n")
	case userside.StepKept:
		p.complain("Signing the funding …\n")
	case userside.StepSigned:
		p.complain("Giving the relay the signatures …\n")
	}
}

func (p *program) sayWaiting() {
	if !p.json {
		p.complain("Waiting for the next block, which takes ten minutes or so. Ctrl-C is safe.\n")
	}
}

// awaitFunding watches until the funding has so many confirmations.
func (p *program) awaitFunding(ctx context.Context, m *money, r *userside.Record, confirmations int64) (*userside.Record, error) {
	for {
		if err := m.manager.Step(ctx); err != nil && ctx.Err() == nil {
			p.complain("relay: %s (it is tried again)\n", escape(err.Error()))
		}
		if ctx.Err() != nil {
			return r, exitError{exitFailed, fmt.Errorf("not waiting any longer. See how it goes on: relay contract show %s", r.ID.Short())}
		}
		var err error
		if r, err = m.store.Contract(ctx, r.ID); err != nil {
			return r, err
		}
		tip, err := m.node.Tip(ctx)
		if err == nil {
			if t := r.Confirmed(protocol.TxFunding); t != nil && int64(tip.Height)-int64(*t.Height)+1 >= confirmations {
				return p.awaitRelay(ctx, m, r)
			}
		}
		if r.State != escrow.FundingSent && r.State != escrow.Active {
			return r, nil // there is nothing to wait for
		}
		select {
		case <-ctx.Done():
		case <-time.After(m.manager.Poll):
		}
	}
}

// relayPatience is how long the relay's node may take for a block that ours has.
const relayPatience = 30 * time.Second

// awaitRelay waits until the relay has seen the funding in a block, too: until then it takes nothing. A relay that does not see it in time
// will later.
func (p *program) awaitRelay(ctx context.Context, m *money, r *userside.Record) (*userside.Record, error) {
	for until := time.Now().Add(relayPatience); ctx.Err() == nil && time.Now().Before(until); {
		heard, err := m.manager.Refresh(ctx, r.ID)
		if err == nil {
			r = heard
			if s, err := r.Status(); err == nil && s != nil && s.State != protocol.StateFunding {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(m.manager.Poll / 4):
		}
	}
	p.complain("The relay has not seen the block yet, and takes nothing until it has: try to send in a minute.\n")
	return r, nil
}

// opened adds the relay to the user's own, once it takes what he writes, and tells what there is.
func (p *program) opened(ctx context.Context, m *money, r *userside.Record) error {
	p.tell(ctx, m.store)
	text := p.welcome(ctx, m, r)
	if p.json {
		return p.printJSON(contractJSON(r))
	}
	return p.say("%s", text)
}

// welcome adds the relay of an open contract, and says what there is.
func (p *program) welcome(ctx context.Context, m *money, r *userside.Record) string {
	if r.State != escrow.Active && r.State != escrow.FundingSent {
		return fmt.Sprintf("Contract %s: %s. See: relay contract show %s\n", r.ID.Short(), stateText(r), r.ID.Short())
	}
	if r.State != escrow.Active {
		return fmt.Sprintf("Contract %s waits for its first block. Then use the relay: relay relays add %s\n", r.ID.Short(), r.Address)
	}
	if _, _, err := m.client.AddRelay(ctx, r.Address); err != nil {
		p.complain("relay: %s\n", escape(err.Error()))
		return fmt.Sprintf("Contract %s is open. Use the relay: relay relays add %s\n", r.ID.Short(), r.Address)
	}
	return fmt.Sprintf("Contract %s is open, and %s is one of your relays: relay send goes there from now on.\n", r.ID.Short(), r.Address)
}
