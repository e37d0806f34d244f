package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) {
	if isBare(os.Args) {
		exit(serveBare(os.Args[2:])) // the bare servers are this program again
	}
	testpg.Main(m)
}

// Every point runs against a real relayd, for a moment, and says what the other ends of the figures rely on.
func TestEveryPoint(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if err := os.Chmod(os.Getenv("TMPDIR"), 0o711); err != nil {
		t.Fatal(err)
	}
	opts, err := parseOptions([]string{"-seconds", "0.2", "-repeats", "1", "-sizes", "1300", "-json", "-relayd", testnode.Binary(t)}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), opts, &out, newProgress(os.Stderr)); err != nil {
		t.Fatal(err)
	}
	var told []string
	for scanner := bufio.NewScanner(&out); scanner.Scan(); {
		var l line
		decoder := json.NewDecoder(bytes.NewReader(scanner.Bytes()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&l); err != nil {
			t.Fatalf("%s: %v", scanner.Text(), err)
		}
		p := point{name: l.Name, conns: l.Conns}
		told = append(told, p.id())
		if l.PerSecond <= 0 || l.P50 <= 0 || l.P99 < l.P50 {
			t.Errorf("it measured nothing: %s", scanner.Text())
		}
		if i := slices.IndexFunc(points(), func(q point) bool { return q.id() == p.id() }); i >= 0 && !points()[i].isLimit() {
			if l.Limit == nil || l.Ratio == nil || *l.Ratio <= 0 || *l.LimitPerS <= 0 || l.RSS == nil || *l.Bytes != 1300 {
				t.Errorf("something is missing: %s", scanner.Text())
			}
		}
	}
	var want []string
	for _, p := range points() {
		if !p.extra {
			want = append(want, p.id())
		}
	}
	if !slices.Equal(told, want) {
		t.Errorf("it measured %v, want %v", told, want)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
}

// The bare relay takes the same requests as a relay, checks them, and stores every one of them.
func TestBareRelay(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if err := os.Chmod(os.Getenv("TMPDIR"), 0o711); err != nil {
		t.Fatal(err)
	}
	opts, err := parseOptions([]string{"-points", "bare_write,bare_batch,bare_pull", "-seconds", "0.2", "-repeats", "1", "-sizes", "1300", "-json",
		"-relayd", testnode.Binary(t)}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), opts, &out, newProgress(os.Stderr)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bare_write", "bare_batch", "bare_pull"} {
		if !bytes.Contains(out.Bytes(), []byte(`"name":"`+name+`"`)) {
			t.Errorf("%s was not measured: %s", name, out.Bytes())
		}
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
}

// A false signature is refused by the bare relay too: checks are what its figures are about.
func TestBareRelayChecks(t *testing.T) {
	database := testpg.New(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), tableSQL); err != nil {
		t.Fatal(err)
	}
	address, stop, err := relayServer(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	from, err := person(roleSender, 0)
	if err != nil {
		t.Fatal(err)
	}
	record, err := newAuthor(from.Public()).record(from, from.Public(), 1, 1300, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(record.Bytes())
	forged[len(forged)-3] ^= 1 // the last digit of the signature
	pull, err := newAuthor(from.Public()).pull(from, protocol.PullQuery{Senders: []protocol.PublicKey{from.Public()}, Limit: 1, PageID: "p"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := bytes.Clone(pull)
	last := bytes.Index(unsigned, []byte(`"}`+"\n")) - 1
	unsigned[last] = "01"[1-(unsigned[last]&1)] // another last digit of the signature
	another := bytes.Replace(pull, []byte(`"limit":1`), []byte(`"limit":2`), 1)
	for _, c := range []struct {
		method, path string
		body         []byte
		want         int
	}{
		{http.MethodPut, "/", record.Bytes(), http.StatusCreated}, {http.MethodPut, "/", forged, http.StatusBadRequest},
		{http.MethodPost, inboxPrefix, unsigned, http.StatusBadRequest}, {http.MethodPost, inboxPrefix, another, http.StatusBadRequest},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+address+c.path, bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = reply.Body.Close()
		if reply.StatusCode != c.want {
			t.Errorf("status %d, want %d", reply.StatusCode, c.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	var rows int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM bare`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// With a second relayd listeners are told there, through NATS and without.
func TestSecondRelay(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if err := os.Chmod(os.Getenv("TMPDIR"), 0o711); err != nil {
		t.Fatal(err)
	}
	// What else the machine does may spoil a measurement of half a second.
	const rounds = 4
	var p50 map[string]float64
	for range rounds {
		if p50 = secondRelay(t); p50[secondByNATS] > 0 && p50[secondByNATS] <= p50[secondByPoll] {
			return
		}
	}
	t.Errorf("told after %v ms", p50)
}

// secondRelay is how long after the first relay's reply the last listener at the second one is told, in the median.
func secondRelay(t *testing.T) map[string]float64 {
	t.Helper()
	p50 := map[string]float64{}
	for _, second := range []string{secondByNATS, secondByPoll} {
		opts, err := parseOptions([]string{"-points", "listen_fanout", "-second", second, "-seconds", "0.5", "-repeats", "1", "-sizes", "1300", "-json",
			"-relayd", testnode.Binary(t)}, os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := run(t.Context(), opts, &out, newProgress(os.Stderr)); err != nil {
			t.Fatal(err)
		}
		for scanner := bufio.NewScanner(&out); scanner.Scan(); {
			var l line
			if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			if l.Name == "listen_fanout" {
				p50[second] = l.P50
			}
		}
	}
	return p50
}

// The point with thousands of listeners, with a few.
func TestIdleListeners(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	opts, err := parseOptions([]string{"-points", "idle_listeners", "-seconds", "0.2", "-relayd", testnode.Binary(t)}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := choose(opts.points)
	if err != nil || len(chosen) != 1 || chosen[0].conns != idleConns {
		t.Fatalf("chosen are %v, %v", chosen, err)
	}
	b := &bench{opts: opts}
	t.Cleanup(func() {
		if err := b.stopRelay(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := b.start(t.Context(), filepath.Join(dir, "relay")); err != nil {
		t.Fatal(err)
	}
	chosen[0].conns = 50
	r, err := b.once(t.Context(), chosen[0], 1300, 0)
	if err != nil || r.records == 0 || r.rss == 0 || quantile(r.latencies, 0.5) <= 0 || len(r.wholes) != r.requests {
		t.Errorf("%+v, %v", r, err)
	}
}

// A relay grows with its table, sweeps and is filled again; every figure is there, and the space of what was
// swept was used again.
func TestSize(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if err := os.Chmod(os.Getenv("TMPDIR"), 0o711); err != nil {
		t.Fatal(err)
	}
	opts, err := parseOptions([]string{"-size", "-rows", "30000,60000,1e9", "-seconds", "0.2", "-repeats", "1", "-relayd", testnode.Binary(t)}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), opts, &out, newProgress(os.Stderr)); !errors.Is(err, errNoRoom) {
		t.Fatalf("a table of a billion rows has room: %v", err)
	}
	told := map[string]int{}
	for text := range bytes.Lines(out.Bytes()) {
		if !bytes.HasPrefix(text, []byte("{")) {
			break // the table follows
		}
		var l struct {
			Name          string  `json:"name"`
			Rows          int     `json:"rows"`
			Record        float64 `json:"record_bytes"`
			PerSecond     float64 `json:"per_s"`
			Ratio         float64 `json:"ratio"`
			WritePerS     float64 `json:"write_per_s"`
			Before, After sizes
		}
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		told[l.Name]++
		switch l.Name {
		case "storage":
			if l.Record < 1300 || l.Record > 4000 {
				t.Errorf("a record of 1,300 bytes takes: %s", text)
			}
		case "log":
			if l.Record < 1300 {
				t.Errorf("the log has less than what was written: %s", text)
			}
		case "space":
			if l.Ratio < 0.9 || l.Ratio > 1.25 || l.Before.total() < 30_000*1300 {
				t.Errorf("the space was not used again: %s", text)
			}
		case "sweep":
			if l.PerSecond <= 0 || l.WritePerS <= 0 || l.Ratio <= 0 {
				t.Errorf("something is missing: %s", text)
			}
		default:
			if l.PerSecond <= 0 || l.Rows == 0 {
				t.Errorf("it measured nothing: %s", text)
			}
		}
	}
	for _, name := range []string{"write", "write_batch", "pull", "pull_page", "storage", "log", "sweep", "space"} {
		if told[name] != 2 {
			t.Errorf("%s is told %d times for two tables", name, told[name])
		}
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
}

// A relay that runs elsewhere and does not know the generator says no; the generator says what to do.
func TestStrangeRelay(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	opts, err := parseOptions([]string{"-points", "write@1", "-seconds", "0.1", "-repeats", "1", "-sizes", "1300", "-json", "-url", node.URL}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var no *refused
	if err := run(t.Context(), opts, new(bytes.Buffer), newProgress(os.Stderr)); !errors.As(err, &no) || !bytes.Contains([]byte(err.Error()), []byte("relayd grant")) {
		t.Errorf("a relay without grants: %v", err)
	}
	sender, err := person(roleSender, 0)
	if err != nil {
		t.Fatal(err)
	}
	node.Grant(t, sender.Public())
	if err := run(t.Context(), opts, new(bytes.Buffer), newProgress(os.Stderr)); err != nil {
		t.Errorf("a relay with the grant: %v", err)
	}
}

func TestRecordSize(t *testing.T) {
	from, err := person(roleSender, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthor(from.Public())
	for _, size := range []int{minSize, 1300, 1301, 1302, 1303, 2400, maxSize} {
		e, err := a.record(from, protocol.PublicKey{1}, 7, size, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if short := size - len(e.Bytes()); short < 0 || short > 3 {
			t.Errorf("a record of %d bytes has %d", size, len(e.Bytes()))
		}
	}
}

func TestOptions(t *testing.T) {
	for _, args := range [][]string{
		{"-points", "writes"}, {"-points", "write@2"}, {"-seconds", "0"}, {"-seconds", "300"}, {"-repeats", "0"}, {"-sizes", "12"}, {"-sizes", "a"},
		{"-url", "https://relay.example"}, {"-url", "http://127.0.0.1:1", "-keep"}, {"-cpuprofile", "x"}, {"-nothing"},
		{"-size", "-rows", "10"}, {"-size", "-rows", "1e6:12"}, {"-size", "-rows", "1e6,1e6"}, {"-size", "-rows", "many"}, {"-size", "-points", "write"}, {"-size", "-url", "http://127.0.0.1:1"}, {"more"},
		{"-second", "both"}, {"-second", "nats", "-inprocess"}, {"-second", "poll", "-url", "http://127.0.0.1:1"},
	} {
		var usage *usageError
		if _, err := parseOptions(args, os.Stderr); !errors.As(err, &usage) {
			t.Errorf("%v: %v", args, err)
		}
	}
	chosen, err := choose([]string{"write@64"})
	if err != nil || len(chosen) != 2 || chosen[0].id() != "limit_insert@64" || chosen[1].id() != "write@64" {
		t.Errorf("write@64 is %v, %v", chosen, err)
	}
}

func TestMedianAndQuantile(t *testing.T) {
	var repeats []result
	for _, n := range []int{30, 10, 20} {
		repeats = append(repeats, result{records: n, elapsed: time.Second})
	}
	if m := median(repeats, result.perSecond); m != 20 {
		t.Errorf("the median of 10, 20, 30 is %v", m)
	}
	sorted := make([]time.Duration, 100)
	for i := range sorted {
		sorted[i] = time.Duration(i)
	}
	if p := quantile(sorted, 0.99); p != 99 {
		t.Errorf("p99 of 0 … 99 is %v", p)
	}
}
