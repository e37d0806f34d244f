package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"relaymarket/internal/relaynode"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// A relay that refuses for want of an account shows what it would take: the very announcement that it shows to everybody. Whoever sends on a
// terminal can contract right there, and the message that was refused goes out; elsewhere the command to type is printed, with the offer in it.
func TestContractOnARefusal(t *testing.T) {
	bitcoin, node, alice := market(t)
	bob := user(t)
	node.Grant(t, alice.key(), bob.key())
	for _, s := range []*terminal{alice, bob} {
		s.runs("relays", "add", node.URL)
	}
	alice.runs("friend", "add", strings.TrimSpace(bob.runs("id", "--link")), "--name", "bob")
	bob.runs("friend", "add", strings.TrimSpace(alice.runs("id", "--link")), "--name", "alice")
	err := relaynode.WithBooks(t.Context(), relaynode.Database{URL: node.DSN, Connections: 4}, func(ctx context.Context, b *books.Store) error {
		return b.Revoke(ctx, alice.key())
	})
	if err != nil {
		t.Fatal(err)
	}

	_, errs, code := alice.types("send", "bob", "for money")
	command := regexp.MustCompile(`relay contract open (\S+) --deposit (\d+) --offer ([0-9a-f]{8}) `).FindStringSubmatch(errs)
	if code != exitFailed || command == nil || command[1] != node.URL {
		t.Fatalf("refused: exit %d\n%s", code, errs)
	}
	reply, err := http.Get(node.URL + "/.well-known/relaymarket")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := protocol.ParseEnvelope(data); err != nil || !strings.HasPrefix(e.Hash().String(), command[3]) {
		t.Errorf("the offer is %s, announced is %s (%v)", command[3], data, err)
	}
	for _, wrong := range []string{"0123", "xxxxxxxx", strings.Repeat("0", 8)} {
		if _, errs, code := alice.types("contract", "open", node.URL, "--deposit", command[2], "--offer", wrong, "--yes"); code == 0 || errs == "" {
			t.Errorf("offer %s: exit %d\n%s", wrong, code, errs)
		}
	}
	// Not here, and nothing is lost. A daemon sends what is typed from now on, and leaves the question to whoever typed it.
	alice.starts("--poll", "1h", "--heal", "1h")
	if shown, code := alice.sits([]string{"n"}, "send", "bob", "not now"); code != exitFailed || !strings.Contains(shown, "--offer "+command[3]) {
		t.Errorf("exit %d\n%s", code, shown)
	}

	rest := mines(bitcoin)
	shown, code := alice.sits([]string{"y", "y"}, "send", "bob", "right now")
	rest()
	if code != 0 || !strings.Contains(shown, "is open") || !strings.Contains(shown, "Sent ") {
		t.Fatalf("exit %d\n%s", code, shown)
	}
	if item := alice.only(); item.Relay == "" || item.Address != node.URL {
		t.Errorf("%+v", item)
	}
	// What was refused before went out with it.
	out := bob.runs("inbox")
	for _, text := range []string{"for money", "not now", "right now"} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in bob's inbox:\n%s", text, out)
		}
	}
}
