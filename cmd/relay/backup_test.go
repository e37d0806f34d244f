package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relaymarket/client/keyfile"
	"relaymarket/internal/testnode"
)

// The disk is lost. Words and backup, in a file or on a relay, give the old mail back, and the new mail comes.
func TestRestoreReadsOldAndNewMail(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	alice.runs("send", "bob", "old mail")
	bob.runs("inbox")
	bob.runs("send", "alice", "from before")
	file := filepath.Join(t.TempDir(), "bob.backup")
	var wrote struct{ File, Relays *backupResult }
	bob.json(&wrote, "backup", file, "--to-relays")
	for _, r := range []*backupResult{wrote.File, wrote.Relays} {
		if r == nil || !r.Rehearsed || len(r.Checks) < 4 || r.Rows["messages"] != 1 || r.Rows["friends"] != 1 {
			t.Fatalf("%+v", wrote)
		}
	}
	if out := bob.runs("backup", "--check", file); !strings.Contains(out, "The restore was rehearsed") {
		t.Errorf("check says\n%s", out)
	}
	// Sent after the backup by the device that is about to be lost: the restored one must not look like it.
	bob.runs("send", "alice", "from after")
	alice.runs("send", "bob", "new mail")
	words := wordsOf(t, bob)
	bob.runs("inbox") // pulled, acknowledged, and lost with the disk
	alice.runs("send", "bob", "newer mail")

	for _, args := range [][]string{{"restore", file}, {"restore", "--relay", node.URL}} {
		again := shell(t)
		again.stdin = words + "\n"
		var restored backupResult
		again.json(&restored, args...)
		if !restored.Rehearsed || restored.Rows["messages"] != 1 {
			t.Fatalf("%v: %+v", args, restored)
		}
		again.stdin = ""
		p := keyfile.Passphrase(passphrase)
		if err := keyfile.ChangePassphrase(filepath.Join(again.dir, keyFileName), p, p, keyfile.Options{WorkFactor: keyfile.MinWorkFactor}); err != nil {
			t.Fatal(err) // the next commands are to be fast
		}
		if out := again.runs("read", "latest", "--raw"); out != "old mail" {
			t.Errorf("%v: old mail is %q", args, out)
		}
		again.runs("inbox")
		var inbox struct{ Messages []messageLine }
		again.json(&inbox, "inbox", "--offline", "--all")
		var texts []string
		for _, m := range inbox.Messages {
			texts = append(texts, *m.Text)
		}
		if strings.Join(texts, ", ") != "old mail, new mail, newer mail" {
			t.Errorf("%v: %q", args, texts)
		}
		again.runs("send", "alice", "from the new disk")
		if _, errs, code := again.types(args...); code != exitFailed || args[1] != "--relay" && !strings.Contains(errs, "--dir NEW-FOLDER restore") {
			t.Errorf("%v again: exit %d, %s", args, code, errs)
		}
	}
	alice.runs("inbox")
	var inbox struct {
		Messages []struct{ Contradiction bool }
	}
	alice.json(&inbox, "inbox", "--offline", "--all")
	if len(inbox.Messages) != 4 {
		t.Errorf("alice has %d messages", len(inbox.Messages))
	}
	for _, m := range inbox.Messages {
		if m.Contradiction {
			t.Errorf("%+v", m)
		}
	}
}

// A message that was queued in the backup was sent by the device that is lost. What came out of the backup sends it again: it is the same record, and the
// relay is not taken for a liar because it confirms an envelope that is not known here.
func TestRestoredQueue(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	node.Stop()
	if _, errs, code := alice.types("send", "bob", "queued", "--patience", "3s"); code != exitFailed {
		t.Fatalf("exit %d, %s", code, errs)
	}
	file := filepath.Join(t.TempDir(), "backup")
	alice.runs("backup", file)
	node.Restart()
	alice.runs("inbox")
	again := shell(t)
	if err := os.MkdirAll(again.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(alice.dir, keyFileName))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(again.dir, keyFileName), key)
	again.runs("restore", file)
	again.runs("inbox")
	var outbox struct{ Messages []outgoingLine }
	again.json(&outbox, "outbox")
	if len(outbox.Messages) != 1 || outbox.Messages[0].Copies[0].State != "stored" || outbox.Messages[0].Copies[0].Error != nil {
		t.Errorf("%+v", outbox.Messages)
	}
	again.runs("heal")
	bob.runs("inbox")
	var inbox struct{ Messages []messageLine }
	bob.json(&inbox, "inbox", "--offline", "--all")
	if len(inbox.Messages) != 1 {
		t.Errorf("bob has %d messages", len(inbox.Messages))
	}
	// His receipt is known to be of it, though the envelope was another device's.
	bob.runs("inbox")
	again.runs("inbox")
	again.json(&outbox, "outbox")
	if outbox.Messages[0].Copies[0].Pulled == nil {
		t.Errorf("%+v", outbox.Messages[0].Copies)
	}
}

// wordsOf are the words of a user whose keys were made by the test.
func wordsOf(t *testing.T, s *terminal) string {
	t.Helper()
	document, err := keyfile.Open(filepath.Join(s.dir, keyFileName), keyfile.Passphrase(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	defer document.Wipe()
	words, err := document.Seed.Words()
	if err != nil {
		t.Fatal(err)
	}
	return words
}

// Kept on relays, a backup does not grow by those before it, and takes their place.
func TestBackupsOnRelaysReplaceEachOther(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, _ := friends(t, node)
	alice.runs("send", "bob", strings.Repeat("words ", 500))
	alice.runs("backup", "--to-relays")
	first := node.Account(t, alice.key()).Stored
	for range 3 {
		alice.runs("backup", "--to-relays")
	}
	if last := node.Account(t, alice.key()).Stored; last > first+first/2 {
		t.Errorf("%d bytes are stored after the first backup, %d after the fourth", first, last)
	}
}

// What is typed wrongly, or is not a backup, says so, and changes nothing.
func TestBackupWrong(t *testing.T) {
	alice := user(t)
	file := filepath.Join(t.TempDir(), "alice.backup")
	alice.runs("backup", file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut, diary := filepath.Join(t.TempDir(), "cut"), filepath.Join(t.TempDir(), "diary")
	for path, text := range map[string][]byte{cut: data[:len(data)-100], diary: []byte("dear diary")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"backup", exitUsage, "another disk"},
		{"backup --check --to-relays", exitUsage, "--check"},
		{"backup --to-relays", exitFailed, "relay relays add"},
		{"backup " + diary, exitFailed, "no backup of yours"},
		{"backup --check " + diary, exitFailed, "not a backup"},
		{"backup --check " + cut, exitFailed, "cut short"},
		{"backup --check /nowhere", exitFailed, "no such file"},
		{"backup /nowhere/at/all", exitFailed, "no such file"},
		{"restore " + file, exitFailed, "--dir NEW-FOLDER restore"},
		{"restore " + file + " --relay relay.example", exitUsage, "one FILE"},
		{"--dir " + filepath.Join(t.TempDir(), "x") + " restore " + cut, exitFailed, "24"}, // there are no keys, and no words on standard input
	} {
		if _, errs, code := alice.types(strings.Fields(test.args)...); code != test.code || !strings.Contains(errs, test.says) {
			t.Errorf("%s: exit %d\n%s", test.args, code, errs)
		}
	}
	for _, path := range []string{cut, file} {
		stranger := shell(t)
		stranger.stdin = strings.Repeat("abandon ", 23) + "art\n"
		_, errs, code := stranger.types("restore", path)
		if code != exitFailed || !strings.Contains(errs, "other keys") {
			t.Errorf("other words: exit %d\n%s", code, errs)
		}
		if _, err := os.Stat(stranger.dir); err == nil {
			t.Error("other words left a folder")
		}
	}
	again := shell(t)
	again.stdin = wordsOf(t, alice) + "\n"
	if _, errs, code := again.types("restore", cut); code != exitFailed || !strings.Contains(errs, "cut short") {
		t.Errorf("cut: exit %d\n%s", code, errs)
	}
	if _, err := os.Stat(again.dir); err == nil {
		t.Error("a backup that is cut left a folder")
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the backup changed, %v", err)
	}
}
