package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// exampleRelay lends an example a relay of its own: testnode wants a test, and an example is none.
type exampleRelay struct {
	testing.TB
	node *testnode.Node
	undo []func()
}

func startExampleRelay() *exampleRelay {
	e := &exampleRelay{}
	e.node = testnode.Start(e, testnode.Options{})
	return e
}

func (e *exampleRelay) Helper()                   {}
func (e *exampleRelay) Log(...any)                {}
func (e *exampleRelay) Cleanup(f func())          { e.undo = append(e.undo, f) }
func (e *exampleRelay) Fatal(args ...any)         { log.Fatal(args...) }
func (e *exampleRelay) Fatalf(f string, a ...any) { log.Fatalf(f, a...) }
func (e *exampleRelay) Errorf(f string, a ...any) { log.Printf(f, a...) }

func (e *exampleRelay) stop() {
	for i := range e.undo {
		e.undo[len(e.undo)-1-i]()
	}
}

// user opens a client with new keys, known to the relay, in a temporary folder.
func (e *exampleRelay) user(ctx context.Context) *client.Client {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	e.Cleanup(func() { _ = os.RemoveAll(dir) })
	identity, err := protocol.GeneratePrivateKey()
	if err != nil {
		log.Fatal(err)
	}
	seed, err := protocol.GeneratePrivateKey()
	if err != nil {
		log.Fatal(err)
	}
	sealing, err := protocol.NewSealingPrivateKey(seed.Secret())
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.Open(ctx, client.Config{Dir: dir, Identity: identity, Sealing: sealing})
	if err != nil {
		log.Fatal(err)
	}
	e.Cleanup(func() { _ = c.Close() })
	e.node.Grant(e, c.Key())
	return c
}

// friends are two users of the relay who have each other's cards.
func (e *exampleRelay) friends(ctx context.Context) (alice, bob *client.Client) {
	alice, bob = e.user(ctx), e.user(ctx)
	for _, c := range []*client.Client{alice, bob} {
		if _, _, err := c.AddRelay(ctx, e.node.URL); err != nil {
			log.Fatal(err)
		}
	}
	introduce(ctx, alice, bob, "bob")
	introduce(ctx, bob, alice, "alice")
	return alice, bob
}

func introduce(ctx context.Context, to, friend *client.Client, name string) {
	card, err := friend.Card(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := to.AddFriend(ctx, card.Bytes(), name); err != nil {
		log.Fatal(err)
	}
}

// A device is its keys and a folder.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	identity, err := protocol.GeneratePrivateKey()
	if err != nil {
		log.Fatal(err)
	}
	sealing, err := protocol.NewSealingPrivateKey([32]byte{ /* 32 secret bytes: see package keyfile */ 1})
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.Open(ctx, client.Config{Dir: dir, Identity: identity, Sealing: sealing})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Key() == identity.Public())
	// Output: true
}

func ExampleClient_AddRelay() {
	ctx := context.Background()
	relay := startExampleRelay()
	defer relay.stop()
	c := relay.user(ctx)

	added, offer, err := c.AddRelay(ctx, relay.node.URL)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(added.Key == relay.node.Key, offer.Limits.RecordBytes)
	// Output: true 1048576
}

func ExampleClient_AddFriend() {
	ctx := context.Background()
	relay := startExampleRelay()
	defer relay.stop()
	alice, bob := relay.user(ctx), relay.user(ctx)

	card, err := bob.Card(ctx) // what a *.relayid file holds
	if err != nil {
		log.Fatal(err)
	}
	friend, err := alice.AddFriend(ctx, card.Bytes(), "bob")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(friend.Name, friend.Key == bob.Key())
	// Output: bob true
}

func ExampleClient_AddFriendByLink() {
	ctx := context.Background()
	relay := startExampleRelay()
	defer relay.stop()
	alice, bob := relay.user(ctx), relay.user(ctx)
	if _, _, err := bob.AddRelay(ctx, relay.node.URL); err != nil {
		log.Fatal(err)
	}

	link, err := bob.Link(ctx) // for a text or a QR code
	if err != nil {
		log.Fatal(err)
	}
	friend, err := alice.AddFriendByLink(ctx, link.String(), "bob")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(friend.Name, len(friend.Card.Relays))
	// Output: bob 1
}

func ExampleClient_Send() {
	ctx := context.Background()
	relay := startExampleRelay()
	defer relay.stop()
	alice, bob := relay.friends(ctx)

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sent, err := alice.Send(ctx, bob.Key(), []byte("see you at eight"), client.SendOptions{TTL: 7 * 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sent.Copies[0].State)
	// Output: stored
}

func ExampleClient_Sync() {
	ctx := context.Background()
	relay := startExampleRelay()
	defer relay.stop()
	alice, bob := relay.friends(ctx)
	if _, err := alice.Send(ctx, bob.Key(), []byte("see you at eight"), client.SendOptions{}); err != nil {
		log.Fatal(err)
	}

	result, err := bob.Sync(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range result.Failed() {
		log.Println(r.Err) // the other relays went on
	}
	for _, m := range result.Messages {
		friend, err := bob.Friend(ctx, m.From)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", friend.Name, m.Body)
	}
	// Output: alice: see you at eight
}

func ExampleClient_Listen() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	relay := startExampleRelay()
	defer relay.stop()
	alice, bob := relay.friends(ctx)

	err := bob.Listen(ctx, func(e client.Event) error {
		switch {
		case e.Relay != nil && e.Relay.Err == nil: // it is listened to: let alice speak
			if _, err := alice.Send(ctx, bob.Key(), []byte("now"), client.SendOptions{}); err != nil {
				return err
			}
		case e.Message != nil:
			fmt.Printf("%s\n", e.Message.Body)
			cancel()
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// now
	// context canceled
}

func ExampleClient_Remove() {
	ctx := context.Background()
	relay := startExampleRelay()
	defer relay.stop()
	alice, bob := relay.friends(ctx)
	sent, err := alice.Send(ctx, bob.Key(), []byte("forget it"), client.SendOptions{})
	if err != nil {
		log.Fatal(err)
	}

	removed, err := alice.Remove(ctx, sent)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(removed.Copies[0].State)
	// Output: gone
}
