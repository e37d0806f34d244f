package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"relaymarket/protocol"
)

// TestAnnouncement: what is at the well-known path and in a refusal for lack of an account is the
// relay's own signed word, also hours and a changed clock later.
func TestAnnouncement(t *testing.T) {
	g := newRig(t)
	verify := func(raw []byte) *protocol.Announcement {
		t.Helper()
		e, a, err := protocol.ParseAnnouncement(raw, g.now())
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if e.From != g.key.Public() {
			t.Errorf("signed by %s", e.From)
		}
		return a
	}
	first := verify(g.send("GET", "/.well-known/relaymarket", "", "").body)
	l := g.server.cfg.Limits
	if first.Limits.RecordBytes != l.RecordBytes || first.Limits.MaxPulls != l.MaxPulls || first.Limits.LifetimeMs != l.Lifetime.Milliseconds() ||
		first.Limits.BodySeconds != 15 || first.Limits.HeaderSeconds != 15 || first.Limits.BatchRecords != 1000 {
		t.Errorf("limits: %+v", first.Limits)
	}
	if len(first.Terms) != 1 || first.Terms[0] != (protocol.Terms{Type: "grant", Contact: g.server.cfg.Contact}) {
		t.Errorf("terms: %+v", first.Terms)
	}
	refused := g.signed(newKey(t), "GET", "/account", protocol.TypeAccount)
	var p Problem
	if err := json.Unmarshal(refused.body, &p); err != nil || refused.status != http.StatusPaymentRequired || p.Announcement == nil {
		t.Fatalf("%d %s: %v", refused.status, refused.body, err)
	}
	if again := verify(*p.Announcement); again.Seq != first.Seq {
		t.Error("the announcement is signed for each request")
	}
	for _, ahead := range []time.Duration{2 * time.Hour, 30 * time.Hour, -3 * time.Hour} {
		g.offset.Store(int64(ahead))
		if verify(g.send("GET", "/.well-known/relaymarket", "", "").body).Seq == first.Seq {
			t.Errorf("after %s it is still the first", ahead)
		}
	}
}

func TestNewRefusesWhatItCannotAnnounce(t *testing.T) {
	g := newRig(t)
	for name, change := range map[string]func(*Config){
		"address": func(c *Config) { c.Addresses = []string{"relay.example"} },
		"contact": func(c *Config) { c.Contact = strings.Repeat("x", 201) },
		"record":  func(c *Config) { c.Limits.RecordBytes = protocol.MaxEnvelopeSize + 1 },
		"key":     func(c *Config) { c.Key = nil },
	} {
		cfg := g.server.cfg
		cfg.Registry = nil
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestHeaders: browsers may ask from any page, and nothing signed is kept by a cache.
func TestHeaders(t *testing.T) {
	g := newRig(t)
	user := "/" + newKey(t).Public().String()
	for _, path := range []string{"/.well-known/relaymarket", "/account", "/account/admitted", "/inbox" + user, "/inbox" + user + "/got",
		"/inbox" + user + "/listen", user + "/card", user + "/outbox", user + "/outbox" + user, user + "/outbox" + user + "/id"} {
		a := g.send("OPTIONS", path, "", "", "Origin", "https://page.example", "Access-Control-Request-Method", "PUT")
		h := a.header
		if a.status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Max-Age") == "" ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Content-Type") ||
			!strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") {
			t.Errorf("preflight of %s: %d %v", path, a.status, h)
		}
		if a := g.send("HEAD", path, "", ""); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
			t.Errorf("HEAD %s: %d %v", path, a.status, a.header)
		}
	}
	if a := g.send("OPTIONS", "/nothing", "", ""); a.status != http.StatusNotFound {
		t.Errorf("preflight of nothing: %d", a.status)
	}
	a := g.send("GET", "/account", "", "")
	if a.status != 401 || a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Expose-Headers") != "Retry-After" ||
		a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("refusal: %d %v", a.status, a.header)
	}
}

// checkEvidence holds what is stored with a page, for bills to show, against what its reader did sign; of his query it tells nothing.
func (g *rig) checkEvidence(id protocol.PageID, want protocol.Acknowledgement) {
	g.t.Helper()
	var stored []byte
	if err := g.db.Pool().QueryRow(g.t.Context(), `SELECT got FROM pages WHERE page_id = $1`, string(id)).Scan(&stored); err != nil {
		g.t.Fatal(err)
	}
	got, err := protocol.ParseAcknowledgement(stored)
	if err != nil || *got != want {
		g.t.Errorf("evidence %s is %+v (%v), want %+v", stored, got, err, want)
	}
	for _, word := range []string{"senders", "after", "limit", "salt"} {
		if bytes.Contains(stored, []byte(word)) {
			g.t.Errorf("evidence %s tells of %s", stored, word)
		}
	}
}

// TestRecordsThroughHTTP tells the main story: write, repeat, pull, the page's rules, acknowledge, delete.
func TestRecordsThroughHTTP(t *testing.T) {
	g := newRig(t)
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	first := g.store(alice, bob, "one")
	if a := g.put(recordPath(alice, bob, "one"), first); a.status != http.StatusOK || !bytes.Contains(a.body, []byte(first.Hash().String())) {
		t.Errorf("the write again: %d %s", a.status, a.body)
	}
	inbox := "/inbox/" + bob.Public().String()
	var after *string
	pull := func(id protocol.PageID, got *protocol.PageRoot) answer {
		return g.pull(bob, protocol.PullQuery{Senders: []protocol.PublicKey{alice.Public()}, After: after, Limit: 10, PageID: id}, got)
	}
	a := pull("p1", nil)
	page, err := protocol.ReadPage(bytes.NewReader(a.body))
	if err != nil || page.CheckRoot() != nil || len(page.Lines) != 1 || !bytes.Equal(page.Lines[0].Envelope.Bytes(), first.Bytes()) {
		t.Fatalf("page: %d %s: %v", a.status, a.body, err)
	}
	if a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) || a.header.Get("Content-Type") != mediaLines {
		t.Errorf("headers of a page: %v", a.header)
	}
	var p Problem
	a = pull("p2", nil)
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code != protocol.CodePageOpen || *p.PageId != "p1" || a.header.Get("Retry-After") != "1" {
		t.Errorf("a second page: %s", a.body)
	}
	pull("p1", nil)
	pull("p1", nil)
	a = pull("p1", nil)
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code != protocol.CodePageSpent || *p.PageId != "p1" || *p.Root != *page.Header.Root {
		t.Errorf("the page a fourth time: %s", a.body)
	}
	got := g.sign(bob, g.key.Public(), &protocol.Got{PageID: "p1", Root: *page.Header.Root})
	after = &page.Header.Cursor
	if a := pull("p2", &protocol.PageRoot{PageID: "p1", Root: *page.Header.Root}); a.status != http.StatusOK || !bytes.Contains(a.body, []byte(`"records":0`)) {
		t.Errorf("pull with got: %d %s", a.status, a.body)
	}
	g.checkEvidence("p1", protocol.Acknowledgement{Reader: bob.Public(), Relay: g.key.Public(), PageRoot: protocol.PageRoot{PageID: "p1", Root: *page.Header.Root}})
	if a := g.post(inbox+"/got", got); a.status != http.StatusNoContent {
		t.Errorf("got again: %d %s", a.status, a.body)
	}
	read := recordPath(alice, bob, "one") + "?pageId=r1"
	if a := g.signed(bob, "GET", read, protocol.TypeRead); !bytes.Equal(a.body, first.Bytes()) {
		t.Errorf("read: %d %s", a.status, a.body)
	}
	for range 2 {
		if a := g.signed(alice, "DELETE", recordPath(alice, bob, "one"), protocol.TypeDelete); a.status != http.StatusNoContent {
			t.Errorf("delete: %d %s", a.status, a.body)
		}
	}
	if a := g.put(recordPath(alice, bob, "one"), first); codeOf(t, a) != protocol.CodeGone {
		t.Errorf("the write after its end: %d %s", a.status, a.body)
	}
}

// TestBatch: writes are judged one by one, and answered in their order.
func TestBatch(t *testing.T) {
	g := newRig(t)
	alice, bob, mallory := newKey(t), newKey(t), newKey(t)
	g.grant(alice)
	const good = 300
	var body strings.Builder
	for i := range good {
		e := g.write(alice, bob, fmt.Sprint("r", i))
		body.Write(e.Bytes())
		body.WriteString("\n")
	}
	body.WriteString("{}\n")
	body.Write(g.write(mallory, bob, "m").Bytes())
	body.WriteString("\n")
	body.WriteString(strings.Replace(string(g.write(alice, bob, "forged").Bytes()), "aGVsbG8=", "aGVsbA==", 1) + "\n")
	body.Write(g.write(alice, bob, "r0").Bytes()) // expires later: another request under the same path
	body.WriteString("\n")
	body.Write(g.write(alice, bob, "cut").Bytes())
	a := g.send("POST", "/"+alice.Public().String()+"/outbox", mediaLines, body.String())
	lines := strings.Split(strings.TrimSuffix(string(a.body), "\n"), "\n")
	want := []protocol.Code{protocol.CodeMalformed, protocol.CodeMismatch, protocol.CodeBadSignature, protocol.CodeConflict, protocol.CodeMalformed}
	if a.status != http.StatusOK || len(lines) != good+len(want) {
		t.Fatalf("%d, %d lines", a.status, len(lines))
	}
	for i, line := range lines {
		var o BatchOutcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		switch {
		case o.Line != int64(i):
			t.Errorf("line %d in place %d", o.Line, i)
		case i < good && (o.Status != http.StatusCreated || o.RecordId == nil || *o.RecordId != fmt.Sprint("r", i) || o.Cursor == nil || o.Hash == nil):
			t.Errorf("line %d: %s", i, line)
		case i >= good && (o.Problem == nil || o.Problem.Code != want[i-good] || o.Status != o.Problem.Code.Status()):
			t.Errorf("line %d: %s, want %s", i, line, want[i-good])
		}
	}
	// Nobody without an account gets more than one copy of the offer.
	body.Reset()
	for i := range 3 {
		body.Write(g.write(mallory, bob, fmt.Sprint("m", i)).Bytes())
		body.WriteString("\n")
	}
	a = g.send("POST", "/"+mallory.Public().String()+"/outbox", mediaLines, body.String())
	if n := bytes.Count(a.body, []byte("serverBroadcast")); n != 1 || bytes.Count(a.body, []byte(`"no_account"`)) != 3 {
		t.Errorf("%d offers: %s", n, a.body)
	}
}

// countedWrites keeps what it was sent, and how often.
type countedWrites struct {
	bytes.Buffer
	n int
}

func (w *countedWrites) Write(p []byte) (int, error) {
	w.n++
	return w.Buffer.Write(p)
}

// A reply in many parts is written in few pieces, none of its bytes lost or moved.
func TestGather(t *testing.T) {
	for _, sizes := range [][]int{{}, {1}, {3, 1300, 1}, {gatherBytes - 1, 1, 1}, {gatherBytes, gatherBytes}, {5, gatherBytes + 1, 7}, {200_000, 1, 200_000, 1, 10}} {
		var parts [][]byte
		for i, size := range sizes {
			parts = append(parts, bytes.Repeat([]byte{byte(i + 1)}, size), []byte("\n"))
		}
		for range 300 {
			parts = append(parts, []byte("a record of a page"), []byte("\n"))
		}
		var w countedWrites
		gather(&w, parts)
		if !bytes.Equal(w.Bytes(), bytes.Join(parts, nil)) {
			t.Errorf("%v: %d bytes were written, or others", sizes, w.Len())
		}
		if most := 2 + 2*len(sizes); w.n > most {
			t.Errorf("%v: %d writes, want %d at most", sizes, w.n, most)
		}
	}
}
