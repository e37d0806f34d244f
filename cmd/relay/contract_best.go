package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	relaybook "relaymarket/broadcast/market"
	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// bestOptions say which relays of the market are rented together.
type bestOptions struct {
	n      int
	market marketOptions
}

func (b *bestOptions) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&b.n, "best", 0, "instead of an address: so many relays, the best of the market that differ in operator and place")
	filters := pflag.NewFlagSet("filters", pflag.ContinueOnError)
	b.market.filters(filters)
	filters.VisitAll(func(f *pflag.Flag) {
		f.Usage = "with --best: " + f.Usage
		cmd.Flags().AddFlag(f)
	})
}

// given is a flag that was typed and is good with --best only; empty for none.
func (b *bestOptions) given(typed *pflag.FlagSet) (name string) {
	filters := pflag.NewFlagSet("filters", pflag.ContinueOnError)
	(&marketOptions{}).filters(filters)
	filters.VisitAll(func(f *pflag.Flag) {
		if typed.Changed(f.Name) {
			name = f.Name
		}
	})
	return name
}

// maxBest is how many contracts are opened together at most.
const maxBest = 16

// openBest rents the best relays of the market, all in one go.
func (p *program) openBest(ctx context.Context, best bestOptions, o openOptions) (err error) {
	if best.n < 1 || best.n > maxBest {
		return usagef("--best is 1 to %d", maxBest)
	}
	wish, err := o.wish()
	if err != nil {
		return exitError{exitUsage, err}
	}
	m, err := p.openMoney(ctx, !o.fileOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if _, err := o.foreign(&wish, m.settings.Network); err != nil {
		return err
	}
	g := &rentals{p: p, m: m, o: o, wish: wish}
	if err := g.choose(ctx, best); err != nil {
		return err
	}
	if err := m.openWallet(ctx); err != nil {
		return err
	}
	if err := g.draft(ctx); err != nil {
		return err
	}
	if !p.json {
		p.complain("%s", g.statement())
	}
	if err := p.confirm(o.yes, fmt.Sprintf("Open %s?", count(len(g.each), "contract"))); err != nil {
		return errors.Join(err, g.discard(ctx))
	}
	if err := g.splitFirst(ctx); err != nil {
		return err
	}
	if err := g.open(ctx); err != nil {
		return err
	}
	return g.bringAbout(ctx)
}

// rentals are contracts that are opened together.
type rentals struct {
	p    *program
	m    *money
	o    openOptions
	wish userside.Wish // of each, but for relay and announcement

	each    []*rental
	known   int    // relays in the market
	months  string // what a month is, in words
	split   *split // nil: there are coins enough
	aborted error  // why it was not gone on with, in the middle
}

// rental is one of them.
type rental struct {
	relaybook.Priced
	address string // where it answered
	draft   *userside.Draft
	record  *userside.Record
	err     error // why it is not open
}

// choose finds the relays, at what they ask now.
func (g *rentals) choose(ctx context.Context, best bestOptions) error {
	want, err := best.market.want()
	if err != nil {
		return err
	}
	want.Deposit = g.wish.Deposit
	if want.Rented, err = g.rented(ctx); err != nil {
		return err
	}
	v, err := g.p.view(ctx, &best.market)
	if err != nil {
		return err
	}
	if want.Terms, err = best.market.wanted(v.wishes); err != nil {
		return err
	}
	g.months = monthText(v.profile, v.told)
	listings, err := g.read(ctx)
	if err != nil {
		return err
	}
	g.known, want.Not = len(listings), g.p.caught(&best.market, v, listings)
	var mu sync.Mutex
	addresses := map[protocol.PublicKey]string{}
	done := g.p.busy("asking the relays")
	chosen, passed, err := relaybook.BestNow(ctx, listings, best.n, v.profile, want,
		func(ctx context.Context, l relaybook.Listing) (*protocol.Envelope, *protocol.Announcement, error) {
			address, e, a, err := g.m.client.Offer(ctx, l.Address())
			mu.Lock()
			defer mu.Unlock()
			addresses[l.Relay] = address
			return e, a, err
		})
	done()
	if err != nil {
		return err
	}
	for _, l := range passed {
		g.p.complain("relay: %s is left out: %s\n", escape(l.Address()), escape(l.Err.Error()))
	}
	if len(chosen) < best.n {
		return fmt.Errorf("%w: %d of %s in the market of %s can be rented together (of one operator, or at one place, one is taken; none of yours, and none whose bills "+
			"your audits found wrong): take fewer, or ask for less", errTooFew, len(chosen), count(g.known, "relay"), g.m.settings.Network)
	}
	for _, c := range chosen {
		g.each = append(g.each, &rental{Priced: c, address: addresses[c.Relay]})
	}
	return nil
}

// errTooFew: the market has not so many relays that fit.
var errTooFew = errors.New("too few relays fit")

// read reads the market of the Bitcoin node's network.
func (g *rentals) read(ctx context.Context) ([]relaybook.Listing, error) {
	b, err := g.p.marketPlace(ctx, string(g.m.settings.Network))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	// Hubs that do not answer were named; what they told before is asked of the relays anyway.
	if _, err := g.p.refreshMarket(ctx, b); err != nil {
		return nil, err
	}
	return b.Offers(ctx)
}

// rented are the relays that the user has a contract with. While one is being opened no other is: whoever was interrupted, and types the
// same again, would rent twice.
func (g *rentals) rented(ctx context.Context) (relays []protocol.PublicKey, err error) {
	all, err := g.m.store.Contracts(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		r := &all[i]
		switch {
		case r.Network != g.m.settings.Network:
		case r.Opening() && !r.Foreign:
			return nil, fmt.Errorf("%w: %s, with %s", errUnderWay, r.ID.Short(), r.Address)
		case r.State != escrow.Closed && r.State != escrow.Archived && r.State != escrow.Abandoned:
			relays = append(relays, r.Relay)
		}
	}
	return relays, nil
}

// errUnderWay: contracts wait to be opened.
var errUnderWay = errors.New("a contract is being opened already")

// open writes all contracts down, together.
func (g *rentals) open(ctx context.Context) error {
	drafts := make([]*userside.Draft, len(g.each))
	for i, r := range g.each {
		drafts[i] = r.draft
	}
	records, err := g.m.manager.OpenAll(ctx, drafts)
	if err != nil {
		return errors.Join(err, g.discard(ctx))
	}
	for i, r := range g.each {
		r.record = records[i]
	}
	return nil
}

// bringAbout opens them one after the other, and waits for all of them.
func (g *rentals) bringAbout(ctx context.Context) error {
	for _, r := range g.each {
		if g.interrupted(ctx) {
			break
		}
		if r.record, r.err = g.p.exchange(ctx, g.m, r.record); r.err != nil && ctx.Err() == nil {
			g.p.complain("relay: contract %s: %s\n", r.record.ID.Short(), escapeText(r.err.Error()))
		}
	}
	if g.o.wait > 0 && g.await(ctx) {
		g.p.sayWaiting()
		for _, r := range g.each {
			if r.err == nil && !g.interrupted(ctx) {
				r.record, r.err = g.p.awaitFunding(ctx, g.m, r.record, g.o.wait)
			}
		}
	}
	g.interrupted(ctx)
	g.p.tell(ctx, g.m.store)
	return g.report(ctx)
}

// await tells whether there is something to wait for.
func (g *rentals) await(ctx context.Context) bool {
	for _, r := range g.each {
		if r.err == nil && ctx.Err() == nil {
			return true
		}
	}
	return false
}

// interrupted tells whether the user ended it, and keeps that for the report.
func (g *rentals) interrupted(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	g.aborted = errors.New("not all of it is done. Go on with: relay contract resume")
	return true
}

// report tells what there is, and says by its error what there is not.
func (g *rentals) report(ctx context.Context) error {
	failed, waiting := 0, 0
	result := rentedJSON{Network: g.m.settings.Network, Contracts: []contractItem{}, Failed: []failedItem{}}
	if g.split != nil {
		result.Split = g.split.txid
	}
	before, err := g.m.client.Relays(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	for _, r := range g.each {
		if r.err != nil || r.record.Opening() {
			failed++
			item := failedItem{ID: r.record.ID.String(), Relay: r.record.Relay.String(), Address: r.record.Address, Resume: unopened(r.record)}
			if r.err != nil {
				item.Error = r.err.Error()
			}
			if item.Resume {
				waiting++
			}
			result.Failed = append(result.Failed, item)
			continue
		}
		text := ""
		if ctx.Err() == nil {
			text = g.p.welcome(ctx, g.m, r.record)
		}
		result.Contracts = append(result.Contracts, contractJSON(r.record))
		if !g.p.json {
			if err := g.p.say("%s", text); err != nil {
				return err
			}
		}
	}
	if len(before) == 0 && len(result.Contracts) > 1 && !g.o.fileOnly && g.o.wait > 0 {
		g.keepElsewhere(ctx)
	}
	if g.p.json {
		if err := g.p.printJSON(result); err != nil {
			return err
		}
	}
	switch {
	case g.aborted != nil:
		return exitError{exitFailed, g.aborted}
	case failed == 0:
		return nil
	case failed == len(g.each):
		return exitError{code: exitFailed}
	case waiting > 0:
		return exitError{exitPartial, fmt.Errorf("%d of %s are open. Go on with the others: relay contract resume", len(g.each)-failed, count(len(g.each), "contract"))}
	case failed > 0:
		return exitError{exitPartial, fmt.Errorf("%d of %s are open. For others in their place: relay contract open --best %d",
			len(g.each)-failed, count(len(g.each), "contract"), failed)}
	}
	return nil
}

// keepElsewhere leaves the backups of the user's first contracts on each other's relays.
func (g *rentals) keepElsewhere(ctx context.Context) {
	for _, r := range g.each {
		if r.err != nil || r.record.State != escrow.Active || ctx.Err() != nil {
			continue
		}
		if err := g.m.manager.KeepElsewhere(ctx, r.record.ID); err != nil {
			g.p.complain("relay: contract %s: %s. Copy %s to another disk.\n", r.record.ID.Short(), escapeText(err.Error()), backupFile)
		}
	}
	g.p.tell(ctx, g.m.store)
}

// unopened tells whether a contract waits to be opened, or for its first block.
func unopened(r *userside.Record) bool {
	return r.Opening() || r.State == escrow.FundingSent && r.Step == userside.StepTaken
}

// rentedJSON is what contract open --best prints.
type rentedJSON struct {
	Network   protocol.Network `json:"network"`
	Contracts []contractItem   `json:"contracts"`
	Failed    []failedItem     `json:"failed"`
	Split     *string          `json:"split"` // txid of the payment to oneself that made coins enough; null for none
}

// failedItem is a contract that is not open.
type failedItem struct {
	ID      string `json:"id"`
	Relay   string `json:"relay"`
	Address string `json:"address"`
	Resume  bool   `json:"resume"` // relay contract resume may still open it
	Error   string `json:"error"`
}

// resumeAll goes on with every contract that waits to be opened, or for its first block.
func (p *program) resumeAll(ctx context.Context, o openOptions) (err error) {
	m, err := p.openMoney(ctx, !o.fileOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	all, err := m.store.Contracts(ctx)
	if err != nil {
		return err
	}
	g := &rentals{p: p, m: m, o: o}
	for i := range all {
		r := &all[i]
		if r.Network == m.settings.Network && unopened(r) && !(r.Foreign && r.Step == userside.StepKept) {
			g.each = append(g.each, &rental{address: r.Address, record: r})
		}
	}
	if len(g.each) == 0 && !p.json {
		return p.say("There is nothing to go on with: no contract waits to be opened.\n")
	}
	if err := m.openWallet(ctx); err != nil {
		return err
	}
	return g.bringAbout(ctx)
}
