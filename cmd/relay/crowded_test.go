package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/internal/testlog"
	"relaymarket/internal/testnode"
)

// Several commands on one folder at once: a listener, six that send, and a backup. Each message goes out once, each that comes is told once.
func TestManyOnOneFolder(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience) // two rounds of commands, and the wait
	defer cancel()
	listener := alice.command(ctx, "listen", "--json")
	var heard testlog.Log
	listener.Stdout = &heard
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Process.Kill(); _ = listener.Wait() }()
	const senders = 6
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			if out, errs, code := alice.types("send", "bob", fmt.Sprint("message ", i)); code != 0 {
				t.Errorf("send %d: exit %d\n%s%s", i, code, out, errs)
			}
			if out, errs, code := bob.types("send", "alice", fmt.Sprint("answer ", i)); code != 0 {
				t.Errorf("answer %d: exit %d\n%s%s", i, code, out, errs)
			}
		})
	}
	all.Go(func() {
		if out, errs, code := alice.types("backup", filepath.Join(t.TempDir(), "meanwhile")); code != 0 {
			t.Errorf("backup: exit %d\n%s%s", code, out, errs)
		}
	})
	all.Wait()
	var arrived map[string]int
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if arrived = texts(&heard); len(arrived) == senders {
			break
		}
	}
	if len(arrived) != senders {
		t.Errorf("the listener heard %v", arrived)
	}
	for text, n := range arrived {
		if n != 1 {
			t.Errorf("%q was told %d times", text, n)
		}
	}
	bob.runs("inbox")
	var inbox struct{ Messages []messageLine }
	bob.json(&inbox, "inbox", "--offline", "--all")
	seen := map[string]bool{}
	for _, m := range inbox.Messages {
		seen[*m.Text] = true
	}
	if len(inbox.Messages) != senders || len(seen) != senders {
		t.Errorf("bob has %d messages, %d different", len(inbox.Messages), len(seen))
	}
	var outbox struct{ Messages []outgoingLine }
	alice.json(&outbox, "outbox")
	for _, m := range outbox.Messages {
		for _, c := range m.Copies {
			if c.State != "stored" {
				t.Errorf("%s is %s", *m.Text, c.State)
			}
		}
	}
}

// texts counts the messages in what listen printed.
func texts(printed *testlog.Log) map[string]int {
	found := map[string]int{}
	for _, line := range strings.Split(printed.String(), "\n") {
		var event struct{ Message *messageLine }
		if len(line) == 0 || json.Unmarshal([]byte(line), &event) != nil || event.Message == nil {
			continue
		}
		found[*event.Message.Text]++
	}
	return found
}

// The disk with the folder is full: sending, fetching and backing up say so and what to do, what was there stays, and once there is room all goes on.
func TestFolderOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("mounting a disk needs root: run the tests as root in CI")
		}
		t.Skip("mounting a disk needs root")
	}
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	moved := filepath.Join(disk, "relay")
	if out, err := exec.Command("cp", "-a", alice.dir, moved).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	alice.dir = moved
	alice.runs("send", "bob", "before")
	bob.stdin = strings.Repeat("much ", 60_000)
	bob.runs("send", "alice", "-")
	bob.stdin = ""

	// All room but a page or two goes.
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 16, 1 << 12} {
		for err = error(nil); err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"send", "bob", strings.Repeat("long ", 2000)}, {"inbox"}, {"backup", filepath.Join(t.TempDir(), "b")}} {
		out, errs, code := alice.types(args...)
		if code == 0 || !strings.Contains(errs, "Make room") {
			t.Errorf("%s on a full disk: exit %d\n%s%s", args[0], code, out, errs)
		}
	}
	if found := alice.examined(exitFailed, "--offline"); worst(found["disk"]) != "fail" {
		t.Errorf("doctor: %+v", found["disk"])
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	alice.runs("inbox")
	alice.runs("send", "bob", "after")
	if out := alice.runs("read", "latest", "--raw"); len(out) != 300_000 {
		t.Errorf("%d bytes came", len(out))
	}
	bob.runs("inbox")
	var inbox struct{ Messages []messageLine }
	bob.json(&inbox, "inbox", "--offline", "--all")
	var texts []string
	for _, m := range inbox.Messages {
		if len(*m.Text) < 100 { // the long one went out or did not: it was not promised
			texts = append(texts, *m.Text)
		}
	}
	if strings.Join(texts, ", ") != "before, after" {
		t.Errorf("bob has %q", texts)
	}
	if found := alice.examined(exitFailed, "--offline"); worst(found["state"]) != "ok" { // the disk is still a small one
		t.Errorf("doctor afterwards: %+v", found)
	}
}
