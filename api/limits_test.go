package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"relaymarket/protocol"
	"relaymarket/records"
)

func codeOf(t *testing.T, a answer) protocol.Code {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return p.Code
}

// TestForgedSignerLocksNobodyOut: requests that only pretend to be by a key count against their address,
// never against the key.
func TestForgedSignerLocksNobodyOut(t *testing.T) {
	g := newRig(t, func(c *Config) {
		c.Rates = Rates{Address: Rate{PerSecond: 1e-3, Burst: 5}, Key: Rate{PerSecond: 1e-3, Burst: 2}, Tracked: 10}
		c.TrustProxy = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	alice, mallory := newKey(t), newKey(t)
	account := func(key *protocol.PrivateKey, from string, forged bool) answer {
		e := g.sign(key, g.key.Public(), &protocol.Targeted{Type: protocol.TypeAccount, Target: "GET /account"})
		header := e.Authorization()
		if forged {
			raw := strings.Replace(string(e.Bytes()), key.Public().String(), alice.Public().String(), 1)
			f, err := protocol.ParseEnvelope([]byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			header = f.Authorization()
		}
		return g.send("GET", "/account", "", "", "Authorization", header, "X-Forwarded-For", from)
	}
	for i := range 8 {
		want := protocol.CodeBadSignature
		if i >= 5 {
			want = protocol.CodeRateAddress
		}
		a := account(mallory, "203.0.113.9", true)
		if got := codeOf(t, a); got != want {
			t.Errorf("forgery %d: %s, want %s", i, got, want)
		}
		if want == protocol.CodeRateAddress && a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	for i, want := range []protocol.Code{protocol.CodeNoAccount, protocol.CodeNoAccount, protocol.CodeRateKey} {
		if got := codeOf(t, account(alice, "203.0.113.77", false)); got != want {
			t.Errorf("owner's request %d: %s, want %s", i, got, want)
		}
	}
	// One IPv6 subscriber has a /64 of addresses.
	for i, host := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6"} {
		want := protocol.CodeBadSignature
		if i == 5 {
			want = protocol.CodeRateAddress
		}
		if got := codeOf(t, account(mallory, host, true)); got != want {
			t.Errorf("from %s: %s, want %s", host, got, want)
		}
	}
	if n := testutil.ToFloat64(g.server.metrics.dropped.WithLabelValues(string(dropRateAddress))); n != 4 {
		t.Errorf("%v dropped for their address, want 4", n)
	}
}

// TestReplayedCardLocksNobodyOut: a card may be sent by anybody, so it must not use up its owner's rate.
func TestReplayedCardLocksNobodyOut(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Rates.Key = Rate{PerSecond: 1e-3, Burst: 1} })
	alice := newKey(t)
	g.grant(alice)
	card := g.sign(alice, alice.Public(), &protocol.Identity{Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{{Suite: 200, Key: "AAAA"}}})
	for range 3 {
		if a := g.put("/"+alice.Public().String()+"/card", card); a.status != http.StatusNoContent {
			t.Fatalf("card: %d %s", a.status, a.body)
		}
	}
	if a := g.signed(alice, "GET", "/account", protocol.TypeAccount); a.status != http.StatusOK {
		t.Errorf("account: %d %s", a.status, a.body)
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(Rate{PerSecond: 2, Burst: 3}, 2)
	now := time.Now()
	a, b, c := [32]byte{1}, [32]byte{2}, [32]byte{3}
	for range 3 {
		if wait := l.take(a, 1, now); wait != 0 {
			t.Fatalf("wait %s within the burst", wait)
		}
	}
	if wait := l.take(a, 1, now); wait != 500*time.Millisecond {
		t.Errorf("wait %s, want 500ms", wait)
	}
	if wait := l.take(a, 1, now.Add(500*time.Millisecond)); wait != 0 {
		t.Errorf("wait %s after the wait", wait)
	}
	l.take(b, 9, now) // more than the burst counts as the burst
	if wait := l.take(b, 1, now); wait == 0 {
		t.Error("the burst was not used")
	}
	l.take(c, 1, now)
	if len(l.names) != 2 || l.order.Len() != 2 || l.names[a] != nil {
		t.Errorf("%d names tracked, the oldest still: %v", len(l.names), l.names[a] != nil)
	}
	if none := newLimiter(Rate{}, 1); none.take(a, 100, now) != 0 {
		t.Error("zero is not unlimited")
	}
}

func TestClientAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, test := range map[string]struct {
		peer, xff, forwarded, want string
	}{
		"no proxy":                 {"203.0.113.1:5", "", "", "203.0.113.1"},
		"stranger sets the header": {"203.0.113.1:5", "198.51.100.1", "", "203.0.113.1"},
		"stranger sets Forwarded":  {"203.0.113.1:5", "", "for=198.51.100.1", "203.0.113.1"},
		"proxy":                    {"10.0.0.1:5", "198.51.100.1", "", "198.51.100.1"},
		"client wrote the left":    {"10.0.0.1:5", "1.2.3.4, 198.51.100.1", "", "198.51.100.1"},
		"two proxies":              {"10.0.0.1:5", "1.2.3.4, 198.51.100.1, 10.0.0.2", "", "198.51.100.1"},
		"only proxies":             {"10.0.0.1:5", "10.0.0.3, 10.0.0.2", "", "10.0.0.3"},
		"garbage":                  {"10.0.0.1:5", "198.51.100.1, unknown", "", "10.0.0.1"},
		"garbage behind a proxy":   {"10.0.0.1:5", "unknown, 10.0.0.2", "", "10.0.0.2"},
		"no header":                {"10.0.0.1:5", "", "", "10.0.0.1"},
		"Forwarded":                {"10.0.0.1:5", "", `for=1.2.3.4, proto=https;For="[2001:db8::1]:99"`, "2001:db8::1"},
		"Forwarded without for":    {"10.0.0.1:5", "", "proto=https", "10.0.0.1"},
		"both agree":               {"10.0.0.1:5", "198.51.100.1", "for=198.51.100.1", "198.51.100.1"},
		"both differ":              {"10.0.0.1:5", "198.51.100.1", "for=198.51.100.2", "10.0.0.1"},
		"with a port":              {"10.0.0.1:5", "198.51.100.1:4711", "", "198.51.100.1"},
		"mapped IPv4":              {"[::ffff:10.0.0.1]:5", "::ffff:198.51.100.1", "", "198.51.100.1"},
		"IPv6 proxy":               {"[fd00::1]:5", "2001:db8::7", "", "2001:db8::7"},
		"Unix socket":              {"@", "198.51.100.1", "", "invalid IP"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.peer
		if test.xff != "" {
			r.Header.Set("X-Forwarded-For", test.xff)
		}
		if test.forwarded != "" {
			r.Header.Set("Forwarded", test.forwarded)
		}
		if got := clientAddress(r, trusted).String(); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// failing is a fault put into the records: whatever is asked of an inventory goes wrong.
type failing struct {
	Records
	list func() error
}

func (f *failing) List(context.Context, records.ListRequest) (*records.Listing, error) {
	return nil, f.list()
}

// TestUnexpectedErrors: the stranger is told "internal" and nothing else, the log everything.
func TestUnexpectedErrors(t *testing.T) {
	var fault func() error
	g := newRig(t, func(c *Config) { c.Records = &failing{c.Records, func() error { return fault() }} })
	alice := newKey(t)
	list := func() answer {
		return g.signed(alice, "GET", "/"+alice.Public().String()+"/outbox", protocol.TypeInventory)
	}
	for name, f := range map[string]func() error{
		"error": func() error { return errors.New("secret of the database") },
		"panic": func() error { panic("secret of the code") },
	} {
		fault = f
		a := list()
		if a.status != http.StatusInternalServerError || codeOf(t, a) != protocol.CodeInternal || strings.Contains(string(a.body), "secret") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for _, secret := range []string{"secret of the database", "secret of the code", "limits_test.go"} {
		if !strings.Contains(g.log.String(), secret) {
			t.Errorf("the log lacks %q", secret)
		}
	}
	fault = func() error { return context.DeadlineExceeded }
	if a := list(); codeOf(t, a) != protocol.CodeOverloaded || a.header.Get("Retry-After") != "1" {
		t.Errorf("timeout: %d %s", a.status, a.body)
	}
}

// TestOverload: unsigned requests are shed first, then readers, then writers, and memory is bounded.
func TestOverload(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.MaxConcurrent, c.Bounds.MaxBodyBytes = 4, 1<<20 })
	alice := newKey(t)
	g.grant(alice)
	answers := func() []int {
		return []int{
			g.send("GET", "/.well-known/relaymarket", "", "").status,
			g.signed(alice, "GET", "/"+alice.Public().String()+"/outbox", protocol.TypeInventory).status,
			g.signed(alice, "GET", "/account", protocol.TypeAccount).status,
		}
	}
	for working, want := range map[int64][]int{0: {200, 200, 200}, 2: {503, 200, 200}, 3: {503, 503, 200}, 4: {503, 503, 503}} {
		g.server.load.working.Store(working)
		if got := answers(); got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("with %d at work: %v, want %v", working, got, want)
		}
	}
	g.server.load.working.Store(0)
	big := strings.Repeat(" ", 3<<19) // as a batch, within its limit; with what is at work, over the memory's
	a := g.send("POST", "/"+alice.Public().String()+"/outbox", mediaLines, big)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a body over the memory: %d %s", a.status, a.body)
	}
	for _, reason := range []dropReason{dropUnsigned, dropReader, dropWriter, dropMemory} {
		if testutil.ToFloat64(g.server.metrics.dropped.WithLabelValues(string(reason))) == 0 {
			t.Errorf("no drop counted as %s", reason)
		}
	}
	if held := g.server.load.bytes.Load(); held != 0 {
		t.Errorf("%d bytes are held by nobody", held)
	}
}

func TestOperator(t *testing.T) {
	g := newRig(t)
	operator := httptest.NewServer(g.server.Operator())
	t.Cleanup(operator.Close)
	get := func(path string) (int, string) {
		reply, err := http.Get(operator.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply.StatusCode, string(body)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	g.send("GET", "/nothing", "", "")
	if status, body := get("/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, body := get("/metrics"); status != 200 || !strings.Contains(body, `relaymarket_api_requests_total{code="not_found",operation="none"} 1`) {
		t.Errorf("metrics: %d %s", status, body)
	}
	if a := g.send("GET", "/metrics", "", ""); a.status != http.StatusNotFound {
		t.Errorf("metrics for strangers: %d", a.status)
	}
	g.db.Close()
	if status, _ := get("/readyz"); status != 503 {
		t.Errorf("readyz without a database: %d", status)
	}
	if status, _ := get("/livez"); status != 200 {
		t.Errorf("livez without a database: %d", status)
	}
}
