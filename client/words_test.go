package client_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// putAs leaves any content under any id, signed by any key.
func putAs(t *testing.T, node *testnode.Node, by *protocol.PrivateKey, to protocol.PublicKey, id protocol.RecordID, content string, tag *protocol.Tag) {
	t.Helper()
	e, err := protocol.Sign(by, to, protocol.TimestampOf(time.Now()), &protocol.Write{
		Relay: node.Key, RecordID: id, Expires: protocol.TimestampOf(time.Now().Add(time.Hour)), MaxPulls: 8, Tag: tag, Content: content,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := protocol.Path{Sender: by.Public(), Receiver: to, ID: id}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, node.URL+path.String(), strings.NewReader(string(e.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	reply, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = reply.Body.Close()
	if reply.StatusCode != http.StatusCreated {
		t.Fatalf("put: %s", reply.Status)
	}
}

// invites makes an invitation that the relays know.
func (p *person) invites(strangers int64) *protocol.Invitation {
	p.t.Helper()
	invitation, err := p.Invite(p.ctx(), strangers, client.InvitationTTL, "a note")
	if err != nil {
		p.t.Fatal(err)
	}
	reports, err := p.PublishAdmitted(p.ctx())
	if err != nil || len(reports) == 0 || reports[0].Err != nil {
		p.t.Fatalf("%+v, %v", reports, err)
	}
	return invitation
}

// A stranger without a relay leaves a first word by an invitation, once; who invited him makes him a friend, and they write.
func TestFirstWord(t *testing.T) {
	home, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	bob := somebody(t).joins(home, two)
	invitation := bob.invites(1)
	carol, mallory := somebody(t), somebody(t)
	if err := carol.SetLabel(t.Context(), "carol"); err != nil {
		t.Fatal(err)
	}
	f, word, err := carol.AddFriendByInvitation(t.Context(), invitation.Text(), "bob", "we met on the train")
	if err != nil || f.Key != bob.Key() || len(word.Copies) != 2 || word.Copies[0].State != client.CopyStored {
		t.Fatalf("%+v, %+v, %v", f, word, err)
	}
	// It is for one only, also before he looked; and afterwards.
	if _, _, err := mallory.AddFriendByInvitation(t.Context(), invitation.Text(), "", "me too"); !errors.Is(err, client.ErrUsedUp) {
		t.Errorf("a second word: %v", err)
	}
	result := bob.syncs()
	bob.arrived(result, "we met on the train")
	if m := result.Messages[0]; m.From != carol.Key() || m.Seq != 0 || len(result.Gaps) != 0 {
		t.Errorf("%+v, gaps %v", m, result.Gaps)
	}
	if len(result.Notices) != 1 || result.Notices[0].Kind != client.NoticeFirstWord || result.Notices[0].Label != "carol" {
		t.Errorf("notices %+v", result.Notices)
	}
	bob.finds() // the other relay's copy is the same word
	if _, _, err := somebody(t).AddFriendByInvitation(t.Context(), invitation.Text(), "", "late"); !errors.Is(err, client.ErrUsedUp) {
		t.Errorf("when it was used: %v", err)
	}
	strangers, err := bob.Strangers(t.Context())
	if err != nil || len(strangers) != 1 || strangers[0].Card.Label != "carol" || strangers[0].Invitation != invitation.Key.Public() {
		t.Fatalf("%+v, %v", strangers, err)
	}
	if friends, err := bob.Friends(t.Context()); err != nil || len(friends) != 0 {
		t.Errorf("he became a friend unasked: %+v, %v", friends, err)
	}
	accepted, err := bob.AcceptStranger(t.Context(), carol.Key(), "")
	if err != nil || accepted.Name != "carol" {
		t.Fatalf("%+v, %v", accepted, err)
	}
	if _, err := bob.AcceptStranger(t.Context(), carol.Key(), ""); !errors.Is(err, client.ErrNoStranger) {
		t.Errorf("again: %v", err)
	}
	bob.says(carol, "welcome")
	carol.finds("welcome")
	// She rents a relay. Bob, who admits her like any friend, learns of it.
	bob.syncs()
	fresh := testnode.Start(t, testnode.Options{})
	carol.joins(fresh)
	carol.says(bob, "from a relay of my own")
	carol.syncs()
	if result := bob.finds("from a relay of my own"); len(result.Changes) != 1 || len(result.Changes[0].RelaysAdded) != 1 {
		t.Errorf("changes %+v", result.Changes)
	}
}

// An invitation is for as many as it says, also when there is a place on each relay, and when who deletes his word leaves another. Once it is
// used up nobody asks for what is left by it.
func TestInvitationIsUsedUp(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	bob := somebody(t).joins(one, two)
	by := bob.invites(1).Key
	for i, node := range []*testnode.Node{one, two} {
		stranger := somebody(t)
		card, err := stranger.Card(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e, err := protocol.Sign(stranger.config.Identity, bob.Key(), protocol.TimestampOf(time.Now()), &protocol.FirstWord{Invitation: by.Public(), Text: "me", Card: card.Bytes()})
		if err != nil {
			t.Fatal(err)
		}
		leave(t, node, by, bob, protocol.RecordID(string(rune('a'+i))), protocol.ReceiptTag, protocol.FirstWordType, e.Bytes())
	}
	if result := bob.finds("me"); len(result.Notices) != 1 {
		t.Errorf("notices %+v", result.Notices)
	}
	if strangers, err := bob.Strangers(t.Context()); err != nil || len(strangers) != 1 {
		t.Errorf("%+v, %v", strangers, err)
	}
	s, err := state.Open(t.Context(), state.Config{Path: filepath.Join(bob.config.Dir, client.StateFile)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	asked := func() (n int) {
		sources, err := s.Sources(t.Context(), one.Key)
		if err != nil || len(sources) == 0 {
			t.Fatal(sources, err)
		}
		for _, from := range sources {
			if slices.Contains(from.Senders, by.Public()) {
				n++
			}
		}
		return n
	}
	before := asked()
	bob.finds()
	if after := asked(); before != 1 || after != 0 {
		t.Errorf("asked for what is left by it %d times before, %d after", before, after)
	}
}

// Whoever has the secret can leave one small record, and nothing in another's name.
func TestInvitationsAreMisused(t *testing.T) {
	home := testnode.Start(t, testnode.Options{})
	bob := somebody(t).joins(home)
	carol, mallory := somebody(t), somebody(t)
	invitation, other := bob.invites(4), bob.invites(1)
	by := invitation.Key
	card := func(p *person) []byte {
		e, err := p.Card(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	word := func(by *protocol.PrivateKey, invitation protocol.PublicKey, card []byte) []byte {
		e, err := protocol.Sign(by, bob.Key(), protocol.TimestampOf(time.Now()), &protocol.FirstWord{Invitation: invitation, Text: "x", Card: card})
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	leave(t, home, by, bob, "not-a-word", "ack", "text/plain", []byte("buy this"))
	leave(t, home, by, bob, "anothers-card", "ack", protocol.FirstWordType, word(mallory.config.Identity, by.Public(), card(carol)))
	leave(t, home, by, bob, "of-another-invitation", "ack", protocol.FirstWordType, word(carol.config.Identity, other.Key.Public(), card(carol)))
	put := protocol.Tag("ack")
	putAs(t, home, by, bob.Key(), "unsealed", "AAAA", &put)
	result := bob.finds() // none of them is a message
	for _, n := range result.Notices {
		if n.Kind != client.NoticeBadFirstWord {
			t.Errorf("%+v", n)
		}
	}
	if strangers, err := bob.Strangers(t.Context()); err != nil || len(strangers) != 0 || len(result.Notices) != 4 {
		t.Errorf("%d notices, strangers %+v, %v", len(result.Notices), strangers, err)
	}
	bob.syncs() // four were used: the key is admitted no more
	account, err := bob.Account(t.Context(), client.Relay{Key: home.Key, Address: home.URL})
	if err != nil || len(account.Admitted) != 1 || account.Admitted[0].Key != other.Key.Public() {
		t.Errorf("admitted %+v, %v", account.Admitted, err)
	}
	// The one that is left is taken back.
	if err := bob.Uninvite(t.Context(), other.Key.Public()); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.PublishAdmitted(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := carol.AddFriendByInvitation(t.Context(), other.Text(), "", ""); !errors.Is(err, client.ErrUsedUp) {
		t.Errorf("taken back: %v", err)
	}
	for _, text := range []string{"", "relaymarket:rubbish#invite=00", other.Link.String(), other.Text() + "0", strings.Replace(other.Text(), "?relay=", "?relay=ftp", 1)} {
		if _, _, err := carol.AddFriendByInvitation(t.Context(), text, "", ""); err == nil || strings.Contains(err.Error(), other.Text()[len(other.Text())-64:]) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Two devices of one key admit different friends, and neither undoes what the other said.
func TestTwoDevicesAdmit(t *testing.T) {
	home := testnode.Start(t, testnode.Options{})
	laptop := somebody(t).joins(home)
	phone := laptop.other()
	phone.adds(home.URL)
	anna, bert := somebody(t), somebody(t)
	laptop.befriends(anna)
	phone.befriends(bert)
	laptop.syncs()
	phone.syncs()
	admitted := func() map[protocol.PublicKey]int64 {
		account, err := laptop.Account(t.Context(), client.Relay{Key: home.Key, Address: home.URL})
		if err != nil {
			t.Fatal(err)
		}
		list := map[protocol.PublicKey]int64{}
		for _, a := range account.Admitted {
			list[a.Key] = a.Records
		}
		return list
	}
	if list := admitted(); len(list) != 2 || list[anna.Key()] != client.FriendRecords || list[bert.Key()] != client.FriendRecords {
		t.Fatalf("%v", list)
	}
	if err := laptop.Admit(t.Context(), anna.Key(), 1000, 3); err != nil {
		t.Fatal(err)
	}
	laptop.syncs()
	phone.syncs()
	if list := admitted(); len(list) != 2 || list[anna.Key()] != 3 {
		t.Errorf("%v", list)
	}
	if err := laptop.RemoveFriend(t.Context(), anna.Key()); err != nil {
		t.Fatal(err)
	}
	laptop.syncs()
	if list := admitted(); len(list) != 1 || list[bert.Key()] == 0 {
		t.Errorf("%v", list)
	}
}
