package degraded_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/api"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// dial opens a connection, closed with the test.
func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a whole request over a connection.
func ask(t *testing.T, conn net.Conn, p *scenario.Person, url string, c scenario.Call) {
	t.Helper()
	head, body, err := p.Request(t.Context(), url, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append(head, body...)); err != nil {
		t.Fatal(err)
	}
}

// Readers who take a kilobyte a second of their pages keep nobody else out, are cut off in time, and get the same page
// when they ask again.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const (
		slow  = 4 // readers, on two connections each: more than there are places for readers at work
		count = 30
		// from a request's begin to the end of its reply: so long that all pages are made before the first is cut off
		replyTime = 30 * time.Second
		bytes     = 190 << 10 // content of a record; a page of them is more than the kernel takes
	)
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Bounds = api.Bounds{MaxConcurrent: 8, BodyTimeout: replyTime / 6, WorkTimeout: replyTime / 2, ReplyTimeout: replyTime / 3}
	}})
	alice, carol := scenario.NewPerson(t, node.Key), scenario.NewPerson(t, node.Key)
	node.Grant(t, alice.Key.Public())
	var readers []*scenario.Person
	for range slow {
		bob := scenario.NewPerson(t, node.Key)
		readers = append(readers, bob)
		for i := range count {
			if r := send(t, alice, node.URL, large(alice, bob.Key.Public(), fmt.Sprintf("r%d", i), bytes)); r.Status != http.StatusCreated {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
		}
	}
	send(t, alice, node.URL, alice.Write(carol.Key.Public(), "quick", 100))

	var all sync.WaitGroup
	began := time.Now()
	for i := range 2 * slow {
		bob := readers[i/2]
		conn := dial(t, node.URL)
		ask(t, conn, bob, node.URL, bob.Pull("page", nil, 1000, alice.Key.Public()))
		in := bufio.NewReaderSize(conn, 1<<10)
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Fatalf("a slow reader: %q %v", line, err)
		}
		asked := time.Now()
		all.Go(func() {
			for err := error(nil); err == nil && time.Since(asked) < replyTime+5*time.Second; {
				time.Sleep(time.Second)
				_, err = io.CopyN(io.Discard, in, 1<<10)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if rest, err := io.Copy(io.Discard, in); err == nil && rest > count*bytes || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a slow reader gets the rest of his page, %d bytes, and %v", rest, err)
			}
		})
	}
	held := metric(t, node.OperatorURL, "relaymarket_api_body_bytes", "")
	var longest time.Duration
	const quick = 20
	for i := range quick {
		at := time.Now()
		p := readPage(t, send(t, carol, node.URL, carol.Pull(fmt.Sprintf("q%d", i), nil, 10, alice.Key.Public())))
		longest = max(longest, time.Since(at))
		if len(p.Records) != 1 {
			t.Fatalf("the quick reader has %v", p.Records)
		}
		send(t, carol, node.URL, carol.Got(protocol.PageID(fmt.Sprintf("q%d", i)), *p.Root))
	}
	until(t, "the slow readers to be cut off", func() bool {
		return metric(t, node.OperatorURL, "relaymarket_api_body_bytes", "") == 0
	})
	took := time.Since(began)
	all.Wait()
	t.Logf("%d replies of 7.6 MB at 1 kB/s: %.0f MB held, cut off after %s; meanwhile %d pulls of another, the longest %s",
		2*slow, held/1e6, took.Round(time.Millisecond), quick, longest.Round(time.Millisecond))
	if held < 2*slow*7e6 || took > 2*replyTime || longest > replyTime/3 {
		t.Errorf("%.0f MB held, cut off after %s, longest pull of another %s", held/1e6, took, longest)
	}
	for _, bob := range readers {
		if p := readPage(t, send(t, bob, node.URL, bob.Pull("page", nil, 1000, alice.Key.Public()))); len(p.Records) != count {
			t.Errorf("asked again, the page has %d records of %d", len(p.Records), count)
		}
	}
}

// Writers who send a hundred bytes a second keep nobody out either, and are told what is wrong.
func TestSlowWriters(t *testing.T) {
	const slow, room, timeout = 100, 8, 5 * time.Second
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Bounds = api.Bounds{MaxConcurrent: room, BodyTimeout: timeout}
	}})
	alice, bob := scenario.NewPerson(t, node.Key), scenario.NewPerson(t, node.Key)
	node.Grant(t, alice.Key.Public())
	call := large(alice, bob.Key.Public(), "slow1", 100<<10)
	head, body, err := alice.Request(t.Context(), node.URL, call)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	began := time.Now()
	answers := make([]string, slow)
	for i := range answers {
		conn := dial(t, node.URL)
		if _, err := conn.Write(head); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for at := 0; at < len(body); at += 100 {
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := conn.Write(body[at : at+100]); err != nil {
					break
				}
				answer, err := io.ReadAll(conn)
				if answers[i] += string(answer); err == nil {
					return // the relay has closed it
				}
			}
		})
	}
	until(t, "their bodies to be read", func() bool { return metric(t, node.OperatorURL, "relaymarket_api_body_bytes", "") > 0 })
	held := metric(t, node.OperatorURL, "relaymarket_api_body_bytes", "")
	var longest time.Duration
	stored := 0
	for ; time.Since(began) < timeout; stored++ {
		at := time.Now()
		if r := send(t, alice, node.URL, alice.Write(bob.Key.Public(), fmt.Sprint("quick", stored), 2)); r.Status != http.StatusCreated {
			t.Fatalf("a quick writer: %d %s", r.Status, r.Body)
		}
		longest = max(longest, time.Since(at))
	}
	all.Wait()
	took := time.Since(began)
	told := 0
	for _, a := range answers {
		if strings.HasPrefix(a, "HTTP/1.1 408") && strings.Contains(a, string(protocol.CodeTooSlow)) {
			told++
		}
	}
	t.Logf("%d bodies at 100 B/s: %.1f MB held, refused after %s; meanwhile %d writes of another, the longest %s",
		slow, held/1e6, took.Round(time.Millisecond), stored, longest.Round(time.Millisecond))
	if told != slow || held > slow*8<<10 || took > timeout+20*time.Second || longest > timeout {
		t.Errorf("%d of %d were told, %.1f MB held, after %s; longest write %s; %q", told, slow, held/1e6, took, longest, answers[0])
	}
	until(t, "their memory to be given back", func() bool { return metric(t, node.OperatorURL, "relaymarket_api_body_bytes", "") == 0 })
}

// Listeners who never read are ended, and one who reads is told everything meanwhile.
func TestListenersThatNeverRead(t *testing.T) {
	const deaf, batches, each = 8, 10, 500
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.Bounds = api.Bounds{FlushTimeout: 5 * time.Second} }})
	alice, bob := scenario.NewPerson(t, node.Key), scenario.NewPerson(t, node.Key)
	node.Grant(t, alice.Key.Public())
	for range deaf {
		ask(t, dial(t, node.URL), bob, node.URL, bob.Listen(alice.Key.Public()))
	}
	conn := dial(t, node.URL)
	ask(t, conn, bob, node.URL, bob.Listen(alice.Key.Public()))
	until(t, "the listeners", func() bool { return metric(t, node.OperatorURL, "relaymarket_api_listeners", "") == deaf+1 })
	lines := bufio.NewReader(conn)
	var longest time.Duration
	for b := range batches {
		batch := alice.Write(bob.Key.Public(), fmt.Sprint("b", b, "-0"), 2)
		batch.Method, batch.Path = http.MethodPost, "/"+alice.Key.Public().String()+"/outbox"
		for i := range each - 1 {
			next := alice.Write(bob.Key.Public(), fmt.Sprint("b", b, "-", i+1), 2)
			batch.Body, batch.To = append(batch.Body, next.Body...), append(batch.To, next.To...)
		}
		if r := send(t, alice, node.URL, batch); strings.Count(string(r.Body), `"status":201`) != each {
			t.Fatalf("batch: %d %.300s", r.Status, r.Body)
		}
		at := time.Now()
		for i := range each {
			want := fmt.Sprintf(`"recordId":"b%d-%d"`, b, i)
			for line := ""; !strings.Contains(line, want); {
				var err error
				if line, err = lines.ReadString('\n'); err != nil {
					t.Fatalf("waiting for %s: %v", want, err)
				}
				if strings.Contains(line, `"recordId"`) && !strings.Contains(line, want) {
					t.Fatalf("%s instead of %s", line, want)
				}
			}
		}
		longest = max(longest, time.Since(at))
	}
	until(t, "the others to be ended", func() bool { return metric(t, node.OperatorURL, "relaymarket_api_listeners", "") == 1 })
	slow := metric(t, node.OperatorURL, "relaymarket_api_dropped_total", "listener_slow")
	behind := metric(t, node.OperatorURL, "relaymarket_api_dropped_total", "listener_behind")
	t.Logf("%d listeners never read: %v cut off, %v of them behind; one who reads had each batch of %d whole %s after its reply at most",
		deaf, slow, behind, each, longest.Round(time.Millisecond))
	if slow != deaf || longest > 20*time.Second {
		t.Errorf("%v are counted as cut off, longest wait of the one who reads %s", slow, longest)
	}
}
