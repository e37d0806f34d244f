package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

// haggler is an address that shows a relay's announcement and answers for terms what it is told to.
type haggler struct {
	*httptest.Server
	key    *protocol.PrivateKey
	asked  [][]protocol.Wish // in each request
	answer func(e *protocol.Envelope, ask *protocol.TermsRequest) []byte
}

func newHaggler(t *testing.T) *haggler {
	t.Helper()
	l := &haggler{key: testnode.NewKey(t)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/relaymarket", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(l.announces(t)) })
	mux.HandleFunc("POST /terms", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e, err := protocol.ParseEnvelope(data)
		if err != nil {
			t.Error(err)
			return
		}
		var ask protocol.TermsRequest
		if err := e.Decode(&ask); err != nil {
			t.Error(err)
		}
		l.asked = append(l.asked, ask.Wishes)
		_, _ = w.Write(l.answer(e, &ask))
	})
	l.Server = httptest.NewServer(mux)
	t.Cleanup(l.Close)
	return l
}

// announces is what the relay offers, if it is not a lie as well.
func (l *haggler) announces(t *testing.T, terms ...protocol.Terms) []byte {
	t.Helper()
	now := protocol.TimestampOf(time.Now())
	if terms == nil {
		terms = []protocol.Terms{{Type: protocol.TermsGrant}}
	}
	e, err := protocol.Sign(l.key, l.key.Public(), now, &protocol.Announcement{Addresses: []string{}, Terms: terms, Seq: int64(now), ValidUntil: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

func (l *haggler) says(t *testing.T, to protocol.PublicKey, a *protocol.TermsAnswer) []byte {
	t.Helper()
	e, err := protocol.Sign(l.key, to, protocol.TimestampOf(time.Now()), a)
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

// An answer counts only if this relay signed it to this user for this request, and gives him what he asked for and no more.
func TestTermsThatAreLies(t *testing.T) {
	l := newHaggler(t)
	bob := somebody(t)
	at := int64(1)
	account := func() *protocol.TermsAccount {
		return &protocol.TermsAccount{StoredBytes: 1, MovedBytes: 1, Until: protocol.TimestampOf(time.Now().Add(time.Hour))}
	}
	true1 := func(e *protocol.Envelope) *protocol.TermsAnswer {
		return &protocol.TermsAnswer{Request: e.Hash(), Accepted: &at, Refused: []protocol.Refused{"key"}, Account: account(), Announcement: l.announces(t)}
	}
	var old []byte
	other := testnode.NewKey(t)
	for name, lie := range map[string]func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte{
		"nothing":             func(*protocol.Envelope, *protocol.TermsAnswer) []byte { return nil },
		"what it said before": func(*protocol.Envelope, *protocol.TermsAnswer) []byte { return old },
		"to somebody else":    func(_ *protocol.Envelope, a *protocol.TermsAnswer) []byte { return l.says(t, other.Public(), a) },
		"signed by somebody else": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			return (&haggler{key: other}).says(t, e.From, a)
		},
		"that it takes a wish that was not made": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			far := int64(3)
			a.Accepted, a.Refused = &far, []protocol.Refused{"key", "key", "key"}
			return l.says(t, e.From, a)
		},
		"less than was asked": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			a.Accepted, a.Account = nil, nil
			return l.says(t, e.From, a)
		},
		"an account on a topic": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			a.Account.Topic = "weather"
			return l.says(t, e.From, a)
		},
		"an account for what is readable": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			a.Account.Plaintext = true
			return l.says(t, e.From, a)
		},
		"an account with ads": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			a.Account.Ads = true
			return l.says(t, e.From, a)
		},
		"yes, and no account": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			a.Account = nil
			return l.says(t, e.From, a)
		},
		"another relay's offer": func(e *protocol.Envelope, a *protocol.TermsAnswer) []byte {
			a.Announcement = (&haggler{key: other}).announces(t)
			return l.says(t, e.From, a)
		},
	} {
		l.answer = func(e *protocol.Envelope, _ *protocol.TermsRequest) []byte {
			old = l.says(t, e.From, true1(e))
			return old
		}
		if a, err := bob.AskTerms(t.Context(), l.URL); err != nil || a.Accepted == nil || a.Accepted.Type != protocol.TermsVolunteer {
			t.Fatalf("the truth: %+v %v", a, err)
		}
		l.answer = func(e *protocol.Envelope, _ *protocol.TermsRequest) []byte { return lie(e, true1(e)) }
		if a, err := bob.AskTerms(t.Context(), l.URL); !errors.Is(err, client.ErrTampered) {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
}

// What a user would put up with a relay hears when it is known to ask for it, and not before; then in the same call.
func TestConcessionsAreKept(t *testing.T) {
	l := newHaggler(t)
	bob := somebody(t)
	plain, ads := client.Wish{Type: protocol.TermsVolunteer, Plaintext: true}, client.Wish{Type: protocol.TermsVolunteer, Ads: true}
	wishes := append([]client.Wish{plain}, client.UsualWishes()...)
	wishes = append(wishes, ads)
	if _, err := bob.ChangeWishes(t.Context(), func([]client.Wish) ([]client.Wish, error) { return wishes, nil }); err != nil {
		t.Fatal(err)
	}
	terms := []protocol.Terms{{Type: protocol.TermsContract, Payment: true}}
	refuse := func(e *protocol.Envelope, ask *protocol.TermsRequest) []byte {
		a := &protocol.TermsAnswer{Request: e.Hash(), Refused: slices.Repeat([]protocol.Refused{protocol.RefusedKey}, len(ask.Wishes)), Announcement: l.announces(t, terms...)}
		return l.says(t, e.From, a)
	}
	l.answer = refuse
	if _, err := bob.AskTerms(t.Context(), l.URL); err != nil {
		t.Fatal(err)
	}
	if len(l.asked) != 1 || !slices.Equal(l.asked[0], client.UsualWishes()) {
		t.Fatalf("it heard %v", l.asked)
	}
	// Now it volunteers, with ads: what was hidden before comes up, and the rest stays hidden until it is asked for.
	l.asked = nil
	terms = []protocol.Terms{{Type: protocol.TermsVolunteer, Ads: true}}
	if _, err := bob.AskTerms(t.Context(), l.URL); err != nil {
		t.Fatal(err)
	}
	if len(l.asked) != 2 || !slices.Equal(l.asked[0], client.UsualWishes()) || !slices.Equal(l.asked[1], append(client.UsualWishes(), ads)) {
		t.Fatalf("it heard %v", l.asked)
	}
	l.asked = nil
	if _, err := bob.AskTerms(t.Context(), l.URL); err != nil {
		t.Fatal(err)
	}
	if len(l.asked) != 1 || !slices.Contains(l.asked[0], ads) || slices.Contains(l.asked[0], plain) {
		t.Fatalf("it heard %v", l.asked)
	}
	answers, err := bob.TermsAnswers(t.Context())
	if err != nil || len(answers) != 1 || len(answers[0].Refused) != 4 || answers[0].Accepted != nil || !answers[0].Offer.Terms[0].Ads {
		t.Errorf("%+v %v", answers, err)
	}
}

// A refusal's offer is kept if it is the relay's own, and is as good as asking for one.
func TestOfferOfARefusal(t *testing.T) {
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.Volunteer = willing.Policy{} }})
	bob := somebody(t)
	_, _, err := bob.AddRelay(t.Context(), node.URL)
	var refusal *client.RelayError
	if !errors.As(err, &refusal) || refusal.Offer == nil {
		t.Fatal(err)
	}
	_, announced, _, err := bob.Offer(t.Context(), node.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, kept, _, err := bob.KeptOffer(t.Context(), node.URL, refusal.OfferHash.String()[:8])
	if err != nil || string(kept.Bytes()) != string(announced.Bytes()) || kept.Hash() != refusal.OfferHash {
		t.Errorf("kept %v, announced %s (%v)", kept, announced.Bytes(), err)
	}
	if _, _, _, err := bob.KeptOffer(t.Context(), node.URL, "ffffffff"); !errors.Is(err, client.ErrNoOffer) {
		t.Error(err)
	}
}
