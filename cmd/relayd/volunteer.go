package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"relaymarket/ledger/willing"
)

// volunteerSettings say what the relay does for nothing. For whom, the lists say: see relayd allow.
type volunteerSettings struct {
	offers   []string
	stored   byteSize
	moved    byteSize
	days     int64
	accounts int64
	address  int64
	notice   string
}

// defaultVolunteer serves whom the lists name, and they are empty.
func defaultVolunteer() volunteerSettings {
	return volunteerSettings{offers: []string{"keys", "topics"}, stored: 10e6, moved: 100e6, days: 30, accounts: 100, address: 2}
}

func (s *settings) volunteering() []*setting {
	const section = "Volunteering, for whom relayd allow names"
	v := &s.volunteer
	number := func(target *int64, most int64) pflag.Value {
		return one[int64]{target, "number", count(0, most), formatCount}
	}
	return []*setting{
		{name: "volunteer", section: section, value: &many[string]{target: &v.offers, kind: "keys|topics,…", parse: volunteerOffer, format: same},
			help: "for what this relay gives space for nothing: keys, topics, both, or nothing\nEach with +plaintext if nothing sealed is taken for it, and with +ads if the user is to be shown volunteer-notice: keys,topics+ads."},
		{name: "volunteer-stored", section: section, value: &v.stored, help: "bytes at once of such an account\nA key may be allowed others."},
		{name: "volunteer-moved", section: section, value: &v.moved, help: "bytes a calendar month of such an account\nA write counts its size once, and once for each pull that it allows."},
		{name: "volunteer-days", section: section, value: number(&v.days, willing.MaxDays), help: "days that such an account lasts, unless it is asked for again"},
		{name: "volunteer-accounts", section: section, value: number(&v.accounts, 1_000_000),
			help: "accounts for topics at once, which any stranger may take\nThey store volunteer-accounts times volunteer-stored at most."},
		{name: "volunteer-address", section: section, value: number(&v.address, 1000), help: "accounts for topics that one IPv4 address or IPv6 /64 may take a day, 0: no limit"},
		{name: "volunteer-notice", section: section, value: one[string]{&v.notice, "text", contactText, same},
			help: "what is shown to those who took terms with ads, announced\nAt most 200 characters."},
	}
}

// volunteerOffer is keys or topics, with their conditions.
func volunteerOffer(text string) (string, error) {
	kind, rest, _ := strings.Cut(text, "+")
	if kind != "keys" && kind != "topics" {
		return "", fmt.Errorf("%q is neither keys nor topics", kind)
	}
	seen := map[string]bool{}
	for rest != "" {
		var condition string
		condition, rest, _ = strings.Cut(rest, "+")
		if condition != "plaintext" && condition != "ads" || seen[condition] {
			return "", fmt.Errorf("%q asks for %q: conditions are plaintext and ads, each once", text, condition)
		}
		seen[condition] = true
	}
	return text, nil
}

// policy is what the settings mean.
func (s *settings) policy() willing.Policy {
	v := &s.volunteer
	p := willing.Policy{Stored: int64(v.stored), Moved: int64(v.moved), Days: int(v.days), Accounts: v.accounts, Notice: v.notice}
	for _, text := range v.offers {
		kind, rest, _ := strings.Cut(text, "+")
		conditions := &willing.Conditions{Plaintext: strings.Contains(rest, "plaintext"), Ads: strings.Contains(rest, "ads")}
		if kind == "keys" {
			p.Keys = conditions
		} else {
			p.Topics = conditions
		}
	}
	return p
}

func (s *settings) checkVolunteer(w *wrongs) {
	kinds := map[string]bool{}
	for _, text := range s.volunteer.offers {
		kind, _, _ := strings.Cut(text, "+")
		w.when(kinds[kind], "volunteer names %s twice", kind)
		kinds[kind] = true
	}
	err := s.policy().Validate()
	w.when(err != nil, "volunteer: %w: see volunteer-stored, volunteer-moved, volunteer-accounts, volunteer-days and volunteer-notice", err)
}
