package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relaymarket/client/doctor"
	"relaymarket/internal/testnode"
)

// examined is what doctor says: the findings of each check.
func (s *terminal) examined(wantCode int, args ...string) map[string][]doctor.Finding {
	s.t.Helper()
	out, errs, code := s.types(append([]string{"doctor", "--json"}, args...)...)
	var said struct{ Findings []doctor.Finding }
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != wantCode {
		s.t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	found := map[string][]doctor.Finding{}
	for _, f := range said.Findings {
		if f.Level != doctor.OK && f.Do == "" {
			s.t.Errorf("%+v does not say what to do", f)
		}
		found[f.Check] = append(found[f.Check], f)
	}
	return found
}

func worst(all []doctor.Finding) doctor.Level {
	if len(all) == 0 {
		return "nothing"
	}
	return doctor.Worst(all)
}

func TestDoctor(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, _ := friends(t, node)
	alice.runs("send", "bob", "hi")
	is := func(found map[string][]doctor.Finding, levels map[string]doctor.Level) {
		t.Helper()
		for check, level := range levels {
			if got := worst(found[check]); got != level {
				t.Errorf("%s is %s, want %s: %+v", check, got, level, found[check])
			}
		}
	}
	well := map[string]doctor.Level{"keys": doctor.OK, "folder": doctor.OK, "state": doctor.OK, "outbox": doctor.OK, "relay": doctor.OK,
		"clock": doctor.OK, "account": doctor.OK, "limits": doctor.OK, "proxy": doctor.OK, "daemon": doctor.OK, "backup": doctor.Warn}
	is(alice.examined(0), well)
	alice.runs("backup", filepath.Join(t.TempDir(), "backup"))
	well["backup"] = doctor.OK
	is(alice.examined(0), well)
	running := alice.command(t.Context(), "daemon")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon runs", func() bool { _, _, code := alice.types("daemon", "status"); return code == 0 })
	if found := alice.examined(0); len(found["daemon"]) != 1 || !strings.Contains(found["daemon"][0].Text, "runs and answers") {
		t.Errorf("%+v", found["daemon"])
	}
	alice.runs("daemon", "stop")
	if err := running.Wait(); err != nil {
		t.Error(err)
	}
	if out := alice.runs("doctor"); !strings.Contains(out, "ok      keys") || strings.Contains(out, "fail") {
		t.Errorf("it says\n%s", out)
	}
	// Locked, all is looked at that takes no keys; off-line, all that takes nobody else.
	unlocked := alice.env
	alice.env = nil
	found := alice.examined(0)
	is(found, map[string]doctor.Level{"state": doctor.OK, "relay": doctor.OK, "clock": doctor.OK})
	if len(found["account"]) != 1 || found["account"][0].Level != doctor.Skipped {
		t.Errorf("%+v", found["account"])
	}
	if found = alice.examined(0, "--offline"); len(found["relay"]) != 0 || len(found["state"]) == 0 {
		t.Errorf("%+v", found)
	}
	alice.env = append(unlocked, "RELAY_PROXY=socks5://127.0.0.1:1")
	is(alice.examined(exitFailed), map[string]doctor.Level{"proxy": doctor.Fail, "relay": doctor.Fail, "state": doctor.OK})
	alice.env = unlocked

	node.Stop()
	_, _, _ = alice.types("send", "bob", "nobody there", "--patience", "3s")
	found = alice.examined(exitFailed)
	is(found, map[string]doctor.Level{"relay": doctor.Fail, "state": doctor.OK})
	if !strings.Contains(found["outbox"][0].Text, "1 message is on no relay") {
		t.Errorf("%+v", found["outbox"])
	}
}

// A damaged folder is said to be damaged by doctor and by whatever needs it, with what to do; nothing is made anew in its place.
func TestDamagedFolder(t *testing.T) {
	rubbish := []byte(strings.Repeat("this is no database ", 1000))
	for name, test := range map[string]struct {
		file  string
		spoil func(t *testing.T, path string)
		check string
		args  string
		says  string
	}{
		"state is rubbish": {"state.db", func(t *testing.T, path string) { put(t, path, rubbish) }, "state", "inbox --offline", "relay --dir NEW-FOLDER restore BACKUP"},
		"state is cut": {"state.db", func(t *testing.T, path string) {
			if err := os.Truncate(path, 40_000); err != nil {
				t.Fatal(err)
			}
		}, "state", "friend list", "relay --dir NEW-FOLDER restore BACKUP"},
		"half restored": {".restoring", func(t *testing.T, path string) { put(t, path, []byte("x")) }, "restore", "inbox --offline", "relay restore BACKUP"},
		"key is cut": {keyFileName, func(t *testing.T, path string) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		}, "keys", "account", "24 words"},
		"key is rubbish": {keyFileName, func(t *testing.T, path string) { put(t, path, rubbish) }, "keys", "account", "24 words"},
		"key is open":    {keyFileName, func(t *testing.T, path string) { _ = os.Chmod(path, 0o644) }, "keys", "account", "chmod 600"},
	} {
		t.Run(name, func(t *testing.T) {
			s := user(t)
			path := filepath.Join(s.dir, test.file)
			test.spoil(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, errs, code := s.types(strings.Fields(test.args)...)
			if code != exitFailed || !strings.Contains(errs, test.says) {
				t.Errorf("%s: exit %d\n%s", test.args, code, errs)
			}
			if found := s.examined(exitFailed, "--offline"); worst(found[test.check]) != doctor.Fail {
				t.Errorf("doctor: %+v", found)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the file changed, %v", err)
			}
		})
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
