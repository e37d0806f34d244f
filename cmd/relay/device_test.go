package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relaymarket/internal/testlog"
	"relaymarket/internal/testnode"
)

// typist is a command that runs while somebody reads its output and types.
type typist struct {
	in   io.WriteCloser
	out  *bufio.Reader
	wait func() error
	errs *testlog.Log
}

func (s *terminal) isTyped(t *testing.T, args ...string) *typist {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := s.command(ctx, args...)
	cmd.Stdin = nil
	errs := &testlog.Log{}
	cmd.Stderr = errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &typist{in: in, out: bufio.NewReader(out), wait: cmd.Wait, errs: errs}
}

// line reads a line of JSON.
func (c *typist) line(t *testing.T) map[string]any {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, c.errs)
	}
	var said map[string]any
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return said
}

func (c *typist) types(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c.in, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

func TestSecondDevice(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	bob.runs("send", "alice", "hello")
	alice.runs("inbox")
	phone := shell(t)

	add := alice.isTyped(t, "device", "add", "--json")
	link := add.line(t)["link"].(string)
	if _, errs, code := phone.types("device", "join", link); code != exitUsage || !strings.Contains(errs, "--link-file") || strings.Contains(errs, "secret=") {
		t.Errorf("a link on the command line: exit %d\n%s", code, errs)
	}
	file := filepath.Join(t.TempDir(), "link")
	if err := os.WriteFile(file, []byte(link), 0o600); err != nil {
		t.Fatal(err)
	}
	join := phone.isTyped(t, "device", "join", "--json", "--link-file", file, "--name", "phone")
	code := join.line(t)["code"].(string)
	add.types(t, strings.ReplaceAll(code, "-", ""))
	if said := add.line(t); said["added"] != "phone" || said["confirmed"] != true {
		t.Errorf("the first device says %v", said)
	}
	said := join.line(t)
	for _, c := range []*typist{add, join} {
		if err := c.wait(); err != nil {
			t.Fatalf("%v\n%s", err, c.errs)
		}
	}
	if said["key"] != alice.key().Bech32() || said["messages"] != 1.0 {
		t.Errorf("the new device says %v", said)
	}
	if out := phone.runs("friend", "list"); !strings.Contains(out, "bob") {
		t.Errorf("the friends on the phone:\n%s", out)
	}
	phone.runs("send", "bob", "from the phone")
	alice.runs("inbox")
	if out := alice.runs("outbox"); !strings.Contains(out, "from the phone") {
		t.Errorf("the first device's outbox:\n%s", out)
	}
	if out := bob.runs("inbox"); !strings.Contains(out, "from the phone") {
		t.Errorf("bob's inbox:\n%s", out)
	}
	if info, err := os.Stat(filepath.Join(phone.dir, keyFileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info, err)
	}
	var listed struct{ Devices []deviceLine }
	alice.json(&listed, "device", "list")
	if len(listed.Devices) != 2 || !listed.Devices[0].Own || listed.Devices[0].Name == "" || listed.Devices[1].Name != "phone" {
		t.Fatalf("devices: %+v", listed.Devices)
	}
	alice.runs("device", "rename", "phone", "pocket")
	alice.runs("inbox")
	phone.runs("inbox")
	if out := phone.runs("device", "list"); !strings.Contains(out, "pocket") {
		t.Errorf("the phone calls itself\n%s", out)
	}
	if out := alice.runs("device", "rm", "pocket"); !strings.Contains(out, "still has your keys") {
		t.Errorf("rm says\n%s", out)
	}
	if out := alice.runs("device", "list"); strings.Contains(out, "pocket") {
		t.Errorf("it is still listed\n%s", out)
	}
	phone.runs("send", "bob", "still here")
	alice.runs("inbox")
	if out := alice.runs("device", "list"); !strings.Contains(out, "uses your keys still") {
		t.Errorf("it came back unseen\n%s", out)
	}
	if _, errs, code := alice.types("device", "rm", alice.ownDevice()); code != exitFailed || !strings.Contains(errs, "you are on") {
		t.Errorf("removing the own device: exit %d\n%s", code, errs)
	}
	if _, errs, code := alice.types("device", "rm", "nobody"); code != exitFailed || !strings.Contains(errs, "relay device list") {
		t.Errorf("removing nobody: exit %d\n%s", code, errs)
	}
}

func (s *terminal) ownDevice() string {
	var listed struct{ Devices []deviceLine }
	s.json(&listed, "device", "list")
	return listed.Devices[0].ID
}
