package scenario_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// cutThenWhole sends a call over a wire that is cut within the reply, then again over a whole one,
// and returns the second reply.
func cutThenWhole(t *testing.T, p *scenario.Person, wire *scenario.Wire, c scenario.Call, after int64) *scenario.Reply {
	t.Helper()
	wire.CutAfter(after)
	if reply, err := p.Send(t.Context(), wire.URL, c); err == nil {
		t.Fatalf("%s %s: not cut after %d bytes: %d", c.Method, c.Path, after, reply.Status)
	} else if !errors.Is(err, scenario.ErrCut) {
		t.Fatal(err)
	}
	wire.CutAfter(-1)
	reply, err := p.Send(t.Context(), wire.URL, c)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// Every kind of request, sent again after its reply was cut at any byte, has the effect of one.
func TestRetriedRequestsHaveOneEffect(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	wire := scenario.NewWire(t, strings.TrimPrefix(node.URL, "http://"))
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 30 {
		alice, bob := scenario.NewPerson(t, node.Key), scenario.NewPerson(t, node.Key)
		node.Grant(t, alice.Key.Public())
		to := bob.Key.Public()
		cut := func() int64 { return int64(random.IntN(120)) } // within every reply, head or body

		write := alice.Write(to, "one", 2)
		if r := cutThenWhole(t, alice, wire, write, cut()); r.Status != http.StatusOK {
			t.Fatalf("round %d: write again: %d %s", round, r.Status, r.Body)
		}
		batch := alice.Write(to, "two", 2)
		third := alice.Write(to, "three", 2)
		batch.Method, batch.Path = http.MethodPost, "/"+alice.Key.Public().String()+"/outbox"
		batch.Body, batch.To = append(batch.Body, third.Body...), append(batch.To, to)
		if r := cutThenWhole(t, alice, wire, batch, cut()); bytes.Count(r.Body, []byte(`"status":200`)) != 2 {
			t.Fatalf("round %d: batch again: %d %s", round, r.Status, r.Body)
		}
		used := node.Account(t, alice.Key.Public())

		page := pageOf(t, cutThenWhole(t, bob, wire, bob.Pull("p1", nil, 10, alice.Key.Public()), cut()))
		if len(page.Lines) != 3 || page.Header.Served != 2 {
			t.Fatalf("round %d: pull again: %+v", round, page.Header)
		}
		if r := cutThenWhole(t, bob, wire, bob.Got("p1", *page.Header.Root), cut()%80); r.Status != http.StatusNoContent {
			t.Fatalf("round %d: got again: %d %s", round, r.Status, r.Body)
		}
		read := scenario.Call{Method: http.MethodGet, Type: protocol.TypeRead,
			Path: protocol.Path{Sender: alice.Key.Public(), Receiver: to, ID: "two"}.String() + "?pageId=p2"}
		r := cutThenWhole(t, bob, wire, read, cut())
		e, err := protocol.ParseEnvelope(r.Body)
		if err != nil || r.Status != http.StatusOK {
			t.Fatalf("round %d: read again: %d %s", round, r.Status, r.Body)
		}
		// Of two pulls two are used: a retry counted twice would have made the record go.
		cutThenWhole(t, bob, wire, bob.Got("p2", e.Hash()), 10)
		listing := scenario.Call{Method: http.MethodGet, Type: protocol.TypeInventory, Path: "/" + alice.Key.Public().String() + "/outbox"}
		r = cutThenWhole(t, alice, wire, listing, cut())
		if got := strings.Count(string(r.Body), `"recordId"`); got != 2 || !bytes.Contains(r.Body, []byte(`"pulls":1`)) {
			t.Fatalf("round %d: %d records are left, want 2: %s", round, got, r.Body)
		}
		erase := scenario.Call{Method: http.MethodDelete, Type: protocol.TypeDelete, Path: write.Path}
		if r := cutThenWhole(t, alice, wire, erase, cut()%80); r.Status != http.StatusNoContent {
			t.Fatalf("round %d: delete again: %d %s", round, r.Status, r.Body)
		}
		if r := cutThenWhole(t, alice, wire, write, cut()); r.Status != http.StatusGone {
			t.Fatalf("round %d: a write after its delete: %d %s", round, r.Status, r.Body)
		}
		size := e.Size() // all but the id have one size
		after := node.Account(t, alice.Key.Public())
		if used.Stored < 3*size-4 || used.Stored > 3*size+4 || after.Stored >= used.Stored || after.Stored < 2*size-4 {
			t.Fatalf("round %d: charged %d then %d for 3 then 2 records of %d", round, used.Stored, after.Stored, size)
		}
		if used.Moved != 3*used.Stored {
			t.Fatalf("round %d: moved %d for %d bytes with 2 pulls each", round, used.Moved, used.Stored)
		}
	}
}

func pageOf(t *testing.T, r *scenario.Reply) *protocol.Page {
	t.Helper()
	page, err := protocol.ReadPage(bytes.NewReader(r.Body))
	if err != nil || r.Status != http.StatusOK {
		t.Fatalf("not a page: %d %v %s", r.Status, err, r.Body)
	}
	if page.Header.Records > 0 {
		if err := page.CheckRoot(); err != nil {
			t.Fatal(err)
		}
	}
	return page
}

// A reader whose replies are cut at random loses nothing: he keeps the records that arrived whole,
// asks the page again, and when it was served as often as pages are, acknowledges the root that he
// is told and fetches the rest one by one.
func TestReaderWithCutRepliesLosesNothing(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	wire := scenario.NewWire(t, strings.TrimPrefix(node.URL, "http://"))
	alice, bob := scenario.NewPerson(t, node.Key), scenario.NewPerson(t, node.Key)
	node.Grant(t, alice.Key.Public())
	const total = 200
	var want []string
	for i := range total {
		id := fmt.Sprintf("r%03d", i)
		want = append(want, id)
		if r, err := alice.Send(t.Context(), node.URL, alice.Write(bob.Key.Public(), id, 2)); err != nil || r.Status != http.StatusCreated {
			t.Fatalf("%v %+v", err, r)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	have := make(map[string]bool)
	var after *string
	spent := 0
	for n := 0; len(have) < total; n++ {
		if n > total {
			t.Fatalf("%d of %d after %d pages", len(have), total, n)
		}
		id := fmt.Sprint("page", n)
		pull := bob.Pull(id, after, 10, alice.Key.Public())
		for try := 0; ; try++ {
			wire.CutAfter(int64(random.IntN(7000))) // a page has some 5 kB: most are cut
			reply, err := bob.Send(t.Context(), wire.URL, pull)
			if reply != nil && reply.Status == http.StatusGone {
				spent++
				root := problemRoot(t, reply.Body)
				mustSend(t, bob, node.URL, bob.Got(protocol.PageID(id), root))
				break
			}
			var page *protocol.Page
			if reply != nil {
				var perr error
				if page, perr = protocol.ReadPage(bytes.NewReader(reply.Body)); perr != nil && !errors.Is(perr, io.ErrUnexpectedEOF) {
					t.Fatal(perr)
				}
			}
			if page != nil {
				after = &page.Header.Cursor
				keep(t, have, page)
			}
			if err == nil {
				mustSend(t, bob, node.URL, bob.Got(page.Header.PageID, *page.Header.Root))
				break
			}
		}
		// What a spent page kept from him is still his to pull, one by one.
		fetchMissing(t, node.URL, bob, alice, have, want, after, n)
	}
	if spent == 0 {
		t.Fatal("no page was cut three times: the test does not reach what it is for")
	}
	t.Logf("%d pages were cut every time they were served", spent)
}

func keep(t *testing.T, have map[string]bool, page *protocol.Page) {
	t.Helper()
	for _, l := range page.Lines {
		if l.Gone != nil {
			t.Fatalf("%s is gone", l.Gone.RecordID)
		}
		var w protocol.Write
		if err := errors.Join(l.Envelope.Verify(), l.Envelope.Decode(&w)); err != nil {
			t.Fatal(err)
		}
		have[string(w.RecordID)] = true
	}
}

// fetchMissing reads, one by one over a whole wire, the records up to a cursor that are missing.
func fetchMissing(t *testing.T, url string, bob, alice *scenario.Person, have map[string]bool, want []string, after *string, n int) {
	t.Helper()
	if after == nil {
		return
	}
	upto := 0
	if _, err := fmt.Sscanf((*after)[strings.Index(*after, ".")+1:], "%d", &upto); err != nil {
		t.Fatal(err)
	}
	for i, id := range want[:min(upto, len(want))] {
		if have[id] {
			continue
		}
		r := mustSend(t, bob, url, scenario.Call{Method: http.MethodGet, Type: protocol.TypeRead,
			Path: protocol.Path{Sender: alice.Key.Public(), Receiver: bob.Key.Public(), ID: protocol.RecordID(id)}.String() + fmt.Sprintf("?pageId=single-%d-%d", n, i)})
		e, err := protocol.ParseEnvelope(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		have[id] = true
		mustSend(t, bob, url, bob.Got(protocol.PageID(fmt.Sprintf("single-%d-%d", n, i)), e.Hash()))
	}
}

func mustSend(t *testing.T, p *scenario.Person, url string, c scenario.Call) *scenario.Reply {
	t.Helper()
	r, err := p.Send(t.Context(), url, c)
	if err != nil || !slices.Contains([]int{200, 201, 204}, r.Status) {
		t.Fatalf("%s %s: %v %+v", c.Method, c.Path, err, r)
	}
	return r
}

func problemRoot(t *testing.T, body []byte) (root protocol.Hash) {
	t.Helper()
	_, rest, found := strings.Cut(string(body), `"root":"`)
	if !found || len(rest) < 64 || root.UnmarshalText([]byte(rest[:64])) != nil {
		t.Fatalf("no root in %s", body)
	}
	return root
}
