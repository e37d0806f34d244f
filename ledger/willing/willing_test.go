package willing_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"relaymarket/internal/db"
	"relaymarket/internal/testpg"
	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

func newStore(t *testing.T, p willing.Policy) *willing.Store {
	t.Helper()
	url := testpg.New(t)
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(context.Background(), url, 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return willing.New(willing.Config{DB: d, Books: books.New(books.Config{DB: d, Clock: time.Now}), Policy: p, Clock: time.Now})
}

func put(t *testing.T, s *willing.Store, e willing.Entry) {
	t.Helper()
	if _, err := s.Put(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) protocol.PublicKey {
	t.Helper()
	k, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// However many ask at once, with as many keys, there are never more accounts for topics than the policy has.
func TestAccountsForTopicsAreCounted(t *testing.T) {
	const most, crowd = 5, 40
	s := newStore(t, willing.Policy{Topics: &willing.Conditions{}, Stored: 1000, Moved: 1000, Days: 1, Accounts: most})
	for i := range 3 {
		put(t, s, willing.Entry{Kind: willing.Topic, Name: fmt.Sprint("t", i), Allowed: true})
	}
	keys := make([]protocol.PublicKey, crowd)
	for i := range keys {
		keys[i] = newKey(t)
	}
	var all sync.WaitGroup
	answers := make([]willing.Answer, crowd)
	errs := make([]error, crowd)
	for i := range crowd {
		all.Go(func() {
			w := protocol.Wish{Type: protocol.TermsVolunteer, Topic: protocol.Tag(fmt.Sprint("t", i%3))}
			answers[i], errs[i] = s.Agree(t.Context(), willing.Ask{Key: keys[i], Wishes: []protocol.Wish{w}, Address: func() bool { return true }})
		})
	}
	all.Wait()
	got := 0
	for i := range answers {
		switch {
		case errs[i] != nil:
			t.Error(errs[i])
		case answers[i].Accepted == 0:
			got++
		case len(answers[i].Refused) != 1 || answers[i].Refused[0] != protocol.RefusedFull:
			t.Errorf("%+v", answers[i])
		}
	}
	if got != most {
		t.Errorf("%d accounts were given, %d are allowed", got, most)
	}
}

// The announcement says what holds: nothing before a list has anybody, topics while there is room, and not more than fit.
func TestOffers(t *testing.T) {
	p := willing.Policy{Keys: &willing.Conditions{Ads: true}, Topics: &willing.Conditions{}, Stored: 1000, Moved: 2000, Days: 3, Accounts: 1, Notice: "hello"}
	s := newStore(t, p)
	offers := func() []protocol.Terms {
		t.Helper()
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s.Offers()
	}
	if o := offers(); len(o) != 0 || s.Notice() != "" {
		t.Errorf("it offers %v", o)
	}
	for i := range willing.MaxTopics {
		put(t, s, willing.Entry{Kind: willing.Topic, Name: fmt.Sprint("t", i), Allowed: true})
	}
	if _, err := s.Put(t.Context(), willing.Entry{Kind: willing.Topic, Name: "one-more", Allowed: true}); err == nil {
		t.Error("more topics are allowed than are announced")
	}
	key := newKey(t)
	put(t, s, willing.Entry{Kind: willing.Key, Name: key.String(), Allowed: true})
	want := protocol.Terms{Type: protocol.TermsVolunteer, Ads: true, StoredBytes: 1000, MovedBytes: 2000, Days: 3}
	if o := offers(); len(o) != willing.MaxTopics+1 || o[0] != want || s.Notice() != "hello" {
		t.Errorf("it offers %v", o)
	}
	wish := protocol.Wish{Type: protocol.TermsVolunteer, Topic: "t1"}
	if a, err := s.Agree(t.Context(), willing.Ask{Key: newKey(t), Wishes: []protocol.Wish{wish}, Address: func() bool { return true }}); err != nil || a.Accepted != 0 {
		t.Fatalf("%+v %v", a, err)
	}
	if o := offers(); len(o) != 1 {
		t.Errorf("full, it offers %v", o)
	}
	if err := s.Remove(t.Context(), willing.Key, key.String()); err != nil {
		t.Fatal(err)
	}
	if o := offers(); len(o) != 0 {
		t.Errorf("it offers %v", o)
	}
	if denied, err := s.Denies(t.Context(), key); denied || err != nil {
		t.Errorf("%v %v", denied, err)
	}
	put(t, s, willing.Entry{Kind: willing.Key, Name: key.String()})
	if denied, err := s.Denies(t.Context(), key); !denied || err != nil {
		t.Errorf("%v %v", denied, err)
	}
}

// What an operator may get wrong is told, not stored.
func TestEntriesAndPolicies(t *testing.T) {
	much := int64(books.MaxQuota + 1)
	for _, e := range []willing.Entry{
		{}, {Kind: "host", Name: "x"}, {Kind: willing.Key, Name: "abc"}, {Kind: willing.Topic, Name: "a b", Allowed: true}, {Kind: willing.Topic},
		{Kind: willing.Topic, Name: protocol.AnyTopic}, {Kind: willing.Topic, Name: "a", Allowed: true, Stored: &much},
		{Kind: willing.Key, Name: newKey(t).String(), Allowed: true, Moved: &much}, {Kind: willing.Topic, Name: "a", Note: string(make([]byte, 201))},
	} {
		if e.Validate() == nil {
			t.Errorf("%+v is taken", e)
		}
	}
	for _, p := range []willing.Policy{
		{Stored: -1}, {Moved: much}, {Accounts: 2, Stored: books.MaxQuota/2 + 1}, {Days: willing.MaxDays + 1}, {Keys: &willing.Conditions{Ads: true}},
		{Notice: string(make([]rune, 201))},
	} {
		if p.Validate() == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

// Whoever is denied while he asks ends up with nothing, in whatever order the two come.
func TestDeniedWhileAsking(t *testing.T) {
	s := newStore(t, willing.Policy{Keys: &willing.Conditions{}, Topics: &willing.Conditions{}, Stored: 1000, Moved: 1000, Days: 1, Accounts: 1000})
	put(t, s, willing.Entry{Kind: willing.Topic, Name: "t", Allowed: true})
	for i := range 20 {
		key := newKey(t)
		wish := protocol.Wish{Type: protocol.TermsVolunteer, Topic: "t"}
		if i%2 == 0 {
			wish.Topic = ""
			put(t, s, willing.Entry{Kind: willing.Key, Name: key.String(), Allowed: true})
		}
		var both sync.WaitGroup
		var asked, denied error
		both.Go(func() {
			_, asked = s.Agree(t.Context(), willing.Ask{Key: key, Wishes: []protocol.Wish{wish}, Address: func() bool { return true }})
		})
		both.Go(func() { _, denied = s.Put(t.Context(), willing.Entry{Kind: willing.Key, Name: key.String()}) })
		both.Wait()
		if asked != nil || denied != nil {
			t.Fatal(asked, denied)
		}
		if active, err := s.Active(t.Context(), key); active || err != nil {
			t.Fatalf("%d: a denied key has an account in force (%v)", i, err)
		}
	}
}
