package client_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/internal/testnode"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// BenchmarkAudit is the audit of reports of 16,384 lines each, over HTTP and onto the disk: a write and a pull of each record, in
// pages of a hundred records. It tells the lines a second, and the most memory that the heap held.
func BenchmarkAudit(b *testing.B) {
	key, reader := testnode.NewKey(b), testnode.NewKey(b)
	sealing, err := protocol.NewSealingPrivateKey([32]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	dir, identity := b.TempDir(), testnode.NewKey(b)
	c, err := client.Open(b.Context(), client.Config{Dir: dir, Identity: identity, Sealing: sealing})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	l := &liar{key: key, payer: c.Key(), reports: map[int64][]byte{},
		m: client.Metered{Contract: protocol.ContractID{1}, Relay: key.Public(), Prices: auditPrices}}
	m := l.serve(b)
	author := &billAuthor{b: b, liar: l, identity: identity, reader: reader, dir: dir}
	var before, most runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		b.StopTimer()
		author.report()
		b.StartTimer()
		a, err := c.Audit(b.Context(), m)
		if err != nil || a.Fault != nil || a.Bill.Disputed != 0 || a.New != protocol.MaxReportLines {
			b.Fatalf("%+v, %v", a, err)
		}
		runtime.ReadMemStats(&most)
	}
	b.ReportMetric(float64(b.N)*protocol.MaxReportLines/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(most.HeapSys-before.HeapSys)/1e6, "MB")
}

// billAuthor writes honest reports, and what the payer knows of what they are about.
type billAuthor struct {
	b        *testing.B
	liar     *liar
	identity *protocol.PrivateKey
	reader   *protocol.PrivateKey
	dir      string
	place    ledger.Place
	records  int
}

func (a *billAuthor) report() {
	a.b.Helper()
	s, err := state.Open(a.b.Context(), state.Config{Path: a.dir + "/" + client.StateFile})
	if err != nil {
		a.b.Fatal(err)
	}
	defer s.Close()
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
		got, err := protocol.Sign(a.reader, a.liar.m.Relay, 1, &protocol.Got{PageID: protocol.PageID(fmt.Sprint("p", a.records)), Root: root})
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
	a.place = a.liar.report(a.b, a.place, lines...)
}

// write makes a record known to the payer, and its line.
func (a *billAuthor) write(s *state.Store) *ledger.Line {
	a.records++
	now := protocol.TimestampOf(time.Now())
	id := protocol.RecordID(fmt.Sprint("r", a.records))
	m, err := s.Enqueue(a.b.Context(), a.reader.Public(), []state.Relay{{Key: a.liar.m.Relay, Address: "https://relay.example"}},
		func(string, int64) (*state.Outgoing, error) {
			return &state.Outgoing{ID: id, Body: []byte{1}, Expires: now + 86_400_000, MaxPulls: 8}, nil
		})
	if err != nil {
		a.b.Fatal(err)
	}
	e, err := protocol.Sign(a.identity, a.reader.Public(), now, &protocol.Write{Relay: a.liar.m.Relay, RecordID: id, Expires: m.Expires, MaxPulls: 8, Content: "AAAA"})
	if err != nil {
		a.b.Fatal(err)
	}
	if err := s.Attempt(a.b.Context(), m.N, a.liar.m.Relay, e); err != nil {
		a.b.Fatal(err)
	}
	return &ledger.Line{Kind: ledger.KindWrite, From: e.From, To: e.To, RecordID: id, Hash: e.Hash(), Bytes: e.Size(), Written: now, Expires: m.Expires, MaxPulls: 8}
}
