package client_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

var auditPrices = ledger.Prices{Storage: 100_000_000, Bandwidth: 400_000_000}

// rents makes a contract the person's account on a relay.
func (p *person) rents(node *testnode.Node) client.Metered {
	p.t.Helper()
	m := client.Metered{Contract: protocol.ContractID(testnode.NewKey(p.t).Public()), Relay: node.Key, Address: node.URL, Prices: auditPrices}
	node.Contract(p.t, books.Opening{ID: m.Contract, Payer: p.Key(), Prices: auditPrices}, 1<<50)
	p.adds(node.URL)
	return m
}

// audits has an audit done, with nothing wrong with the report itself.
func (p *person) audits(m client.Metered) *client.Audit {
	p.t.Helper()
	a, err := p.Audit(p.t.Context(), m)
	if err != nil || a.Fault != nil {
		p.t.Fatalf("audit: %v, %v", err, a)
	}
	return a
}

// A bill over HTTP: what was written, read and deleted is accepted, and the rest waits; nothing is disputed, and the parts are
// what the relay counts.
func TestAudit(t *testing.T) {
	node, his := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t), somebody(t).joins(his)
	m := alice.rents(node)
	alice.befriends(bob)
	bob.befriends(alice)
	if a := alice.audits(m); a.Lines != 0 || a.Bill != (ledger.Bill{}) {
		t.Fatalf("%+v", a)
	}
	alice.says(bob, "one")
	two := alice.says(bob, "two")
	bob.finds("one", "two")
	three := alice.says(bob, "never read")
	for _, message := range []*client.Outgoing{two, three} {
		if _, err := alice.Remove(t.Context(), message); err != nil {
			t.Fatal(err)
		}
	}
	posted := node.Posted(t, m.Contract)
	alice.finds() // the receipts
	a := alice.audits(m)
	if a.Claimed != posted.Totals || a.Accepted != posted.Totals || a.Lines != 7 || a.New != 7 || len(a.Reasons) != 0 {
		t.Fatalf("%+v\nposted %+v", a, posted)
	}
	if b := a.Bill; b.Disputed != 0 || b.Accepted == 0 || b.Waiting == 0 || b.Accepted+b.Waiting != b.Claimed {
		t.Errorf("%+v", b)
	}
	if len(a.Friends) != 1 || a.Friends[0].Records != 3 || a.Friends[0].Pulls != 2 || a.Friends[0].Receipts != 2 || a.Unread != 0 || a.Unbilled != 0 {
		t.Errorf("%+v", a.Friends)
	}
	again := alice.audits(m)
	if again.New != 0 || again.Lines != 7 || again.Accepted != a.Accepted || again.Bill.Accepted < a.Bill.Accepted {
		t.Errorf("%+v", again)
	}
	alice.says(bob, "four")
	node.Posted(t, m.Contract)
	if next := alice.audits(m); next.New != 1 || next.Lines != 8 {
		t.Errorf("%+v", next)
	}
}

// A friend who is admitted writes on the payer's cost: the payer knows the records from having pulled them.
func TestAuditOfAdmitted(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t), somebody(t)
	m := alice.rents(node)
	node.Admit(t, alice.Key(), protocol.Admitted{Key: bob.Key(), Bytes: 1 << 20, Records: 10})
	bob.befriends(alice)
	alice.befriends(bob)
	alice.says(bob, "hello")
	bob.finds("hello") // and leaves a receipt with alice
	alice.finds()
	node.Posted(t, m.Contract)
	if a := alice.audits(m); a.Bill.Disputed != 0 || len(a.Friends) != 2 {
		t.Errorf("%+v", a)
	}
}

// liar is a relay's interface for its bills alone, run by whoever has its key.
type liar struct {
	key     *protocol.PrivateKey
	m       client.Metered
	payer   protocol.PublicKey
	reports map[int64][]byte // answers by the line after which they begin
	outcome protocol.RefusalOutcome
	refused []protocol.UsageRefusal // that it was told
}

func (l *liar) serve(t testing.TB) client.Metered {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/refusals") {
			l.answerRefusal(w, r)
			return
		}
		query, _ := url.ParseQuery(r.URL.RawQuery)
		after, _ := strconv.ParseInt(query.Get("after"), 10, 64)
		_, _ = w.Write(l.reports[after])
	}))
	t.Cleanup(server.Close)
	m := l.m
	m.Address = server.URL
	return m
}

// answerRefusal answers a refusal with the liar's outcome.
func (l *liar) answerRefusal(w http.ResponseWriter, r *http.Request) {
	var refusal protocol.UsageRefusal
	body, err := io.ReadAll(r.Body)
	if err == nil {
		var e *protocol.Envelope
		if e, err = protocol.ParseEnvelope(body); err == nil {
			err = e.Decode(&refusal)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	l.refused = append(l.refused, refusal)
	answer, err := protocol.Sign(l.key, l.payer, protocol.TimestampOf(time.Now()), &protocol.UsageRefused{Contract: refusal.Contract, Report: refusal.Report,
		Outcome: l.outcome, WrittenOff: 7, Disputed: 8, Most: 9})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(answer.Bytes())
}

// report signs a report over lines and keeps it as the answer.
func (l *liar) report(t testing.TB, before ledger.Place, lines ...*ledger.Line) ledger.Place {
	t.Helper()
	b := ledger.NewBuilder(ledger.Parties{Relay: l.m.Relay, Payer: l.payer, Contract: l.m.Contract}, before)
	var body bytes.Buffer
	for _, line := range lines {
		data, err := b.Add(line)
		if err != nil {
			t.Fatal(err)
		}
		body.Write(append(data, '\n'))
	}
	e, err := protocol.Sign(l.key, l.payer, protocol.TimestampOf(time.Now()), b.Report())
	if err != nil {
		t.Fatal(err)
	}
	header, err := protocol.Canonicalize(protocol.UsageHeader{Report: e, Lines: b.Lines()})
	if err != nil {
		t.Fatal(err)
	}
	l.reports[before.Last] = append(append(header, '\n'), body.Bytes()...)
	return ledger.Place{Report: e.Hash(), Last: before.Last + b.Lines(), Totals: b.Totals()}
}

// deceived is a payer with one message on an honest relay, and the relay's liar.
func deceived(t *testing.T) (*person, *liar, *ledger.Line) {
	t.Helper()
	key := testnode.NewKey(t)
	node := testnode.Start(t, testnode.Options{Key: key})
	alice, bob := somebody(t), somebody(t)
	m := alice.rents(node)
	alice.befriends(bob)
	sent := alice.says(bob, "hello")
	l := &liar{key: key, m: m, payer: alice.Key(), reports: map[int64][]byte{}}
	now := protocol.TimestampOf(time.Now())
	write := &ledger.Line{Kind: ledger.KindWrite, From: alice.Key(), To: bob.Key(), RecordID: sent.ID, Hash: *sent.Copies[0].Hash,
		Bytes: alice.size(node, sent), Written: now, Expires: sent.Expires, MaxPulls: sent.MaxPulls}
	return alice, l, write
}

// size is what a message takes on its only relay.
func (p *person) size(node *testnode.Node, _ *client.Outgoing) int64 {
	return node.Account(p.t, p.Key()).Stored
}

// Bad faith: a relay pads its bill. The audit names the lines; what is true is accepted, and nothing else.
func TestBadFaithPaddedBill(t *testing.T) {
	alice, l, write := deceived(t)
	fake := *write
	fake.Hash[0], fake.From = fake.Hash[0]^1, testnode.NewKey(t).Public()
	pull := *write
	pull.Kind, pull.Written, pull.Expires, pull.MaxPulls = ledger.KindPull, 0, 0, 0
	got, err := protocol.Sign(l.key, l.m.Relay, 1, &protocol.Got{PageID: "p", Root: pull.Hash})
	if err != nil {
		t.Fatal(err)
	}
	pull.Evidence = &ledger.Evidence{Got: got.Bytes(), Records: 1}
	twice := *write
	l.report(t, ledger.Place{}, write, &fake, &pull, &twice)
	m := l.serve(t)
	a := alice.audits(m)
	if a.Bill.Disputed == 0 || a.Accepted.Written != ledger.Times(write.Bytes, 1) || a.Accepted.Pulled != (ledger.Quantity{}) {
		t.Errorf("%+v", a)
	}
	var lines []int64
	if err := alice.RefusedLines(t.Context(), m.Contract, func(r *client.RefusedLine) error {
		lines = append(lines, r.Line)
		return nil
	}); err != nil || len(lines) != 3 || lines[0] != 2 || lines[1] != 3 || lines[2] != 4 {
		t.Errorf("refused: %v, %v", lines, err)
	}
	if len(a.Reasons) != 3 || a.Reasons[0].Reason != ledger.Unknown || a.Reasons[1].Reason != ledger.Doubled || a.Reasons[2].Reason != ledger.NoEvidence {
		t.Errorf("%+v", a.Reasons)
	}
}

// Bad faith: two reports for one period. The second is refused, and the two are the proof.
func TestBadFaithTwoReports(t *testing.T) {
	alice, l, write := deceived(t)
	m := l.serve(t)
	one := l.report(t, ledger.Place{}, write)
	alice.audits(m)
	fake := *write
	fake.Hash[0] ^= 1
	other := l.report(t, ledger.Place{}, write, &fake)
	l.report(t, other, &fake)
	// The client asks for what follows line 1: the liar has another history, in which line 1 belongs to a longer report.
	l.reports[1] = l.reports[0]
	a, err := alice.Audit(t.Context(), m)
	if err != nil || !errors.Is(a.Fault, ledger.ErrChain) || len(a.Proof) != 2 || !ledger.Lie(a.Proof[0], a.Proof[1]) {
		t.Fatalf("%+v, %v", a, err)
	}
	if a.Lines != one.Last || a.Bill.Disputed != 0 {
		t.Errorf("what was true before is not any more: %+v", a)
	}
	l.reports[1] = nil // cut off
	var refusal *client.RelayError
	if _, err := alice.Audit(t.Context(), m); !errors.As(err, &refusal) {
		t.Errorf("a cut reply: %v", err)
	}
}

// Bad faith: a report that is not consistent leaves nothing behind.
func TestBadFaithReportThatDoesNotAddUp(t *testing.T) {
	alice, l, write := deceived(t)
	m := l.serve(t)
	other := *write
	other.MaxPulls++
	l.report(t, ledger.Place{}, write, &other)
	honest := l.reports[0]
	lines := bytes.SplitAfter(honest, []byte("\n"))
	for name, forged := range map[string][]byte{
		"a line dropped":   bytes.Join([][]byte{lines[0], lines[1]}, nil),
		"lines reordered":  bytes.Join([][]byte{lines[0], lines[2], lines[1]}, nil),
		"a line twice":     bytes.Join([][]byte{lines[0], lines[1], lines[1]}, nil),
		"a line altered":   bytes.Replace(honest, []byte(`"maxPulls":`), []byte(`"maxPulls":1`), 1),
		"no lines at all":  bytes.Replace(lines[0], []byte(`"lines":2`), []byte(`"lines":0`), 1),
		"a line too long":  append(bytes.Clone(lines[0]), bytes.Repeat([]byte("x"), 20_000)...),
		"no header at all": []byte("<html>\n"),
	} {
		l.reports[0] = forged
		a, err := alice.Audit(t.Context(), m)
		if err == nil && a.Fault == nil {
			t.Errorf("%s: accepted", name)
		}
		if a != nil && (a.Lines != 0 || a.Bill != (ledger.Bill{}) || len(a.Friends) != 0) {
			t.Errorf("%s: something stayed: %+v", name, a)
		}
	}
	l.reports[0] = honest
	if a := alice.audits(m); a.Lines != 2 {
		t.Errorf("%+v", a)
	}
}
