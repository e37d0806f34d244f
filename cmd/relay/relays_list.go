package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"relaymarket/client"
	"relaymarket/protocol"
)

// scoreItem is how a relay did in my audits, in JSON. Amounts are msat in decimal.
type scoreItem struct {
	Contracts       int64   `json:"contracts"`
	Audits          int64   `json:"audits"`
	Faults          int64   `json:"faults"` // audits that met a report which cannot be true
	Last            *string `json:"last"`
	AcceptedMsat    string  `json:"acceptedMsat"`
	DisputedMsat    string  `json:"disputedMsat"` // the most that was in dispute
	OpenMsat        string  `json:"openMsat"`     // of it, what is still in dispute
	DisputedPercent int64   `json:"disputedPercent"`
}

func scoreJSON(s client.AuditScore) *scoreItem {
	return &scoreItem{Contracts: s.Contracts, Audits: s.Audits, Faults: s.Faults, Last: stamp(s.Last), AcceptedMsat: s.Accepted.String(),
		DisputedMsat: s.Disputed.String(), OpenMsat: s.Open.String(), DisputedPercent: s.DisputedPercent()}
}

// listedRelay is a relay that is used, or was audited.
type listedRelay struct {
	client.Relay
	score client.AuditScore // zero: never audited
}

// listed are the relays that are used, and then those that were audited and are used no more.
func listed(ctx context.Context, c *client.Client) ([]listedRelay, error) {
	relays, err := c.Relays(ctx)
	if err != nil {
		return nil, err
	}
	scores, err := c.AuditScores(ctx)
	if err != nil {
		return nil, err
	}
	var all []listedRelay
	for _, r := range relays {
		all = append(all, listedRelay{r, scores[r.Key]})
		delete(scores, r.Key)
	}
	used := len(all)
	for key, s := range scores {
		all = append(all, listedRelay{client.Relay{Key: key, Address: s.Address}, s})
	}
	slices.SortFunc(all[used:], func(a, b listedRelay) int { return slices.Compare(a.Key[:], b.Key[:]) })
	return all, nil
}

func (p *program) listRelays(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	relays, err := listed(ctx, c)
	if err != nil {
		return err
	}
	if p.json {
		items := make([]relayItem, 0, len(relays))
		for _, r := range relays {
			item := relayJSON(r.Relay)
			if r.score.Audits > 0 {
				item.Audits = scoreJSON(r.score)
			}
			items = append(items, item)
		}
		return p.printJSON(map[string]any{"relays": items})
	}
	if len(relays) == 0 {
		return p.say("You use no relay yet. Add one: relay relays add ADDRESS\n")
	}
	return p.relaysTable(relays)
}

func (p *program) relaysTable(relays []listedRelay) error {
	audited := slices.ContainsFunc(relays, func(r listedRelay) bool { return r.score.Audits > 0 })
	rows := [][]string{{"ADDRESS", "KEY", "ADDED"}}
	if audited {
		rows[0] = append(rows[0], "AUDITS", "LAST", "ACCEPTED", "DISPUTED", "SHARE")
	}
	var notes []string
	for _, r := range relays {
		added := "not in use"
		if r.Added != 0 {
			added = when(r.Added)
		}
		row := []string{escape(r.Address), r.Key.Short(), added}
		if audited {
			row = append(row, scoreCells(r.score)...)
		}
		rows = append(rows, row)
		if note := scoreNote(r.Key, r.score); note != "" {
			notes = append(notes, note)
		}
	}
	if err := p.table(rows); err != nil {
		return err
	}
	for _, note := range notes {
		if err := p.say("%s\n", note); err != nil {
			return err
		}
	}
	return nil
}

// scoreCells are AUDITS, LAST, ACCEPTED, DISPUTED and SHARE; amounts in satoshi.
func scoreCells(s client.AuditScore) []string {
	if s.Audits == 0 {
		return []string{"", "", "", "", ""}
	}
	return []string{fmt.Sprint(s.Audits), when(s.Last), msat(int64(s.Accepted)), msat(int64(s.Disputed)), fmt.Sprintf("%d%%", s.DisputedPercent())}
}

// scoreNote is what a row has no room for.
func scoreNote(key protocol.PublicKey, s client.AuditScore) string {
	var parts []string
	if s.Faults > 0 {
		parts = append(parts, fmt.Sprintf("%s met a report that cannot be true", count(int(s.Faults), "audit")))
	}
	if s.Open > 0 {
		parts = append(parts, fmt.Sprintf("%s of its bills are still in dispute: relay audit --refused", msat(int64(s.Open))))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("Relay %s: %s.", key.Short(), strings.Join(parts, "; "))
}
