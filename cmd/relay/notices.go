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
	Was            []relayLink `json:"was"`
	Is             []relayLink `json:"is"`
}

func changeLines(changes []client.CardChange) []changeLine {
	lines := make([]changeLine, 0, len(changes))
	for _, c := range changes {
		lines = append(lines, changeLine{Key: c.Friend.String(), Name: c.Name, Label: c.Label, LabelChanged: c.LabelChanged,
			SealingChanged: c.SealingChanged, RelaysAdded: relayLinks(c.RelaysAdded), RelaysRemoved: relayLinks(c.RelaysRemoved),
			Was: relayLinks(c.Was), Is: relayLinks(c.Is)})
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

// changeText is what a friend's newer card changed.
func changeText(c *client.CardChange) string {
	var parts []string
	if len(c.RelaysAdded)+len(c.RelaysRemoved) > 0 {
		parts = append(parts, fmt.Sprintf("he moved: was on %s, is on %s", addresses(c.Was), addresses(c.Is)))
	}
	if c.SealingChanged {
		parts = append(parts, "a new sealing key (if that surprises you, ask him another way)")
	}
	if c.LabelChanged {
		parts = append(parts, fmt.Sprintf("now labelled %q", escape(c.Label)))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("%s has a new card: %s.", escape(c.Name), strings.Join(parts, "; "))
}

func addresses(refs []protocol.RelayRef) string {
	if len(refs) == 0 {
		return "no relay"
	}
	list := make([]string, 0, len(refs))
	for _, r := range refs {
		list = append(list, r.Address)
	}
	return strings.Join(list, " and ")
}

// noticeLine is a notice in JSON.
type noticeLine struct {
	Kind     string      `json:"kind"`
	Key      string      `json:"key"`
	Name     string      `json:"name"`
	Label    string      `json:"label"`
	At       *string     `json:"at"`
	Relay    *string     `json:"relay"`
	ID       string      `json:"id"`
	Known    *string     `json:"known"` // date of the card that was known
	Dated    *string     `json:"dated"` // of the one that came
	Change   *changeLine `json:"change"`
	Detail   string      `json:"detail"`
	Text     string      `json:"text"`
	WasShown bool        `json:"shown"`
}

func noticeLines(notices []client.FriendNotice) []noticeLine {
	lines := make([]noticeLine, 0, len(notices))
	for i := range notices {
		n := &notices[i]
		line := noticeLine{Kind: string(n.Kind), Key: n.Friend.String(), Name: n.Name, Label: n.Label, At: stamp(n.At), ID: string(n.RecordID),
			Known: stamp(n.Known), Dated: stamp(n.Dated), Detail: n.Detail, Text: noticeText(n), WasShown: n.Shown != 0}
		if n.Relay != nil {
			key := n.Relay.String()
			line.Relay = &key
		}
		if n.Change != nil {
			line.Change = &changeLines([]client.CardChange{*n.Change})[0]
		}
		lines = append(lines, line)
	}
	return lines
}

// noticeText says what was noticed. It is empty for what people need not know.
func noticeText(n *client.FriendNotice) string {
	who, by := escape(n.Name), ""
	if who == "" {
		who = n.Friend.Short()
	}
	if n.Relay != nil {
		by = " It came from the relay " + n.Relay.Short() + "."
	}
	switch n.Kind {
	case client.NoticeCard:
		return changeText(n.Change)
	case client.NoticeOldCard:
		return fmt.Sprintf("An older card of %s, of %s, was brought and refused: the one of %s counts.%s", who, when(n.Dated), when(n.Known), by)
	case client.NoticeTwinCards:
		return fmt.Sprintf("CONTRADICTED: %s signed two different cards of one time, %s. Either he uses two programs that do not know of each other, or somebody has his key: ask him.%s",
			who, when(n.Dated), by)
	case client.NoticeBadCard:
		return fmt.Sprintf("What was brought as the card of %s was refused: %s.%s", who, escape(n.Detail), by)
	case client.NoticeContradiction:
		return fmt.Sprintf("CONTRADICTED: %s signed two different contents under the id %s. You see the one that came first.%s", who, short(n.RecordID), by)
	case client.NoticeFirstWord:
		return fmt.Sprintf("A stranger, %s, who calls himself %q, left you a first word by your invitation (relay read %s). Make him a friend: relay friend accept %s --name NAME",
			n.Friend.Short(), escape(n.Label), short(n.RecordID), n.Friend.Short())
	case client.NoticeBadFirstWord:
		return fmt.Sprintf("Somebody used your invitation %s, but what he left cannot be read: %s.", n.Friend.Short(), escape(n.Detail))
	}
	return fmt.Sprintf("%s: %s %s", who, n.Kind, escape(n.Detail)) // of a newer version
}
