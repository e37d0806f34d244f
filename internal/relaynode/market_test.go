package relaynode_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testhub"
	"relaymarket/internal/testnode"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

// listed is what GET /market of a hub has, checked.
func listed(t *testing.T, hub *testnode.Node) map[protocol.PublicKey]*broadcast.Offer {
	t.Helper()
	code, body := do(t, http.MethodGet, hub.URL+"/market?limit=1", nil)
	found := map[protocol.PublicKey]*broadcast.Offer{}
	for {
		var page struct {
			Announcements []json.RawMessage `json:"announcements"`
			Cursor        string            `json:"cursor"`
			More          bool              `json:"more"`
		}
		if code == http.StatusServiceUnavailable {
			return nil // the hub begins
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || code != http.StatusOK {
			t.Fatalf("%d %s", code, body)
		}
		for _, data := range page.Announcements {
			o, err := testhub.Rules.Check(data, protocol.TimestampOf(time.Now()), nil)
			if err != nil {
				t.Fatal(err)
			}
			found[o.Relay] = o
		}
		if !page.More {
			return found
		}
		code, body = do(t, http.MethodGet, hub.URL+"/market?after="+page.Cursor, nil)
	}
}

// wellKnown is what a relay says of itself.
func wellKnown(t *testing.T, n *testnode.Node) string {
	t.Helper()
	code, body := do(t, http.MethodGet, n.URL+"/.well-known/relaymarket", nil)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	return body
}

// Three relays, one of them a hub: all are in its book, over HTTP and NATS, with the very announcement that each shows itself, in
// refusals too; and a restart changes nothing.
func TestMarket(t *testing.T) {
	hub := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Market = relaynode.Market{Network: protocol.Regtest, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
	}})
	relays := []*testnode.Node{hub}
	for range 2 {
		relays = append(relays, testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
			c.Market = relaynode.Market{Network: protocol.Regtest, Hubs: []string{hub.HubURL}}
		}}))
	}
	var book map[protocol.PublicKey]*broadcast.Offer
	testhub.Wait(t, "all are in the book, with what they show themselves", func() bool {
		book = listed(t, hub)
		return len(book) == len(relays) && !slices.ContainsFunc(relays, func(n *testnode.Node) bool {
			offer := book[n.Key]
			return offer == nil || offer.Addresses[0] != n.URL || string(offer.Envelope.Bytes()) != wellKnown(t, n)
		})
	})
	for _, n := range relays {
		offer := book[n.Key]
		code, body := write(t, n, testnode.NewKey(t), "x")
		if code != http.StatusPaymentRequired || !strings.Contains(body, string(offer.Envelope.Bytes())) {
			t.Errorf("a refusal carries another: %d %s", code, body)
		}
	}
	if want := []string{hub.URL}; !slices.Equal(book[hub.Key].Hubs, want) {
		t.Errorf("the hub names hubs %v", book[hub.Key].Hubs)
	}
	if want := []string{hub.HubURL}; !slices.Equal(book[relays[1].Key].Hubs, want) {
		t.Errorf("a relay names hubs %v", book[relays[1].Key].Hubs)
	}
	code, body := do(t, http.MethodGet, relays[1].URL+"/market", nil)
	if code != http.StatusNotFound {
		t.Errorf("a relay that is no hub: %d %s", code, body)
	}
	for query, want := range map[string]int{"?after=x": 400, "?after=01": 400, "?limit=0": 422, "?limit=1001": 422, "?x=1": 400} {
		if code, body := do(t, http.MethodGet, hub.URL+"/market"+query, nil); code != want {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
	followed(t, hub, book)

	relays[1].Restart()
	testhub.Wait(t, "it shows what it announced", func() bool {
		return wellKnown(t, relays[1]) == string(book[relays[1].Key].Envelope.Bytes())
	})
}

// followed checks that NATS has the same.
func followed(t *testing.T, hub *testnode.Node, book map[protocol.PublicKey]*broadcast.Offer) {
	t.Helper()
	conn, err := feed.Connect(t.Context(), hub.HubURL, feed.Access{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := 0
	if _, err := feed.FetchAll(t.Context(), conn, protocol.Regtest, 0, 100, func(m feed.Message) error {
		o, err := testhub.Rules.CheckOn(m.Subject, m.Data, protocol.TimestampOf(time.Now()), nil)
		if err != nil || book[o.Relay] == nil || book[o.Relay].Hash != o.Hash {
			t.Errorf("NATS has %s: %v", m.Data, err)
		}
		n++
		return nil
	}); err != nil || n != len(book) {
		t.Errorf("%d over NATS, %v", n, err)
	}
}

// A hub's port in use is said at the start, with the setting's name.
func TestHubPortInUse(t *testing.T) {
	c := testhub.NewClock()
	taken := testhub.Start(t, c)
	cfg := relaynode.Config{Key: testnode.NewKey(t), Listen: "127.0.0.1:0", OperatorListen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Clock: c.Now,
		Market: relaynode.Market{Network: protocol.Regtest, Hub: &relaynode.Hub{Listen: taken.Address(), Folder: t.TempDir()}}}
	if err := relaynode.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--hub-listen") {
		t.Errorf("%v", err)
	}
}

// What an operator lists while the relay serves is announced on the hubs, shown by the relay and in its refusals, byte for byte, and taken back
// when it is not so any more.
func TestListsAreAnnounced(t *testing.T) {
	hub := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Market = relaynode.Market{Network: protocol.Regtest, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
		c.Volunteer = willing.Policy{Keys: &willing.Conditions{}, Topics: &willing.Conditions{Ads: true}, Stored: 1000, Moved: 2000, Days: 3, Accounts: 1, Notice: "hello"}
	}})
	volunteers := func(topics ...string) func() bool {
		return func() bool {
			o := listed(t, hub)[hub.Key]
			if o == nil {
				return false
			}
			var found []string
			for _, terms := range o.Terms {
				if terms.Type == protocol.TermsVolunteer {
					found = append(found, terms.Topic)
				}
			}
			return slices.Equal(found, topics) && string(o.Envelope.Bytes()) == wellKnown(t, hub)
		}
	}
	testhub.Wait(t, "it is in its own book", volunteers())
	hub.List(t, willing.Entry{Kind: willing.Topic, Name: "weather", Allowed: true})
	testhub.Wait(t, "the topic is announced", volunteers("weather"))
	if o := listed(t, hub)[hub.Key]; o.Notice != "hello" {
		t.Errorf("the notice is %q", o.Notice)
	}
	key := testnode.NewKey(t)
	hub.List(t, willing.Entry{Kind: willing.Key, Name: key.Public().String(), Allowed: true})
	testhub.Wait(t, "that there are keys is announced, not which", volunteers("", "weather"))
	if text := wellKnown(t, hub); strings.Contains(text, key.Public().String()) {
		t.Errorf("whom it serves is everybody's business:\n%s", text)
	}
	hub.List(t, willing.Entry{Kind: willing.Topic, Name: "weather"})
	testhub.Wait(t, "the topic is taken back", volunteers(""))
}
