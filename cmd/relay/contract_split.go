package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	relaybook "relaymarket/broadcast/market"
	"relaymarket/escrow/wallet"
)

// split is a payment of the wallet to itself that makes a coin for each contract.
type split struct {
	wallet.SplitRequest
	fee  btcutil.Amount
	txid *string // once it is sent
}

// thinking is how long coins are leased while the user reads what he would agree to.
const thinking = 30 * time.Minute

// draft prepares all contracts, and a split if the wallet has too few coins for them. What is in no block yet is waited for.
func (g *rentals) draft(ctx context.Context) error {
	for {
		err := g.draftAll(ctx)
		if !errors.Is(err, wallet.ErrFunds) {
			return err
		}
		if worth, balanceErr := g.worthWaiting(ctx); balanceErr != nil || !worth {
			return errors.Join(g.tooPoor(ctx, err), balanceErr)
		}
		if g.o.wait == 0 {
			return fmt.Errorf("%w\nSome of your coins are in no block yet: type the same again when the next one is there", err)
		}
		if err := g.awaitCoins(ctx); err != nil {
			return err
		}
	}
}

// draftAll prepares them on the coins that there are.
func (g *rentals) draftAll(ctx context.Context) error {
	g.split = nil
	for i, r := range g.each {
		err := g.draftOne(ctx, r)
		if i > 0 && errors.Is(err, wallet.ErrFunds) {
			return g.planSplit(ctx, i)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", r.address, err), g.discard(ctx))
		}
	}
	return nil
}

func (g *rentals) draftOne(ctx context.Context, r *rental) (err error) {
	w := g.wish
	w.Address, w.Announcement = r.address, r.Envelope
	if r.draft, err = g.m.manager.Draft(ctx, w, g.m.purse()); err == nil {
		g.wish.Feerate = r.draft.Quote.Feerate // one for all, now and after a split
	}
	return err
}

// planSplit learns what each contract needs, the coins being enough for the first few only, and what splitting costs.
func (g *rentals) planSplit(ctx context.Context, enough int) error {
	if err := g.discard(ctx); err != nil {
		return err
	}
	for _, r := range g.each[enough:] {
		// Each by itself is a quote; the coin is then free for the next one.
		if err := g.draftOne(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", r.address, err)
		}
		if err := g.m.manager.Discard(ctx, r.draft, g.m.purse()); err != nil {
			return err
		}
	}
	plan := wallet.SplitRequest{Key: uuid.NewString(), Feerate: g.wish.Feerate, For: thinking}
	for _, r := range g.each {
		plan.Parts = append(plan.Parts, r.draft.Missing)
	}
	fee, err := g.m.wallet.SplitFee(ctx, plan)
	if err != nil {
		return err
	}
	g.split = &split{SplitRequest: plan, fee: fee}
	return nil
}

// discard gives all coins back.
func (g *rentals) discard(ctx context.Context) (err error) {
	for _, r := range g.each {
		if r.draft != nil {
			err = errors.Join(err, g.m.manager.Discard(ctx, r.draft, g.m.purse()))
		}
	}
	if g.split != nil {
		err = errors.Join(err, g.m.wallet.Release(context.WithoutCancel(ctx), g.split.Lease()))
	}
	return err
}

// worthWaiting tells whether coins that are in no block yet would be enough, with those that are.
func (g *rentals) worthWaiting(ctx context.Context) (bool, error) {
	b, err := g.m.wallet.Balance(ctx)
	if err != nil || b.Unconfirmed == 0 {
		return false, err
	}
	return (b.Confirmed-b.Leased+b.Unconfirmed)/btcutil.Amount(len(g.each)) > g.wish.Deposit, nil
}

// tooPoor says of all contracts what the wallet says of one.
func (g *rentals) tooPoor(ctx context.Context, err error) error {
	b, balanceErr := g.m.wallet.Balance(ctx)
	if balanceErr != nil {
		return err
	}
	return fmt.Errorf("%w for %s: %s are to be locked, and fees paid; %s are free", wallet.ErrFunds, count(len(g.each), "contract"),
		sat(g.wish.Deposit*btcutil.Amount(len(g.each))), sat(b.Confirmed-b.Leased))
}

// awaitCoins waits until more coins are in a block.
func (g *rentals) awaitCoins(ctx context.Context) error {
	before, err := g.m.wallet.Balance(ctx)
	if err != nil {
		return err
	}
	g.p.complain("%s of yours are in no block yet. Waiting for the next one, ten minutes or so. Ctrl-C is safe: nothing is signed yet.\n", sat(before.Unconfirmed))
	return g.poll(ctx, errors.New("not waiting any longer. Nothing was signed: type the same again when the next block is there"), func() (bool, error) {
		now, err := g.m.wallet.Balance(ctx)
		return err == nil && now.Unconfirmed < before.Unconfirmed, err
	})
}

// poll asks again and again, at the pace of blocks. interrupted is the error when the user ends it.
func (g *rentals) poll(ctx context.Context, interrupted error, what func() (bool, error)) error {
	for {
		done, err := what()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return exitError{exitFailed, interrupted}
		case <-time.After(g.m.manager.Poll):
		}
	}
}

// splitFirst makes the coins that are missing, if any are, and prepares the contracts on them: at the same prices, deposits and
// feerate, and for no more fees than were told.
func (g *rentals) splitFirst(ctx context.Context) error {
	if g.split == nil {
		return nil
	}
	plan, told := g.split, g.fundingFees()
	tx, err := g.m.wallet.Split(ctx, plan.SplitRequest)
	if err != nil {
		return errors.Join(err, g.discard(ctx))
	}
	hash := tx.TxHash()
	again := fmt.Errorf("no contract is opened yet. When transaction %s is in a block, type the same again", hash)
	if g.o.wait == 0 {
		return exitError{exitFailed, again}
	}
	g.p.complain("Your coins are split with transaction %s. Waiting for the next block, which takes ten minutes or so. Ctrl-C is safe.\n", hash)
	if err := g.poll(ctx, again, func() (bool, error) { return g.confirmed(ctx, hash) }); err != nil {
		return err
	}
	if err := g.draftAll(ctx); err != nil {
		return fmt.Errorf("%w\n%w", err, again)
	}
	if g.split != nil || g.fundingFees() > told {
		return errors.Join(errors.New("the coins are not what they were a block ago, and the fees would be higher: type the same again"), g.discard(ctx))
	}
	text := hash.String()
	g.split = plan
	g.split.txid = &text
	return nil
}

// confirmed tells whether the split's coins can be spent.
func (g *rentals) confirmed(ctx context.Context, hash chainhash.Hash) (bool, error) {
	coins, err := g.m.wallet.Coins(ctx)
	n := 0
	for _, c := range coins {
		if c.OutPoint.Hash == hash {
			n++
		}
	}
	return n >= len(g.each), err
}

func (g *rentals) fundingFees() (sum btcutil.Amount) {
	for _, r := range g.each {
		sum += r.draft.Quote.FundingFee
	}
	return sum
}

// statement says what all contracts together mean, before anything is signed.
func (g *rentals) statement() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Contracts with %s on %s, the best of the market's %d that differ in operator and place:\n\n", count(len(g.each), "relay"), g.m.settings.Network, g.known)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "  RELAY\tKEY\tA MONTH\tOPENING\tA GB STORED A DAY\tA GB MOVED\tBOND\tCREDIT\tYOU CAN LOSE\n")
	var opening, month, lose, later btcutil.Amount
	for _, r := range g.each {
		q := &r.draft.Quote
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", escape(r.address), r.Relay.Short(), sat(r.Cost), sat(q.Offer.OpeningPrice),
			msat(q.Offer.StorageMsatPerGBDay), msat(q.Offer.BandwidthMsatPerGB), sat(q.Bond), sat(q.Offer.CreditLimit), sat(q.Bounds.User))
		opening, month, lose, later = opening+q.Offer.OpeningPrice, month+r.Cost, lose+q.Bounds.User, later+max(q.Later.Closing, q.Later.Refund)
	}
	_ = table.Flush() // a strings.Builder takes everything
	q := &g.each[0].draft.Quote
	line := func(head, format string, args ...any) {
		fmt.Fprintf(&b, "  %-16s %s\n", head, fmt.Sprintf(format, args...))
	}
	b.WriteByte('\n')
	line("You lock", "%s, %s with each, until block %d at the latest, %s", sat(q.Deposit*btcutil.Amount(len(g.each))), sat(q.Deposit), q.Expiry, inBlocks(q.Expiry, q.Tip))
	line("You pay at once", "%s opening prices, and %s fees for the fundings (%s sat/vB)", sat(opening), sat(g.fundingFees()), perVByte(q.Feerate))
	if g.split != nil {
		line("", "and %s fee for splitting your coins first: each contract needs a confirmed one of its own.", sat(g.split.fee))
		line("", "The contracts are opened a block later, and end as much later.")
	}
	line("A month", "%s with the opening prices; %s", sat(month), g.months)
	line("To get it back", "about %s fees, agreed with each relay, or alone from block %d on", sat(later), q.Expiry)
	line("You can lose", "%s at most, if every one of them cheats: opening prices, cushions, fees", sat(lose+g.splitFee()))
	line("They take writes", "from the first confirmation until block %d, %s", q.LastUsage, inBlocks(q.LastUsage, q.Tip))
	b.WriteString("\n  If this disk is lost, your 24 words and the backup of the contracts get the money back.\n  From block ")
	fmt.Fprintf(&b, "%d on run relay once: what is locked does not come back by itself.\n\n", q.Expiry)
	return b.String()
}

func (g *rentals) splitFee() btcutil.Amount {
	if g.split == nil {
		return 0
	}
	return g.split.fee
}

// monthText says what a month is.
func monthText(profile relaybook.Profile, told string) string {
	return fmt.Sprintf("a month is %s kept and %s moved, %s", humanize.Bytes(uint64(profile.Kept)), humanize.Bytes(uint64(profile.Moved)), told)
}
