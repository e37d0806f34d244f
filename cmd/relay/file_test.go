package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relaymarket/internal/testnode"
)

// bigFile writes a file of random bytes.
func bigFile(t *testing.T, name string, size int64) (path string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(data)
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestSendAndGetAFile(t *testing.T) {
	alice, bob := friends(t, testnode.Start(t, testnode.Options{}))
	path, data := bigFile(t, "holiday.mp4", 3<<20)
	out := alice.runs("send", "--file", path, "bob")
	if !strings.HasPrefix(out, "Sent holiday.mp4 to bob, 3.1 MB, as ") || !strings.HasSuffix(out, ": all of it on 1 relay.\n") {
		t.Fatalf("%q", out)
	}
	var list struct{ Files []fileLine }
	bob.json(&list, "get")
	if len(list.Files) != 1 || list.Files[0].File != "holiday.mp4" || list.Files[0].Bytes != 3<<20 || list.Files[0].Path != nil {
		t.Fatalf("%+v", list)
	}
	folder := t.TempDir()
	out = bob.runs("get", "latest", "--out", folder)
	got, err := os.ReadFile(filepath.Join(folder, "holiday.mp4"))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%v, %d bytes; %s", err, len(got), out)
	}
	// It never writes over a file.
	_, errs, code := bob.types("get", list.Files[0].ID, "--out", folder)
	if code != exitFailed || !strings.Contains(errs, "there is a file of that name already") || !strings.Contains(errs, "--out") {
		t.Errorf("exit %d: %s", code, errs)
	}
	lines := strings.Split(strings.TrimSpace(bob.runs("get", list.Files[0].ID, "--out", filepath.Join(folder, "again.mp4"), "--json")), "\n")
	for i, line := range lines {
		var told map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &told); err != nil || len(told) != 1 {
			t.Fatalf("%q: %v", line, err)
		}
		if _, last := told["file"]; last != (i == len(lines)-1) {
			t.Errorf("line %d: %s", i, line)
		}
	}
	if shown := bob.runs("inbox", "--all"); !strings.Contains(shown, "(file, 3.1 MB) holiday.mp4") {
		t.Errorf("inbox: %s", shown)
	}
}
