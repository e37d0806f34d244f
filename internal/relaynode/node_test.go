package relaynode_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/localpg"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// write stores the record of that id and returns the reply.
func write(t *testing.T, n *testnode.Node, sender *protocol.PrivateKey, id string) (int, string) {
	t.Helper()
	now := protocol.TimestampOf(time.Now())
	receiver := sender.Public()
	// The same request each time it is called with the same id.
	expires := protocol.TimestampOf(time.Now().Truncate(24 * time.Hour).Add(48 * time.Hour))
	e, err := protocol.Sign(sender, receiver, now, &protocol.Write{Relay: n.Key, RecordID: protocol.RecordID(id),
		Expires: expires, MaxPulls: 1, Content: base64.StdEncoding.EncodeToString([]byte("sealed"))})
	if err != nil {
		t.Fatal(err)
	}
	path := protocol.Path{Sender: sender.Public(), Receiver: receiver, ID: protocol.RecordID(id)}
	return do(t, http.MethodPut, n.URL+path.String(), bytes.NewReader(e.Bytes()))
}

func do(t *testing.T, method, address string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

// While an external database is away, requests are told to come back and the relay is not ready; once it is back, so
// is the relay.
func TestExternalDatabaseGoesAway(t *testing.T) {
	cfg := testpg.Config(t)
	start := func() *localpg.Cluster {
		c, err := localpg.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	stopped := false
	defer func() {
		if !stopped {
			_ = c.Stop(t.Context())
		}
	}()
	n := testnode.Start(t, testnode.Options{DSN: c.URL()})
	sender := testnode.NewKey(t)
	n.Grant(t, sender.Public())
	if code, body := write(t, n, sender, "before"); code != http.StatusCreated {
		t.Fatalf("write: %d %s", code, body)
	}

	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	stopped = true
	for i := range 5 {
		if code, body := write(t, n, sender, fmt.Sprintf("away-%d", i)); code != http.StatusServiceUnavailable || !strings.Contains(body, string(protocol.CodeOverloaded)) {
			t.Errorf("write without a database: %d %s", code, body)
		}
	}
	if code, body := do(t, http.MethodGet, n.OperatorURL+"/readyz", nil); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz without a database: %d %s", code, body)
	}
	if code, body := do(t, http.MethodGet, n.OperatorURL+"/livez", nil); code != http.StatusOK {
		t.Errorf("/livez without a database: %d %s", code, body)
	}

	c, stopped = start(), false
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if code, _ := do(t, http.MethodGet, n.OperatorURL+"/readyz", nil); code == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the relay does not become ready again")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if code, body := write(t, n, sender, "after"); code != http.StatusCreated {
		t.Errorf("write after the database came back: %d %s", code, body)
	}
	n.Stop()
}

// Two relays on one database are one relay at two addresses.
func TestTwoOnOneDatabase(t *testing.T) {
	a := testnode.Start(t, testnode.Options{})
	b := testnode.Start(t, testnode.Options{DSN: a.DSN, Key: a.Secret})
	sender := testnode.NewKey(t)
	b.Grant(t, sender.Public())
	if code, body := write(t, a, sender, "one"); code != http.StatusCreated {
		t.Fatalf("write: %d %s", code, body)
	}
	if code, body := write(t, b, sender, "one"); code != http.StatusOK {
		t.Errorf("the same write at the other address: %d %s", code, body)
	}
	if account := a.Account(t, sender.Public()); account.Stored == 0 {
		t.Error("nothing is counted")
	}
}

// What an operator sets is what strangers are told.
func TestAnnouncement(t *testing.T) {
	n := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Addresses, c.Contact = []string{"https://relay.example"}, "ann@example.org"
		c.Limits.MaxPulls, c.Bounds.BodyTimeout = 77, 7*time.Second
	}})
	code, body := do(t, http.MethodGet, n.URL+"/.well-known/relaymarket", nil)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	_, a, err := protocol.ParseAnnouncement([]byte(body), protocol.TimestampOf(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	if a.Addresses[0] != "https://relay.example" || a.Terms[0].Contact != "ann@example.org" || a.Limits.MaxPulls != 77 || a.Limits.BodySeconds != 7 {
		t.Errorf("it announces %+v", a)
	}
}

// A restart keeps address, key and records.
func TestRestart(t *testing.T) {
	n := testnode.Start(t, testnode.Options{})
	sender := testnode.NewKey(t)
	n.Grant(t, sender.Public())
	if code, body := write(t, n, sender, "one"); code != http.StatusCreated {
		t.Fatalf("write: %d %s", code, body)
	}
	before := n.URL
	n.Restart()
	code, body := write(t, n, sender, "one")
	var stored struct{ Cursor string }
	if err := json.Unmarshal([]byte(body), &stored); err != nil || code != http.StatusOK || stored.Cursor == "" || n.URL != before {
		t.Errorf("the same write after a restart at %s, before %s: %d %s", n.URL, before, code, body)
	}
	n.Stop()
	if conn, err := net.DialTimeout("tcp", strings.TrimPrefix(n.URL, "http://"), time.Second); err == nil {
		_ = conn.Close()
		t.Error("a stopped relay accepts connections")
	}
}

// Headers that do not come, or are too many, are not waited for and not kept.
func TestHeadersAreBounded(t *testing.T) {
	n := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.Bounds.HeaderTimeout = time.Second }})
	for name, text := range map[string]string{
		"slow":     "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"too many": "GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + strings.Repeat("x", 64<<10),
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text) // the relay may hang up before all is sent
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, conn)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%s: the relay still waits for the end of the headers", name)
		}
		_ = conn.Close()
	}
}

// A relay alone has NATS and does not pay for it: nobody is told of its commits.
func TestAloneNobodyIsWoken(t *testing.T) {
	for name, nats := range map[string]relaynode.NATS{"alone": {}, "shared": {Listen: "127.0.0.1:0"}} {
		n := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.NATS = nats }})
		sender := testnode.NewKey(t)
		n.Grant(t, sender.Public())
		if code, body := write(t, n, sender, "one"); code != http.StatusCreated {
			t.Fatalf("write: %d %s", code, body)
		}
		_, metrics := do(t, http.MethodGet, n.OperatorURL+"/metrics", nil)
		if !strings.Contains(metrics, "\nrelaymarket_nats_connected 1\n") {
			t.Errorf("%s: NATS is not there", name)
		}
		if wakes := strings.Contains(metrics, "\nrelaymarket_wake_sent_total "); wakes != (name == "shared") || (n.NATSURL != "") != wakes {
			t.Errorf("%s: it counts wake-ups: %t, NATS is at %q", name, wakes, n.NATSURL)
		}
	}
}
