package nodeclient

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/publisher"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testhub"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

const patience = 5 * time.Minute

// sources are what runs in Node.
func sources(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.mjs")
	if err != nil || len(files) == 0 {
		t.Fatalf("no program: %v", err)
	}
	return append(files, "package.json", "package-lock.json")
}

// installed is a folder with the client and what it needs, from the lock file. Without Node it skips the test, except in CI; without
// npm's registry it skips it there, too, and says so: nothing in this repository could mend that.
func installed(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v: run make setup", err)
			}
			t.Skipf("%v: scripts/setup.sh test installs it", err)
		}
	}
	folder := t.TempDir()
	for _, file := range sources(t) {
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, file), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel", "error")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		for _, away := range []string{"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT", "EIDLETIMEOUT",
			"ENETUNREACH", "EHOSTUNREACH", "socket hang up", "E403", "E407", "E429", "E500", "E502", "E503", "E504"} {
			if strings.Contains(string(out), away) || ctx.Err() != nil {
				t.Skipf("the client in Node is NOT TESTED: npm does not reach its registry\n%s", out)
			}
		}
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return folder
}

// said is a line of the client.
type said struct {
	Taken     *bool
	Relay     string
	Seq       int64
	Address   string
	Hash      string
	Reason    string
	Subject   string
	Book      *int
	Publish   string
	Subscribe string
	Refused   *string
}

// process is the client at work.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	errs  bytes.Buffer
}

func node(t *testing.T, folder string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	p := &process{t: t, cmd: exec.CommandContext(ctx, "node", args...)}
	p.cmd.Dir, p.cmd.Stderr = folder, &p.errs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// next is the next line; false at the end.
func (p *process) next() (line said, ok bool) {
	p.t.Helper()
	if !p.lines.Scan() {
		return line, false
	}
	p.t.Logf("node: %s", p.lines.Bytes())
	if err := json.Unmarshal(p.lines.Bytes(), &line); err != nil {
		p.t.Fatalf("the client says %q: %v", p.lines.Text(), err)
	}
	return line, true
}

// ends reads the rest; the client has to be content.
func (p *process) ends() (rest []said) {
	p.t.Helper()
	for {
		line, ok := p.next()
		if !ok {
			break
		}
		rest = append(rest, line)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("node %v: %v\n%s", p.cmd.Args, err, p.errs.String())
	}
	return rest
}

// relay announces.
type relay struct {
	*protocol.PrivateKey
	host string
}

func newRelay(t *testing.T, host string) relay {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return relay{key, host}
}

func (r relay) words(seq int64) *protocol.Announcement {
	return &protocol.Announcement{Addresses: []string{"https://" + r.host}, Network: testhub.Network,
		Terms: []protocol.Terms{{Type: "contract", Payment: true, Contact: "böse \"Zeichen\" \u2028\x1f 😀"},
			{Type: "volunteer", Topic: "weather", Ads: true, StoredBytes: 1_000_000, Days: 30}, {Type: "of the future"}}, Notice: "eat more cake", Limits: protocol.Limits{RecordBytes: 1 << 20},
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: 2000, OpeningPrice: 5000}, Hubs: []string{"tls://hub.example:4222", "https://[2001:db8::1]:8443"},
		Seq: seq, ValidUntil: protocol.TimestampOf(time.Now()).Add(time.Hour)}
}

func (r relay) says(t *testing.T, seq int64) *protocol.Envelope {
	t.Helper()
	e, err := broadcast.Prover{}.Announce(t.Context(), r.PrivateKey, protocol.TimestampOf(time.Now()), r.words(seq), 8)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// lie is an announcement that has to be refused for this reason: one whose request is changed, with true work and signature, or
// another fault.
func (r relay) lie(t *testing.T, reason, from, to string) []byte {
	t.Helper()
	words, at := r.words(1), protocol.TimestampOf(time.Now())
	switch reason {
	case "malformed":
		return append(bytes.Clone(r.says(t, 1).Bytes()), '\n')
	case "no_work":
		return bytes.Replace(r.says(t, 1).Bytes(), []byte(`"seq":1`), []byte(`"seq":2`), 1)
	case "little":
		e, err := broadcast.Prover{}.Announce(t.Context(), r.PrivateKey, at, words, 7)
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	case "expired":
		words.ValidUntil = at.Add(-time.Minute)
	case "future":
		words.ValidUntil = at.Add(broadcast.MaxValidity + time.Minute)
	}
	return testhub.Forge(t, r.PrivateKey, r.Public(), at, words, func(request string) string {
		if !strings.Contains(request, from) {
			t.Fatalf("%s is not in %s", from, request)
		}
		return strings.Replace(request, from, to, 1)
	})
}

func TestNodeKnowsTheVectors(t *testing.T) {
	folder := installed(t)
	vectors, err := filepath.Abs(filepath.Join("..", "..", "protocol", "testdata", "vectors"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := node(t, folder, "vectors.mjs", vectors).ends(); len(lines) != 8 {
		t.Errorf("%d files of vectors were judged, or some otherwise than there: %+v", len(lines), lines)
	}
}

// The client reads the book of a hub over NATS, with the hashes that relays rely on, hears of a change, and finds the same over HTTP.
func TestNodeReadsTheBook(t *testing.T) {
	folder := installed(t)
	hub := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Market = relaynode.Market{Network: testhub.Network, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
	}})
	to, err := publisher.Dial(t.Context(), testhub.Network, hub.HubURL, feed.Access{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	announce := func(e *protocol.Envelope) {
		t.Helper()
		testhub.Wait(t, "the hub takes it", func() bool {
			receipt, err := to.Announce(t.Context(), e.Bytes())
			return err == nil && receipt.Taken
		})
	}
	want := map[string]string{} // hash by address
	first := newRelay(t, "relay0.example")
	for i, r := range []relay{first, newRelay(t, "relay1.example"), newRelay(t, "relay2.example")} {
		e := r.says(t, int64(i+1))
		announce(e)
		want["https://"+r.host] = e.Hash().String()
	}
	testhub.Wait(t, "the hub is in its own book", func() bool {
		book := map[string]string{}
		for _, line := range node(t, folder, "market.mjs", "--network", "regtest", hub.URL).ends() {
			if line.Taken != nil && *line.Taken {
				book[line.Address] = line.Hash
			}
		}
		return len(book) == len(want)+1 && contains(book, want)
	})
	p := node(t, folder, "market.mjs", "--network", "regtest", "--changes", "1", hub.HubURL)
	book := map[string]string{}
	for line, ok := p.next(); ok && line.Book == nil; line, ok = p.next() {
		book[line.Address] = line.Hash
	}
	if len(book) != len(want)+1 || !contains(book, want) {
		t.Fatalf("over NATS the book is %v", book)
	}
	change := first.says(t, 7)
	announce(change)
	if rest := p.ends(); len(rest) != 1 || rest[0].Seq != 7 || rest[0].Hash != change.Hash().String() {
		t.Errorf("of the change it says %+v", rest)
	}
}

func contains(book, want map[string]string) bool {
	for address, hash := range want {
		if book[address] != hash {
			return false
		}
	}
	return true
}

// A hub that lies is not believed: each announcement is refused for what is wrong with it, and the true one is taken.
func TestNodeBelievesNoHub(t *testing.T) {
	folder := installed(t)
	hub := testhub.Start(t, testhub.NewClock())
	server, err := hub.Server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	honest := newRelay(t, "honest.example")
	if receipt := hub.Send(hub.Stranger(), honest.says(t, 3).Bytes()); !receipt.Taken {
		t.Fatalf("%+v", receipt)
	}
	want := map[string]string{} // reason by subject
	lie := func(reason string, r relay, data []byte) {
		t.Helper()
		subject := broadcast.AnnounceSubject(testhub.Network, r.Public())
		if err := server.Publish(subject, data); err != nil {
			t.Fatal(err)
		}
		want[subject] = reason
	}
	r := newRelay(t, "liar.example")
	good := r.says(t, 1).Bytes()
	lie("signature", r, append(bytes.Clone(good[:len(good)-8]), `000000"}`...))
	lie("subject", newRelay(t, "posing.example"), good)
	for _, c := range []struct{ reason, from, to string }{
		{"invalid", `"storageMsatPerGBDay":2000`, `"storageMsatPerGBDay":-2000`},
		{"invalid", `"topic":"weather"`, `"topic":"the weather"`},
		{"invalid", `"storedBytes":1000000`, `"storedBytes":-1000000`},
		{"network", `"network":"regtest"`, `"network":"mainnet"`},
		{"address", `"addresses":["https://liar.example"]`, `"addresses":[]`},
		{"future", `"hubs":`, `"hubs":`},
		{"expired", `"hubs":`, `"hubs":`},
		{"malformed", "", ""},
		{"no_work", "", ""},
		{"little", "", ""},
	} {
		liar := newRelay(t, "liar.example")
		lie(c.reason, liar, liar.lie(t, c.reason, c.from, c.to))
	}
	if err := server.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, line := range node(t, folder, "market.mjs", "--network", "regtest", hub.URL()).ends() {
		switch {
		case line.Taken == nil:
		case *line.Taken:
			taken++
			if line.Relay != honest.Public().String() {
				t.Errorf("it believes %+v", line)
			}
		case want[line.Subject] != line.Reason:
			t.Errorf("%s is refused for %s, wrong is %s", line.Subject, line.Reason, want[line.Subject])
		default:
			delete(want, line.Subject)
		}
	}
	if taken != 1 || len(want) != 0 {
		t.Errorf("%d are believed, and nothing was heard of %v", taken, want)
	}
}

// What a stranger may not do is refused to this client, too.
func TestNodeHasAStrangersRights(t *testing.T) {
	folder := installed(t)
	hub := testhub.Start(t, testhub.NewClock())
	lines := node(t, folder, "market.mjs", "--network", "regtest", "--rights", hub.URL()).ends()
	if len(lines) != 9 {
		t.Errorf("%d were tried", len(lines))
	}
	for _, line := range lines {
		if line.Refused == nil || !strings.Contains(strings.ToLower(*line.Refused), "permissions violation") {
			t.Errorf("%s%s is allowed", line.Publish, line.Subscribe)
		}
	}
}
