package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
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

// listener is a reader's open stream.
type listener struct {
	t     *testing.T
	lines *bufio.Reader
	stop  func()
}

func (g *rig) listen(reader, sender *protocol.PrivateKey, after *string) (*listener, answer) {
	g.t.Helper()
	e := g.sign(reader, g.key.Public(), &protocol.Listen{Senders: []protocol.PublicKey{sender.Public()}, After: after})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	g.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "POST", g.http.URL+"/inbox/"+reader.Public().String()+"/listen", strings.NewReader(string(e.Bytes())))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", mediaEnvelope)
	reply, err := g.http.Client().Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if reply.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(reply.Body)
		_ = reply.Body.Close()
		return nil, answer{reply.StatusCode, reply.Header, body}
	}
	g.t.Cleanup(func() { _ = reply.Body.Close() })
	return &listener{g.t, bufio.NewReader(reply.Body), cancel}, answer{status: http.StatusOK}
}

func (l *listener) next() ListenLine {
	l.t.Helper()
	line, err := l.lines.ReadBytes('\n')
	if err != nil {
		l.t.Fatalf("listen: %v", err)
	}
	var got ListenLine
	if err := json.Unmarshal(line, &got); err != nil {
		l.t.Fatalf("listen: %s: %v", line, err)
	}
	return got
}

// record is the next line that is no sign of life.
func (l *listener) record() *Record {
	l.t.Helper()
	for {
		if got := l.next(); got.Alive == nil {
			return got.Record
		}
	}
}

func TestListen(t *testing.T) {
	const keepAlive = 200 * time.Millisecond
	g := newRig(t, func(c *Config) { c.Bounds.KeepAlive = keepAlive })
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	g.store(alice, bob, "before")
	l, _ := g.listen(bob, alice, nil)
	if first := l.next(); first.Alive == nil || first.Alive.Cursor == "" || first.Alive.Time == 0 {
		t.Fatalf("the first line is no sign of life: %+v", first)
	}
	if r := l.record(); r.RecordId != "before" || r.From != alice.Public() || r.To != bob.Public() || r.MaxPulls != 8 {
		t.Errorf("first record: %+v", r)
	}
	started := time.Now()
	g.store(alice, bob, "live")
	live := l.record()
	if live.RecordId != "live" {
		t.Errorf("told of %s", live.RecordId)
	}
	for range 3 {
		if quiet := l.next(); quiet.Alive == nil {
			t.Errorf("a quiet stream says %+v", quiet)
		}
	}
	if took := time.Since(started); took < 2*keepAlive {
		t.Errorf("three signs of life in %s", took)
	}
	l.stop()
	g.store(alice, bob, "away")
	l, _ = g.listen(bob, alice, &live.Cursor)
	if r := l.record(); r.RecordId != "away" {
		t.Errorf("resumed with %s", r.RecordId)
	}
}

// TestListenAliveUnderTraffic: signs of life come even when records never pause.
func TestListenAliveUnderTraffic(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.KeepAlive = 100 * time.Millisecond })
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	l, _ := g.listen(bob, alice, nil)
	l.next()
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				e := g.write(alice, bob, fmt.Sprint("r", i))
				g.put(recordPath(alice, bob, fmt.Sprint("r", i)), e)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	alive, told := 0, 0
	for deadline := time.Now().Add(patience / 2); alive < 3 && time.Now().Before(deadline); {
		if l.next().Alive != nil {
			alive++
		} else {
			told++
		}
	}
	if alive < 3 || told == 0 {
		t.Errorf("%d signs of life among %d records", alive, told)
	}
}

// TestListenManyAtOnce: a backlog larger than what is read at once arrives whole and in order, and is not held
// back for the next sign of life.
func TestListenManyAtOnce(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.KeepAlive = 2 * patience })
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	const batches = 2
	for b := range batches {
		var body strings.Builder
		for i := range 500 {
			body.Write(g.write(alice, bob, fmt.Sprint("r", b*500+i)).Bytes())
			body.WriteString("\n")
		}
		if a := g.send("POST", "/"+alice.Public().String()+"/outbox", mediaLines, body.String()); a.status != 200 || strings.Contains(string(a.body), "problem") {
			t.Fatalf("batch: %d %.300s", a.status, a.body)
		}
	}
	l, _ := g.listen(bob, alice, nil)
	for i := range batches * 500 {
		if r := l.record(); r.RecordId != fmt.Sprint("r", i) {
			t.Fatalf("%s in place %d", r.RecordId, i)
		}
	}
	g.store(alice, bob, "last")
	if r := l.record(); r.RecordId != "last" {
		t.Errorf("then %s", r.RecordId)
	}
}

func TestListenBounds(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.MaxListeners, c.Bounds.MaxListenersPerKey = 3, 2 })
	alice, bob, carol := newKey(t), newKey(t), newKey(t)
	open := func(reader *protocol.PrivateKey) (*listener, answer) {
		t.Helper()
		l, a := g.listen(reader, alice, nil)
		if l != nil {
			l.next()
		}
		return l, a
	}
	first, _ := open(bob)
	open(bob)
	if _, a := open(bob); codeOf(t, a) != protocol.CodeRateKey || a.header.Get("Retry-After") == "" {
		t.Errorf("a third stream of one reader: %d %s", a.status, a.body)
	}
	open(carol)
	if _, a := open(carol); codeOf(t, a) != protocol.CodeOverloaded || a.header.Get("Retry-After") == "" {
		t.Errorf("a fourth stream: %d %s", a.status, a.body)
	}
	if working := g.server.load.working.Load(); working != 0 {
		t.Errorf("streams at rest count as %d requests at work", working)
	}
	first.stop()
	g.awaitListeners(2) // he has left
	if l, a := open(carol); l == nil {
		t.Errorf("after one left: %d %s", a.status, a.body)
	}
}

// TestDrain: streams end whole, new ones are refused, everything else is served on.
func TestDrain(t *testing.T) {
	g := newRig(t)
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	l, _ := g.listen(bob, alice, nil)
	l.next()
	g.server.Drain()
	if _, err := l.lines.ReadBytes('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
	if _, a := g.listen(bob, alice, nil); codeOf(t, a) != protocol.CodeOverloaded || a.header.Get("Retry-After") == "" {
		t.Errorf("a new stream: %d %s", a.status, a.body)
	}
	g.store(alice, bob, "still")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.http.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// TestListenerThatNeverReads is cut off, and what it held is given back.
func TestListenerThatNeverReads(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.FlushTimeout, c.Bounds.KeepAlive = 300*time.Millisecond, time.Microsecond })
	alice, bob := newKey(t), newKey(t)
	e := g.sign(bob, g.key.Public(), &protocol.Listen{Senders: []protocol.PublicKey{alice.Public()}})
	conn := dial(t, g.http)
	if err := conn.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
		t.Fatal(err)
	}
	_, err := fmt.Fprintf(conn, "POST /inbox/%s/listen HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		bob.Public(), e.Size(), e.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	slow := g.server.metrics.dropped.WithLabelValues(string(dropListenerSlow))
	for deadline := time.Now().Add(patience); testutil.ToFloat64(slow) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a listener that never reads is still served")
		}
	}
	g.awaitListeners(0)
}

// TestSlowBodyHoldsNoSlot: a body that comes slowly holds no slot of those that work.
func TestSlowBodyHoldsNoSlot(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Bounds.MaxConcurrent, c.Bounds.BodyTimeout = 1, patience })
	alice, bob := newKey(t), newKey(t)
	g.grant(alice)
	for range 4 {
		conn := dial(t, g.http)
		_, err := fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
			recordPath(alice, bob, "slow"))
		if err != nil {
			t.Fatal(err)
		}
	}
	g.store(alice, bob, "quick")
}
