package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"relaymarket/broadcast"
	relaybook "relaymarket/broadcast/market"
	"relaymarket/protocol"
)

// offerItem is a relay in JSON.
type offerItem struct {
	Key         string                  `json:"key"`
	Relay       string                  `json:"relay"`
	Addresses   []string                `json:"addresses"`
	Network     protocol.Network        `json:"network"`
	SatPerMonth *int64                  `json:"satPerMonth"` // null: it makes no contracts
	Contracts   *protocol.ContractOffer `json:"contracts"`
	Terms       []protocol.Terms        `json:"terms"`
	Limits      protocol.Limits         `json:"limits"`
	Hubs        []string                `json:"hubs"`
	Seq         int64                   `json:"seq"`
	Work        int                     `json:"work"` // bits
	Announced   *string                 `json:"announced"`
	ValidUntil  *string                 `json:"validUntil"`
	KnownSince  *string                 `json:"knownSince"`
	Hash        string                  `json:"hash"`             // of the announcement, which a contract is opened on
	Audits      *scoreItem              `json:"audits,omitempty"` // absent: none of its bills was audited
	Probe       *probeItem              `json:"probe,omitempty"`
}

// probeItem is what a relay answered.
type probeItem struct {
	Microseconds int64   `json:"microseconds"` // a round trip
	Error        *string `json:"error"`
}

func offerJSON(o *broadcast.Offer, known protocol.Timestamp, cost *int64) offerItem {
	return offerItem{Key: o.Relay.String(), Relay: o.Relay.Bech32(), Addresses: orNone(o.Addresses), Network: o.Network, SatPerMonth: cost,
		Contracts: o.Contracts, Terms: o.Terms, Limits: o.Limits, Hubs: orNone(o.Hubs), Seq: o.Seq, Work: o.Work, Announced: stamp(o.Envelope.Timestamp),
		ValidUntil: stamp(o.ValidUntil), KnownSince: stamp(known), Hash: o.Hash.String()}
}

// rowJSON is a relay that is shown, with what the user knows of it.
func rowJSON(r marketRow) offerItem {
	item := offerJSON(r.Offer, r.First, r.cost)
	if r.score.Audits > 0 {
		item.Audits = scoreJSON(r.score)
	}
	return item
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func probeJSON(probe relaybook.Probe) *probeItem {
	item := &probeItem{Microseconds: probe.Distance.Microseconds()}
	if probe.Err != nil {
		text := probe.Err.Error()
		item.Error = &text
	}
	return item
}

func (p *program) printMarket(n protocol.Network, profile relaybook.Profile, known int, rows []marketRow, probes []relaybook.Probe, probed bool) error {
	items := make([]offerItem, len(rows))
	for i, r := range rows {
		items[i] = rowJSON(r)
		if probed {
			items[i].Probe = probeJSON(probes[i])
		}
	}
	return p.printJSON(map[string]any{"network": n, "keptBytes": profile.Kept, "movedBytes": profile.Moved, "known": known, "relays": items})
}

func (p *program) marketShowCommand(o *marketOptions) *cobra.Command {
	var offline, probe bool
	cmd := &cobra.Command{
		Use: "show RELAY", Short: "Show all that a relay announces", Args: oneArg("a relay's key or address, or the beginning of one"),
		Example: "  relay market show https://relay.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.marketShow(cmd.Context(), o, args[0], offline, probe)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "ask no hub, show what is known")
	cmd.Flags().BoolVar(&probe, "probe", false, "ask the relay how far it is, and who it is")
	return cmd
}

func (p *program) marketShow(ctx context.Context, o *marketOptions, typed string, offline, probe bool) error {
	v, err := p.view(ctx, o)
	if err != nil {
		return err
	}
	b, err := p.marketPlace(ctx, o.network)
	if err != nil {
		return err
	}
	defer b.Close()
	if !offline {
		if _, err := p.refreshMarket(ctx, b); err != nil {
			return err
		}
	}
	l, err := b.Find(ctx, strings.TrimSpace(typed))
	if err != nil {
		return fmt.Errorf("%w: %s", err, typed)
	}
	row := v.row(*l)
	item := rowJSON(row)
	if probe {
		item.Probe = probeJSON(b.Probe(ctx, []relaybook.Listing{*l})[0])
	}
	if p.json {
		return p.printJSON(item)
	}
	return p.showOffer(row, item, v.profile)
}

func (p *program) showOffer(l marketRow, item offerItem, profile relaybook.Profile) error {
	rows := [][]string{{"address", escape(strings.Join(l.Addresses, ", "))}, {"key", l.Relay.Bech32()}, {"network", string(l.Network)}}
	if c := l.Contracts; c != nil {
		rows = append(rows,
			[]string{"storage", msat(c.StorageMsatPerGBDay) + " for a GB stored for a day"},
			[]string{"traffic", msat(c.BandwidthMsatPerGB) + " for a GB written, and again each time it is pulled"},
			[]string{"opening", sat(c.OpeningPrice) + " a contract"},
			[]string{"deposit", fmt.Sprintf("from %s; it adds %d %% as a bond", sat(c.MinPrepay), c.BondPercent)},
			[]string{"credit", sat(c.CreditLimit) + " of unpaid use"})
	}
	if item.SatPerMonth != nil {
		rows = append(rows, []string{"a month", fmt.Sprintf("%s sat for %s kept and %s moved", satText(*item.SatPerMonth),
			humanize.Bytes(uint64(profile.Kept)), humanize.Bytes(uint64(profile.Moved)))})
	}
	for _, t := range l.Terms {
		rows = append(rows, []string{"terms", escape(oneTerms(t))})
	}
	if l.Notice != "" {
		rows = append(rows, []string{"notice", escape(l.Notice)})
	}
	rows = append(rows,
		[]string{"records", fmt.Sprintf("of %s at most, kept %s at most, pulled %d times at most", humanize.IBytes(uint64(l.Limits.RecordBytes)),
			days(l.Limits.LifetimeMs), l.Limits.MaxPulls)},
		[]string{"announced", fmt.Sprintf("%s, valid until %s, with %d bits of work", when(l.Envelope.Timestamp), when(l.ValidUntil), l.Work)},
		[]string{"known", "since " + when(l.First)})
	if l.score.Audits > 0 {
		rows = append(rows, []string{"my audits", fmt.Sprintf("%s, %s accepted, %s disputed; the last %s", auditsText(l.score),
			msat(int64(l.score.Accepted)), msat(int64(l.score.Disputed)), when(l.score.Last))})
	}
	if len(l.Hubs) > 0 {
		rows = append(rows, []string{"hubs", escape(strings.Join(l.Hubs, ", "))})
	}
	if item.Probe != nil {
		text := milliseconds(time.Duration(item.Probe.Microseconds)*time.Microsecond) + " away, and it is this relay"
		if item.Probe.Error != nil {
			text = escape(*item.Probe.Error)
		}
		rows = append(rows, []string{"probe", text})
	}
	return p.table(rows)
}

// oneTerms says one alternative in words.
func oneTerms(t protocol.Terms) string {
	text := termsText([]protocol.Terms{t})
	var gives []string
	if t.StoredBytes > 0 {
		gives = append(gives, humanize.Bytes(uint64(t.StoredBytes))+" stored")
	}
	if t.MovedBytes > 0 {
		gives = append(gives, humanize.Bytes(uint64(t.MovedBytes))+" moved a month")
	}
	if t.Days > 0 {
		gives = append(gives, fmt.Sprintf("for %d days", t.Days))
	}
	if len(gives) > 0 {
		text += ": " + strings.Join(gives, ", ")
	}
	if t.Type == protocol.TermsVolunteer && !t.Payment {
		text += ", for nothing"
	}
	if t.Contact != "" {
		text += ", ask " + t.Contact
	}
	return text
}

func (p *program) marketWatchCommand(o *marketOptions) *cobra.Command {
	return &cobra.Command{
		Use: "watch", Short: "Tell what changes in the market, until you end it", Args: cobra.NoArgs,
		Example: "  relay market watch --json",
		Long: `Tells each relay that is new or announces something else, one a line, with --json as one document a line. Hubs that are
NATS servers tell it at once, others are asked twice a minute.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.marketWatch(cmd.Context(), o) },
	}
}

func (p *program) marketWatch(ctx context.Context, o *marketOptions) error {
	v, err := p.view(ctx, o)
	if err != nil {
		return err
	}
	b, err := p.marketPlace(ctx, o.network)
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Watch(ctx, func(change relaybook.Change) error {
		row := v.row(relaybook.Listing{Offer: change.Offer})
		if p.json {
			return p.printLine(struct {
				Hub string `json:"hub"`
				offerItem
			}{change.Hub, rowJSON(row)})
		}
		price := "no contracts"
		if row.cost != nil {
			price = satText(*row.cost) + " sat a month"
		}
		return p.say("%s  %s  %s  %s\n", when(change.Offer.Envelope.Timestamp), escape(change.Offer.Addresses[0]), change.Offer.Relay.Short(), price)
	})
}
