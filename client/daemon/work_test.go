package daemon_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/client"
	"relaymarket/client/daemon"
	"relaymarket/internal/testnode"
)

// loses has a relay lose all its records.
func loses(t *testing.T, n *testnode.Node) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), n.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
	// The accounts first, as the relay does, which is at work: the two must not wait for each other.
	if _, err := db.Exec(t.Context(), `UPDATE accounts SET stored = 0, moved = 0; DELETE FROM records; DELETE FROM pulls; DELETE FROM pages`); err != nil {
		t.Fatal(err)
	}
}

// records counts the messages that people sent each other. Beside them lies what programs write by themselves: cards, receipts, and what a user keeps
// for his devices.
func records(t *testing.T, n *testnode.Node) (count int) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), n.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM records WHERE tag IS DISTINCT FROM 'ack'`).Scan(&count); err != nil {
		t.Fatal(err)
	}
	return count
}

// What a daemon does by itself, from the first message on: it is told of messages as they come, sends what waits for a relay
// that was away, and puts back what is lost or never was on a relay, without anybody asking.
func TestByItself(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := newHome(t).joins(one), newHome(t).joins(one)
	alice.befriends(bob)
	bob.befriends(alice)

	at := bob.starts(daemon.Config{PollEvery: time.Hour, HealEvery: time.Second})
	told := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() {
		followed <- at.Follow(ctx, func(e client.Event) error {
			if e.Message != nil {
				told <- string(e.Message.Body)
			}
			return nil
		})
	}()
	defer func() {
		cancel()
		if err := <-followed; !errors.Is(err, context.Canceled) {
			t.Errorf("following ended with: %v", err)
		}
	}()
	eventually(t, "bob listens", func() bool {
		s, err := at.call.Status(t.Context())
		return err == nil && len(s.Relays) == 1 && s.Relays[0].Listening
	})
	alice.sends(bob, "now") // the next poll is an hour away
	select {
	case text := <-told:
		if text != "now" {
			t.Errorf("told of %q", text)
		}
	case <-time.After(patience):
		t.Fatal("bob was not told")
	}

	// A relay that is away when bob writes gets it when it is back.
	one.Stop()
	limited, giveUp := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := bob.client.Send(limited, alice.client.Key(), []byte("later"), client.SendOptions{})
		given <- err
	}()
	eventually(t, "the message is queued", func() bool {
		newest, err := bob.client.Outbox(t.Context(), 1)
		return err == nil && len(newest) == 1 && string(newest[0].Body) == "later"
	})
	giveUp()
	if err := <-given; !errors.Is(err, client.ErrNotStored) {
		t.Fatal(err)
	}
	if s, err := at.call.Status(t.Context()); err != nil || s.Waiting != 1 {
		t.Errorf("waiting: %+v, %v", s, err)
	}
	one.Restart()
	eventually(t, "the message goes out", func() bool { n, err := bob.client.Waiting(t.Context()); return err == nil && n == 0 })
	before := records(t, one)

	// What is lost, and what is new, is put there.
	loses(t, one)
	eventually(t, "the lost message is put back", func() bool { return records(t, one) == 1 })
	if before != 2 {
		t.Errorf("there were %d records, want alice's and bob's", before)
	}
	bob.joins(two)
	eventually(t, "the message is on the new relay, too", func() bool { return records(t, two) == 1 })
	eventually(t, "the log says so", func() bool { return strings.Count(bob.log.String(), "msg=healed") >= 2 })
	result, err := alice.client.Sync(t.Context())
	if err != nil || len(result.Messages) != 1 || string(result.Messages[0].Body) != "later" {
		t.Fatalf("alice has %+v, %v", result, err)
	}
}

// Between the hours at which a daemon heals and polls: a relay that its user adds is healed at once, and what waits is tried again soon.
func TestBetweenTheHours(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := newHome(t).joins(one), newHome(t)
	alice.befriends(bob)
	alice.sends(bob, "everywhere")
	alice.starts(daemon.Config{PollEvery: time.Hour, HealEvery: time.Hour})
	alice.joins(two)
	eventually(t, "the message is on the new relay", func() bool { return records(t, two) == 1 })
	two.Stop()
	alice.sends(bob, "when it is back")
	two.Restart()
	eventually(t, "the other message is, too", func() bool { return records(t, two) == 2 })
}

// What is found when nobody looks is told when somebody does, and once: that a message expires unread, and that a friend has a
// new card.
func TestToldLater(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := newHome(t).joins(node), newHome(t).joins(node)
	alice.ahead.Store(2000) // so that his card is looked for again: a time that is not yet is not waited for
	alice.befriends(bob)
	alice.ahead.Store(0)
	bob.befriends(alice)
	o := client.SendOptions{TTL: 1000 * time.Second}
	if _, err := alice.client.Send(t.Context(), bob.client.Key(), []byte("soon gone"), o); err != nil {
		t.Fatal(err)
	}
	alice.ahead.Store(850)
	if err := bob.client.SetLabel(t.Context(), "Robert"); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.client.PublishCard(t.Context()); err != nil {
		t.Fatal(err)
	}
	near, err := alice.client.NearExpiry(t.Context(), nil)
	if err != nil || len(near) != 1 {
		t.Fatalf("%+v, %v", near, err)
	}
	if known, err := alice.client.NearExpiry(t.Context(), map[int64]bool{near[0].N: true}); err != nil || len(known) != 0 {
		t.Errorf("one that is known: %+v, %v", known, err)
	}
	unseen, err := alice.client.SyncUnseen(t.Context())
	if err != nil || len(unseen.Changes) != 1 {
		t.Fatalf("unseen: %+v, %v", unseen, err)
	}
	told, err := alice.client.Sync(t.Context())
	if err != nil || len(told.Expiring) != 1 {
		t.Errorf("told: %d that expire, %v", len(told.Expiring), err)
	}
	if news, err := alice.client.News(t.Context()); err != nil || len(news) != 1 || news[0].Label != "Robert" {
		t.Errorf("news: %+v, %v", news, err)
	}
	if again, err := alice.client.Sync(t.Context()); err != nil || len(again.Expiring) != 0 {
		t.Errorf("told again: %d that expire, %v", len(again.Expiring), err)
	}
}
