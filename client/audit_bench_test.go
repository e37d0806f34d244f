package client_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/internal/testnode"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

var auditReports = flag.Int("audit.reports", 4, "reports of 16,384 lines that BenchmarkAudit audits; 62 are a million lines")

// BenchmarkAudit is one audit of several reports, over HTTP and onto the disk: a write and a pull of each record, in
// pages of a hundred records. It tells the lines a second, and the most memory that the process held.
func BenchmarkAudit(b *testing.B) {
	key, reader := testnode.NewKey(b), testnode.NewKey(b)
	sealing, err := protocol.NewSealingPrivateKey([32]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	identity, dir := testnode.NewKey(b), b.TempDir()
	author := &billAuthor{b: b, relay: key, identity: identity, reader: reader, dir: dir,
		m: client.Metered{Contract: protocol.ContractID{1}, Relay: key.Public(), Prices: auditPrices}}
	author.author(*auditReports)
	m := author.serve()
	lines := int64(*auditReports) * protocol.MaxReportLines
	var most int64
	for b.Loop() {
		b.StopTimer()
		fresh := b.TempDir()
		if err := os.CopyFS(fresh, os.DirFS(filepath.Join(dir, "state"))); err != nil {
			b.Fatal(err)
		}
		c, err := client.Open(b.Context(), client.Config{Dir: fresh, Identity: identity, Sealing: sealing})
		if err != nil {
			b.Fatal(err)
		}
		resetPeak()
		b.StartTimer()
		a, err := c.Audit(b.Context(), m)
		if err != nil || a.Fault != nil || a.Bill.Disputed != 0 || a.New != lines {
			b.Fatalf("%+v, %v", a, err)
		}
		b.StopTimer()
		most = max(most, peak())
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*float64(lines)/b.Elapsed().Seconds(), "lines/s")
	if most > 0 {
		b.ReportMetric(float64(most)/1e6, "MB")
	}
}

// resetPeak has the kernel forget how much memory the process held; peak is the most since, in bytes, 0 where it is not told.
func resetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

func peak() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	n, _ := strconv.ParseInt(kilobytes, 10, 64)
	return n << 10
}

// billAuthor writes honest reports into files, and what the payer knows of what they are about into a state.
type billAuthor struct {
	b        *testing.B
	relay    *protocol.PrivateKey
	identity *protocol.PrivateKey
	reader   *protocol.PrivateKey
	m        client.Metered
	dir      string
	records  int
}

func (a *billAuthor) author(reports int) {
	a.b.Helper()
	if err := os.Mkdir(filepath.Join(a.dir, "state"), 0o700); err != nil {
		a.b.Fatal(err)
	}
	owner := a.identity.Public()
	s, err := state.Open(a.b.Context(), state.Config{Path: filepath.Join(a.dir, "state", client.StateFile), Owner: &owner})
	if err != nil {
		a.b.Fatal(err)
	}
	l := &liar{key: a.relay, m: a.m, payer: owner, reports: map[int64][]byte{}}
	var place ledger.Place
	for range reports {
		next := l.report(a.b, place, a.lines(s)...)
		body := l.reports[place.Last]
		if next.Last < int64(reports)*protocol.MaxReportLines {
			body = bytes.Replace(body, []byte(`"more":false`), []byte(`"more":true`), 1)
		}
		if err := os.WriteFile(a.file(place.Last), body, 0o600); err != nil {
			a.b.Fatal(err)
		}
		clear(l.reports)
		place = next
	}
	if err := s.Close(); err != nil {
		a.b.Fatal(err)
	}
}

func (a *billAuthor) file(after int64) string {
	return filepath.Join(a.dir, fmt.Sprint("after", after))
}

func (a *billAuthor) serve() client.Metered {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
		f, err := os.Open(a.file(after))
		if err != nil {
			_, _ = io.WriteString(w, `{"lines":0,"more":false}`+"\n")
			return
		}
		defer f.Close()
		_, _ = io.Copy(w, f)
	}))
	a.b.Cleanup(server.Close)
	m := a.m
	m.Address = server.URL
	return m
}

// lines are those of one report.
func (a *billAuthor) lines(s *state.Store) []*ledger.Line {
	a.b.Helper()
	var lines []*ledger.Line
	const page = 100
	for len(lines)+page+page <= protocol.MaxReportLines {
		var written []*ledger.Line
		leaves := make([]protocol.Hash, page)
		for i := range leaves {
			written = append(written, a.write(s))
			leaves[i] = written[i].Hash
		}
		paths, root := protocol.MerklePaths(leaves)
		got, err := protocol.Sign(a.reader, a.m.Relay, 1, &protocol.Pull{Got: &protocol.PageRoot{PageID: protocol.PageID(fmt.Sprint("p", a.records)), Root: root}})
		if err != nil {
			a.b.Fatal(err)
		}
		lines = append(lines, written...)
		for i, w := range written {
			pull := *w
			pull.Kind, pull.Written, pull.Expires, pull.MaxPulls = ledger.KindPull, 0, 0, 0
			pull.Evidence = &ledger.Evidence{Got: bytes.Clone(got.Bytes()), Index: int64(i), Records: page, Path: paths[i]}
			lines = append(lines, &pull)
		}
	}
	for len(lines) < protocol.MaxReportLines {
		lines = append(lines, a.write(s))
	}
	return lines
}

// write makes a record known to the payer, and its line.
func (a *billAuthor) write(s *state.Store) *ledger.Line {
	a.records++
	now := protocol.TimestampOf(time.Now())
	id := protocol.RecordID(fmt.Sprint("r", a.records))
	m, err := s.Enqueue(a.b.Context(), a.reader.Public(), []state.Relay{{Key: a.m.Relay, Address: "https://relay.example"}},
		func(string, int64) (*state.Outgoing, error) {
			return &state.Outgoing{ID: id, Body: []byte{1}, Expires: now + 86_400_000, MaxPulls: 8}, nil
		})
	if err != nil {
		a.b.Fatal(err)
	}
	e, err := protocol.Sign(a.identity, a.reader.Public(), now, &protocol.Write{Relay: a.m.Relay, RecordID: id, Expires: m.Expires, MaxPulls: 8, Content: "AAAA"})
	if err != nil {
		a.b.Fatal(err)
	}
	if err := s.Attempt(a.b.Context(), m.N, a.m.Relay, e); err != nil {
		a.b.Fatal(err)
	}
	return &ledger.Line{Kind: ledger.KindWrite, From: e.From, To: e.To, RecordID: id, Hash: e.Hash(), Bytes: e.Size(), Written: now, Expires: m.Expires, MaxPulls: 8}
}
