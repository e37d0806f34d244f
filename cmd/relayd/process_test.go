package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relaymarket/internal/testlog"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// command runs relayd and returns its exit code and what it wrote.
func command(t *testing.T, args ...string) result {
	t.Helper()
	var out, errs strings.Builder
	cmd := testnode.Command(t, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func status(t *testing.T, address string) (int, string) {
	t.Helper()
	return statusWith(t, address, "")
}

// statusWith is status of a request with an authorization.
func statusWith(t *testing.T, address, authorization string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	reply, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

// grantLine is a line of relayd grants --json.
type grantLine struct {
	Relay, LastDay, State, Note string
	Stored, QuotaStored         int64
	Moved, QuotaMoved           int64
}

func grants(t *testing.T, args ...string) map[string]grantLine {
	t.Helper()
	got := command(t, append([]string{"grants", "--json"}, args...)...)
	if got.code != 0 {
		t.Fatalf("grants: exit code %d: %s", got.code, got.err)
	}
	all := map[string]grantLine{}
	for line := range strings.Lines(got.out) {
		var g grantLine
		if err := json.Unmarshal([]byte(line), &g); err != nil {
			t.Fatal(err)
		}
		all[g.Relay] = g
	}
	return all
}

// The operator's whole day: init, grants before, while and after the relay runs, a clean end.
func TestOperatorsDay(t *testing.T) {
	dir := testnode.Folder(t)
	ann, bob := testnode.NewKey(t).Public().Bech32(), testnode.NewKey(t).Public().String()

	if got := command(t, "grant", ann, "--dir", dir); got.code != 1 || !strings.Contains(got.err, "run relayd init") {
		t.Errorf("grant without init: exit code %d: %s", got.code, got.err)
	}
	if got := command(t, "init", "--dir", dir); got.code != 0 || !strings.Contains(got.out, "relay1") {
		t.Fatalf("init: exit code %d: %s%s", got.code, got.out, got.err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "relay.key"))
	if err != nil {
		t.Fatal(err)
	}
	if got := command(t, "init", "--dir", dir); got.code != 1 || !strings.Contains(got.err, "exists already") {
		t.Errorf("init again: exit code %d: %s", got.code, got.err)
	}
	if again, err := os.ReadFile(filepath.Join(dir, "relay.key")); err != nil || string(again) != string(key) {
		t.Errorf("the second init changed the key (%v)", err)
	}

	if got := command(t, "grant", ann, "--stored", "2GB", "--until", "2999-01-31", "--note", "Ann", "--dir", dir); got.code != 0 {
		t.Fatalf("grant before serve: %s", got.err)
	}
	p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir})
	if got := command(t, "grant", bob, "--dir", dir); got.code != 0 {
		t.Fatalf("grant while it serves: %s", got.err)
	}
	if got := command(t, "grant", ann, "--moved", "50GB", "--dir", dir); got.code != 0 {
		t.Fatalf("changing a grant: %s", got.err)
	}
	all := grants(t, "--dir", dir)
	if g := all[ann]; len(all) != 2 || g.QuotaStored != 2e9 || g.QuotaMoved != 50e9 || g.LastDay != "2999-01-31" || g.State != "active" || g.Note != "Ann" {
		t.Errorf("grants are %+v", all)
	}
	if got := command(t, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0"); got.code != 1 || !strings.Contains(got.err, "stop that one first") {
		t.Errorf("a second serve in the folder: exit code %d: %s", got.code, got.err)
	}
	if code, body := status(t, p.OperatorURL+"/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := status(t, p.URL+"/metrics"); code == http.StatusOK {
		t.Error("strangers can read /metrics")
	}
	if code := p.Terminate(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, p.Log())
	}
	if got := command(t, "revoke", ann, "--dir", dir); got.code != 0 {
		t.Fatalf("revoke after serve: %s", got.err)
	}
	if all := grants(t, "--dir", dir); all[ann].State != "revoked" {
		t.Errorf("after revoke, grants are %+v", all)
	}
	if got := command(t, "revoke", testnode.NewKey(t).Public().Bech32(), "--dir", dir); got.code != 1 || !strings.Contains(got.err, "has no grant") {
		t.Errorf("revoke of nobody: exit code %d: %s", got.code, got.err)
	}
	if got := command(t, "grant", ann, "--until", "2020-01-01", "--dir", dir); got.code != 2 || !strings.Contains(got.err, "has passed") {
		t.Errorf("a grant until yesterday: exit code %d: %s", got.code, got.err)
	}
}

// A relay that is told to end answers every write that it took, and keeps those.
func TestTerminateLosesNothing(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t)})
	s := newStream(t)
	p.Grant(t, s.sender.Public())
	for range 5 {
		before := len(s.acknowledged())
		group := s.run(context.Background(), p.Key, p.URL, 16)
		waitFor(t, func() bool { return len(s.acknowledged()) > before+50 })
		if code := p.Terminate(); code != 0 {
			t.Fatalf("exit code %d\n%s", code, p.Log())
		}
		group.Wait()
		p.Start()
		found := s.stored(p.Key, p.URL)
		s.checkAcknowledged(found)
		for id := range found {
			if s.acked[id] == nil {
				t.Errorf("%s was stored, and its sender not answered", id)
			}
		}
		s.settle(p.URL)
		s.checkSettled(s.stored(p.Key, p.URL), p.Account(t, s.sender.Public()))
	}
}

// The stream of a listener, which has no end of its own, does not keep a relay from ending.
func TestTerminateEndsListeners(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t), Args: []string{"--shutdown-timeout", "60s"}})
	reader := testnode.NewKey(t)
	e, err := protocol.Sign(reader, p.Key, protocol.TimestampOf(time.Now()), &protocol.Listen{Senders: []protocol.PublicKey{testnode.NewKey(t).Public()}})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := http.Post(p.URL+"/inbox/"+reader.Public().String()+"/listen", "application/json", bytes.NewReader(e.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	first := make([]byte, 1)
	if _, err := reply.Body.Read(first); err != nil || reply.StatusCode != http.StatusOK {
		t.Fatalf("listen: %s %v", reply.Status, err)
	}
	began := time.Now()
	if code := p.Terminate(); code != 0 || time.Since(began) > 45*time.Second { // of the 60 that it may wait
		t.Errorf("exit code %d after %s\n%s", code, time.Since(began), p.Log())
	}
	if _, err := io.ReadAll(reply.Body); err != nil {
		t.Errorf("the listener's stream was cut, not ended: %v", err)
	}
}

// A request that hangs holds the end up only until somebody insists.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t), Args: []string{"--shutdown-timeout", "60s", "--body-timeout", "60s"}})
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// A request that is accepted and never completes.
	if _, err := io.WriteString(conn, "POST /inbox/"+p.Key.String()+"/got HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		_, body := status(t, p.OperatorURL+"/metrics")
		return strings.Contains(body, "\nrelaymarket_api_body_bytes ") && !strings.Contains(body, "\nrelaymarket_api_body_bytes 0\n")
	})
	p.Signal(syscall.SIGTERM)
	waitFor(t, func() bool { return strings.Contains(p.Log(), "relay ending") })
	if code, body := status(t, p.OperatorURL+"/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz of a relay that is ending: %d %s", code, body)
	}
	began := time.Now()
	if code := p.Terminate(); code == 0 || time.Since(began) > 45*time.Second { // of the 60 that it may wait
		t.Errorf("exit code %d, %s after the second signal", code, time.Since(began))
	}
}

// waitFor fails the test if the condition does not become true.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	open := testnode.Folder(t)
	if got := command(t, "init", "--dir", open); got.code != 0 {
		t.Fatal(got.err)
	}
	if err := os.Chmod(filepath.Join(open, "relay.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := testnode.Folder(t)
	if got := command(t, "init", "--dir", broken); got.code != 0 {
		t.Fatal(got.err)
	}
	if err := os.WriteFile(filepath.Join(broken, "relay.key"), []byte("00ff\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	free := []string{"--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0"}
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"port in use":            {[]string{"--dir", dir, "--listen", taken.Addr().String(), "--operator-listen", "127.0.0.1:0"}, 1, "choose another address with --listen"},
		"operator's port in use": {[]string{"--dir", dir, "--listen", "127.0.0.1:0", "--operator-listen", taken.Addr().String()}, 1, "choose another address with --operator-listen"},
		"NATS port in use":       {append([]string{"--dir", dir, "--nats-listen", taken.Addr().String()}, free...), 1, "choose another address with --nats-listen"},
		"no NATS credentials":    {append([]string{"--dir", dir, "--nats", "nats://127.0.0.1:1", "--nats-credentials", "/nowhere"}, free...), 1, "NATS credentials in /nowhere"},
		"not this machine's":     {[]string{"--dir", dir, "--listen", "192.0.2.1:1", "--operator-listen", "127.0.0.1:0"}, 1, "cannot listen on 192.0.2.1:1"},
		"not set up":             {append([]string{"--dir", testnode.Folder(t)}, free...), 1, "run relayd init --dir"},
		"key readable":           {append([]string{"--dir", open}, free...), 1, "chmod 600"},
		"key broken":             {append([]string{"--dir", broken}, free...), 1, "restore it from your copy"},
		"database down":          {append([]string{"--dir", dir, "--database-url", "postgres://" + taken.Addr().String() + "/x?connect_timeout=1"}, free...), 1, "see that Postgres runs"},
		"database refuses":       {append([]string{"--dir", dir, "--database-url", "postgres://127.0.0.1:1/x"}, free...), 1, "see that Postgres runs"},
		"no URL":                 {append([]string{"--dir", dir, "--database-url", "postgres://%"}, free...), 1, "database URL"},
		"no Postgres":            {append([]string{"--dir", dir, "--postgres-bin", "/nowhere"}, free...), 1, "/nowhere"},
		"an argument":            {append([]string{"now"}, free...), 2, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			got := command(t, append([]string{"serve"}, test.args...)...)
			if got.code != test.code || !strings.Contains(got.err, test.says) || got.out != "" {
				t.Errorf("exit code %d, it says %q and %q; want %d and %q", got.code, got.err, got.out, test.code, test.says)
			}
		})
	}
}

// As root, the private cluster belongs to an unprivileged user: where that one can get to the folder the cluster
// stands in it, else elsewhere.
func TestFoldersOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root") // skipped there, it would be skipped for ever
		}
		t.Skip("this is about root")
	}
	for _, mode := range []os.FileMode{0o700, 0o711} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := testnode.Folder(t)
			if err := os.Chmod(filepath.Dir(dir), mode); err != nil {
				t.Fatal(err)
			}
			p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir})
			s := newStream(t)
			p.Grant(t, s.sender.Public())
			e, id := s.sign(p.Key)
			if err := s.put(p.URL, e, id); err != nil {
				t.Error(err)
			}
			_, err := os.Stat(filepath.Join(dir, "db", "location"))
			if moved := err == nil; moved != (mode == 0o700) {
				t.Errorf("the cluster stands elsewhere: %t", moved)
			}
			if code := p.Terminate(); code != 0 {
				t.Errorf("exit code %d\n%s", code, p.Log())
			}
			p.Start()
			s.checkSettled(s.stored(p.Key, p.URL), p.Account(t, s.sender.Public()))
		})
	}
}

// A private Postgres that ends by itself takes the relay with it: whoever supervises relayd starts both again.
func TestPrivateDatabaseDies(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{})
	file, err := os.ReadFile(filepath.Join(p.Dir, "db", "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(file), "\n")
	if out, err := exec.Command("kill", "-QUIT", pid).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code := p.Wait(); code != 1 || !strings.Contains(p.Log(), "the private database ended by itself") {
		t.Errorf("exit code %d\n%s", code, p.Log())
	}
	p.Start()
}

func TestReadyLine(t *testing.T) {
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	cmd := testnode.Command(t, "serve", "--dir", dir, "--listen", ":0", "--operator-listen", "127.0.0.1:0", "--database-url", testpg.New(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "relayd ready on http://127.0.0.1:") || !strings.Contains(string(line[:n]), " as relay1") {
		t.Errorf("it says %q (%v)", line[:n], err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || len(rest) > 0 {
		t.Errorf("it says more: %q (%v)", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

// A relay that is told to end while it makes its database ends cleanly, and starts the next time.
func TestTerminateWhileStarting(t *testing.T) {
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	for _, after := range []time.Duration{20, 250, 850} {
		log := &testlog.Log{}
		cmd := testnode.Command(t, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0")
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return strings.Contains(log.String(), "relay starting") }) // before that, a signal ends it like any program
		time.Sleep(after * time.Millisecond)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("told to end after %d ms: %v\n%s", after, err, log)
		}
	}
	testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir})
}

// After restored, cursors from before are refused, so that a reader who is ahead of the backup misses nothing.
func TestRestored(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{})
	s := newStream(t)
	p.Grant(t, s.sender.Public())
	e, id := s.sign(p.Key)
	if err := s.put(p.URL, e, id); err != nil {
		t.Fatal(err)
	}
	before := s.cursor(p.Key, p.URL)
	if got := command(t, "restored", "--dir", p.Dir); got.code != 1 || !strings.Contains(got.err, "stop that one first") {
		t.Errorf("restored while it serves: exit code %d: %s", got.code, got.err)
	}
	if code := p.Terminate(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.Log())
	}
	if got := command(t, "restored", "--dir", p.Dir); got.code != 0 {
		t.Fatalf("restored: exit code %d: %s", got.code, got.err)
	}
	p.Start()
	epoch, n, _ := strings.Cut(before, ".")
	if epochNow, nNow, _ := strings.Cut(s.cursor(p.Key, p.URL), "."); epochNow == epoch || nNow != n {
		t.Errorf("the cursor was %s and is %s.%s", before, epochNow, nNow)
	}
	s.checkSettled(s.stored(p.Key, p.URL), p.Account(t, s.sender.Public()))
}
