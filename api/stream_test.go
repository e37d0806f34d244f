package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"relaymarket/protocol"
)

// rawListen opens a stream over a connection of the test's own.
func (g *rig) rawListen(reader, sender *protocol.PrivateKey, version string, after *string) net.Conn {
	g.t.Helper()
	e := g.sign(reader, g.key.Public(), &protocol.Listen{Senders: []protocol.PublicKey{sender.Public()}, After: after})
	conn := dial(g.t, g.http)
	_, err := fmt.Fprintf(conn, "POST /inbox/%s/listen HTTP/%s\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		reader.Public(), version, e.Size(), e.Bytes())
	if err != nil {
		g.t.Fatal(err)
	}
	return conn
}

// storeMany writes records n, n+1 … in one batch.
func (g *rig) storeMany(from, to *protocol.PrivateKey, n, count int) {
	g.t.Helper()
	var body strings.Builder
	for i := range count {
		body.Write(g.write(from, to, fmt.Sprint("r", n+i)).Bytes())
		body.WriteString("\n")
	}
	if a := g.send("POST", "/"+from.Public().String()+"/outbox", mediaLines, body.String()); a.status != 200 || strings.Contains(string(a.body), "problem") {
		g.t.Fatalf("batch: %d %.300s", a.status, a.body)
	}
}

// A listener who stops reading for a while holds nobody up. Then he is told all that he can still be told, in order,
// and where to go on.
func TestListenerThatPauses(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.FlushTimeout = patience }) // his pause is as long as the writing takes
	alice, bob, carol := newKey(t), newKey(t), newKey(t)
	g.grant(alice)
	conn := g.rawListen(bob, alice, "1.1", nil)
	quick, _ := g.listen(carol, alice, nil)
	quick.next()
	const batches, each = 5, 500
	for b := range batches {
		g.storeMany(alice, bob, b*each, each)
		g.store(alice, carol, fmt.Sprint("quick", b))
		if r := quick.record(); r.RecordId != fmt.Sprint("quick", b) {
			t.Fatalf("the other listener is told of %s", r.RecordId)
		}
	}
	next, resumed := 0, 0
	for next < batches*each {
		reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || reply.StatusCode != http.StatusOK || !reply.Close {
			t.Fatalf("the stream begins with %v %v", reply, err)
		}
		lines := bufio.NewScanner(reply.Body)
		var behind *Behind
		for behind == nil && next < batches*each && lines.Scan() {
			var l ListenLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatalf("%s: %v", lines.Bytes(), err)
			}
			if l.Record != nil {
				if want := fmt.Sprint("r", next); l.Record.RecordId != want {
					t.Fatalf("%s instead of %s", l.Record.RecordId, want)
				}
				next++
			}
			behind = l.Behind
		}
		if next == batches*each {
			break
		}
		if behind == nil || lines.Scan() || lines.Err() != nil {
			t.Fatalf("after %d records the stream goes on with %q, %v", next, lines.Text(), lines.Err())
		}
		_ = conn.Close()
		resumed++
		conn = g.rawListen(bob, alice, "1.1", &behind.Cursor)
	}
	if resumed == 0 {
		t.Error("the connection took everything at once: nothing was shown")
	}
}

// HTTP/1.0 knows no chunks: lines come bare, and the end of the stream is that of the connection.
func TestListenHTTP10(t *testing.T) {
	g := newRig(t)
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	lines := bufio.NewScanner(g.rawListen(bob, alice, "1.0", nil))
	for lines.Scan() && lines.Text() != "" {
		if strings.HasPrefix(lines.Text(), "Transfer-Encoding") {
			t.Errorf("the head says %s", lines.Text())
		}
	}
	g.store(alice, bob, "one")
	var got []ListenLine
	for len(got) < 2 && lines.Scan() {
		var l ListenLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		got = append(got, l)
	}
	g.server.Drain()
	if len(got) != 2 || got[0].Alive == nil || got[1].Record == nil || lines.Scan() || lines.Err() != nil {
		t.Errorf("%+v, then %q %v", got, lines.Text(), lines.Err())
	}
}

// What a listener sends after his request is none; that he leaves is noticed all the same.
func TestListenerThatTalks(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.KeepAlive = 100 * time.Millisecond })
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	conn := g.rawListen(bob, alice, "1.1", nil)
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('}'); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /.well-known/relaymarket HTTP/1.1\r\nHost: relay\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	g.store(alice, bob, "one")
	for !strings.Contains(must(lines.ReadString('\n')), `"one"`) {
	}
	_ = conn.Close()
	g.awaitListeners(0)
}

func must(line string, err error) string {
	if err != nil {
		panic(err)
	}
	return line
}

// Nobody who does not read can hold up the relay's end, whether he was told nothing yet or more than he took.
func TestDrainOfListenersThatDoNotRead(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.FlushTimeout = patience })
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	g.storeMany(alice, bob, 0, 1000) // for the one who comes late: more than a connection takes
	g.storeMany(alice, bob, 1000, 1000)
	for range 3 {
		g.rawListen(bob, alice, "1.1", nil)
	}
	g.awaitListeners(3)
	g.storeMany(alice, bob, 2000, 1000)
	began := time.Now()
	g.server.Drain()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %s", took)
	}
	if open := g.server.listeners.count(); open != 0 {
		t.Errorf("%d streams are still open", open)
	}
	if n := testutil.ToFloat64(g.server.metrics.dropped.WithLabelValues(string(dropListenerDraining))); n != 3 {
		t.Errorf("%v streams count as ended", n)
	}
}

// awaitListeners waits until so many streams are open.
func (g *rig) awaitListeners(n int) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); g.server.listeners.count() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("%d streams are open, want %d", g.server.listeners.count(), n)
		}
	}
}
