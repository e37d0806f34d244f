package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"relaymarket/client"
	"relaymarket/protocol"
)

// sayAnswer tells what a relay said, and what to do next.
func (p *program) sayAnswer(a *client.TermsAnswer) error {
	switch {
	case a.Accepted == nil:
		return p.sayRefused(a)
	case a.Account != nil:
		text := fmt.Sprintf("%s serves you as a %s: %s at once, %s a month, until %s.\n", a.Address, a.Accepted.Type,
			humanize.Bytes(uint64(a.Account.StoredBytes)), humanize.Bytes(uint64(a.Account.MovedBytes)), a.Account.Until.Time().UTC().Format("2006-01-02"))
		if a.Account.Topic != "" {
			text += fmt.Sprintf("It takes what you send with --tag %s, and nothing else.\n", a.Account.Topic)
		}
		if a.Account.Plaintext {
			text += "It takes what is not sealed, and nothing else: relay send --plain. Everybody on the way can read that.\n"
		}
		return p.say("%sIt is one of your relays now.\n", text)
	case a.Accepted.Type == protocol.TermsContract:
		return p.say("%s serves you by a contract. %s\n", a.Address, openCommand(a.Address, a.Offer, a.Envelope.Hash()))
	}
	return p.say("%s took %s.\n", a.Address, escape(a.Accepted.Type))
}

// showNotices shows the lines of relays that the user agreed to be shown. What keeps them from being shown is no matter.
func (p *program) showNotices(ctx context.Context, c *client.Client) {
	notices, err := c.Notices(context.WithoutCancel(ctx))
	if err != nil || p.json {
		return
	}
	for _, n := range notices {
		p.complain("Notice of %s: %s\n", n.Address, escape(n.Text))
	}
}

// whyRefused says in words why a relay did not take a wish.
func whyRefused(r protocol.Refused) string {
	switch r {
	case protocol.RefusedOffer:
		return "it does not offer that"
	case protocol.RefusedPlaintext:
		return "it wants to be able to read what it carries"
	case protocol.RefusedAds:
		return "it wants you to be shown its notice"
	case protocol.RefusedKey:
		return "not for your key: send it to the operator"
	case protocol.RefusedAccount:
		return "you have another account there"
	case protocol.RefusedFull:
		return "as many as it serves so are there: ask again later"
	case protocol.RefusedRate:
		return "too many from your network today: ask again tomorrow"
	}
	return string(r)
}

func (p *program) sayRefused(a *client.TermsAnswer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s takes none of your terms:\n", a.Address)
	for i, w := range a.Asked {
		if i < len(a.Refused) {
			fmt.Fprintf(&b, "  %s: %s\n", wishText(w.Type, string(w.Topic)), escape(whyRefused(a.Refused[i])))
		}
	}
	b.WriteString("It offers:\n")
	for _, t := range a.Offer.Terms {
		fmt.Fprintf(&b, "  %s%s", escape(wishText(t.Type, t.Topic)), givenText(t))
		if t.Contact != "" {
			fmt.Fprintf(&b, ", ask %s", escape(t.Contact))
		}
		if add := addCommand(t); add != "" && !asksFor(a.Asked, t) {
			fmt.Fprintf(&b, "\n    take it: %s", add)
		}
		b.WriteString("\n")
	}
	return p.say("%s", b.String())
}

func wishText(kind, topic string) string {
	if topic == "" {
		return kind
	}
	return kind + " for topic " + topic
}

// givenText is what terms give, and for what.
func givenText(t protocol.Terms) string {
	text := ""
	if t.StoredBytes > 0 {
		text = fmt.Sprintf(", %s at once", humanize.Bytes(uint64(t.StoredBytes)))
	}
	if wants := flags(t.Plaintext, t.Ads); wants != "" {
		text += ", for " + wants
	}
	return text
}

func asksFor(asked []client.Wish, t protocol.Terms) bool {
	for i := range asked {
		if ok, _ := asked[i].Meets(&t); ok {
			return true
		}
	}
	return false
}

// addCommand is how terms that a relay offers are put on the list; empty for those that this program does not know.
func addCommand(t protocol.Terms) string {
	command := "relay terms add " + t.Type
	switch {
	case t.Type != protocol.TermsGrant && t.Type != protocol.TermsContract && t.Type != protocol.TermsVolunteer:
		return ""
	case t.Topic == protocol.AnyTopic:
		command += " --topic TAG"
	case t.Topic != "":
		command += " --topic " + t.Topic
	}
	if t.Plaintext {
		command += " --plaintext"
	}
	if t.Ads {
		command += " --ads"
	}
	return command
}
