package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/relaybackup"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// backedUp runs relayd backup and returns what it says.
func backedUp(t *testing.T, args ...string) (done backupDone) {
	t.Helper()
	got := command(t, append([]string{"backup", "--json"}, args...)...)
	if got.code != 0 {
		t.Fatalf("backup: exit code %d: %s", got.code, got.err)
	}
	if err := json.Unmarshal([]byte(got.out), &done); err != nil {
		t.Fatalf("%v: %s", err, got.out)
	}
	return done
}

// cursor is where a sender's inventory ends.
func (s *stream) cursor(relay protocol.PublicKey, relayURL string) string {
	s.t.Helper()
	var listing struct{ Cursor string }
	target := "/" + s.sender.Public().String() + "/outbox"
	e, err := protocol.Sign(s.sender, relay, protocol.TimestampOf(time.Now()), &protocol.Targeted{Type: protocol.TypeInventory, Target: "GET " + target})
	if err != nil {
		s.t.Fatal(err)
	}
	s.get(relayURL+target, e.Authorization(), &listing)
	return listing.Cursor
}

// acknowledged is how many writes were, and a copy of them.
func (s *stream) acknowledged() map[protocol.RecordID]*protocol.Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.acked)
}

// forget makes every write one whose outcome is not known, as a relay that was put back makes it.
func (s *stream) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.unheard, s.acked)
	clear(s.acked)
}

// A backup is made while writers write, and put back in another folder: what was acknowledged before it began is there, readers start
// over, and a client that writes again what it keeps has everything once, and is charged once.
func TestBackupWhileWritersWrite(t *testing.T) {
	for name, external := range map[string]bool{"private": false, "external": true} {
		t.Run(name, func(t *testing.T) {
			options := testnode.ProcessOptions{}
			var database []string
			if external {
				options.DSN = testpg.New(t)
				database = []string{"--database-url", options.DSN}
			}
			p := testnode.StartProcess(t, options)
			s := newStream(t)
			p.Grant(t, s.sender.Public())
			writing, stop := context.WithCancel(t.Context())
			writers := s.run(writing, p.Key, p.URL, 8)
			defer func() { stop(); writers.Wait() }()
			waitFor(t, func() bool { return len(s.acknowledged()) > 500 })
			before := s.acknowledged()
			backups := filepath.Join(t.TempDir(), "backups")
			done := backedUp(t, append([]string{backups, "--dir", p.Dir, "--rehearse-in", filepath.Dir(p.Dir)}, database...)...)
			after := len(s.acknowledged())
			cursor := s.cursor(p.Key, p.URL)
			stop()
			writers.Wait()
			if len(before) >= after {
				t.Errorf("nothing was written while the backup was made: %d records before and %d after", len(before), after)
			}
			if !done.Rehearsed || done.Proof == nil || done.Proof.Records < int64(len(before)) || done.Proof.Records > int64(after) || done.Proof.Envelopes == 0 || !done.Noted || done.Relay != p.Key {
				t.Errorf("of %d to %d records, backup says %+v, proof %+v", len(before), after, done, done.Proof)
			}
			checkModes(t, done.Backup)
			if code := p.Terminate(); code != 0 {
				t.Fatalf("exit code %d\n%s", code, p.Log())
			}

			again := testnode.ProcessOptions{Dir: testnode.Folder(t)}
			args := []string{"restore", done.Backup, "--dir", again.Dir}
			if !external { // a folder that is there, and may be a disk of its own
				if err := os.Mkdir(again.Dir, 0o711); err != nil {
					t.Fatal(err)
				}
			}
			if external {
				again.DSN = testpg.New(t)
				args = append(args, "--database-url", again.DSN)
			}
			if got := command(t, args...); got.code != 0 || !strings.Contains(got.out, "readers start over") {
				t.Fatalf("restore: exit code %d: %s%s", got.code, got.out, got.err)
			}
			if got := command(t, args...); got.code != 1 || !strings.Contains(got.err, "nothing is ever restored over something") {
				t.Errorf("restore over it: exit code %d: %s", got.code, got.err)
			}
			q := testnode.StartProcess(t, again)
			if q.Key != p.Key {
				t.Errorf("the key was %s and is %s", p.Key, q.Key)
			}
			found := s.stored(q.Key, q.URL)
			for id, e := range before {
				if found[id] != e.Hash() {
					t.Errorf("%s was acknowledged before the backup, and is not in it", id)
				}
			}
			old, _, _ := strings.Cut(cursor, ".")
			if now, _, _ := strings.Cut(s.cursor(q.Key, q.URL), "."); now == old || old != done.Epoch {
				t.Errorf("the epoch was %s, is said to have been %s, and is %s", old, done.Epoch, now)
			}
			s.refusedCursor(q.Key, q.URL, cursor)
			s.forget()
			s.settle(q.URL)
			s.checkSettled(s.stored(q.Key, q.URL), q.Account(t, s.sender.Public()))
			if _, metrics := status(t, q.OperatorURL+"/metrics"); !strings.Contains(metrics, "\nrelaymarket_backup_age_seconds ") {
				t.Error("no metric says how old the backup is")
			}
		})
	}
}

// refusedCursor asserts that a cursor of the life before is answered "start over".
func (s *stream) refusedCursor(relay protocol.PublicKey, relayURL, cursor string) {
	s.t.Helper()
	target := "/" + s.sender.Public().String() + "/outbox?after=" + cursor
	e, err := protocol.Sign(s.sender, relay, protocol.TimestampOf(time.Now()), &protocol.Targeted{Type: protocol.TypeInventory, Target: "GET " + target})
	if err != nil {
		s.t.Fatal(err)
	}
	code, body := statusWith(s.t, relayURL+target, e.Authorization())
	if code != 410 || !strings.Contains(body, string(protocol.CodeCursorEpoch)) {
		s.t.Errorf("a cursor of the life before is answered %d %s", code, body)
	}
}

// checkModes asserts that nobody else reads a backup, and that nothing unfinished is beside it.
func checkModes(t *testing.T, backup string) {
	t.Helper()
	err := filepath.WalkDir(backup, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can read %s: %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	beside, err := os.ReadDir(filepath.Dir(backup))
	if err != nil || len(beside) != 1 {
		t.Errorf("beside the backup are %v (%v)", beside, err)
	}
}

// A backup that is killed at any moment has its name, and then it is whole, or it has none.
func TestKilledBackups(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t)})
	named := 0
	const toItsEnd = 0
	for _, after := range []time.Duration{40, 120, 200, 280, 1000, toItsEnd} {
		to := filepath.Join(t.TempDir(), "one")
		cmd := testnode.Command(t, "backup", to, "--dir", p.Dir, "--database-url", p.DSN, "--no-rehearsal")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if after != toItsEnd {
			time.Sleep(after * time.Millisecond)
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait() // it was killed, or had ended
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		named++
		if m, err := relaybackup.Verify(t.Context(), to, nil); err != nil || m.Relay != p.Key {
			t.Errorf("after %d ms: %+v, %v", after, m, err)
		}
	}
	if named == 0 {
		t.Error("none got its name: nothing was seen")
	}
}

// What is not a whole backup is not restored, and leaves nothing.
func TestDamagedBackups(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t)})
	s := newStream(t)
	p.Grant(t, s.sender.Public())
	for range 3 {
		e, id := s.sign(p.Key)
		if err := s.put(p.URL, e, id); err != nil {
			t.Fatal(err)
		}
	}
	backup := filepath.Join(t.TempDir(), "one")
	got := command(t, "backup", backup, "--dir", p.Dir, "--database-url", p.DSN, "--no-rehearsal")
	if got.code != 0 || !strings.Contains(got.out, "NOT rehearsed") {
		t.Fatalf("backup: exit code %d: %s%s", got.code, got.out, got.err)
	}
	if got := command(t, "backup", backup, "--dir", p.Dir, "--database-url", p.DSN); got.code != 2 || !strings.Contains(got.err, "is a backup already") {
		t.Errorf("into a backup: exit code %d: %s", got.code, got.err)
	}
	key := filepath.Join("folder", "relay.key")
	edit := func(name string, change func([]byte) []byte) func(string) error {
		return func(folder string) error {
			text, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(folder, name), change(text), 0o600)
		}
	}
	for name, damage := range map[string]func(folder string) error{
		"a bit of the dump": edit("database.dump", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }),
		"the dump cut off":  edit("database.dump", func(b []byte) []byte { return b[:len(b)-1] }),
		"the dump missing":  func(folder string) error { return os.Remove(filepath.Join(folder, "database.dump")) },
		"another key":       edit(key, func(b []byte) []byte { b[0] = "0123456789abcdef"[(b[0]+1)%16]; return b }),
		"the key a link": func(folder string) error {
			return errors.Join(os.Remove(filepath.Join(folder, key)), os.Symlink("/etc/passwd", filepath.Join(folder, key)))
		},
		"no manifest":      func(folder string) error { return os.Remove(filepath.Join(folder, "manifest.json")) },
		"the manifest cut": edit("manifest.json", func(b []byte) []byte { return b[:len(b)/2] }),
		"a digit of it":    edit("manifest.json", func(b []byte) []byte { return []byte(strings.Replace(string(b), `"cursor": 3`, `"cursor": 4`, 1)) }),
		"a name that escapes": edit("manifest.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "folder/relay.key", "folder/../../x", 1))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			folder, dir := filepath.Join(t.TempDir(), "copy"), testnode.Folder(t)
			if err := os.CopyFS(folder, os.DirFS(backup)); err != nil {
				t.Fatal(err)
			}
			if err := damage(folder); err != nil {
				t.Fatal(err)
			}
			got := command(t, "restore", folder, "--dir", dir)
			if got.code != 1 || !strings.Contains(got.err, "no whole backup") {
				t.Errorf("exit code %d: %s", got.code, got.err)
			}
			if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
	if got := command(t, "restore", backup, "--dir", testnode.Folder(t), "--database-url", p.DSN); got.code != 1 || !strings.Contains(got.err, "the database is not empty") {
		t.Errorf("into the database of a relay: exit code %d: %s", got.code, got.err)
	}
	if got := command(t, "restore", backup); got.code != 2 || !strings.Contains(got.err, "--dir NEW") {
		t.Errorf("without a folder: exit code %d: %s", got.code, got.err)
	}
}
