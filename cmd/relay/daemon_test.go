package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/daemon"
	"relaymarket/client/daemon/localapi"
	"relaymarket/internal/testlog"
	"relaymarket/internal/testnode"
)

// stays is a user's daemon, in a process of its own.
type stays struct {
	cmd  *exec.Cmd
	log  *testlog.Log
	done chan error
}

// starts a user's daemon and returns when it serves. It ends with the test.
func (s *terminal) starts(args ...string) *stays {
	s.t.Helper()
	d := &stays{cmd: s.command(context.WithoutCancel(s.t.Context()), append([]string{"daemon", "--log", "json"}, args...)...), log: &testlog.Log{}, done: make(chan error, 1)}
	errs, err := d.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { d.ends(syscall.SIGKILL) })
	serves := make(chan struct{})
	go func() {
		lines, told := bufio.NewScanner(errs), false
		for lines.Scan() {
			fmt.Fprintln(d.log, lines.Text())
			if !told && strings.Contains(lines.Text(), `"msg":"the daemon runs"`) {
				close(serves)
				told = true
			}
		}
		d.done <- d.cmd.Wait()
	}()
	select {
	case <-serves:
	case err := <-d.done:
		d.done <- err
		s.t.Fatalf("the daemon did not start: %v\n%s", err, d.log)
	case <-time.After(patience):
		s.t.Fatalf("the daemon does not start\n%s", d.log)
	}
	return d
}

// ends sends a signal and waits for the end, which it returns.
func (d *stays) ends(by syscall.Signal) error {
	_ = d.cmd.Process.Signal(by) // an ended one is one that ends
	err := <-d.done
	d.done <- err
	return err
}

// without is the same user with nothing but his daemon to open his keys: what works is the daemon's work.
func (s *terminal) without() *terminal {
	locked := *s
	locked.env = []string{"RELAY_PASSPHRASE=wrong"}
	return &locked
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// The same words get the same answers with a daemon and without, text and JSON, done and failed, to the byte.
func TestSameThroughDaemon(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	alice.runs("send", "bob", "one\nwith two lines")
	alice.runs("send", "bob", "two", "--tag", "word")
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "film.bin"), bytes.Repeat([]byte("film"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	alice.runs("send", "--file", filepath.Join(folder, "film.bin"), "bob")
	bob.runs("send", "alice", "from bob")
	bob.runs("inbox")
	bob.starts("--poll", "1h", "--heal", "1h")
	locked := bob.without()
	eventually(t, "bob's daemon listens", func() bool {
		var s localapi.Status
		locked.json(&s, "daemon", "status")
		polled := slices.ContainsFunc(s.Tasks, func(t localapi.Task) bool { return t.Name == "poll" && t.Last != nil })
		return len(s.Relays) == 1 && s.Relays[0].Listening && polled
	})
	changing := regexp.MustCompile(`"(checked|changed|read|received)": "[^"]*"|"time": [0-9]+|[0-9a-f]{8}-[0-9a-f-]{27}`)
	for _, args := range [][]string{
		{"inbox"}, {"inbox", "--all"}, {"inbox", "--offline", "--limit", "1"}, {"inbox", "--limit", "-1"}, {"inbox", "extra"},
		{"read", "latest"}, {"read", "nothing-like-it"}, {"read", "latest", "--raw"},
		{"outbox"}, {"outbox", "nothing-like-it"}, {"outbox", "--limit", "x"},
		{"friend", "list"}, {"friend", "ls"}, {"friend", "rm", "nobody"}, {"friend", "add", "no-such-file"}, {"friend", "add"},
		{"relays"}, {"relays", "list"}, {"relays", "rm", "http://127.0.0.1:1"}, {"relays", "add", "::"},
		{"friend", "show", "alice"}, {"admit", "list"}, {"admit", "nobody"}, {"account"}, {"account", "nowhere"}, {"heal"}, {"get"}, {"get", "nothing-like-it"},
		{"send", "nobody", "hello"}, {"send", "alice"}, {"send", "alice", ""}, {"send", "alice", "x", "--ttl", "1"},
		{"send", "alice", "x", "--copies", "9"}, {"send", "--resume"}, {"send", "--file", "no-such-file", "alice"}, {"send", "--file", ".", "alice"},
		{"rm", "nothing-like-it"}, {"heal", "--no-such-flag"},
	} {
		for _, json := range []bool{false, true} {
			if json {
				args = append(args, "--json")
			}
			out, errs, code := locked.types(args...)
			direct, directErrs, directCode := bob.types(append(args, "--no-daemon")...)
			out, direct = changing.ReplaceAllString(out, "…"), changing.ReplaceAllString(direct, "…")
			if out != direct || errs != directErrs || code != directCode {
				t.Errorf("relay %s:\nexit %d with a daemon, %d without\n%s%s--- without\n%s%s", strings.Join(args, " "), code, directCode, out, errs, direct, directErrs)
			}
		}
	}

	// What changes something, once each way.
	sent := regexp.MustCompile(`^Sent [0-9a-f]{8}: stored on 1 relay\.\n$`)
	for _, s := range []*terminal{locked, bob} {
		if out := s.runs("send", "alice", "hello"); !sent.MatchString(out) {
			t.Errorf("send says %q", out)
		}
	}
	locked.stdin = "from a pipe"
	locked.runs("send", "alice", "-")
	locked.stdin = ""
	if out := alice.runs("inbox"); strings.Count(out, "hello") != 2 || !strings.Contains(out, "from a pipe") {
		t.Errorf("alice has\n%s", out)
	}
	// Names of files are those of the folder where the command was typed.
	get := locked.command(t.Context(), "get", "latest", "--out", "here.bin")
	get.Dir = folder
	if out, err := get.CombinedOutput(); err != nil || string(out) != "alice calls it film.bin.\nGot "+filepath.Join(folder, "here.bin")+", 4.0 kB.\n" {
		t.Errorf("get says %s, %v", out, err)
	}
	if data, err := os.ReadFile(filepath.Join(folder, "here.bin")); err != nil || len(data) != 4000 {
		t.Errorf("%d bytes came, %v", len(data), err)
	}
	put := locked.command(t.Context(), "send", "--file", "here.bin", "alice")
	put.Dir = folder
	if out, err := put.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "Sent here.bin to alice") {
		t.Errorf("send --file says %s, %v", out, err)
	}
	// What JSON cannot say is not the daemon's business: it would send another file, or look in another folder.
	if named := filepath.Join(folder, "ferien-k\xf6ln.bin"); os.WriteFile(named, []byte("film"), 0o600) == nil && os.Mkdir(filepath.Join(folder, "\xe4"), 0o700) == nil {
		if _, errs, code := locked.types("send", "--file", named, "alice"); code != exitFailed || !strings.Contains(errs, "wrong passphrase") {
			t.Errorf("a name that is not UTF-8: exit %d, %s", code, errs)
		}
		get := locked.command(t.Context(), "get", "latest")
		get.Dir = filepath.Join(folder, "\xe4")
		get.Env = append(get.Env, "PWD="+get.Dir)
		if out, err := get.CombinedOutput(); err == nil || !strings.Contains(string(out), "wrong passphrase") {
			t.Errorf("in a folder whose name is not UTF-8: %v, %s", err, out)
		}
	}
	// Another proxy, or a wish to see what is done, is not the daemon's business.
	for _, args := range [][]string{{"inbox", "--proxy", "socks5://127.0.0.1:1"}, {"inbox", "-v"}, {"inbox", "--no-daemon"}} {
		if _, errs, code := locked.types(args...); code != exitFailed || !strings.Contains(errs, "wrong passphrase") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
}

// A daemon's life: one a folder; told at once what comes; killed, and nothing is lost; ended, and those who listen through it are told.
func TestDaemon(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := friends(t, node)
	if _, errs, code := bob.types("daemon", "status"); code != exitNothing || !strings.Contains(errs, "relay daemon install") {
		t.Errorf("status of none: exit %d, %s", code, errs)
	}
	locked := bob.without()
	locked.env = nil
	if _, errs, code := locked.types("daemon"); code != exitLocked || !strings.Contains(errs, "relay unlock") {
		t.Errorf("locked: exit %d, %s", code, errs)
	}
	first := bob.starts("--poll", "1h")
	if _, errs, code := bob.types("daemon"); code != exitFailed || !strings.Contains(errs, fmt.Sprint("process ", first.cmd.Process.Pid)) {
		t.Errorf("a second one: exit %d, %s", code, errs)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	listen := locked.command(ctx, "listen", "--json")
	out, err := listen.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := &testlog.Log{}
	listen.Stderr = errs
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() (line struct {
		Relay   *relayLine
		Message *messageLine
	}) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the listener ended: %v, %s", lines.Err(), errs.String())
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	}
	if line := next(); line.Relay == nil || line.Relay.Address != node.URL || line.Relay.Error != nil {
		t.Fatalf("%+v", line)
	}
	alice.runs("send", "bob", "pushed")
	if line := next(); line.Message == nil || *line.Message.Text != "pushed" { // within the hour that is between two polls
		t.Fatalf("%+v", line)
	}
	if out := locked.runs("inbox", "--offline", "--no-daemon"); !strings.Contains(out, "pushed") {
		t.Errorf("in the folder: %s", out)
	}

	if err := errors.Join(listen.Process.Signal(syscall.SIGINT), listen.Wait()); err != nil {
		t.Errorf("the listener, after Ctrl-C: %v, %s", err, errs.String())
	}

	// The daemon's end ends those who listen through it, and tells them, also when it is killed.
	listens := func() (*exec.Cmd, *testlog.Log) {
		errs := &testlog.Log{}
		cmd := locked.command(t.Context(), "listen")
		cmd.Stderr = errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it listens", func() bool { return strings.Contains(errs.String(), "Listening on") })
		return cmd, errs
	}
	listener, said := listens()
	locked.runs("daemon", "stop")
	if err := listener.Wait(); err == nil || !strings.Contains(said.String(), errStopped.Error()) {
		t.Errorf("the listener of a stopped one: %v, %s", err, said)
	}
	if err := first.ends(syscall.SIGTERM); err != nil {
		t.Errorf("stopped, it ended with: %v\n%s", err, first.log)
	}
	second := bob.starts("--poll", "1h")
	listener, said = listens()

	// Killed while a message waits: the next one sends it.
	node.Stop()
	if _, errs, code := locked.types("send", "alice", "survives", "--patience", "3s"); code != exitFailed || !strings.Contains(errs, client.ErrNotStored.Error()) {
		t.Errorf("send: exit %d, %s", code, errs)
	}
	_ = second.ends(syscall.SIGKILL)
	if err := listener.Wait(); err == nil || !strings.Contains(said.String(), daemon.ErrCut.Error()) {
		t.Errorf("the listener of a killed one: %v, %s", err, said)
	}
	if _, errs, code := bob.types("daemon", "stop"); code != exitNothing {
		t.Errorf("stop of a killed one: exit %d, %s", code, errs)
	}
	if out := bob.runs("friend", "list"); !strings.Contains(out, "alice") {
		t.Errorf("beside a killed one: %s", out)
	}
	node.Restart()
	third := bob.starts("--poll", "1h")
	eventually(t, "what waits is sent", func() bool {
		var s localapi.Status
		locked.json(&s, "daemon", "status")
		return s.Waiting == 0
	})
	if out := alice.runs("inbox"); strings.Count(out, "survives") != 1 {
		t.Errorf("alice has %s", out)
	}
	if err := third.ends(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, third.log)
	}
	for line := range strings.Lines(third.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("the log has %s", line)
		}
	}
}

// A daemon that waits for the passphrase has it from relay unlock.
func TestDaemonWaits(t *testing.T) {
	bob := user(t)
	bob.env = nil
	early := make(chan error, 1)
	cmd := bob.command(t.Context(), "daemon", "--wait")
	errs := &testlog.Log{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { early <- cmd.Wait() }()
	eventually(t, "it waits", func() bool { return strings.Contains(errs.String(), "waiting for relay unlock") })
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bob.types("lock") })
	bob.runs("unlock", "--for", "1h", "--passphrase-file", file)
	eventually(t, "it runs", func() bool { _, _, code := bob.types("daemon", "status"); return code == 0 })
	if _, errs, _ := bob.types("lock"); !strings.Contains(errs, "relay daemon stop") {
		t.Errorf("lock says %s", errs)
	}
	bob.runs("daemon", "stop")
	if err := <-early; err != nil {
		t.Errorf("it ended with: %v, %s", err, errs)
	}
}

func TestDaemonInstall(t *testing.T) {
	bob := user(t)
	unit := bob.runs("daemon", "unit", "--poll", "1m")
	if out := bob.runs("daemon", "install", "--poll", "1m"); !strings.Contains(out, "systemctl --user enable --now relay") || !strings.Contains(out, "relay unlock") {
		t.Errorf("install says %s", out)
	}
	path := filepath.Join(filepath.Dir(bob.dir), ".config", "systemd", "user", "relay.service")
	if data, err := os.ReadFile(path); err != nil || string(data) != unit || !strings.Contains(unit, `"--poll" "1m0s"`) || !strings.Contains(unit, `"--wait"`) {
		t.Errorf("%v, %s", err, data)
	}
	bob.runs("daemon", "install") // again is fine
	if err := os.WriteFile(path, []byte("[Unit]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := bob.types("daemon", "install"); code != exitFailed || !strings.Contains(errs, "not from this program") {
		t.Errorf("over another: exit %d, %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(bob.dir, "daemon")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left %v", err)
	}
}

// A daemon audits what was used and pays it as the policy says, with nobody looking.
func TestDaemonPays(t *testing.T) {
	bitcoin, node, alice := market(t)
	id := alice.opens(bitcoin, node).ID
	contract, err := contractID(id)
	if err != nil {
		t.Fatal(err)
	}
	bitcoin.Mine(6) // full credit
	node.Follows(t, bitcoin)
	alice.runs("relays", "add", node.URL)
	bob := user(t)
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	alice.stdin = bob.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "bob")
	alice.runs("contract", "policy", "--pay", "auto", "--limit", "50000", "--cushion", "0")
	alice.stdin = strings.Repeat("traffic of a day ", 20_000)
	alice.runs("send", "bob", "--ttl", "1h", "-")
	alice.stdin = ""
	bob.runs("inbox")
	node.Posted(t, contract)
	before := alice.contract(id).Paid
	stays := alice.starts("--poll", "1h", "--heal", "1h")
	eventually(t, "the daemon pays", func() bool { return alice.contract(id).Paid > before })
	eventually(t, "it says so", func() bool { return strings.Contains(stays.log.String(), "audited") })
	alice.runs("daemon", "stop")
	if err := stays.ends(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon: %v\n%s", err, stays.log)
	}
}
