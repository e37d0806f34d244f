package api

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// usage asks for a report and takes the answer apart.
func (g *rig) usage(key *protocol.PrivateKey, query string) (protocol.UsageHeader, [][]byte) {
	g.t.Helper()
	got := g.signed(key, http.MethodGet, "/usage?"+query, protocol.TypeUsage)
	if got.status != http.StatusOK {
		g.t.Fatalf("GET /usage?%s: %d %s", query, got.status, got.body)
	}
	lines := bytes.Split(bytes.TrimSuffix(got.body, []byte("\n")), []byte("\n"))
	h, err := protocol.ParseUsageHeader(lines[0])
	if err != nil {
		g.t.Fatal(err)
	}
	if int64(len(lines)-1) != h.Lines {
		g.t.Fatalf("%d lines, the header says %d", len(lines)-1, h.Lines)
	}
	return *h, lines[1:]
}

// A payer reads his bill over HTTP, report by report and one line alone, and nobody else does.
func TestUsage(t *testing.T) {
	g := newRig(t)
	alice, bob := newKey(t), newKey(t)
	id := protocol.ContractID{1}
	err := g.db.Tx(t.Context(), func(tx pgx.Tx) error {
		o := books.Opening{ID: id, Payer: alice.Public(), Prices: ledger.Prices{Storage: 1000, Bandwidth: 1000}}
		if err := g.books.OpenContract(t.Context(), tx, o); err != nil {
			return err
		}
		return g.books.SetCredit(t.Context(), tx, o.Payer, o.ID, 1<<50)
	})
	if err != nil {
		t.Fatal(err)
	}
	who := ledger.Parties{Relay: g.key.Public(), Payer: alice.Public(), Contract: id}
	post := func() {
		t.Helper()
		if err := g.books.Post(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	query := "contract=" + id.String()
	if h, _ := g.usage(alice, query); h.Report != nil || h.More {
		t.Errorf("a report of nothing: %+v", h)
	}
	var place ledger.Place
	for round := range 2 {
		for i := range 3 {
			g.store(alice, bob, fmt.Sprintf("r%d-%d", round, i))
		}
		post()
		h, lines := g.usage(alice, fmt.Sprintf("%s&after=%d", query, place.Last))
		v, err := ledger.NewVerifier(h.Report, who, place)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if _, err := v.Line(line); err != nil {
				t.Fatal(err)
			}
		}
		one, alone := g.usage(alice, fmt.Sprintf("%s&after=%d&line=%d", query, place.Last, place.Last+2))
		if l, err := v.CheckLine(alone[0], one.Path); err != nil || l.Seq != place.Last+2 || l.Kind != ledger.KindWrite {
			t.Errorf("%+v, %v", l, err)
		}
		if place, err = v.End(); err != nil {
			t.Fatal(err)
		}
	}
	if h, _ := g.usage(alice, query); !h.More {
		t.Error("the first report does not tell of the second")
	}
	for _, c := range []struct {
		by    *protocol.PrivateKey
		query string
		code  protocol.Code
	}{
		{bob, query, protocol.CodeNotFound},
		{alice, "contract=" + protocol.ContractID{2}.String(), protocol.CodeNotFound},
		{alice, query + "&after=1", protocol.CodeInvalidValue},
		{alice, query + "&after=-1", protocol.CodeBadQuery},
		{alice, query + "&after=x", protocol.CodeBadQuery},
		{alice, query + "&line=9", protocol.CodeNotFound},
		{alice, query + "&after=3&line=3", protocol.CodeBadQuery},
		{alice, "contract=xyz", protocol.CodeBadQuery},
		{alice, "after=0", protocol.CodeBadQuery},
		{alice, query + "&more=1", protocol.CodeBadQuery},
	} {
		got := g.signed(c.by, http.MethodGet, "/usage?"+c.query, protocol.TypeUsage)
		if got.status != c.code.Status() || !bytes.Contains(got.body, []byte(`"`+c.code+`"`)) {
			t.Errorf("%s: %d %s, want %s", c.query, got.status, got.body, c.code)
		}
	}
}
