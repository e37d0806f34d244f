package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// patience bounds every wait for what has to come. It is for a machine that is much slower than any: a test that waits for
// so long has failed.
const patience = 2 * time.Minute

// eventually waits for what has to come by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// person is one user of a story.
type person struct {
	*client.Client
	t      *testing.T
	config client.Config
}

// somebody makes a user with fresh keys and an empty folder.
func somebody(t *testing.T) *person {
	t.Helper()
	var seed [protocol.SealingSeedSize]byte
	secret := testnode.NewKey(t).Secret()
	seed = secret
	sealing, err := protocol.NewSealingPrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	return device(t, client.Config{Dir: t.TempDir(), Identity: testnode.NewKey(t), Sealing: sealing})
}

// device opens a client that is closed with the test.
func device(t *testing.T, config client.Config) *person {
	t.Helper()
	c, err := client.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &person{Client: c, t: t, config: config}
}

// other is another device with the same keys and an empty folder.
func (p *person) other() *person {
	p.t.Helper()
	config := p.config
	config.Dir = p.t.TempDir()
	return device(p.t, config)
}

func (p *person) ctx() context.Context { return p.t.Context() }

// joins gives the person an account on relays and adds them.
func (p *person) joins(nodes ...*testnode.Node) *person {
	p.t.Helper()
	for _, n := range nodes {
		n.Grant(p.t, p.Key())
		p.adds(n.URL)
	}
	return p
}

func (p *person) adds(address string) {
	p.t.Helper()
	if _, _, err := p.AddRelay(p.ctx(), address); err != nil {
		p.t.Fatal(err)
	}
}

// befriends adds others by their cards.
func (p *person) befriends(others ...*person) *person {
	p.t.Helper()
	for _, o := range others {
		card, err := o.Card(p.ctx())
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := p.AddFriend(p.ctx(), card.Bytes(), ""); err != nil {
			p.t.Fatal(err)
		}
	}
	return p
}

// says sends a message, which has to succeed.
func (p *person) says(to *person, text string) *client.Outgoing {
	p.t.Helper()
	return p.sends(to, text, client.SendOptions{})
}

func (p *person) sends(to *person, text string, o client.SendOptions) *client.Outgoing {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx(), patience)
	defer cancel()
	m, err := p.Send(ctx, to.Key(), []byte(text), o)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// queues sends a message that fewer relays take now than it is for, and gives up once it is so far.
func (p *person) queues(to *person, text string, o client.SendOptions, far func(client.Outgoing) bool) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.ctx())
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		m, err := p.Send(ctx, to.Key(), []byte(text), o)
		if m == nil {
			err = errors.Join(errors.New("no message is returned"), err)
		}
		sent <- err
	}()
	eventually(p.t, text+" is queued", func() bool {
		newest, err := p.Outbox(p.ctx(), 1)
		return err == nil && len(newest) == 1 && string(newest[0].Body) == text && (far == nil || far(newest[0]))
	})
	cancel()
	if err := <-sent; !errors.Is(err, client.ErrNotStored) {
		p.t.Fatalf("sent to too few relays: %v", err)
	}
}

// syncs syncs; every relay has to answer well.
func (p *person) syncs() *client.SyncResult {
	p.t.Helper()
	result := p.tries()
	for _, r := range result.Failed() {
		p.t.Fatalf("sync with %s: %v", r.Address, r.Err)
	}
	return result
}

// tries syncs, whatever relays do.
func (p *person) tries() *client.SyncResult {
	p.t.Helper()
	result, err := p.Sync(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// finds syncs and checks the bodies of what arrived.
func (p *person) finds(want ...string) *client.SyncResult {
	p.t.Helper()
	result := p.syncs()
	p.arrived(result, want...)
	return result
}

func (p *person) arrived(result *client.SyncResult, want ...string) {
	p.t.Helper()
	got := bodies(result.Messages)
	if len(got) != len(want) {
		p.t.Fatalf("%d messages arrived: %q, want %q", len(got), got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			p.t.Fatalf("arrived %q, want %q", got, want)
		}
	}
}

func bodies(messages []client.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, string(m.Body))
	}
	return all
}
