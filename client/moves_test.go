package client_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// All relays of alice are gone for good. She moves, and bob finds her: her card lies on a relay of his, which admits her.
func TestAllRelaysLost(t *testing.T) {
	one, two, home, fresh := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob, carol := somebody(t).joins(one, two), somebody(t).joins(home), somebody(t).joins(home)
	alice.befriends(bob, carol)
	bob.befriends(alice)
	carol.befriends(alice)
	if err := carol.Admit(t.Context(), alice.Key(), 0, 0); err != nil { // she says no
		t.Fatal(err)
	}
	bob.syncs()
	carol.syncs()
	one.Stop()
	two.Stop()

	alice.joins(fresh)
	told, err := alice.TellFriends(t.Context())
	if err != nil || told != (client.Told{Friends: 2, Reached: 1}) {
		t.Fatalf("told %+v, %v", told, err)
	}
	for _, n := range []*testnode.Node{one, two} {
		if _, err := alice.RemoveRelay(t.Context(), n.Key); err != nil {
			t.Fatal(err)
		}
	}
	if told, err = alice.TellFriends(t.Context()); err != nil || told.Reached != 1 {
		t.Fatalf("told %+v, %v", told, err)
	}
	alice.says(bob, "here I am")
	alice.says(carol, "here I am")

	result := bob.tries()
	bob.arrived(result, "here I am")
	if len(result.Changes) != 1 || len(result.Changes[0].Was) != 2 || len(result.Changes[0].Is) != 1 || result.Changes[0].Is[0].Address != fresh.URL {
		t.Errorf("changes %+v", result.Changes)
	}
	news, err := bob.News(t.Context())
	if err != nil || len(news) != 1 || news[0].Kind != client.NoticeCard {
		t.Fatalf("news %+v, %v", news, err)
	}
	if err := bob.ShowNotice(t.Context(), news[0]); err != nil {
		t.Fatal(err)
	}
	if news, err = bob.News(t.Context()); err != nil || len(news) != 0 {
		t.Errorf("told twice: %+v, %v", news, err)
	}
	// From now on the new relay is polled, and the lost ones are not.
	alice.says(bob, "and again")
	bob.finds("and again")
	if result := carol.tries(); len(result.Messages) != 0 || len(result.Changes) != 0 {
		t.Errorf("who admits nobody found %+v", result)
	}
	// One record with a card lies there, the newest: the ones before were taken back.
	account, err := bob.Account(t.Context(), client.Relay{Key: home.Key, Address: home.URL})
	if err != nil {
		t.Fatal(err)
	}
	if len(account.Admitted) != 1 || account.Admitted[0].Key != alice.Key() || account.Admitted[0].UsedRecords > 1 {
		t.Errorf("on bob's account: %+v", account.Admitted)
	}
}

// Cards that relays bring and that do not count are refused, and told once.
func TestCardsThatAreRefused(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := tamperBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	stranger := testnode.NewKey(t)
	now := time.Now()
	bob.config.Clock = func() time.Time { return now }
	reader := device(t, bob.config)
	known, err := reader.Friend(t.Context(), alice.Key())
	if err != nil {
		t.Fatal(err)
	}
	card := func(by *protocol.PrivateKey, at protocol.Timestamp, change func(*protocol.Identity)) []byte {
		id := known.Card
		id.Relays = slices.Clone(id.Relays)
		change(&id)
		raw, err := protocol.Canonicalize(&id)
		if err != nil {
			t.Fatal(err)
		}
		e, err := protocol.SignRaw(by, by.Public(), at, raw, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	label := func(text string) func(*protocol.Identity) { return func(id *protocol.Identity) { id.Label = text } }
	thousand := func(id *protocol.Identity) {
		for i := range 1000 {
			id.Relays = append(id.Relays, protocol.RelayRef{Address: "https://relay.example", PubKey: protocol.PublicKey{byte(i >> 8), byte(i), 1}})
		}
	}
	some := func(id *protocol.Identity) {
		thousand(id)
		id.Relays = id.Relays[:17]
	}
	for _, c := range []struct {
		name  string
		serve []byte
		kind  client.NoticeKind
		says  string
	}{
		{"rolled back", card(alice.config.Identity, known.Dated-1000, label("old")), client.NoticeOldCard, ""},
		{"of another key", card(stranger, known.Dated+1, label("x")), client.NoticeBadCard, "serves the card of"},
		{"altered", bytes.Replace(card(alice.config.Identity, known.Dated+1, label("x")), []byte(`"label":"x"`), []byte(`"label":"y"`), 1), client.NoticeBadCard, "signature"},
		{"with 17 relays", card(alice.config.Identity, known.Dated+1, some), client.NoticeBadCard, "at most 16 relays"},
		{"with 1,000 relays", card(alice.config.Identity, known.Dated+1, thousand), client.NoticeBadCard, "at most 16384 bytes"},
		{"rubbish", []byte("<html>"), client.NoticeBadCard, ""},
		{"from the future", card(alice.config.Identity, protocol.TimestampOf(time.Now().Add(1000*time.Hour)), label("x")), client.NoticeBadCard, "ahead"},
		{"of the same time", card(alice.config.Identity, known.Dated, label("twin")), client.NoticeTwinCards, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy.set(func(r *http.Request, body []byte) []byte {
				if strings.HasSuffix(r.URL.Path, "/card") {
					return c.serve
				}
				return body
			})
			defer proxy.set(nil)
			for turn := range 2 { // told once
				now = now.Add(61 * time.Minute)
				var told []client.FriendNotice
				for _, n := range reader.syncs().Notices {
					if n.Kind == c.kind {
						told = append(told, n)
					}
				}
				if len(told) != 1-turn || turn == 0 && !strings.Contains(told[0].Detail, c.says) {
					t.Fatalf("turn %d: %+v", turn, told)
				}
			}
			if f, err := reader.Friend(t.Context(), alice.Key()); err != nil || f.Dated != known.Dated {
				t.Fatalf("the card of %d counts, %v", f.Dated, err)
			}
			// By hand it is no better.
			_, err := reader.AddFriend(t.Context(), c.serve, "")
			if plain := c.kind == client.NoticeBadCard && c.name != "of another key"; plain != (err != nil) || plain && strings.Contains(c.says, "at most") && !strings.Contains(err.Error(), c.says) {
				t.Errorf("added by hand: %v", err)
			}
		})
	}
}

// leave seals something and leaves it on a relay, as a program of somebody else's could.
func leave(t *testing.T, node *testnode.Node, by *protocol.PrivateKey, to *person, id protocol.RecordID, tag protocol.Tag, contentType string, body []byte) {
	t.Helper()
	sealed, err := protocol.Seal(to.config.Sealing.Public(), protocol.SealContext{From: by.Public(), To: to.Key(), RecordID: id, Tag: &tag},
		protocol.SealedHeader{ContentType: contentType, Device: strings.Repeat("0", 16), Seq: 1}, body)
	if err != nil {
		t.Fatal(err)
	}
	putAs(t, node, by, to.Key(), id, base64.StdEncoding.EncodeToString(sealed), &tag)
}

// A card in a record is as good as one that a relay serves, and as bad.
func TestCardsInRecords(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t), somebody(t)
	alice.config.Clock = func() time.Time { return time.Now().Add(-time.Minute) } // her card is older than the records that bring others
	alice = device(t, alice.config)
	alice.joins(node)
	bob.befriends(alice)
	known, err := bob.Friend(t.Context(), alice.Key())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(by *protocol.PrivateKey, at protocol.Timestamp, label string) []byte {
		id := known.Card
		id.Label = label
		e, err := protocol.Sign(by, by.Public(), at, &id)
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	bring := func(id protocol.RecordID, card []byte) *client.SyncResult {
		leave(t, node, alice.config.Identity, bob, id, protocol.ReceiptTag, protocol.CardType, card)
		return bob.finds() // no message comes of it
	}
	me := alice.config.Identity
	if r := bring("newer", sign(me, known.Dated+10, "newer")); len(r.Changes) != 1 || !r.Changes[0].LabelChanged {
		t.Errorf("a newer card: %+v", r.Notices)
	}
	if r := bring("older", sign(me, known.Dated+5, "older")); len(r.Notices) != 1 || r.Notices[0].Kind != client.NoticeOldCard {
		t.Errorf("a card that she rolled back: %+v", r.Notices)
	}
	if r := bring("twin", sign(me, known.Dated+10, "twin")); len(r.Notices) < 1 || r.Notices[len(r.Notices)-1].Kind != client.NoticeTwinCards {
		t.Errorf("two cards of one time: %+v", r.Notices)
	}
	if r := bring("foreign", sign(testnode.NewKey(t), known.Dated+20, "foreign")); len(r.Notices) != 1 || r.Notices[0].Kind != client.NoticeBadCard {
		t.Errorf("the card of another key: %+v", r.Notices)
	}
	if r := bring("rubbish", []byte("x")); len(r.Notices) != 1 || r.Notices[0].Kind != client.NoticeBadCard {
		t.Errorf("no card: %+v", r.Notices)
	}
	// A person who brings it by hand cannot roll it back either.
	f, err := bob.AddFriend(t.Context(), sign(me, known.Dated, "by hand"), "")
	if err != nil || f.Refused != known.Dated || f.Dated != known.Dated+10 {
		t.Errorf("by hand: %+v, %v", f, err)
	}
}

func TestContradictionIsTold(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	bob := somebody(t).befriends(alice)
	put(t, one, alice, bob, "twofold", "AAAA", nil)
	bob.syncs()
	put(t, two, alice, bob, "twofold", "BBBB", nil)
	result := bob.syncs()
	if len(result.Notices) != 1 || result.Notices[0].Kind != client.NoticeContradiction || result.Notices[0].RecordID != "twofold" {
		t.Errorf("%+v", result.Notices)
	}
	if n, err := bob.Contradictions(t.Context(), alice.Key()); err != nil || n != 1 {
		t.Errorf("%d contradictions, %v", n, err)
	}
}

// Listen tells of a friend who moves, and listens to where he is then.
func TestListenFollowsAMove(t *testing.T) {
	old, home, fresh := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(old), somebody(t).joins(home)
	alice.befriends(bob)
	bob.befriends(alice)
	bob.syncs()
	old.Stop()
	events := make(chan client.Event, 16)
	done := make(chan error, 1)
	ctx, cancel := contextWithCancel(t)
	go func() {
		done <- bob.Listen(ctx, func(e client.Event) error {
			if e.Relay == nil {
				events <- e
			}
			return nil
		})
	}()
	defer func() {
		cancel()
		<-done
	}()
	alice.joins(fresh)
	alice.says(bob, "here")
	if told, err := alice.TellFriends(t.Context()); err != nil || told.Reached != 1 {
		t.Fatalf("%+v, %v", told, err)
	}
	var moved, read bool
	for deadline := time.After(patience); !moved || !read; {
		select {
		case e := <-events:
			moved = moved || e.Notice != nil && e.Notice.Kind == client.NoticeCard
			read = read || e.Message != nil && string(e.Message.Body) == "here"
		case <-deadline:
			t.Fatalf("moved %v, read %v", moved, read)
		}
	}
}
