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
	anna.runs("admit", "rm", "bert") // else he would write on her account, as any friend may
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

// What a volunteer asks for is what the user put on his list, and no more: he says it once the relay is known to ask for it. What is
// bound is kept to by itself, and what is not sealed is shown as such.
func TestConditionsOfAVolunteer(t *testing.T) {
	node := volunteer(t, willing.Policy{Topics: &willing.Conditions{Plaintext: true, Ads: true}, Notice: "Umbrellas \x1b[31mat Ed's."})
	node.List(t, willing.Entry{Kind: willing.Topic, Name: "weather", Allowed: true})
	node.Restart() // so that it announces that
	alice, bob := user(t), user(t)
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	bob.stdin = ""

	bob.runs("terms", "add", "volunteer", "--topic", "weather", "--place", "1")
	out, _, code := bob.types("terms", "ask", node.URL)
	if code != exitFailed || !strings.Contains(out, "wants to be able to read") || !strings.Contains(out, "take it: relay terms add volunteer --topic weather --plaintext --ads") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	bob.runs("terms", "add", "volunteer", "--topic", "weather", "--plaintext", "--ads")
	if out := bob.runs("terms", "ask", node.URL); !strings.Contains(out, "--tag weather, and nothing else") || !strings.Contains(out, "send --plain") {
		t.Errorf("ask says\n%s", out)
	}
	if _, errs, code := bob.types("send", "alice", "sealed", "--tag", "weather"); code != exitFailed || !strings.Contains(errs, "readable content only") {
		t.Errorf("sealed: exit %d\n%s", code, errs)
	}
	if _, errs, code := bob.types("send", "alice", "hi", "--plain"); code != exitFailed || !strings.Contains(errs, "another topic") {
		t.Errorf("off topic: exit %d\n%s", code, errs)
	}
	_, errs, code := bob.types("send", "alice", "rain", "--plain", "--tag", "weather")
	if code != 0 || !strings.Contains(errs, `Umbrellas  [31mat Ed's.`) || strings.Contains(errs, "\x1b") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	alice.runs("friend", "add", strings.TrimSpace(bob.runs("id", "--link")), "--name", "bob")
	alice.runs("inbox")
	if out := alice.runs("read"); !strings.Contains(out, "was not sealed") || !strings.HasSuffix(out, "\n\nrain\n") {
		t.Errorf("read says\n%s", out)
	}

	// Beside a relay that takes everything, each message goes where it is taken, and nothing is refused.
	other := testnode.Start(t, testnode.Options{})
	other.Grant(t, bob.key())
	bob.runs("relays", "add", other.URL)
	if out, errs, code := bob.types("send", "alice", "sealed"); code != 0 || strings.Contains(errs, "another topic") || !strings.Contains(out, "1 relay") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
