package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func judgeQuery(t *testing.T, _ *vectorFile, raw []byte) error {
	var c struct {
		vectorHead
		Query, Hash string
	}
	decodeCase(t, raw, &c)
	if CheckCanonical([]byte(c.Query)) == nil {
		sameQuery(t, []byte(c.Query))
	}
	q, err := ParsePullQuery([]byte(c.Query))
	if err != nil {
		return err
	}
	equal(t, "hash", QueryHash([]byte(c.Query)).String(), c.Hash)
	checkQueryAgain(t, q, []byte(c.Query))
	return nil
}

func checkQueryAgain(t testing.TB, q *PullQuery, line []byte) {
	t.Helper()
	if again, err := Canonicalize(q); err != nil || !bytes.Equal(again, line) {
		t.Fatalf("encoded again it is\n%s (%v), it was\n%s", again, err, line)
	}
}

// judgePull judges the body of a pull in the order that docs/protocol.md gives.
func judgePull(t *testing.T, _ *vectorFile, raw []byte) error {
	var c struct {
		vectorHead
		vectorInput
		From, Query, Hash, PageID, Root string
	}
	decodeCase(t, raw, &c)
	e, line, err := ParsePullBody(c.bytes(t))
	if err != nil {
		return err
	}
	var pull Pull
	if err := e.Decode(&pull); err != nil {
		return err
	}
	if _, err := ParsePullQuery(line); err != nil {
		return err
	}
	if err := pull.CheckQuery(line); err != nil {
		return err
	}
	if err := e.Verify(); err != nil {
		return err
	}
	equal(t, "from", e.From.String(), c.From)
	equal(t, "query", string(line), c.Query)
	equal(t, "hash", pull.Query.String(), c.Hash)
	equal(t, "body", string(PullBody(e, line)), string(c.bytes(t)))
	if equal(t, "acknowledges", pull.Got != nil, c.Root != ""); pull.Got != nil {
		equal(t, "page", string(pull.Got.PageID), c.PageID)
		equal(t, "root", pull.Got.Root.String(), c.Root)
	}
	return nil
}

func judgeAcknowledgement(t *testing.T, _ *vectorFile, raw []byte) error {
	var c struct {
		vectorHead
		Envelope, Reader, Relay, PageID, Root string
	}
	decodeCase(t, raw, &c)
	ack, err := ParseAcknowledgement([]byte(c.Envelope))
	if err != nil {
		return err
	}
	equal(t, "reader", ack.Reader.String(), c.Reader)
	equal(t, "relay", ack.Relay.String(), c.Relay)
	equal(t, "page", string(ack.PageID), c.PageID)
	equal(t, "root", ack.Root.String(), c.Root)
	return nil
}

// What others see of a pull, the envelope, tells nothing of the query, whatever of it they know or guess: the same query never has the
// same hash twice, and its page id, which the evidence of the next page shows, does not give it away.
func TestEvidenceHidesTheQuery(t *testing.T) {
	key, relay := testKey(t, 1), testKey(t, 2).Public()
	query := PullQuery{Senders: manyKeys(3), Limit: 1000, PageID: "page-2"}
	seen := map[Hash]bool{}
	for range 100 {
		pull, line, err := NewPull(query, &PageRoot{PageID: "page-1", Root: Hash{1}})
		if err != nil {
			t.Fatal(err)
		}
		e, err := Sign(key, relay, 1, pull)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := ParsePullQuery(line)
		if err != nil || asked.Salt == (Salt{}) || pull.CheckQuery(line) != nil {
			t.Fatalf("%s under the salt %s: %v", line, asked.Salt, err)
		}
		guess, err := Canonicalize(PullQuery{Senders: query.Senders, Limit: query.Limit, PageID: query.PageID})
		if err != nil {
			t.Fatal(err)
		}
		if seen[pull.Query] || QueryHash(guess) == pull.Query {
			t.Fatalf("the hash %s tells what is asked", pull.Query)
		}
		seen[pull.Query] = true
		for _, member := range []string{"senders", "limit", "salt", "page-2", asked.Salt.String(), query.Senders[0].String()} {
			if strings.Contains(string(e.Bytes()), member) {
				t.Errorf("the envelope shows %s: %s", member, e.Bytes())
			}
		}
	}
}

func TestNewPullRefuses(t *testing.T) {
	for _, q := range []PullQuery{{Limit: 1, PageID: "p"}, {Senders: manyKeys(1), PageID: "p"}, {Senders: manyKeys(1), Limit: 1}, {Senders: manyKeys(MaxSenders + 1), Limit: 1, PageID: "p"}} {
		if _, _, err := NewPull(q, nil); err == nil {
			t.Errorf("%d senders, limit %d, page %q are a query", len(q.Senders), q.Limit, q.PageID)
		}
	}
}

func FuzzParsePullQuery(f *testing.F) {
	addVectors(f, "queries.json", "query")
	f.Fuzz(func(t *testing.T, line []byte) {
		if CheckCanonical(line) == nil {
			sameQuery(t, line)
		}
		q, err := ParsePullQuery(line)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if err := q.Validate(); err != nil {
			t.Fatal(err)
		}
		checkQueryAgain(t, q, line)
	})
}

func FuzzParsePullBody(f *testing.F) {
	addVectors(f, "pulls.json", "input")
	f.Fuzz(func(t *testing.T, body []byte) {
		e, line, err := ParsePullBody(body)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if !bytes.Equal(PullBody(e, line), body) {
			t.Fatalf("%q is read as %q and %q", body, e.Bytes(), line)
		}
	})
}

func FuzzParseAcknowledgement(f *testing.F) {
	addVectors(f, "acknowledgements.json", "envelope")
	f.Fuzz(func(t *testing.T, data []byte) {
		ack, err := ParseAcknowledgement(data)
		if err != nil {
			checkCoded(t, err)
			return
		}
		e, err := ParseEnvelope(data)
		if err != nil || e.Verify() != nil || ack.Reader != e.From || ack.Relay != e.To {
			t.Fatalf("%s is taken as %+v: %v", data, ack, err)
		}
		var said struct {
			Type   string
			Got    *PageRoot
			PageID PageID
			Root   Hash
		}
		if err := json.Unmarshal(e.Request, &said); err != nil {
			t.Fatal(err)
		}
		want := PageRoot{PageID: said.PageID, Root: said.Root}
		if said.Type == TypePull && said.Got != nil {
			want = *said.Got
		} else if said.Type != TypeGot {
			t.Fatalf("%s acknowledges nothing", data)
		}
		if ack.PageRoot != want {
			t.Fatalf("%s acknowledges %+v", data, ack.PageRoot)
		}
	})
}
