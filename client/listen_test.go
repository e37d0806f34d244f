package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
)

// listening is somebody's listener at work.
type listening struct {
	messages chan client.Message
	relays   chan client.RelayReport
}

func (p *person) listens() *listening {
	p.t.Helper()
	l := &listening{messages: make(chan client.Message, 1000), relays: make(chan client.RelayReport, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- p.Listen(ctx, func(e client.Event) error {
			switch {
			case e.Message != nil:
				l.messages <- *e.Message
			case e.Relay != nil:
				l.relays <- *e.Relay
			}
			return nil
		})
	}()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			p.t.Errorf("listen ended with %v", err)
		}
	})
	return l
}

// hears waits for a message. Nothing but a stream that is open brings it.
func (l *listening) hears(t *testing.T, want string) {
	t.Helper()
	select {
	case m := <-l.messages:
		if string(m.Body) != want {
			t.Fatalf("heard %q, want %q", m.Body, want)
		}
	case <-time.After(patience):
		t.Fatalf("%q was not heard within %s", want, patience)
	}
}

func (l *listening) hearsNothing(t *testing.T) {
	t.Helper()
	select {
	case m := <-l.messages:
		t.Fatalf("heard %q as well", m.Body)
	case <-time.After(300 * time.Millisecond):
	}
}

// ready waits until n relays are listened to.
func (l *listening) ready(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(patience)
	for n > 0 {
		select {
		case r := <-l.relays:
			if r.Err == nil {
				n--
			}
		case <-deadline:
			t.Fatal("the relays are not listened to")
		}
	}
}

func TestListen(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	alice.says(bob, "before he listened")
	bob.finds("before he listened")

	l := bob.listens()
	l.ready(t, 2)
	for _, text := range numbered(5) {
		alice.sends(bob, text, client.SendOptions{Copies: 2})
		l.hears(t, text)
	}
	l.hearsNothing(t) // of the second copies

	one.Restart()
	alice.says(bob, "while one relay was away")
	l.hears(t, "while one relay was away")
	two.Stop()
	l.ready(t, 1) // one is back
	alice.says(bob, "with the other away")
	l.hears(t, "with the other away")
}

// What another process of the same folder pulls is told by the listener, and friends it adds are listened to.
func TestListenBesideAnotherProcess(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, carol := somebody(t).joins(node), somebody(t).joins(node)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	carol.befriends(bob)
	l := bob.listens()
	l.ready(t, 1)
	beside := device(t, bob.config)
	for i, text := range numbered(10) {
		alice.says(bob, text)
		if i%2 == 0 {
			beside.tries()
		}
		l.hears(t, text)
	}
	carol.says(bob, "a new friend")
	beside.befriends(carol)
	l.hears(t, "a new friend")
}

// Two programs on one folder, both sending and pulling all the time, lose nothing and double nothing.
func TestTwoProcesses(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := correspondents(t, node, node.URL)
	twin, beside := device(t, alice.config), device(t, bob.config)
	const each = 15
	done := make(chan struct{}, 4)
	for _, sender := range []*person{alice, twin} {
		go func() {
			defer func() { done <- struct{}{} }()
			for range each {
				if _, err := sender.Send(t.Context(), bob.Key(), []byte("x"), client.SendOptions{}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for _, reader := range []*person{bob, beside} {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 8 {
				result, err := reader.Sync(t.Context())
				if err != nil {
					t.Error(err)
					continue
				}
				for _, r := range result.Failed() {
					t.Errorf("%s: %v", r.Address, r.Err)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
	bob.syncs()
	messages, err := bob.Messages(t.Context(), client.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int64
	for _, m := range messages {
		numbers = append(numbers, m.Seq)
	}
	slices.Sort(numbers)
	if len(numbers) != 2*each || len(slices.Compact(numbers)) != 2*each {
		t.Errorf("%d messages arrived with the numbers %v", len(messages), numbers)
	}
	if gaps, err := bob.Gaps(t.Context()); err != nil || len(gaps) != 0 {
		t.Errorf("gaps: %v, %v", gaps, err)
	}
}
