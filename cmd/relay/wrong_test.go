package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relaymarket/internal/testnode"
)

// Everything that a person may type wrongly gets an exit code, a reason and what to do.
func TestWronglyTyped(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, _ := friends(t, node)
	notCard := filepath.Join(t.TempDir(), "not-a-card")
	if err := os.WriteFile(notCard, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"snd bob hi", exitUsage, "or send?"},
		{"friend lst", exitUsage, "did you mean list?"},
		{"friend everything", exitUsage, "no command"},
		{"send", exitUsage, "needs a friend and a text"},
		{"send bob", exitUsage, "needs a friend and a text"},
		{"send bob two words", exitUsage, "in quotes"},
		{"send bop hi", exitFailed, "did you mean bob?"},
		{"send nobody-at-all hi", exitFailed, "relay friend list"},
		{"send bob hi --ttl 3x", exitUsage, "30d"},
		{"send bob hi --ttl -1h", exitUsage, "30d"},
		{"send bob hi --ttl 999999999999999d", exitUsage, "30d"},
		{"send bob hi --tag a!b", exitUsage, "--tag"},
		{"send bob hi --max-pulls 0", exitUsage, "--max-pulls"},
		{"send bob hi --copies 0", exitUsage, "--copies"},
		{"send bob hi --copies 5", exitFailed, "you have 1 relays"},
		{"send bob -", exitUsage, "empty"},
		{"friend add", exitUsage, "a card file"},
		{"friend add /nowhere", exitFailed, "there is no file"},
		{"friend add " + notCard, exitFailed, "not valid"},
		{"friend add relaymarket:nonsense", exitFailed, ""},
		{"friend rm bop", exitFailed, "did you mean bob?"},
		{"relays add", exitUsage, "address"},
		{"relays add http://relay.example", exitUsage, "https"},
		{"relays add http://127.0.0.1:1", exitFailed, "no answer"},
		{"relays rm nowhere.example", exitFailed, "relay relays list"},
		{"read nothing-like-it", exitNothing, "relay inbox --all"},
		{"read a b", exitUsage, ""},
		{"rm nothing-like-it", exitNothing, "relay outbox"},
		{"inbox --limit -1", exitUsage, "--limit"},
		{"inbox now", exitUsage, "unknown command"},
		{"unlock --for 1000h", exitUsage, "168h"},
		{"init", exitFailed, "already there"},
		{"id --card x --link", exitUsage, ""},
		{"id --card " + notCard, exitFailed, "is not your card"},
		{"--passphrase-file /nowhere inbox", exitUsage, "passphrase file"},
		{"--dir /nowhere/at/all inbox", exitFailed, "relay init"},
		{"--dir /nowhere/at/all friend list", exitFailed, "relay init"},
		{"--no-such-flag", exitUsage, "--help"},
	} {
		t.Run(test.args, func(t *testing.T) {
			out, errs, code := alice.types(strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(errs, test.says) || strings.Contains(errs, "panic") || len(errs) == 0 {
				t.Errorf("exit %d, want %d\n%s%s", code, test.code, out, errs)
			}
		})
	}
	if data, err := os.ReadFile(notCard); err != nil || string(data) != "hello" {
		t.Errorf("the file that is no card was overwritten: %s, %v", data, err)
	}
}

func TestWrongWords(t *testing.T) {
	for words, says := range map[string]string{
		"":                             "24",
		"abandon abandon":              "24",
		strings.Repeat("abandon ", 24): "do not fit",
		strings.Repeat("abandon ", 23) + "abando": "word 24",
	} {
		s := shell(t)
		s.stdin = words
		_, errs, code := s.types("init", "--restore")
		if code != exitFailed || !strings.Contains(errs, says) {
			t.Errorf("%q: exit %d, %s", words, code, errs)
		}
		if _, err := os.Stat(s.dir); err == nil {
			t.Errorf("%q left a folder", words)
		}
	}
}

func TestNotText(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, _ := friends(t, node)
	alice.stdin = "\xff\xfe"
	if _, errs, code := alice.types("send", "bob", "-"); code != exitFailed || !strings.Contains(errs, "UTF-8") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestAmbiguousID(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	alice.runs("send", "bob", "one")
	alice.runs("send", "bob", "two")
	bob.runs("inbox")
	var inbox struct{ Messages []messageLine }
	bob.json(&inbox, "inbox", "--offline")
	if len(inbox.Messages) != 2 {
		t.Fatalf("%d messages", len(inbox.Messages))
	}
	_, errs, code := bob.types("read", inbox.Messages[0].ID[:6])
	if code != exitFailed || !strings.Contains(errs, "\n  "+inbox.Messages[1].ID) {
		t.Errorf("exit %d, %s", code, errs)
	}
	if out := bob.runs("read", inbox.Messages[1].ID[len(inbox.Messages[1].ID)-8:]); !strings.Contains(out, "two") {
		t.Errorf("by its end:\n%s", out)
	}
}

func TestCompletion(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	alice.runs("send", "bob", "hello")
	bob.runs("inbox")
	bob.env = nil // no passphrase is needed
	if out := bob.runs("__complete", "send", ""); !strings.Contains(out, "alice") {
		t.Errorf("friends: %s", out)
	}
	if out := bob.runs("__complete", "read", ""); !strings.Contains(out, "hello") || !strings.Contains(out, "latest") {
		t.Errorf("messages: %s", out)
	}
	if out := bob.runs("completion", "bash"); !strings.Contains(out, "relay") {
		t.Error("no completion for bash")
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"plain ünï 👩‍💻": "plain ünï 👩‍💻",
		"a\x1b[2J":      `a\x1b[2J`,
		"a\nb\tc":       `a\x0ab\x09c`,
		"\u202eb\u2066": `\u202eb\u2066`,
		"\x7f\u0085":    `\x7f\u0085`,
		"\xffb":         `\xffb`,
	} {
		if got := escape(text); got != want {
			t.Errorf("escape %q is %q, want %q", text, got, want)
		}
	}
}
