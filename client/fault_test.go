package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/client"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// correspondents are two people with one relay, which both reach at the given address.
func correspondents(t *testing.T, node *testnode.Node, address string) (alice, bob *person) {
	t.Helper()
	alice, bob = somebody(t), somebody(t)
	node.Grant(t, alice.Key())
	alice.adds(address)
	alice.befriends(bob)
	bob.befriends(alice)
	return alice, bob
}

func numbered(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("message %d", i))
	}
	return all
}

func TestCutReplies(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := cutBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	texts := numbered(20)
	for _, text := range texts {
		alice.says(bob, text)
	}
	proxy.cut(20_000, 2)
	bob.finds(texts...)
	if proxy.cuts.Load() != 2 {
		t.Fatalf("%d replies were cut", proxy.cuts.Load())
	}
	bob.finds()
}

// A line that never carries a whole page: the relay gives the page up after three times, and
// smaller ones come through.
func TestBadLine(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := cutBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	texts := numbered(20)
	for _, text := range texts {
		alice.says(bob, text)
	}
	bob.config.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a connection a reply
	bob = device(t, bob.config)
	proxy.cut(20_000, -1)
	bob.finds(texts...)
	if proxy.cuts.Load() < 3 {
		t.Fatalf("%d replies were cut", proxy.cuts.Load())
	}
	proxy.cut(-1, 0)
	alice.says(bob, "over a good line")
	bob.finds("over a good line")
}

func TestCutWrites(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := cutBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	alice.config.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	alice = device(t, alice.config)
	proxy.cut(0, 3)
	sent := alice.says(bob, "stored once")
	if proxy.cuts.Load() != 3 {
		t.Fatalf("%d replies were cut", proxy.cuts.Load())
	}
	if c := sent.Copies[0]; c.State != "stored" || c.Error != "" {
		t.Errorf("the copy is %s: %s", c.State, c.Error)
	}
	account, err := alice.Account(t.Context(), relayOf(t, alice))
	if err != nil {
		t.Fatal(err)
	}
	if account.Stored == 0 || account.Stored > 4000 {
		t.Errorf("%d bytes are stored for one message", account.Stored)
	}
	bob.finds("stored once")
}

func relayOf(t *testing.T, p *person) client.Relay {
	t.Helper()
	relays, err := p.Relays(t.Context())
	if err != nil || len(relays) == 0 {
		t.Fatalf("%v, %v", relays, err)
	}
	return relays[0]
}

func TestTamperingRelay(t *testing.T) {
	honest, other := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	proxy := tamperBefore(t, other)
	alice := somebody(t)
	for _, n := range []*testnode.Node{honest, other} {
		n.Grant(t, alice.Key())
	}
	alice.adds(honest.URL)
	alice.adds(proxy.URL)

	for name, alter := range map[string]func([]string) []string{
		"content": func(lines []string) []string {
			at := strings.Index(lines[1], `"content":"`) + 200
			swap := "A"
			if lines[1][at] == 'A' {
				swap = "B"
			}
			lines[1] = lines[1][:at] + swap + lines[1][at+1:]
			return lines
		},
		"order": func(lines []string) []string {
			lines[1], lines[2] = lines[2], lines[1]
			return lines
		},
		"twice":     func(lines []string) []string { lines[2] = lines[1]; return lines },
		"root":      func(lines []string) []string { lines[0] = swapHex(lines[0], `"root":"`); return lines },
		"signature": func(lines []string) []string { lines[1] = swapHex(lines[1], `"sig":"`); return lines },
		"page id": func(lines []string) []string {
			lines[0] = strings.Replace(lines[0], `"pageId":"`, `"pageId":"x`, 1)
			return lines
		},
		"no JSON":    func(lines []string) []string { lines[1] = "hello"; return lines },
		"not a page": func([]string) []string { return []string{"<html>"} },
		"cursor":     func(lines []string) []string { return []string{cutCursor(lines[0]), lines[1], lines[2]} },
	} {
		t.Run(name, func(t *testing.T) {
			bob := somebody(t)
			bob.befriends(alice)
			alice.befriends(bob)
			alice.sends(bob, "one", client.SendOptions{Copies: 2})
			alice.sends(bob, "two", client.SendOptions{Copies: 2})

			proxy.gots.Store(0)
			proxy.set(pages(func(lines []string) []string {
				if len(lines) < 3 {
					return lines
				}
				return alter(lines)
			}))
			defer proxy.set(nil)
			result := bob.tries()
			failed := result.Failed()
			if len(failed) != 1 || failed[0].Address != proxy.URL || !errors.Is(failed[0].Err, client.ErrTampered) {
				t.Fatalf("failed: %+v", failed)
			}
			if failed[0].Records != 0 {
				t.Errorf("%d records were taken from it", failed[0].Records)
			}
			if n := proxy.gots.Load(); n != 0 {
				t.Errorf("%d acknowledgements were signed", n)
			}
			bob.arrived(result, "one", "two") // from the honest relay

			proxy.set(nil)
			bob.finds() // and in the end all is well with the other
			if proxy.gots.Load() == 0 {
				t.Error("the honest page was not acknowledged")
			}
		})
	}
}

// swapHex changes the first digit after a mark.
func swapHex(line, mark string) string {
	at := strings.Index(line, mark) + len(mark)
	digit := "0"
	if line[at] == '0' {
		digit = "1"
	}
	return line[:at] + digit + line[at+1:]
}

func cutCursor(line string) string {
	at := strings.Index(line, `"cursor":"`) + len(`"cursor":"`)
	end := strings.Index(line[at:], `"`)
	return line[:at] + line[at+end:]
}

func TestWriteConfirmedFalsely(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := tamperBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	proxy.set(func(r *http.Request, body []byte) []byte {
		if r.Method == http.MethodPut {
			return []byte(swapHex(string(body), `"hash":"`))
		}
		return body
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := alice.Send(ctx, bob.Key(), []byte("confirmed?"), client.SendOptions{})
	if !errors.Is(err, client.ErrTampered) || m == nil || m.Copies[0].State != "queued" {
		t.Fatalf("%+v, %v", m, err)
	}
	proxy.set(nil)
	bob.finds("confirmed?")
}

func TestTwoDevices(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := correspondents(t, node, node.URL)
	tablet := bob.other().befriends(alice)
	alice.says(bob, "one")
	alice.says(bob, "two")
	bob.finds("one", "two")
	alice.says(bob, "three")
	tablet.finds("one", "two", "three")
	bob.finds("three")
	tablet.finds()
}

// A device got a page and did not acknowledge it. Another one of the same key does, and both go on.
func TestOpenPageIsAdopted(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := tamperBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	tablet := bob.other().befriends(alice)
	alice.says(bob, "zero")
	tablet.finds("zero") // so that its next page begins after what bob does not have yet
	alice.says(bob, "one")
	proxy.set(pages(func(lines []string) []string { return lines[:0] }))
	if failed := tablet.tries().Failed(); len(failed) != 1 {
		t.Fatalf("failed: %+v", failed)
	}
	var opened atomic.Int64
	proxy.set(func(_ *http.Request, body []byte) []byte {
		if strings.Contains(string(body), `"page_open"`) {
			opened.Add(1)
		}
		return body
	})
	alice.says(bob, "two")
	bob.finds("one", "zero", "two") // the open page first
	if n := opened.Load(); n != 1 {
		t.Errorf("%d refusals for the open page", n)
	}
	alice.says(bob, "three")
	tablet.finds("one", "two", "three")
	bob.finds("three")
}

// A device died with a page open that it had asked for in vain until it was spent. Another one of the same key finishes it, and goes on.
func TestPageOfAnotherDevice(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := cutBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	lost := bob.other().befriends(alice)
	alice.says(bob, "one")
	alice.says(bob, "two")

	lost.config.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	proxy.cut(0, -1)
	if failed := device(t, lost.config).tries().Failed(); len(failed) != 1 || proxy.cuts.Load() < 3 {
		t.Fatalf("%d replies were cut, failed: %+v", proxy.cuts.Load(), failed)
	}
	proxy.cut(-1, 0)
	bob.finds("one", "two")
	alice.says(bob, "three")
	bob.finds("three")
	lost.finds("one", "two", "three")
}

func TestAnotherLifeOfTheRelay(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := correspondents(t, node, node.URL)
	alice.says(bob, "before")
	bob.finds("before")
	node.Stop()
	conn, err := pgx.Connect(t.Context(), node.DSN)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `UPDATE relay_cursor SET epoch = 'another'`); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	node.Restart()
	alice.says(bob, "after")
	bob.finds("after")
	bob.finds()
}

func TestClockOfTheRelay(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := correspondents(t, node, node.URL)
	for name, offset := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			config := bob.config
			config.Clock = func() time.Time { return time.Now().Add(offset) }
			alice.says(bob, name)
			late := device(t, config)
			late.finds(name)
		})
	}
}

func TestMessagesThatDoNotOpen(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := correspondents(t, node, node.URL)
	alice.says(bob, "good")
	for i, content := range []string{"AAAA", strings.Repeat("A", 2000)} {
		put(t, node, alice, bob, protocol.RecordID(fmt.Sprintf("bad-%d", i)), content, nil)
	}
	alice.says(bob, "also good")
	result := bob.syncs()
	faults := slices.DeleteFunc(slices.Clone(result.Messages), func(m client.Message) bool { return m.Fault == "" })
	if len(result.Messages) != 4 || len(faults) != 2 || len(result.Gaps) != 0 {
		t.Fatalf("%d messages, %d of them faulty, gaps %v", len(result.Messages), len(faults), result.Gaps)
	}
	bob.finds()
}

func TestContradiction(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(one, two)
	bob := somebody(t).befriends(alice)
	put(t, one, alice, bob, "twofold", "AAAA", nil)
	put(t, two, alice, bob, "twofold", "BBBB", nil)
	bob.syncs()
	found, err := bob.FindMessages(t.Context(), "twofold")
	if err != nil || len(found) != 1 || found[0].Contradiction == nil {
		t.Fatalf("%+v, %v", found, err)
	}
}

// put leaves any content under any id, as a program of somebody else's could.
func put(t *testing.T, node *testnode.Node, from, to *person, id protocol.RecordID, content string, tag *protocol.Tag) {
	t.Helper()
	e, err := protocol.Sign(from.config.Identity, to.Key(), protocol.TimestampOf(time.Now()), &protocol.Write{
		Relay: node.Key, RecordID: id, Expires: protocol.TimestampOf(time.Now().Add(time.Hour)), MaxPulls: 8, Tag: tag, Content: content,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := protocol.Path{Sender: from.Key(), Receiver: to.Key(), ID: id}
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

// What no relay takes is found before it is numbered: the friend sees no gap.
func TestTooLargeIsNotSent(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice := somebody(t).joins(node)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	_, err := alice.Send(t.Context(), bob.Key(), make([]byte, 1<<20), client.SendOptions{ContentType: "application/octet-stream"})
	if !errors.Is(err, client.ErrTooLarge) {
		t.Fatalf("a message of 1 MiB: %v", err)
	}
	if queue, err := alice.Outbox(t.Context(), 10); err != nil || len(queue) != 0 {
		t.Fatalf("it was queued: %v %v", queue, err)
	}
	if sent := alice.says(bob, "short"); sent.Seq != 1 {
		t.Errorf("the next message has the number %d: a gap", sent.Seq)
	}
}

// A relay that lowered its limit since it was added refuses for good, and the sender is told so.
func TestRefusedForGood(t *testing.T) {
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.Limits.Lifetime = time.Hour }})
	alice := somebody(t).joins(node)
	bob := somebody(t).befriends(alice)
	alice.befriends(bob)
	m, err := alice.Send(t.Context(), bob.Key(), []byte("for a month"), client.SendOptions{})
	if !errors.Is(err, client.ErrRefused) || errors.Is(err, client.ErrNotStored) || m == nil || m.Copies[0].State != "failed" {
		t.Fatalf("a lifetime the relay does not take: %v, %+v", err, m)
	}
}
