package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relaymarket/internal/testnode"
)

// The only relay of alice is lost. She takes another, and bob, on whose relay she may leave her card, finds her, is told once, and sees
// afterwards what changed.
func TestMoveOnTheCommandLine(t *testing.T) {
	old, home, fresh := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := user(t), user(t)
	old.Grant(t, alice.key())
	fresh.Grant(t, alice.key())
	home.Grant(t, bob.key())
	alice.runs("relays", "add", old.URL)
	bob.runs("relays", "add", home.URL)
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	alice.stdin = bob.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "bob")
	bob.runs("inbox")
	var list struct{ Admitted []admittedLine }
	if bob.json(&list, "admit", "list"); len(list.Admitted) != 1 || list.Admitted[0].Name != "alice" || list.Admitted[0].Own || list.Admitted[0].Relays != 1 {
		t.Fatalf("admitted: %+v", list.Admitted)
	}
	old.Stop()
	var added relayItem
	if alice.json(&added, "relays", "add", fresh.URL); added.Told == nil || *added.Told != (toldItem{1, 1}) {
		t.Errorf("told: %+v", added.Told)
	}
	if out := alice.runs("relays", "rm", old.URL); !strings.Contains(out, "lies where 1 friend will find it") {
		t.Errorf("rm says %s", out)
	}
	alice.runs("send", "bob", "still here")
	out, errs, _ := bob.types("inbox")
	if !strings.Contains(out, "still here") || !strings.Contains(errs, "alice has a new card: he moved: was on "+old.URL+", is on "+fresh.URL) {
		t.Errorf("inbox says\n%s%s", out, errs)
	}
	if _, errs, _ := bob.types("inbox"); strings.Contains(errs, "new card") {
		t.Errorf("told twice: %s", errs)
	}
	var shown friendDetails
	bob.json(&shown, "friend", "show", "alice")
	if len(shown.Notices) != 1 || !shown.Notices[0].WasShown || shown.Notices[0].Change == nil || len(shown.Sealing) != 1 || shown.Admitted == nil || shown.Relays[0].Address != fresh.URL {
		t.Errorf("friend show: %+v", shown)
	}
	if out := bob.runs("friend", "show", "alice"); !strings.Contains(out, "he moved") || !strings.Contains(out, "may leave for you") {
		t.Errorf("friend show says\n%s", out)
	}
	if out := bob.runs("admit", "rm", "alice"); !strings.Contains(out, "nothing") {
		t.Errorf("admit rm says %s", out)
	}
	if bob.json(&list, "admit", "alice", "--bytes", "1MB", "--records", "3"); len(list.Admitted) != 1 || list.Admitted[0].Records != 3 || !list.Admitted[0].Own {
		t.Errorf("admitted: %+v", list.Admitted)
	}
}

// An invitation is a secret: it travels in no argument, is shown once, and brings a stranger's first word into the inbox.
func TestInviteOnTheCommandLine(t *testing.T) {
	home := testnode.Start(t, testnode.Options{})
	bob, carol := user(t), user(t)
	home.Grant(t, bob.key())
	bob.runs("relays", "add", home.URL)
	link := strings.TrimSpace(bob.runs("admit", "--invite", "--note", "train"))
	if !strings.Contains(link, "#invite=") {
		t.Fatalf("invite says %s", link)
	}
	if _, errs, code := carol.types("friend", "add", link, "--name", "bob"); code != exitUsage || !strings.Contains(errs, "standard input") || strings.Contains(errs, link[len(link)-64:]) {
		t.Errorf("in an argument: exit %d, %s", code, errs)
	}
	file := filepath.Join(t.TempDir(), "invitation")
	if err := os.WriteFile(file, []byte(link+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := carol.runs("friend", "add", file, "--name", "bob", "--hello", "from the train"); !strings.Contains(out, "first word lies on 1 relay") {
		t.Errorf("friend add says %s", out)
	}
	out, errs, _ := bob.types("inbox")
	if !strings.Contains(out, "from the train") || !strings.Contains(errs, "relay friend accept") {
		t.Errorf("inbox says\n%s%s", out, errs)
	}
	if out := bob.runs("admit", "list"); !strings.Contains(out, "used") || !strings.Contains(out, "train") || strings.Contains(out, link[len(link)-64:]) {
		t.Errorf("admit list says\n%s", out)
	}
	bob.runs("friend", "accept", carol.key().Short(), "--name", "carol", "--no-admit")
	bob.runs("send", "carol", "hello")
	if out := carol.runs("inbox"); !strings.Contains(out, "hello") {
		t.Errorf("carol's inbox: %s", out)
	}
	if _, errs, code := user(t).types("friend", "add", file); code == 0 || !strings.Contains(errs, "another invitation") {
		t.Errorf("used twice: exit %d, %s", code, errs)
	}
	for _, args := range [][]string{{"admit"}, {"admit", "carol", "--invite"}, {"admit", "--invite", "--bytes", "1"}, {"admit", "carol", "--bytes", "x"}, {"admit", "--invite", "--records", "1000"},
		{"friend", "add", "-", "--hello", "x"}} {
		bob.stdin = ""
		if _, errs, code := bob.types(args...); code == 0 || errs == "" {
			t.Errorf("relay %v: exit %d, %s", args, code, errs)
		}
	}
}

// What is missing is told once, and stands in what is known of the friend until it comes.
func TestGapIsToldOnce(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	var sent outgoingLine
	alice.json(&sent, "send", "bob", "regretted")
	alice.runs("rm", sent.ID)
	alice.runs("send", "bob", "kept")
	const missing = "Missing from alice: message 1"
	if _, errs, _ := bob.types("inbox"); !strings.Contains(errs, missing) {
		t.Errorf("inbox says %s", errs)
	}
	if _, errs, _ := bob.types("inbox"); strings.Contains(errs, missing) {
		t.Errorf("told twice: %s", errs)
	}
	var in struct{ Gaps []gapLine }
	if bob.json(&in, "inbox"); len(in.Gaps) != 1 {
		t.Errorf("in JSON: %+v", in.Gaps)
	}
	if out := bob.runs("friend", "show", "alice"); !strings.Contains(out, missing) {
		t.Errorf("friend show says\n%s", out)
	}
}
