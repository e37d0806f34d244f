package client_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/client"
	"relaymarket/client/devices"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// pairs gives the person's keys to a new device, as two people at two screens would do it.
func (p *person) pairs(name string) *person {
	p.t.Helper()
	p.config.Clock = time.Now
	seed := make([]byte, 32)
	seed[0] = 7
	codes, links := make(chan string, 1), make(chan *devices.Link, 1)
	var second *person
	group, ctx := errgroup.WithContext(p.ctx())
	group.Go(func() error {
		asked, done, err := p.AddDevice(ctx, seed, client.Adding{
			Show: func(l *devices.Link) error { links <- l; return nil },
			Code: func(ctx context.Context, _ string, tries int) (string, error) {
				if tries == 0 {
					return "1234-567", nil // mistyped
				}
				select {
				case code := <-codes:
					return code, nil
				case <-ctx.Done():
					return "", ctx.Err()
				}
			},
		})
		if err == nil && (asked != name || !done) {
			err = fmt.Errorf("%q was added, confirmed %t", asked, done)
		}
		return err
	})
	group.Go(func() error {
		var shown *devices.Link
		select {
		case shown = <-links:
		case <-ctx.Done():
			return ctx.Err()
		}
		link, err := devices.ParseLink(shown.Text())
		if err != nil {
			return err
		}
		joined, err := client.Join(ctx, client.Config{}, link, name, func(code string) error { codes <- code; return nil })
		if err != nil {
			return err
		}
		defer joined.Close()
		if !slices.Equal(joined.Keys.Seed, seed) {
			return errors.New("another seed came")
		}
		second = p.other()
		if err := second.Adopt(ctx, joined.Keys, name); err != nil {
			return err
		}
		return joined.Confirm(ctx)
	})
	if err := group.Wait(); err != nil {
		p.t.Fatal(err)
	}
	return second
}

// sees is what a person sees on a device.
func (p *person) sees() (all []string) {
	p.t.Helper()
	friends, err := p.Friends(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range friends {
		all = append(all, "friend "+f.Name+" "+f.Key.Short())
	}
	relays, err := p.Relays(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, r := range relays {
		all = append(all, fmt.Sprint("relay ", r.Address, r.Added))
	}
	messages, err := p.Messages(p.ctx(), client.Filter{})
	if err != nil {
		p.t.Fatal(err)
	}
	var lines []string
	for _, m := range messages {
		lines = append(lines, fmt.Sprintf("message %q read %t", m.Body, m.Read > 0))
	}
	sent, err := p.Outbox(p.ctx(), 0)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range sent {
		line := fmt.Sprintf("sent %q removed %t", m.Body, m.Removed > 0)
		for _, c := range m.Copies {
			line += fmt.Sprintf(" %s %s", c.Address, c.State)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return append(all, lines...)
}

func TestDevicesComeTogether(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	first, bob, carol := somebody(t).joins(node), somebody(t).joins(node), somebody(t).joins(node)
	first.befriends(bob)
	bob.befriends(first)
	carol.befriends(first)
	bob.says(first, "before there were two")
	first.finds("before there were two")
	first.says(bob, "from the first")
	second := first.pairs("phone")

	// The new one knows friends, and has the mail, old and new.
	bob.says(first, "to both")
	second.syncs()
	first.finds("to both")
	if a, b := first.sees(), second.sees(); !slices.Contains(b, `message "before there were two" read false`) || !reflect.DeepEqual(a, b) {
		t.Fatalf("the first sees\n%s\nthe second\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	account, err := first.Account(t.Context(), ownRelay(t, first))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range account.Admitted {
		if u.Key != bob.Key() {
			t.Errorf("the guest is still admitted: %+v", u)
		}
	}

	// Nothing reaches anybody, and both go on.
	node.Stop()
	first.queues(bob, "offline one", client.SendOptions{}, nil)
	second.queues(bob, "offline two", client.SendOptions{}, nil)
	messages, err := first.Messages(t.Context(), client.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.MarkRead(t.Context(), messages[0]); err != nil {
		t.Fatal(err)
	}
	if messages, err = second.Messages(t.Context(), client.Filter{}); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(messages, func(m client.Message) bool { return string(m.Body) == "to both" })
	if err := second.Forget(t.Context(), messages[at]); err != nil {
		t.Fatal(err)
	}
	first.befriends(carol)
	if err := second.rename(bob, "robert"); err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(first.sees(), second.sees()) {
		t.Fatal("they cannot agree yet")
	}

	node.Restart()
	carol.says(first, "hello both")
	for range 3 {
		first.syncs()
		second.syncs()
	}
	a, b := first.sees(), second.sees()
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("the first sees\n%s\nthe second\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for _, want := range []string{`message "before there were two" read true`, `message "hello both" read false`} {
		if !slices.Contains(a, want) {
			t.Errorf("they do not see %s:\n%s", want, strings.Join(a, "\n"))
		}
	}
	if text := strings.Join(a, "\n"); strings.Contains(text, `"to both"`) || strings.Count(text, " stored") != 3 || !strings.Contains(text, "friend robert") {
		t.Errorf("they see\n%s", text)
	}
	got := bodies(bob.syncs().Messages)
	if slices.Sort(got); !slices.Equal(got, []string{"from the first", "offline one", "offline two"}) {
		t.Errorf("bob got %q", got)
	}
	if gaps, err := bob.Gaps(t.Context()); err != nil || len(gaps) != 0 {
		t.Errorf("bob misses %+v, %v", gaps, err)
	}
	// What the first takes with the only pull, the second has from it.
	bob.sends(first, "to be pulled once", client.SendOptions{MaxPulls: 1})
	first.finds("to be pulled once")
	second.finds("to be pulled once")
	known, err := first.Devices(t.Context())
	if err != nil || len(known) != 2 || known[1].Name != "phone" || known[1].Missing != 0 {
		t.Errorf("the devices: %+v, %v", known, err)
	}
	// What they tell each other is reserved for as many as there are, and two more.
	db, err := sql.Open("sqlite", "file:"+filepath.Join(second.config.Dir, client.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var pulls int
	if err := db.QueryRow(`SELECT max_pulls FROM outbox WHERE content_type = ? ORDER BY n DESC LIMIT 1`, devices.LogType).Scan(&pulls); err != nil || pulls != 4 {
		t.Errorf("a batch may be pulled %d times, %v", pulls, err)
	}
}

func ownRelay(t *testing.T, p *person) client.Relay {
	t.Helper()
	relays, err := p.Relays(t.Context())
	if err != nil || len(relays) == 0 {
		t.Fatalf("%d relays, %v", len(relays), err)
	}
	return relays[0]
}

// rename calls a friend something else.
func (p *person) rename(friend *person, name string) error {
	card, err := friend.Card(p.ctx())
	if err == nil {
		_, err = p.AddFriend(p.ctx(), card.Bytes(), name)
	}
	return err
}

// Two devices pull the same relays at once: one page is open at a time, and each has every message once.
func TestDevicesPullAtOnce(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	first, bob := somebody(t).joins(node), somebody(t).joins(node)
	first.befriends(bob)
	bob.befriends(first)
	second := first.other()
	second.adds(node.URL)
	second.befriends(bob)
	const messages = 40
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() error {
		for i := range messages {
			if _, err := bob.Send(ctx, first.Key(), fmt.Append(nil, i), client.SendOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, p := range []*person{first, second} {
		group.Go(func() error {
			for deadline := time.Now().Add(2 * patience); ; {
				if _, err := p.Sync(ctx); err != nil {
					return err
				}
				all, err := p.Messages(ctx, client.Filter{})
				if err != nil || len(all) == messages {
					return err
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("%d messages came", len(all))
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{first, second} {
		if gaps, err := p.Gaps(t.Context()); err != nil || len(gaps) != 0 {
			t.Errorf("missing: %+v, %v", gaps, err)
		}
	}
}

// Who has only the words and the address of a relay finds his contacts and his mail, old and new, also what a reader took with the last pull.
func TestRestoredFromWords(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	first, bob := somebody(t), somebody(t).joins(node)
	now := time.Now()
	first.config.Clock = func() time.Time { return now }
	first = device(t, first.config).joins(node)
	first.befriends(bob)
	bob.befriends(first)
	bob.says(first, "old")
	bob.sends(first, "for one reader", client.SendOptions{MaxPulls: 1})
	first.syncs()
	now = now.Add(11 * time.Minute) // alone, it waits for more to tell
	first.syncs()
	now = time.Now()

	second := first.other()
	if err := second.SayHello(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.adds(node.URL)
	result := second.syncs()
	second.arrived(result, "old")
	bob.says(first, "new")
	first.finds("new") // and hears that there is another device
	result = second.syncs()
	got := bodies(result.Messages)
	if slices.Sort(got); !slices.Equal(got, []string{"for one reader", "new"}) {
		t.Errorf("then came %q", got)
	}
	if gaps, err := second.Gaps(t.Context()); err != nil || len(gaps) != 0 {
		t.Errorf("missing: %+v, %v", gaps, err)
	}
}

// A stolen link: without the code nothing is given, and the one who comes second is told.
func TestStolenLink(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	links, thief := make(chan *devices.Link, 1), make(chan error, 1)
	go func() {
		link := <-links
		_, err := client.Join(t.Context(), client.Config{}, link, "phone", func(string) error {
			_, second := client.Join(t.Context(), client.Config{}, link, "phone", func(string) error { return errors.New("it is shown a code") })
			if !errors.Is(second, client.ErrLinkUsed) {
				t.Errorf("the second to ask: %v", second)
			}
			return nil
		})
		thief <- err
	}()
	tries := 0
	_, done, err := alice.AddDevice(t.Context(), make([]byte, 32), client.Adding{
		Show: func(l *devices.Link) error { links <- l; return nil },
		Code: func(context.Context, string, int) (string, error) { tries++; return "0000-0000", nil },
	})
	if !errors.Is(err, client.ErrCode) || done || tries != 3 {
		t.Errorf("added %t after %d tries: %v", done, tries, err)
	}
	if err := <-thief; !errors.Is(err, client.ErrNotGiven) {
		t.Errorf("the thief: %v", err)
	}
	account, err := alice.Account(t.Context(), ownRelay(t, alice))
	if err != nil || len(account.Admitted) != 0 {
		t.Errorf("admitted are %+v, %v", account.Admitted, err)
	}
	if company, err := alice.Devices(t.Context()); err != nil || len(company) != 1 {
		t.Errorf("devices: %+v, %v", company, err)
	}
	ended := &devices.Link{Owner: alice.Key(), Until: 1}
	if _, err := client.Join(t.Context(), client.Config{}, ended, "x", nil); !errors.Is(err, client.ErrLinkEnded) {
		t.Errorf("an old link: %v", err)
	}
}

// A device that looks so late that the refusal is deleted by then is told the same.
func TestRefusalIsDeleted(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	links, refused, late := make(chan *devices.Link, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := client.Join(t.Context(), client.Config{}, <-links, "phone", func(string) error { <-refused; return nil })
		late <- err
	}()
	_, _, err := alice.AddDevice(t.Context(), make([]byte, 32), client.Adding{
		Show: func(l *devices.Link) error { links <- l; return nil },
		Code: func(context.Context, string, int) (string, error) { return "0000-0000", nil },
	})
	if !errors.Is(err, client.ErrCode) {
		t.Errorf("a wrong code: %v", err)
	}
	close(refused)
	if err := <-late; !errors.Is(err, client.ErrNotGiven) {
		t.Errorf("the late device: %v", err)
	}
}

// hasRelays checks which relays a person's device believes to be his, and that his card names them.
func (p *person) hasRelays(want ...*testnode.Node) {
	p.t.Helper()
	relays, err := p.Relays(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	card, err := p.Card(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	var id protocol.Identity
	if err := card.Decode(&id); err != nil {
		p.t.Fatal(err)
	}
	ok := len(relays) == len(want) && len(id.Relays) == len(want)
	for _, node := range want {
		ok = ok && slices.ContainsFunc(relays, func(r client.Relay) bool { return r.Key == node.Key }) &&
			slices.ContainsFunc(id.Relays, func(r protocol.RelayRef) bool { return r.PubKey == node.Key })
	}
	if !ok {
		p.t.Errorf("the relays are %+v, in the card %+v", relays, id.Relays)
	}
}

// One device moves from the only relay that the other knows. That hears of it there, and what it does then takes nothing back.
func TestDeviceMoves(t *testing.T) {
	one, two, three, home := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	first, bob := somebody(t).joins(one), somebody(t).joins(home)
	first.befriends(bob)
	bob.befriends(first)
	second := first.pairs("phone")
	for range 2 {
		first.syncs()
		second.syncs()
	}
	first.joins(two)
	if _, err := first.RemoveRelay(t.Context(), one.Key); err != nil {
		t.Fatal(err)
	}
	// What the second tells before it knows, the first finds.
	if err := second.SetLabel(t.Context(), "both"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.LeaveReceipts(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.tries()
	if label, err := first.Label(t.Context()); err != nil || label != "both" {
		t.Errorf("the first hears of the label %q, %v", label, err)
	}
	two.Stop() // so that all is told by the relay that was left
	second.tries()
	second.hasRelays(two)
	two.Restart()
	second.joins(three)
	for range 2 {
		first.tries()
		second.tries()
		bob.tries()
	}
	first.hasRelays(two, three)
	second.hasRelays(two, three)
	first.says(bob, "can you hear me")
	bob.finds("can you hear me")

	// A relay that was removed and is dead is nothing to report.
	one.Stop()
	if failed := first.tries().Failed(); len(failed) != 0 {
		t.Errorf("failed: %+v", failed)
	}
}

// Nothing is told where the other device looks, but the relay there has the newer card: who signs another one takes in what that says.
func TestFollowsOwnCard(t *testing.T) {
	one, two, three := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	first := somebody(t).joins(one)
	second := first.other()
	second.adds(one.URL)
	first.joins(two) // alone, as far as it knows: other devices are told later
	second.joins(three)
	second.hasRelays(one, two, three)
	if _, err := first.PublishCard(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.SetLabel(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.PublishCard(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.hasRelays(one, two, three)
}
