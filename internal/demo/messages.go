package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"relaymarket/protocol"
)

// aFriendsRelay gives Bob a relay for nothing: that of a friend, who knows his key.
func aFriendsRelay(ctx context.Context, s *stage, c *cast) (err error) {
	scene("Bob pays nobody: a friend of his runs the relay home, and serves Bob's key for nothing.")
	if c.bob, err = s.newPerson(ctx, "bob"); err != nil {
		return err
	}
	if err := c.home.admin(ctx, "allow", c.bob.key, "--stored", "200MB", "--moved", "1GB", "--note", "bob, a friend"); err != nil {
		return err
	}
	// It announces that it does, and he asks whether it does it for him.
	if _, err := c.bob.relay(ctx, "terms", "ask", c.home.url); err != nil {
		return err
	}
	tell("bob is %s…, and writes on %s", c.bob.key[:16], c.home.url)
	return nil
}

func theySwapCards(ctx context.Context, s *stage, c *cast) error {
	scene("Alice and Bob swap cards: who they are, and where they write.")
	for _, p := range []*person{c.alice, c.bob} {
		if _, err := p.relay(ctx, "id", "--card", p.card); err != nil {
			return err
		}
	}
	return befriend(ctx, c.alice, c.bob)
}

// befriend gives each the other's card.
func befriend(ctx context.Context, a, b *person) error {
	if _, err := a.relay(ctx, "friend", "add", b.card, "--name", b.name); err != nil {
		return err
	}
	_, err := b.relay(ctx, "friend", "add", a.card, "--name", a.name)
	return err
}

// sends writes one message.
func (p *person) sends(ctx context.Context, c *cast, to, words string, flags ...string) error {
	c.sum.Sent++
	_, err := p.relay(ctx, append([]string{"send", to, words}, flags...)...)
	return err
}

func oneWritesWhileTheOtherIsAway(ctx context.Context, _ *stage, c *cast) error {
	scene("Alice writes to Bob, who is away. Then she goes away too.")
	if err := c.alice.sends(ctx, c, "bob", firstWords, "--copies", "2"); err != nil {
		return err
	}
	tell("alice → bob: %q, sealed, on both relays that she pays", firstWords)
	return nil
}

func aRelayDies(ctx context.Context, _ *stage, c *cast) error {
	scene("The relay north is killed. Bob wakes up and pulls from what is left.")
	if err := c.north.kill(); err != nil {
		return err
	}
	if err := c.bob.reads(ctx, c, "alice", firstWords); err != nil {
		return err
	}
	tell("bob reads: %q", firstWords)
	if err := c.bob.sends(ctx, c, "alice", answerWords); err != nil {
		return err
	}
	if err := c.alice.reads(ctx, c, "bob", answerWords); err != nil {
		return err
	}
	tell("bob answers, and alice reads: %q", answerWords)
	return nil
}

// message is one of what relay inbox --json lists.
type message struct {
	From string `json:"name"`
	Body string `json:"text"`
}

type inbox struct {
	Messages []message `json:"messages"`
}

// reads wants exactly one message of these words from a friend, however often it is pulled. A dead
// relay makes the inbox partial, which has an exit code of its own.
func (p *person) reads(ctx context.Context, c *cast, from, words string) error {
	cmd := p.command(ctx, "inbox", "--all", "--json")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); err != nil && code != exitPartial {
		return fmt.Errorf("%s: relay inbox: exit code %d: %w\n%s", p.name, code, err, out)
	}
	var in inbox
	if err := json.Unmarshal(out, &in); err != nil {
		return fmt.Errorf("%s: relay inbox --json printed %q: %w", p.name, out, err)
	}
	n := 0
	for _, m := range in.Messages {
		if m.From == from && m.Body == words {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%s sees %q from %s %d times, not once:\n%s", p.name, words, from, n, out)
	}
	c.read(p.name + " " + from + " " + words)
	return nil
}

// exitPartial is relay's exit code for: done, but some relay failed.
const exitPartial = 4

func heListens(ctx context.Context, _ *stage, c *cast) error {
	scene("Bob listens while Alice writes.")
	cmd := c.bob.command(ctx, "listen", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if err := connected(lines, c.south.url); err != nil {
		return err
	}
	if err := c.alice.sends(ctx, c, "bob", liveWords); err != nil {
		return err
	}
	sent := time.Now()
	for lines.Scan() {
		if !strings.Contains(lines.Text(), liveWords) {
			continue
		}
		took := time.Since(sent)
		if took > time.Second {
			return fmt.Errorf("the message was shown %s after it was sent, more than a second", took)
		}
		tell("bob sees %q %d ms after alice's command ended", liveWords, max(took.Milliseconds(), 0))
		return nil
	}
	return fmt.Errorf("bob's listener ended without the message")
}

// connected reads on to the line that says the listener has a stream to a relay.
func connected(lines *bufio.Scanner, url string) error {
	for lines.Scan() {
		var line struct {
			Relay *struct {
				Address string  `json:"address"`
				Error   *string `json:"error"`
			} `json:"relay"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("relay listen --json printed %q: %w", lines.Text(), err)
		}
		if line.Relay != nil && line.Relay.Address == url && line.Relay.Error == nil {
			return nil
		}
	}
	return fmt.Errorf("bob's listener ended before it was connected to %s", url)
}

func aStranger(ctx context.Context, s *stage, c *cast) error {
	scene("A stranger wants to write and to read what is not his.")
	eve, err := s.newPerson(ctx, "eve")
	if err != nil {
		return err
	}
	if said, err := eve.relay(ctx, "relays", "add", c.south.url); err == nil {
		return fmt.Errorf("the relay took a stranger's card:\n%s", said)
	}
	tell("the relay does not know her key: no space, nothing is pushed at anybody")
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		return err
	}
	alice, err := protocol.ParsePublicKey(c.alice.key)
	if err != nil {
		return err
	}
	relayKey, err := protocol.ParsePublicKey(c.south.key)
	if err != nil {
		return err
	}
	target := "/" + alice.String() + "/outbox"
	e, err := protocol.Sign(key, relayKey, protocol.TimestampOf(time.Now()), &protocol.Targeted{Type: protocol.TypeInventory, Target: protocol.Target(http.MethodGet, target)})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.south.url+target, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", e.Authorization())
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = reply.Body.Close()
	if reply.StatusCode != http.StatusNotFound {
		return fmt.Errorf("a stranger's look at alice's outbox was answered %s", reply.Status)
	}
	tell("she asks for alice's outbox: %s, as if there were none", reply.Status)
	return nil
}

func aLiar(ctx context.Context, s *stage, c *cast) error {
	scene("Dave rents space from a relay that alters what it hands out.")
	crooked, err := s.newRelay(ctx, "crooked")
	if err != nil {
		return err
	}
	c.spare = crooked
	if s.liar, err = newLiar(crooked.url); err != nil {
		return err
	}
	dave, err := s.newPerson(ctx, "dave")
	if err != nil {
		return err
	}
	if err := crooked.admin(ctx, "grant", dave.key); err != nil {
		return err
	}
	if _, err := dave.relay(ctx, "relays", "add", s.liar.url); err != nil {
		return err
	}
	if _, err := dave.relay(ctx, "id", "--card", dave.card); err != nil {
		return err
	}
	if err := befriend(ctx, dave, c.bob); err != nil {
		return err
	}
	if err := dave.sends(ctx, c, "bob", daveWords); err != nil {
		return err
	}
	said, err := c.bob.relay(ctx, "inbox")
	if err == nil || strings.Contains(said, daveWords) {
		return fmt.Errorf("bob's inbox did not notice the altered record:\n%s", said)
	}
	if s.liar.told.Load() == 0 {
		return fmt.Errorf("the crooked relay was not asked:\n%s", said)
	}
	for _, line := range strings.Split(said, "\n") {
		if strings.Contains(line, s.liar.url) {
			tell("bob is told: %s", strings.TrimSpace(line))
			break
		}
	}
	s.liar.lies.Store(false)
	if err := c.bob.reads(ctx, c, "dave", daveWords); err != nil {
		return err
	}
	tell("once it stops lying, bob reads: %q", daveWords)
	return nil
}

func theDeadReturn(ctx context.Context, _ *stage, c *cast) error {
	scene("The relay north comes back. Nothing is lost, nothing is doubled.")
	if err := c.north.start(ctx); err != nil {
		return err
	}
	for _, m := range []struct{ from, words string }{{"alice", firstWords}, {"alice", liveWords}, {"dave", daveWords}} {
		if err := c.bob.reads(ctx, c, m.from, m.words); err != nil {
			return err
		}
	}
	tell("bob has each message once, though he pulled some of them twice")
	return nil
}
