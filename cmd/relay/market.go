package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	relaybook "relaymarket/broadcast/market"
	"relaymarket/client"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// marketOptions say which relays are shown, and how they are compared.
type marketOptions struct {
	network string
	offline bool
	probe   bool
	best    int
	limit   int
	kept    string
	moved   string
	bond    int64
	most    int64
	record  string
	keeps   time.Duration
	caught  bool
	terms   []string
	topic   string
}

func (p *program) marketCommand() *cobra.Command {
	o := &marketOptions{}
	cmd := &cobra.Command{
		Use: "market", Short: "List the relays that are offered, by what they would cost you", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `Reads your hubs, checks what they tell, and lists the relays. A MONTH is what each would cost you in thirty days, in satoshi:
for storage and traffic like yours of the last thirty days (or as --kept and --moved say), and its opening price. Relays that make
no contracts, but serve whom their operators know, come last.

--probe asks each relay that is shown how far away it is, and whether it is who it says; the relays then see your address.`,
		Example: `  relay market
  relay market --kept 5GB --moved 20GB --probe
  relay market --best 2 --bond 10
  relay market --json --offline`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.market(cmd.Context(), o) },
	}
	networkFlag(cmd, &o.network)
	flags := cmd.Flags()
	flags.BoolVar(&o.offline, "offline", false, "ask no hub, show what is known")
	flags.BoolVar(&o.probe, "probe", false, "ask the relays that are shown how far they are")
	flags.IntVar(&o.best, "best", 0, "only so many, the best that differ in operator and place")
	flags.IntVar(&o.limit, "limit", 50, "relays at most, 0: all")
	o.filters(flags)
	cmd.AddCommand(p.marketShowCommand(o), p.marketWatchCommand(o))
	return cmd
}

// filters are the flags that say what is compared, and what is wanted.
func (o *marketOptions) filters(flags *pflag.FlagSet) {
	flags.StringVar(&o.kept, "kept", "", "bytes that you keep stored, for example 2GB (default: as in the last thirty days)")
	flags.StringVar(&o.moved, "moved", "", "bytes that you write and friends pull in a month")
	flags.Int64Var(&o.bond, "bond", 0, "only relays with a bond of so many percent of the deposit")
	flags.Int64Var(&o.most, "most", 0, "only relays that cost at most so many satoshi a month")
	flags.StringVar(&o.record, "record", "", "only relays that take records of so many bytes")
	flags.DurationVar(&o.keeps, "keeps", 0, "only relays that keep a record so long, for example 720h")
	flags.StringSliceVar(&o.terms, "terms", nil, "only relays that offer such terms: grant, volunteer or contract; or mine, any of your list (relay terms)")
	flags.StringVar(&o.topic, "topic", "", "with --terms volunteer: for messages with this tag")
	flags.BoolVar(&o.caught, "caught", false, "the best may be relays whose bills your audits found wrong")
}

// view is what relays are compared by: how the user uses them, and what he knows of them.
type view struct {
	wishes  []protocol.Wish // his list of terms
	profile relaybook.Profile
	told    string                                   // the profile in words
	scores  map[protocol.PublicKey]client.AuditScore // how they did in his audits
}

// caught are the relays of these that billed what was not owed: the best are others, unless the user wants them too.
func (p *program) caught(o *marketOptions, v *view, listings []relaybook.Listing) (relays []protocol.PublicKey) {
	if o.caught {
		return nil
	}
	for _, l := range listings {
		if v.scores[l.Relay].Bad() {
			relays = append(relays, l.Relay)
		}
	}
	if len(relays) > 0 {
		p.complain("relay: %s left out: your audits found bills wrong (relay relays list; --caught takes them all the same)\n", count(len(relays), "relay"))
	}
	return relays
}

// view is how relays are compared.
func (p *program) view(ctx context.Context, o *marketOptions) (*view, error) {
	profile, told, err := p.profile(ctx, o)
	if err != nil {
		return nil, err
	}
	c, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	scores, err := c.AuditScores(ctx)
	if err != nil {
		return nil, err
	}
	wishes, _, err := c.Wishes(ctx)
	return &view{wishes, profile, told, scores}, err
}

// wanted are the terms that the flags name; mine is the user's list.
func (o *marketOptions) wanted(mine []protocol.Wish) (wishes []protocol.Wish, err error) {
	if o.topic != "" {
		if !slices.Equal(o.terms, []string{protocol.TermsVolunteer}) {
			return nil, usagef("--topic goes with --terms volunteer")
		}
		if err := protocol.Tag(o.topic).Validate(); err != nil {
			return nil, usagef("--topic %q is no tag: letters, digits, - and _", o.topic)
		}
	}
	for _, name := range o.terms {
		switch name {
		case "mine":
			wishes = append(wishes, mine...)
		case protocol.TermsGrant, protocol.TermsContract:
			wishes = append(wishes, protocol.Wish{Type: name, Payment: name == protocol.TermsContract})
		case protocol.TermsVolunteer:
			wishes = append(wishes, protocol.Wish{Type: name, Topic: protocol.Tag(o.topic), Plaintext: true, Ads: true}) // the table tells
		default:
			return nil, usagef("--terms %q is none of grant, volunteer, contract and mine", name)
		}
	}
	return wishes, nil
}

// profile is how the user uses relays; told says it in words.
func (p *program) profile(ctx context.Context, o *marketOptions) (profile relaybook.Profile, told string, err error) {
	kept, err := readBytes(o.kept, "--kept")
	if err != nil {
		return profile, "", err
	}
	moved, err := readBytes(o.moved, "--moved")
	if err != nil {
		return profile, "", err
	}
	c, err := p.open(ctx)
	if err != nil {
		return profile, "", err
	}
	defer c.Close()
	used, err := c.Usage(ctx)
	if err != nil {
		return profile, "", err
	}
	profile, told = relaybook.Profile{Kept: used.Kept, Moved: used.Moved}, fmt.Sprintf("as in your last 30 days, with %s", count(used.Messages, "message"))
	if used.Messages == 0 {
		profile, told = relaybook.DefaultProfile(), "an example, because you sent nothing in the last 30 days"
	}
	if o.kept != "" || o.moved != "" {
		told = "as you say"
	}
	if o.kept != "" {
		profile.Kept = kept
	}
	if o.moved != "" {
		profile.Moved = moved
	}
	return profile, told, nil
}

func readBytes(typed, flag string) (int64, error) {
	if typed == "" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(typed)
	if err != nil || n > uint64(protocol.MaxInteger) {
		return 0, usagef("%s %q is no number of bytes: write for example 500MB or 2GB", flag, typed)
	}
	return int64(n), nil
}

func (o *marketOptions) want() (relaybook.Want, error) {
	record, err := readBytes(o.record, "--record")
	if err != nil {
		return relaybook.Want{}, err
	}
	if o.bond < 0 || o.most < 0 || o.best < 0 || o.limit < 0 || o.keeps < 0 {
		return relaybook.Want{}, usagef("numbers are not negative")
	}
	return relaybook.Want{RecordBytes: record, LifetimeMs: o.keeps.Milliseconds(), BondPercent: o.bond, Most: btcutil.Amount(o.most)}, nil
}

// narrow tells whether relays without contracts are left out.
func (o *marketOptions) narrow() bool { return o.best > 0 || o.bond > 0 || o.most > 0 }

func (p *program) market(ctx context.Context, o *marketOptions) error {
	want, err := o.want()
	if err != nil {
		return err
	}
	v, err := p.view(ctx, o)
	if err != nil {
		return err
	}
	if want.Terms, err = o.wanted(v.wishes); err != nil {
		return err
	}
	b, err := p.marketPlace(ctx, o.network)
	if err != nil {
		return err
	}
	defer b.Close()
	var failed error
	if !o.offline {
		if failed, err = p.refreshMarket(ctx, b); err != nil {
			return err
		}
	}
	listings, err := b.Offers(ctx)
	if err != nil {
		return err
	}
	if o.best > 0 {
		want.Not = p.caught(o, v, listings)
	}
	shown := choose(listings, o, v, want)
	probes := make([]relaybook.Probe, len(shown))
	if o.probe {
		done := p.busy("asking the relays")
		probes = b.Probe(ctx, listingsOf(shown))
		done()
	}
	if p.json {
		err = p.printMarket(b.Network(), v.profile, len(listings), shown, probes, o.probe)
	} else {
		err = p.showMarket(b.Network(), v, len(listings), shown, probes, o.probe)
	}
	return errors.Join(err, failed)
}

// refreshMarket reads the hubs. failed is the exit code for hubs that could not be read: what others told is shown all the same.
func (p *program) refreshMarket(ctx context.Context, b *relaybook.Book) (failed, err error) {
	done := p.busy("reading the hubs")
	reports, err := b.Refresh(ctx)
	done()
	if err != nil {
		return nil, err
	}
	bad := 0
	for _, r := range reports {
		if r.Err != nil {
			bad++
			p.complain("relay: hub %s: %s\n", r.Hub.Address, escape(r.Err.Error()))
		}
		if n := r.Tally.Bad(); n > 0 {
			p.complain("relay: hub %s told %s that no relay signed so: they are left out\n", r.Hub.Address, count(n, "announcement"))
		}
	}
	switch {
	case bad == len(reports):
		return exitError{code: exitFailed}, nil
	case bad > 0:
		return exitError{code: exitPartial}, nil
	}
	return nil, nil
}

// marketRow is a relay that is shown.
type marketRow struct {
	relaybook.Listing
	cost  *int64            // nil: it makes no contracts
	score client.AuditScore // zero: never audited
}

// row is what the user knows of a listing.
func (v *view) row(l relaybook.Listing) marketRow {
	r := marketRow{Listing: l, score: v.scores[l.Relay]}
	if l.Contracts == nil {
		return r
	}
	if cost, err := v.profile.Cost(l.Contracts); err == nil {
		r.cost = new(int64)
		*r.cost = int64(cost)
	}
	return r
}

func listingsOf(rows []marketRow) []relaybook.Listing {
	all := make([]relaybook.Listing, len(rows))
	for i := range rows {
		all[i] = rows[i].Listing
	}
	return all
}

// choose is what is shown: priced relays first, those of other terms last.
func choose(listings []relaybook.Listing, o *marketOptions, v *view, want relaybook.Want) []marketRow {
	var ranked []relaybook.Priced
	if o.best > 0 {
		ranked = relaybook.Best(listings, o.best, v.profile, want)
	} else {
		ranked = relaybook.Rank(listings, v.profile, want)
	}
	rows := make([]marketRow, 0, len(listings))
	for _, r := range ranked {
		rows = append(rows, v.row(r.Listing))
	}
	for _, l := range listings {
		if l.Contracts == nil && !o.narrow() && l.Limits.RecordBytes >= want.RecordBytes && l.Limits.LifetimeMs >= want.LifetimeMs && want.Offers(l) {
			rows = append(rows, v.row(l))
		}
	}
	if o.limit > 0 && len(rows) > o.limit {
		rows = rows[:o.limit]
	}
	return rows
}

func (p *program) showMarket(n protocol.Network, v *view, known int, rows []marketRow, probes []relaybook.Probe, probed bool) error {
	if known == 0 {
		return p.say("The market of %s has no relay that your hubs know. More hubs: relay hubs add ADDRESS\n", n)
	}
	if len(rows) == 0 {
		return p.say("None of the %s on %s is like that: ask for less, or see them all with relay market\n", count(known, "relay"), n)
	}
	head := []string{"RELAY", "KEY", "A MONTH", "OPENING", "DEPOSIT", "BOND", "KEEPS", "RECORD", "TERMS", "KNOWN SINCE", "MY AUDITS"}
	if probed {
		head = append(head, "DISTANCE")
	}
	table := [][]string{head}
	for i, r := range rows {
		cells := []string{escape(r.Address()), r.Relay.Short(), "-", "-", "-", "-", days(r.Limits.LifetimeMs), humanize.IBytes(uint64(r.Limits.RecordBytes)),
			escape(termsText(r.Terms)), when(r.First), auditsText(r.score)}
		if c := r.Contracts; c != nil {
			cells[2], cells[3], cells[4], cells[5] = satText(*r.cost), satText(int64(c.OpeningPrice)), "from "+satText(int64(c.MinPrepay)), fmt.Sprint(c.BondPercent, " %")
		}
		if probed {
			cells = append(cells, distance(probes[i]))
		}
		table = append(table, cells)
	}
	if err := p.table(table); err != nil {
		return err
	}
	return p.say("\n%d of %s on %s. A MONTH, OPENING and DEPOSIT in satoshi; %s.\n", len(rows), count(known, "relay"), n, monthText(v.profile, v.told))
}

// auditsText says how a relay did in the user's audits.
func auditsText(s client.AuditScore) string {
	switch {
	case s.Audits == 0:
		return "-"
	case s.Faults > 0:
		return fmt.Sprintf("%d, LIED", s.Audits)
	case s.Bad():
		return fmt.Sprintf("%d, %d %% WRONG", s.Audits, s.DisputedPercent())
	}
	return fmt.Sprintf("%d, all right", s.Audits)
}

// satText is an amount in a column that says what it is in.
func satText(n int64) string { return strings.TrimSuffix(sat(btcutil.Amount(n)), " sat") }

func days(ms int64) string {
	if ms >= ledger.Day {
		return strconv.FormatInt(ms/ledger.Day, 10) + " d"
	}
	return (time.Duration(min(ms, int64(ledger.Day))) * time.Millisecond).String()
}

// termsText is the relay's terms in one cell.
func termsText(terms []protocol.Terms) string {
	var all []string
	for _, t := range terms {
		text := t.Type
		switch {
		case t.Topic == protocol.AnyTopic:
			text += " (a topic)"
		case t.Topic != "":
			text += " (" + t.Topic + ")"
		}
		if extra := flags(t.Plaintext, t.Ads); extra != "" {
			text += " with " + extra
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, ", ")
}

func distance(probe relaybook.Probe) string {
	switch {
	case errors.Is(probe.Err, relaybook.ErrAnother):
		return "ANOTHER RELAY"
	case probe.Err != nil:
		return "no answer"
	}
	return milliseconds(probe.Distance)
}

// milliseconds shows a distance: tenths are more than a measurement means.
func milliseconds(d time.Duration) string {
	const tenth = 100 * time.Microsecond
	if d < tenth {
		return "< 0.1 ms"
	}
	return fmt.Sprintf("%d.%d ms", d/time.Millisecond, d%time.Millisecond/tenth)
}
