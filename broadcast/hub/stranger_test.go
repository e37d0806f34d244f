package hub_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/internal/testhub"
)

// stalled is a connection that never reads once it is made. The function asks for the book until it may no longer.
func stalled(t *testing.T, address string) func(*testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil { // INFO
		t.Fatal(err)
	}
	hello := "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _INBOX.x 1\r\n"
	if _, err := conn.Write([]byte(hello)); err != nil {
		t.Fatal(err)
	}
	body := `{"seq":1,"next_by_subj":"` + broadcast.AnnounceWildcard(network) + `","batch":100000}`
	ask := fmt.Sprintf("PUB %s _INBOX.x %d\r\n%s\r\n", broadcast.DirectGetSubject(network), len(body), body)
	return func(t *testing.T) {
		for range 2000 {
			if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(ask)); err != nil {
				return
			}
		}
	}
}

// A stranger may do what he needs, and nothing else.
func TestStrangersRights(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	r := newRelay(t)
	n.Send(n.Stranger(), r.says(t, c.Now(), 8, time.Hour))
	subject := broadcast.AnnounceSubject(network, r.Public())
	stream := broadcast.StreamName(network)
	refused := func(what string, do func(*nats.Conn) error) {
		t.Helper()
		faults := make(chan error, 10)
		conn := n.Stranger(nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { faults <- err }))
		defer conn.Close()
		if err := do(conn); err != nil {
			t.Fatal(err)
		}
		if err := conn.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-faults:
			if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(patience):
			t.Errorf("%s is allowed", what)
		}
	}
	for _, to := range []string{subject, "relaymarket.v1.mainnet.ingest", "$JS.API.INFO", "$JS.API.STREAM.INFO." + stream, "$JS.API.STREAM.PURGE." + stream,
		"$JS.API.STREAM.DELETE." + stream, "$JS.API.STREAM.MSG.GET." + stream, "$JS.API.STREAM.CREATE.x", "$JS.API.CONSUMER.CREATE." + stream,
		"$JS.API.DIRECT.GET." + stream + "." + subject, "$JS.API.DIRECT.GET.other", "$SYS.REQ.SERVER.PING", "_INBOX.x", "x", "$JS.ACK.x"} {
		refused("to publish to "+to, func(conn *nats.Conn) error { return conn.Publish(to, []byte("{}")) })
	}
	for _, on := range []string{">", "*", "$JS.>", "$SYS.>", "$SYS.ACCOUNT.>", "relaymarket.>", "relaymarket.v1.*.announce.*", broadcast.IngestSubject(network), "_R_.>", "_INBOX_.>"} {
		refused("to subscribe to "+on, func(conn *nats.Conn) error { _, err := conn.SubscribeSync(on); return err })
	}
	if got := n.Book(); got[r.Public()] != 1 {
		t.Errorf("afterwards the book has %v", got)
	}
}

// The answers that a stranger asks for go where he wants, but never into the stream, nor to whoever follows the book.
func TestRepliesGoNowhereElse(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	conn := n.Stranger()
	victim, other := newRelay(t), newRelay(t)
	n.Send(conn, victim.says(t, c.Now(), 8, time.Hour))
	n.Send(conn, other.says(t, c.Now(), 8, time.Hour))
	follower := n.Stranger()
	live, err := follower.SubscribeSync(broadcast.AnnounceWildcard(network))
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	get := []byte(`{"last_by_subj":"` + broadcast.AnnounceSubject(network, other.Public()) + `"}`)
	batch := []byte(`{"seq":1,"next_by_subj":"` + broadcast.AnnounceWildcard(network) + `","batch":100}`)
	for _, reply := range []string{broadcast.AnnounceSubject(network, victim.Public()), broadcast.IngestSubject(network), broadcast.DirectGetSubject(network),
		"$JS.API.STREAM.PURGE." + broadcast.StreamName(network), "$JS.API.STREAM.DELETE." + broadcast.StreamName(network)} {
		for _, body := range [][]byte{get, batch, nil} {
			if err := conn.PublishRequest(broadcast.DirectGetSubject(network), reply, body); err != nil {
				t.Fatal(err)
			}
			if err := conn.PublishRequest(broadcast.IngestSubject(network), reply, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	testhub.Wait(t, "the hub is through", func() bool { return n.Counted("dropped_total", "malformed") >= 15 })
	time.Sleep(100 * time.Millisecond)
	places := 0
	if _, err := feed.FetchAll(t.Context(), conn, network, 0, 100, func(m feed.Message) error {
		places++
		if _, err := rules.CheckOn(m.Subject, m.Data, stamp(c), nil); err != nil {
			t.Errorf("the stream has %s: %v", m.Subject, err)
		}
		return nil
	}); err != nil || places != 2 {
		t.Errorf("%d in the stream, %v", places, err)
	}
	// What comes to who follows is bytes of the hub's, some of them on another's subject: he has to check.
	for {
		m, err := live.NextMsg(50 * time.Millisecond)
		if err != nil {
			break
		}
		if o, err := rules.CheckOn(m.Subject, m.Data, stamp(c), nil); err == nil && o.Seq != 1 {
			t.Errorf("he could believe %s", m.Data)
		}
	}
}
