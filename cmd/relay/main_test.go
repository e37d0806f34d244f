package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relaymarket/client/keyfile"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// patience is how long a command may take, and what a test waits for: nothing that is timed, but the end of the wait for what does
// not come. A command takes a tenth of a second where nothing else runs.
const patience = 4 * time.Minute

const passphrase = "correct horse"

// terminal is one user's shell.
type terminal struct {
	t     *testing.T
	dir   string
	env   []string
	stdin string
	// program is what is run instead of the usual build.
	program string
}

func shell(t *testing.T) *terminal {
	return &terminal{t: t, dir: filepath.Join(t.TempDir(), "relay"), env: []string{"RELAY_PASSPHRASE=" + passphrase}}
}

// user is a shell with keys whose file opens fast.
func user(t *testing.T) *terminal {
	t.Helper()
	s := shell(t)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	seed, err := keyfile.NewSeed(strings.NewReader(strings.Repeat(t.Name()+s.dir, 40)[len(s.dir):]))
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&program{getenv: func(string) string { return "" }}).openWith(t.Context(), s.dir, seed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PublishCard(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	err = keyfile.Create(filepath.Join(s.dir, keyFileName), seed, time.Now(), keyfile.Passphrase(passphrase), keyfile.Options{WorkFactor: keyfile.MinWorkFactor})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *terminal) command(ctx context.Context, args ...string) *exec.Cmd {
	program := s.program
	if program == "" {
		program = testnode.Relay(s.t)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"RELAY_DIR=" + s.dir, "HOME=" + filepath.Dir(s.dir), "TZ=UTC"}, s.env...)
	cmd.Stdin = strings.NewReader(s.stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal to ask
	return cmd
}

// types runs a command and returns what it wrote and its exit code.
func (s *terminal) types(args ...string) (out, errs string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience) // cleanups run commands, too
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := s.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// runs is types for a command that has to succeed.
func (s *terminal) runs(args ...string) string {
	s.t.Helper()
	out, errs, code := s.types(args...)
	if code != 0 {
		s.t.Fatalf("relay %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func (s *terminal) json(into any, args ...string) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.runs(append(args, "--json")...)), into); err != nil {
		s.t.Fatalf("relay %s: %v", strings.Join(args, " "), err)
	}
}

func (s *terminal) key() protocol.PublicKey {
	s.t.Helper()
	var id identityResult
	s.json(&id, "id")
	key, err := protocol.ParsePublicKey(id.Bech32)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

// friends are two users with a relay and each other's cards.
func friends(t *testing.T, node *testnode.Node) (alice, bob *terminal) {
	t.Helper()
	alice, bob = user(t), user(t)
	for _, s := range []*terminal{alice, bob} {
		node.Grant(t, s.key())
		s.runs("relays", "add", node.URL)
	}
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	alice.runs("friend", "add", strings.TrimSpace(bob.runs("id", "--link")), "--name", "bob")
	bob.stdin = ""
	return alice, bob
}
