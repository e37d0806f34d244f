package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/protocol"
)

var update = flag.Bool("update", false, "write testdata/badinput anew from badcases_test.go")

const badInputDir = "testdata/badinput"

// badCase is one file of testdata/badinput: a request that was right before it was altered, and what
// it is answered. Texts may hold {alice}, {bob} and so on: keys; {root}; {query}: of a pull, its hash in the request and itself in a body; {now±ms}; {x*n}: n times x; {ff}: that byte.
type badCase struct {
	Operation string      `json:"operation"`
	Fault     string      `json:"fault"`
	Envelope  *alteration `json:"envelope,omitempty"`
	HTTP      *wireFault  `json:"http,omitempty"`
	Status    int         `json:"status"`
	Code      string      `json:"code"`
}

// alteration is what is done to the envelope.
type alteration struct {
	Signer string                     `json:"signer,omitempty"` // signs it and is its from
	Forger string                     `json:"forger,omitempty"` // signs it without being its from
	Set    map[string]json.RawMessage `json:"set,omitempty"`    // members of the request; null removes, and a text after @ stands as it is
	Msg    map[string]json.RawMessage `json:"msg,omitempty"`    // members of msg; null removes
	Text   []string                   `json:"text,omitempty"`   // old, new in what is signed
	Wire   []string                   `json:"wire,omitempty"`   // old, new in the signed envelope
	Cut    int                        `json:"cut,omitempty"`    // bytes off the end
	Ask    map[string]json.RawMessage `json:"ask,omitempty"`    // members of the query beside a pull, before it is hashed, like those of Set
	Asked  []string                   `json:"asked,omitempty"`  // old, new in the query before it is hashed
	Swap   []string                   `json:"swap,omitempty"`   // old, new in the query after it was hashed
}

// wireFault is what is done to the HTTP request.
type wireFault struct {
	Method  string            `json:"method,omitempty"`
	Path    string            `json:"path,omitempty"`
	Query   string            `json:"query,omitempty"`
	Headers map[string]string `json:"headers,omitempty"` // "" removes
	Body    *string           `json:"body,omitempty"`
	Chunked bool              `json:"chunked,omitempty"`
	Length  int               `json:"length,omitempty"` // announced, whatever is sent
	Slow    bool              `json:"slow,omitempty"`   // the last byte never comes
}

// TestBadInput makes each altered request of testdata/badinput and holds the answer against the file. After
// each, nothing is stored that was not before, and nothing is held.
func TestBadInput(t *testing.T) {
	if *update {
		writeBadCases(t)
	}
	files, err := filepath.Glob(filepath.Join(badInputDir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s is empty (%v): run go test ./api -run TestBadInput -update", badInputDir, err)
	}
	w := newWorld(t)
	before := w.snapshot()
	for _, file := range files {
		if w.stuck {
			t.Fatal("what a request held was not given back: the cases after it are left out")
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			var c badCase
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&c); err != nil {
				t.Fatal(err)
			}
			w.judge(t, &c)
			if after := w.snapshot(); after != before {
				t.Errorf("the refused request left something:\n%s\nbefore:\n%s", after, before)
				before = after
			}
			w.atRest(t)
		})
	}
	// What the cases alter is right when it is not altered.
	order := append([]string{"putCard"}, slices.Sorted(maps.Keys(baseRequests))...) // before it is fetched
	for _, op := range order {
		if a := w.do(t, &badCase{Operation: op}); a.status >= 300 || bytes.Contains(a.body, []byte("problem")) {
			t.Errorf("%s unaltered: %d %s", op, a.status, a.body)
		}
	}
	if text := w.log.String(); strings.Contains(text, "level=ERROR") {
		t.Errorf("bad input is the stranger's fault, not an error of the relay:\n%s", text)
	}
}

// TestBadInputFiles: the files are those that the table makes.
func TestBadInputFiles(t *testing.T) {
	want := map[string]bool{}
	for _, c := range badCases() {
		name := c.file()
		if want[name] {
			t.Errorf("two cases are called %s", name)
		}
		want[name] = true
		data, err := os.ReadFile(filepath.Join(badInputDir, name))
		if err != nil || !bytes.Equal(data, c.encode(t)) {
			t.Errorf("%s is stale (%v): run go test ./api -run TestBadInput -update", name, err)
		}
	}
	files, err := os.ReadDir(badInputDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f.Name()] {
			t.Errorf("%s is of no case", f.Name())
		}
	}
}

func writeBadCases(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(badInputDir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(badInputDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range badCases() {
		if err := os.WriteFile(filepath.Join(badInputDir, c.file()), c.encode(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *badCase) file() string {
	slug := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, c.Operation+" "+c.Fault)
	return slug + ".json"
}

func (c *badCase) encode(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		t.Fatalf("%s %s: %v", c.Operation, c.Fault, err)
	}
	return b.Bytes()
}

// world is a relay with a record, a card and an open page in it.
type world struct {
	*rig
	keys map[string]*protocol.PrivateKey
	root protocol.Hash
	slow *httptest.Server // the same with little patience
	tiny *Server

	stuck bool
}

const slowBody = 400 * time.Millisecond

func newWorld(t *testing.T) *world {
	w := &world{rig: newRig(t, func(c *Config) { c.Bounds.KeepAlive = time.Second }), keys: map[string]*protocol.PrivateKey{}}
	w.keys["relay"] = w.key
	for _, name := range []string{"alice", "bob", "carol", "dave", "stranger", "other"} {
		w.keys[name] = newKey(t)
	}
	w.grant(w.keys["alice"])
	w.store(w.keys["alice"], w.keys["bob"], "kept")
	w.store(w.keys["alice"], w.keys["carol"], "served")
	w.store(w.keys["alice"], w.keys["dave"], "single")
	carol := w.keys["carol"]
	page := w.pull(carol, protocol.PullQuery{Senders: []protocol.PublicKey{w.keys["alice"].Public()}, Limit: 10, PageID: "open"}, nil)
	read, err := protocol.ReadPage(bytes.NewReader(page.body))
	if err != nil || read.Header.Root == nil {
		t.Fatalf("pull: %d %s", page.status, page.body)
	}
	w.root = *read.Header.Root
	cfg := w.server.cfg
	cfg.Bounds.BodyTimeout = slowBody
	w.tiny, w.slow = w.serve(cfg)
	return w
}

// snapshot is all that a request could have left in the database.
func (w *world) snapshot() string {
	w.t.Helper()
	var text string
	err := w.db.Pool().QueryRow(context.Background(), `SELECT json_build_object(
		'records', (SELECT json_agg((n, id, state, length(envelope)) ORDER BY n) FROM records),
		'pulls', (SELECT json_agg((first, upto, remaining) ORDER BY first) FROM pulls),
		'pages', (SELECT json_agg((page_id, served, got IS NULL) ORDER BY reader, page_id) FROM pages),
		'accounts', (SELECT json_agg((stored, moved) ORDER BY key) FROM accounts),
		'admissions', (SELECT count(*) FROM admissions),
		'cards', (SELECT json_agg(md5(envelope)) FROM cards),
		'cursor', (SELECT n FROM relay_cursor))::text`).Scan(&text)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// atRest tells whether the server holds nothing for requests that are over.
func (w *world) atRest(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for _, s := range []*Server{w.server, w.tiny} {
		for s.load.working.Load() != 0 || s.load.bytes.Load() != 0 || s.listeners.count() != 0 {
			if time.Now().After(deadline) {
				w.stuck = true
				t.Fatalf("held: %d requests, %d bytes, %d listeners", s.load.working.Load(), s.load.bytes.Load(), s.listeners.count())
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// judge makes the request and checks the whole answer.
func (w *world) judge(t *testing.T, c *badCase) {
	t.Helper()
	a := w.do(t, c)
	body := a.body
	if c.Operation == "writeBatch" && a.status == http.StatusOK {
		var line BatchOutcome
		if err := json.Unmarshal(bytes.TrimSpace(body), &line); err != nil || line.Problem == nil {
			t.Fatalf("outcome %s: %v", body, err)
		}
		if line.Status != line.Problem.Status {
			t.Errorf("line status %d, its problem's %d", line.Status, line.Problem.Status)
		}
		a.status = line.Status
		body, _ = json.Marshal(line.Problem)
	} else if media := a.header.Get("Content-Type"); media != mediaProblem {
		t.Fatalf("%d %s: %s", a.status, media, body)
	}
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if a.status != c.Status || string(p.Code) != c.Code {
		t.Errorf("%d %s, want %d %s\n%s", a.status, p.Code, c.Status, c.Code, body)
	}
	if p.Type != problemType+c.Code || p.Title != p.Code.Title() || p.Status != a.status || p.Time == 0 {
		t.Errorf("not the document of its code: %s", body)
	}
	if (p.Announcement != nil) != (p.Status == http.StatusPaymentRequired) {
		t.Errorf("announcement: %v", p.Announcement)
	}
}

// do makes a request, altered as the case says, over a connection of its own.
func (w *world) do(t *testing.T, c *badCase) answer {
	t.Helper()
	base, ok := baseRequests[c.Operation]
	if !ok {
		t.Fatalf("no operation %q", c.Operation)
	}
	fault := c.HTTP
	if fault == nil {
		fault = &wireFault{}
	}
	method, path, query := base.method, base.path, base.query
	method, path, query = override(method, fault.Method), override(path, fault.Path), override(query, fault.Query)
	uri := w.expand(path)
	if query != "" {
		uri += "?" + w.expand(query)
	}
	headers := map[string]string{}
	body := ""
	if base.requestType != "" {
		envelope := w.envelope(t, base, c.Envelope, protocol.Target(method, uri))
		if base.media == "" {
			headers["Authorization"] = "Relaymarket " + base64.RawURLEncoding.EncodeToString([]byte(envelope))
		} else {
			headers["Content-Type"], body = base.media, envelope
		}
		if base.media == mediaLines {
			body += "\n"
		}
		if base.asks != nil {
			_, sent := w.asked(t, base, c.Envelope)
			body += sent + "\n"
		}
	}
	if fault.Body != nil {
		body = w.expand(*fault.Body)
		if base.media != "" {
			body = strings.ReplaceAll(body, "{envelope}", w.envelope(t, base, c.Envelope, ""))
			_, sent := w.asked(t, base, c.Envelope)
			body = strings.ReplaceAll(body, "{query}", sent)
		}
	}
	for name, value := range fault.Headers {
		if headers[name] = w.expand(value); value == "" {
			delete(headers, name)
		}
	}
	return w.exchange(t, fault, method, uri, headers, body)
}

func override(value, with string) string {
	if with != "" {
		return with
	}
	return value
}

func (w *world) exchange(t *testing.T, fault *wireFault, method, uri string, headers map[string]string, body string) answer {
	t.Helper()
	h := w.http
	if fault.Slow {
		h = w.slow
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: relay\r\n", method, uri)
	for name, value := range headers {
		for value := range strings.SplitSeq(value, "\n") { // a line each
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	length := len(body)
	if fault.Length != 0 {
		length = fault.Length
	}
	switch {
	case fault.Chunked:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	case length > 0:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", length, body)
	default:
		b.WriteString("\r\n")
	}
	raw := b.String()
	if fault.Slow {
		raw = raw[:len(raw)-1]
	}
	conn := dial(t, h)
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, raw) }() // the answer may come before all is sent
	reply, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer reply.Body.Close()
	if reply.StatusCode == http.StatusOK && reply.ContentLength < 0 { // a stream: its first line will do
		line, err := bufio.NewReader(reply.Body).ReadBytes('\n')
		_ = conn.Close() // or Body.Close would wait for the end
		if err != nil {
			t.Fatal(err)
		}
		return answer{reply.StatusCode, reply.Header, line}
	}
	data, err := io.ReadAll(reply.Body)
	if err != nil && method != http.MethodHead {
		t.Fatalf("%d, then: %v", reply.StatusCode, err)
	}
	return answer{reply.StatusCode, reply.Header, data}
}
