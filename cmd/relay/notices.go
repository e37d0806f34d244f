package main

import (
	"fmt"
	"strings"

	"relaymarket/client"
	"relaymarket/protocol"
)

// gapLine is a gap in JSON.
type gapLine struct {
	From    string  `json:"from"`
	Name    string  `json:"name"`
	Device  string  `json:"device"`
	First   int64   `json:"first"`
	Last    int64   `json:"last"`
	Noticed *string `json:"noticed"`
}

func gapLines(gaps []client.Gap, names map[protocol.PublicKey]string) []gapLine {
	lines := make([]gapLine, 0, len(gaps))
	for _, g := range gaps {
		lines = append(lines, gapLine{From: g.From.String(), Name: names[g.From], Device: g.Device, First: g.First, Last: g.Last, Noticed: stamp(g.Noticed)})
	}
	return lines
}

func gapTexts(gaps []client.Gap, names map[protocol.PublicKey]string) []string {
	var texts []string
	for _, g := range gaps {
		which := fmt.Sprintf("message %d", g.First)
		if g.Last > g.First {
			which = fmt.Sprintf("messages %d to %d", g.First, g.Last)
		}
		texts = append(texts, fmt.Sprintf("Missing from %s: %s (expired, deleted or hidden by a relay).", nameOf(g.From, names), which))
	}
	return texts
}

// changeLine is a change of a friend's card in JSON.
type changeLine struct {
	Key            string      `json:"key"`
	Name           string      `json:"name"`
	Label          string      `json:"label"`
	LabelChanged   bool        `json:"labelChanged"`
	SealingChanged bool        `json:"sealingChanged"`
	RelaysAdded    []relayLink `json:"relaysAdded"`
	RelaysRemoved  []relayLink `json:"relaysRemoved"`
}

func changeLines(changes []client.CardChange) []changeLine {
	lines := make([]changeLine, 0, len(changes))
	for _, c := range changes {
		lines = append(lines, changeLine{Key: c.Friend.String(), Name: c.Name, Label: c.Label, LabelChanged: c.LabelChanged,
			SealingChanged: c.SealingChanged, RelaysAdded: relayLinks(c.RelaysAdded), RelaysRemoved: relayLinks(c.RelaysRemoved)})
	}
	return lines
}

func relayLinks(refs []protocol.RelayRef) []relayLink {
	links := make([]relayLink, 0, len(refs))
	for _, r := range refs {
		links = append(links, relayLink{Address: r.Address, Key: r.PubKey.String()})
	}
	return links
}

func changeTexts(changes []client.CardChange) []string {
	var texts []string
	for _, c := range changes {
		var parts []string
		if c.SealingChanged {
			parts = append(parts, "a new sealing key")
		}
		for _, r := range c.RelaysAdded {
			parts = append(parts, "now on "+r.Address)
		}
		for _, r := range c.RelaysRemoved {
			parts = append(parts, "not on "+r.Address+" any more")
		}
		if c.LabelChanged {
			parts = append(parts, fmt.Sprintf("now labelled %q", escape(c.Label)))
		}
		texts = append(texts, fmt.Sprintf("%s has a new card: %s.", escape(c.Name), strings.Join(parts, ", ")))
	}
	return texts
}
