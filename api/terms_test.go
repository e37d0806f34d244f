package api

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

var (
	wantGrant     = protocol.Wish{Type: protocol.TermsGrant}
	wantVolunteer = protocol.Wish{Type: protocol.TermsVolunteer}
	wantContract  = protocol.Wish{Type: protocol.TermsContract, Payment: true}
	wantWeather   = protocol.Wish{Type: protocol.TermsVolunteer, Topic: "weather"}
)

// ask asks for terms and checks that the answer is the relay's, to who asked, about what he asked, and true to what is announced.
func (g *rig) ask(key *protocol.PrivateKey, wishes ...protocol.Wish) *protocol.TermsAnswer {
	g.t.Helper()
	e := g.sign(key, g.key.Public(), &protocol.TermsRequest{Wishes: wishes})
	return g.answered(e, g.post("/terms", e))
}

func (g *rig) answered(e *protocol.Envelope, a answer) *protocol.TermsAnswer {
	g.t.Helper()
	if a.status != http.StatusOK {
		g.t.Fatalf("terms: %d %s", a.status, a.body)
	}
	said, err := protocol.ParseEnvelope(a.body)
	if err != nil || said.Verify() != nil || said.From != g.key.Public() || said.To != e.From {
		g.t.Fatalf("%s: %v", a.body, err)
	}
	var answer protocol.TermsAnswer
	if err := said.Decode(&answer); err != nil || answer.Request != e.Hash() {
		g.t.Fatalf("%s: %v", a.body, err)
	}
	if own := g.send("GET", "/.well-known/relaymarket", "", "").body; !bytes.Equal(own, answer.Announcement) {
		g.t.Errorf("the answer offers\n%s\nannounced is\n%s", answer.Announcement, own)
	}
	return &answer
}

// accepts asserts which wish was taken.
func (g *rig) accepts(a *protocol.TermsAnswer, which int64, refused ...protocol.Refused) {
	g.t.Helper()
	if which < 0 && a.Accepted != nil || which >= 0 && (a.Accepted == nil || *a.Accepted != which) || !slices.Equal(a.Refused, refused) {
		g.t.Errorf("accepted %v, refused %v; want %d, %v", a.Accepted, a.Refused, which, refused)
	}
}

func (g *rig) list(e willing.Entry) {
	g.t.Helper()
	if _, err := g.willing.Put(g.t.Context(), e); err != nil {
		g.t.Fatal(err)
	}
	if err := g.willing.Refresh(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

func allowKey(k *protocol.PrivateKey) willing.Entry {
	return willing.Entry{Kind: willing.Key, Name: k.Public().String(), Allowed: true}
}

// tagged is a write with a tag, and content that is sealed or not.
func (g *rig) tagged(from, to *protocol.PrivateKey, id string, tag protocol.Tag, content string) answer {
	w := &protocol.Write{Relay: g.key.Public(), RecordID: protocol.RecordID(id), Expires: g.now().Add(time.Hour), MaxPulls: 8, Content: content}
	if tag != "" {
		w.Tag = &tag
	}
	return g.put(recordPath(from, to, id), g.sign(from, to.Public(), w))
}

const (
	sealedContent = "AQAA" // suite 1
	plainContent  = "AAAA" // suite 0
)

// A friend of the operator is served for nothing once he is listed, and no longer once he is denied; a stranger is not.
func TestVolunteerForKeys(t *testing.T) {
	g := newRig(t)
	friend, stranger, bob := newKey(t), newKey(t), newKey(t)
	g.accepts(g.ask(friend, wantGrant, wantVolunteer, wantContract), -1, "key", "key", "offer")
	e := allowKey(friend)
	e.Stored = new(int64)
	*e.Stored = 600
	g.list(e)
	g.accepts(g.ask(stranger, wantVolunteer), -1, "key")
	g.refused(g.put(recordPath(friend, bob, "early"), g.write(friend, bob, "early")), protocol.CodeNoAccount)

	a := g.ask(friend, wantContract, wantVolunteer)
	g.accepts(a, 1, "offer")
	if a.Account == nil || a.Account.StoredBytes != 600 || a.Account.MovedBytes != policy.Moved || a.Account.Topic != "" {
		t.Errorf("%+v", a.Account)
	}
	g.store(friend, bob, "one")
	g.refused(g.put(recordPath(friend, bob, "two"), g.write(friend, bob, "two")), protocol.CodeQuotaStored)
	// Asked again it is the same account, with what was used of it.
	g.accepts(g.ask(friend, wantVolunteer), 0)
	g.refused(g.put(recordPath(friend, bob, "two"), g.write(friend, bob, "two")), protocol.CodeQuotaStored)
	if got := g.signed(friend, "GET", "/account", protocol.TypeAccount); !bytes.Contains(got.body, []byte(`"volunteer":{"ads":false,"plaintext":false}`)) {
		t.Errorf("%s", got.body)
	}

	e.Allowed, e.Stored = false, nil
	g.list(e)
	p := g.refused(g.put(recordPath(friend, bob, "three"), g.write(friend, bob, "three")), protocol.CodeNoAccount)
	if p.Announcement == nil || !bytes.Equal(*p.Announcement, g.send("GET", "/.well-known/relaymarket", "", "").body) {
		t.Error("a 402 carries another announcement than the well-known place")
	}
	g.accepts(g.ask(friend, wantVolunteer), -1, "key")
	// What the operator grants by hand is not bounded by what he would volunteer, and not lost by asking for it.
	g.grant(friend)
	g.list(allowKey(friend))
	if a := g.ask(friend, wantVolunteer); a.Account == nil || a.Account.StoredBytes != 1<<30 {
		t.Errorf("%+v", a.Account)
	}
	g.accepts(g.ask(friend, wantGrant), 0)
	// Revoked is revoked, whatever is asked, until the operator allows it again.
	if err := g.books.Revoke(t.Context(), friend.Public()); err != nil {
		t.Fatal(err)
	}
	g.accepts(g.ask(friend, wantVolunteer, wantGrant), -1, "key", "key")
	g.list(allowKey(friend))
	if a := g.ask(friend, wantVolunteer); a.Account == nil || a.Account.StoredBytes != policy.Stored {
		t.Errorf("%+v", a.Account)
	}
}

// An account for a topic takes records of that tag only; strangers have as many as the policy says and no more, however many keys
// they make; and what runs out is announced as such.
func TestVolunteerForTopics(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Rates.Opening = 100 })
	g.list(willing.Entry{Kind: willing.Topic, Name: "weather", Allowed: true})
	bob := newKey(t)
	var users []*protocol.PrivateKey
	for range policy.Accounts {
		k := newKey(t)
		users = append(users, k)
		a := g.ask(k, protocol.Wish{Type: protocol.TermsVolunteer, Topic: "jokes"}, wantWeather)
		g.accepts(a, 1, "offer")
		if a.Account == nil || a.Account.Topic != "weather" || a.Account.StoredBytes != policy.Stored {
			t.Fatalf("%+v", a.Account)
		}
	}
	g.accepts(g.ask(newKey(t), wantWeather), -1, "full")
	g.accepts(g.ask(users[0], wantWeather), 0)
	if err := g.willing.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, a, err := protocol.ParseAnnouncement(g.send("GET", "/.well-known/relaymarket", "", "").body, g.now()); err != nil || len(a.Terms) != 1 {
		t.Errorf("the relay announces what it has no room for: %+v %v", a, err)
	}

	ann := users[0]
	if a := g.tagged(ann, bob, "sun", "weather", sealedContent); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.refused(g.tagged(ann, bob, "pun", "jokes", sealedContent), protocol.CodeOffTopic)
	g.refused(g.tagged(ann, bob, "hi", "", sealedContent), protocol.CodeOffTopic)
	// Nor can its owner have others leave something else on its cost.
	g.admit(ann, bob)
	g.refused(g.tagged(bob, ann, "hi", "", sealedContent), protocol.CodeOffTopic)
	if a := g.tagged(bob, ann, "rain", "weather", sealedContent); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
	// An account that is over makes room once nothing of it is kept, not before.
	if _, err := g.willing.Put(t.Context(), willing.Entry{Kind: willing.Topic, Name: "weather"}); err != nil {
		t.Fatal(err)
	}
	g.refused(g.tagged(ann, bob, "snow", "weather", sealedContent), protocol.CodeNoAccount)
	g.list(willing.Entry{Kind: willing.Topic, Name: protocol.AnyTopic, Allowed: true})
	g.accepts(g.ask(newKey(t), wantWeather), -1, "offer") // still denied, whatever else is allowed
	music := protocol.Wish{Type: protocol.TermsVolunteer, Topic: "music"}
	for range policy.Accounts - 1 {
		g.accepts(g.ask(newKey(t), music), 0)
	}
	g.accepts(g.ask(newKey(t), music), -1, "full")
}

func (g *rig) admit(owner, friend *protocol.PrivateKey) {
	g.t.Helper()
	err := g.books.SetAdmitted(g.t.Context(), owner.Public(), []protocol.Admitted{{Key: friend.Public(), Bytes: 1 << 20, Records: 10}})
	if err != nil {
		g.t.Fatal(err)
	}
}

// One address opens few accounts a day, however many keys it has; the wishes before it in line are still heard.
func TestVolunteerByAddress(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Rates.Opening = 1 })
	g.list(willing.Entry{Kind: willing.Topic, Name: "weather", Allowed: true})
	first, second := newKey(t), newKey(t)
	g.accepts(g.ask(first, wantWeather), 0)
	g.accepts(g.ask(first, wantWeather), 0) // his own again costs nothing
	g.accepts(g.ask(second, wantWeather), -1, "rate")
	g.list(allowKey(second))
	g.accepts(g.ask(second, wantWeather, wantVolunteer), 1, "rate")
	g.offset.Add(int64(25 * time.Hour))
	g.accepts(g.ask(newKey(t), wantWeather), 0)
}

// Readable content is what the relay insists on, ads are what the user says yes to.
func TestVolunteerConditions(t *testing.T) {
	g := newRig(t)
	g.willing = willing.New(willing.Config{DB: g.db, Books: g.books, Clock: g.clock, Policy: willing.Policy{Keys: &willing.Conditions{Plaintext: true, Ads: true},
		Stored: 100_000, Moved: 1_000_000, Days: 1, Notice: "Drink water."}})
	cfg := g.server.cfg
	cfg.Willing = g.willing
	g.server, g.http = g.serve(cfg)
	ann, bob := newKey(t), newKey(t)
	g.list(allowKey(ann))
	plain, both := wantVolunteer, wantVolunteer
	plain.Plaintext, both.Plaintext, both.Ads = true, true, true
	a := g.ask(ann, wantVolunteer, plain, both, wantWeather)
	g.accepts(a, 2, "plaintext", "ads")
	if a.Account == nil || !a.Account.Plaintext || !a.Account.Ads {
		t.Errorf("%+v", a.Account)
	}
	if _, said, err := protocol.ParseAnnouncement(a.Announcement, g.now()); err != nil || said.Notice != "Drink water." {
		t.Errorf("%+v %v", said, err)
	}
	g.refused(g.tagged(ann, bob, "sealed", "", sealedContent), protocol.CodeUnreadable)
	if a := g.tagged(ann, bob, "plain", "", plainContent); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
	// It ends when it was said to.
	g.offset.Add(int64(48 * time.Hour))
	g.refused(g.tagged(ann, bob, "late", "", plainContent), protocol.CodeNoAccount)
}

// What is repeated has one effect, what is forged or late has none, and who pays is not given anything.
func TestTermsAgain(t *testing.T) {
	g := newRig(t)
	ann, mallory := newKey(t), newKey(t)
	g.list(allowKey(ann))
	e := g.sign(ann, g.key.Public(), &protocol.TermsRequest{Wishes: []protocol.Wish{wantVolunteer}})
	forged := strings.Replace(string(g.sign(mallory, g.key.Public(), &protocol.TermsRequest{Wishes: []protocol.Wish{wantVolunteer}}).Bytes()),
		mallory.Public().String(), ann.Public().String(), 1)
	g.refused(g.send("POST", "/terms", mediaEnvelope, forged), protocol.CodeBadSignature)
	if _, err := g.books.Get(t.Context(), ann.Public()); err == nil {
		t.Error("a forgery opened an account")
	}
	first := g.answered(e, g.post("/terms", e))
	again := g.answered(e, g.post("/terms", e))
	if first.Account == nil || again.Account == nil || *first.Account != *again.Account {
		t.Errorf("%+v, then %+v", first.Account, again.Account)
	}
	// A year later the same envelope is worth nothing.
	g.offset.Add(int64(365 * 24 * time.Hour))
	g.refused(g.post("/terms", e), protocol.CodeStale)
	if a, err := g.books.Get(t.Context(), ann.Public()); err != nil || a.Active {
		t.Errorf("%+v %v", a, err)
	}
}
