package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"relaymarket/internal/testnode"
)

func TestFirstMessage(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := shell(t), shell(t)
	var made initialResult
	alice.json(&made, "init", "--label", "Alice")
	if len(strings.Fields(made.Words)) != 24 || made.Dir != alice.dir {
		t.Fatalf("init: %d words in %s", len(strings.Fields(made.Words)), made.Dir)
	}
	if out := bob.runs("init"); !regexp.MustCompile(`(?s)  1 \w+ .* 24 \w+\n.*Your key:  relay1`).MatchString(out) {
		t.Errorf("init says\n%s", out)
	}
	_, errs, code := alice.types("relays", "add", node.URL)
	if code != exitFailed || !strings.Contains(errs, made.Key) || !strings.Contains(errs, "operator") {
		t.Errorf("without an account: exit %d\n%s", code, errs)
	}
	node.Grant(t, alice.key(), bob.key())
	alice.runs("relays", "add", node.URL)
	bob.runs("relays", "add", strings.TrimPrefix(node.URL, "http://"))

	card := filepath.Join(t.TempDir(), "me.relayid")
	alice.runs("id", "--card", card)
	alice.runs("id", "--card", card) // again is fine
	bob.runs("friend", "add", card)
	alice.runs("friend", "add", strings.TrimSpace(bob.runs("id", "--link")), "--name", "bob")
	bob.runs("send", "alice", "hello")
	if out := alice.runs("inbox"); !strings.Contains(out, "bob") || !strings.Contains(out, "hello") {
		t.Errorf("inbox says\n%s", out)
	}
	if out := alice.runs("read"); !strings.HasSuffix(out, "\n\nhello\n") {
		t.Errorf("read says\n%s", out)
	}
	if _, _, code := alice.types("read"); code != exitNothing {
		t.Errorf("reading on: exit %d", code)
	}

	// The words give the key back.
	again := shell(t)
	again.stdin = strings.ToUpper(made.Words) + "\n"
	var restored initialResult
	again.json(&restored, "init", "--restore")
	if restored.Key != made.Key || restored.Words != "" {
		t.Errorf("restored %s of %s", restored.Key, made.Key)
	}
}

func TestUnlock(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	alice.env = nil
	for _, args := range [][]string{{"send", "bob", "hi"}, {"inbox"}, {"unlock"}} {
		if _, errs, code := alice.types(args...); code != exitLocked || !strings.Contains(errs, "relay unlock") {
			t.Errorf("%v while locked: exit %d, %s", args, code, errs)
		}
	}
	alice.runs("inbox", "--offline")
	alice.runs("friend", "list")
	alice.runs("lock") // nothing to lock is fine

	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte(passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice.runs("unlock", "--for", "1h", "--passphrase-file", file)
	t.Cleanup(func() { alice.runs("lock") })
	alice.runs("send", "bob", "unlocked")
	alice.runs("lock")
	if _, _, code := alice.types("send", "bob", "locked"); code != exitLocked {
		t.Errorf("after lock: exit %d", code)
	}
	bob.runs("inbox")
	if out := bob.runs("read", "--raw"); out != "unlocked" {
		t.Errorf("bob reads %q", out)
	}
	alice.env = []string{"RELAY_PASSPHRASE=wrong"}
	if _, errs, code := alice.types("inbox"); code != exitFailed || !strings.Contains(errs, "wrong passphrase") {
		t.Errorf("wrong passphrase: exit %d, %s", code, errs)
	}
}

func TestListen(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := bob.command(ctx, "listen", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() (line struct {
		Relay   *relayLine
		Message *messageLine
	}) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the listener ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	}
	if line := next(); line.Relay == nil || line.Relay.Address != node.URL || line.Relay.Error != nil {
		t.Fatalf("%+v", line)
	}
	alice.runs("send", "bob", "to the listener")
	if line := next(); line.Message == nil || *line.Message.Text != "to the listener" || line.Message.Name != "alice" {
		t.Fatalf("%+v", line)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
}

func TestNoTerminalInjection(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	evil := "\x1b]0;owned\a\x1b[2J\u202eevil\r\u009bx\ntext"
	alice.stdin = evil
	alice.runs("send", "bob", "-")
	for _, args := range [][]string{{"inbox"}, {"read"}, {"inbox", "--all"}} {
		out := bob.runs(args...)
		if strings.ContainsAny(out, "\x1b\a\r\u202e\u009b") || !strings.Contains(out, `\x1b`) {
			t.Errorf("relay %v writes %q", args, out)
		}
	}
	if out := bob.runs("read", "latest", "--raw"); out != evil {
		t.Errorf("raw: %q", out)
	}
	var line messageLine
	bob.json(&line, "read", "latest")
	if line.Text == nil || *line.Text != evil {
		t.Errorf("JSON: %+v", line)
	}
}

func TestPartly(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, one)
	two.Grant(t, alice.key())
	alice.runs("relays", "add", two.URL)
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-")
	two.Stop()
	if out := alice.runs("send", "bob", "one will do"); !strings.Contains(out, "stored on 1 relay, waiting for 1 more") {
		t.Errorf("send says %s", out)
	}
	if _, errs, code := alice.types("send", "bob", "both", "--copies", "2", "--patience", "5s"); code != exitPartial || !strings.Contains(errs, "Do not send it again") {
		t.Errorf("two copies: exit %d, %s", code, errs)
	}
	out, errs, code := bob.types("inbox")
	if code != exitPartial || !strings.Contains(out, "one will do") || !strings.Contains(errs, two.URL) {
		t.Errorf("inbox: exit %d\n%s%s", code, out, errs)
	}
	one.Stop()
	if _, _, code := bob.types("inbox"); code != exitFailed {
		t.Errorf("with no relay left: exit %d", code)
	}
	if _, errs, code := alice.types("send", "bob", "nobody there", "--patience", "5s"); code != exitFailed || !strings.Contains(errs, "kept") {
		t.Errorf("send with no relay left: exit %d, %s", code, errs)
	}
	var outbox struct{ Messages []outgoingLine }
	alice.json(&outbox, "outbox")
	if len(outbox.Messages) != 3 {
		t.Fatalf("outbox: %+v", outbox.Messages)
	}
	for _, c := range outbox.Messages[2].Copies {
		// On the other one an older message is in front, and bears the error.
		if c.State != "queued" || c.Address == one.URL && c.Error == nil {
			t.Errorf("outbox: %+v", c)
		}
	}
	two.Restart()
	one.Restart()
	alice.runs("inbox")
	alice.json(&outbox, "outbox")
	for _, m := range outbox.Messages {
		for _, c := range m.Copies {
			if c.State != "stored" {
				t.Errorf("%s on %s is %s", *m.Text, c.Address, c.State)
			}
		}
	}
	alice.runs("rm", outbox.Messages[0].ID)
}
