package main

import (
	"strings"
	"testing"

	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

// volunteer is a relay that serves for nothing whom its lists name.
func volunteer(t *testing.T, p willing.Policy) *testnode.Node {
	t.Helper()
	p.Stored, p.Moved, p.Days, p.Accounts = 1e6, 1e7, 30, 10
	return testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.Volunteer = p }})
}

// shownTerms is relay terms --json.
type shownTerms struct {
	Wishes  []wishItem   `json:"wishes"`
	Own     bool         `json:"own"`
	Answers []answerItem `json:"answers"`
}

// A friend who has a relay serves a reader for nothing; the reader, who has none, answers through it.
func TestFriendRelaysForNothing(t *testing.T) {
	node := volunteer(t, willing.Policy{Keys: &willing.Conditions{}})
	anna, bert := user(t), user(t)
	node.Grant(t, anna.key())
	anna.runs("relays", "add", node.URL)
	bert.stdin = anna.runs("id", "--card", "-")
	bert.runs("friend", "add", "-", "--name", "anna")
	bert.stdin = ""

	out, _, code := bert.types("terms", "ask", node.URL)
	if code != exitFailed || !strings.Contains(out, "not for your key") || !strings.Contains(out, "It offers:\n  grant") {
		t.Errorf("before he is listed: exit %d\n%s", code, out)
	}
	node.List(t, willing.Entry{Kind: willing.Key, Name: bert.key().String(), Allowed: true})
	var a answerItem
	bert.json(&a, "terms", "ask", node.URL)
	if a.Accepted == nil || a.Asked[*a.Accepted].Type != protocol.TermsVolunteer || a.Account == nil || a.Account.StoredBytes != 1e6 || a.Address != node.URL {
		t.Fatalf("%+v", a)
	}
	bert.runs("send", "anna", "for nothing")
	anna.runs("friend", "add", strings.TrimSpace(bert.runs("id", "--link")), "--name", "bert")
	if out := anna.runs("inbox"); !strings.Contains(out, "for nothing") {
		t.Errorf("anna's inbox says\n%s", out)
	}
	if out := bert.runs("account"); !strings.Contains(out, "of 1.0 MB") {
		t.Errorf("account says\n%s", out)
	}
	node.List(t, willing.Entry{Kind: willing.Key, Name: bert.key().String()})
	if _, errs, code := bert.types("send", "anna", "more"); code != exitFailed || !strings.Contains(errs, "does not know your key") {
		t.Errorf("denied: exit %d\n%s", code, errs)
	}
}

// What a user would take is a list that he keeps in order; what cannot be is refused before it is stored.
func TestTermsList(t *testing.T) {
	s := user(t)
	var shown shownTerms
	s.json(&shown, "terms")
	if shown.Own || len(shown.Wishes) != 3 || shown.Wishes[2].Type != protocol.TermsContract || !shown.Wishes[2].Payment {
		t.Fatalf("%+v", shown)
	}
	s.runs("terms", "add", "volunteer", "--topic", "weather", "--place", "1")
	s.runs("terms", "add", "volunteer", "--ads")
	s.runs("terms", "move", "5", "2")
	s.runs("terms", "rm", "3") // grant
	s.json(&shown, "terms", "list")
	want := []wishItem{{Type: "volunteer", Topic: "weather"}, {Type: "volunteer", Ads: true}, {Type: "volunteer"}, {Type: "contract", Payment: true}}
	if !shown.Own || len(shown.Wishes) != len(want) {
		t.Fatalf("%+v", shown)
	}
	for i := range want {
		if shown.Wishes[i] != want[i] {
			t.Errorf("%d is %+v, want %+v", i+1, shown.Wishes[i], want[i])
		}
	}
	for _, args := range [][]string{
		{"add", "barter"}, {"add", "contract", "--topic", "x"}, {"add", "volunteer", "--topic", "a b"}, {"add", "volunteer", "--topic", "*"},
		{"add", "volunteer"}, {"add", "grant", "--place", "9"}, {"rm", "0"}, {"rm", "x"}, {"move", "1", "9"}, {"add"}, {"ask"}, {"ask", "http://h/x"},
	} {
		if _, errs, code := s.types(append([]string{"terms"}, args...)...); code != exitUsage || errs == "" {
			t.Errorf("terms %v: exit %d\n%s", args, code, errs)
		}
	}
	for range want {
		s.runs("terms", "rm", "1")
	}
	if s.json(&shown, "terms"); shown.Own || len(shown.Wishes) != 3 {
		t.Errorf("an empty list is %+v", shown)
	}
}
