package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"relaymarket/internal/testnode"
)

// tollgate stands before a relay and lets through so many bytes, in both directions together. What comes after them waits
// until there are more, or the connection ends.
type tollgate struct {
	URL    string
	target string

	mu    sync.Mutex
	left  int64
	empty chan struct{} // closed when left is used up
	more  chan struct{} // closed when there is more again
}

const endless = 1 << 60

func newTollgate(t *testing.T, node *testnode.Node) *tollgate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &tollgate{URL: "http://" + listener.Addr().String(), target: strings.TrimPrefix(node.URL, "http://"), left: endless,
		empty: make(chan struct{}), more: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { g.serve(conn) })
		}
	})
	t.Cleanup(func() {
		g.allow(endless)
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	return g
}

// allow sets how much comes through from now on, and tells when it is used up.
func (g *tollgate) allow(n int64) (empty <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.empty = n, make(chan struct{})
	close(g.more)
	g.more = make(chan struct{})
	return g.empty
}

// pass waits until n bytes may pass; false: the connection ended first.
func (g *tollgate) pass(n int64, ended <-chan struct{}) bool {
	for {
		g.mu.Lock()
		if g.left >= n {
			g.left -= n
			g.mu.Unlock()
			return true
		}
		if g.left >= 0 {
			g.left = -1
			close(g.empty)
		}
		more := g.more
		g.mu.Unlock()
		select {
		case <-more:
		case <-ended:
			return false
		}
	}
}

func (g *tollgate) serve(down net.Conn) {
	defer down.Close()
	up, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer up.Close()
	ended := make(chan struct{})
	var both sync.WaitGroup
	var once sync.Once
	carry := func(to, from net.Conn) {
		chunks := make(chan []byte, 4)
		both.Go(func() {
			defer close(chunks)
			for {
				buffer := make([]byte, 16<<10)
				n, err := from.Read(buffer)
				if n > 0 {
					select {
					case chunks <- buffer[:n]:
					case <-ended:
						return
					}
				}
				if err != nil { // a killed program's connection ends here, also while bytes wait
					once.Do(func() { close(ended) })
					return
				}
			}
		})
		both.Go(func() {
			for chunk := range chunks {
				if !g.pass(int64(len(chunk)), ended) {
					continue
				}
				if _, err := to.Write(chunk); err != nil {
					once.Do(func() { close(ended) })
				}
			}
		})
	}
	carry(up, down)
	carry(down, up)
	<-ended
	_ = down.Close()
	_ = up.Close()
	both.Wait()
}

// killedWhen runs a command that is to be killed when so much came through, and tells whether it was.
func (s *terminal) killedWhen(g *tollgate, allowed int64, args ...string) bool {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	empty := g.allow(allowed)
	cmd := s.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-empty:
		if err := cmd.Process.Kill(); err != nil {
			s.t.Error(err)
		}
		<-done
		return true
	case err := <-done:
		if err != nil {
			s.t.Fatalf("relay %s: %v\n%s", strings.Join(args, " "), err, out.String())
		}
		return false
	}
}

// A transfer that is killed again and again, on both sides, ends with the same bytes. RELAY_FILE_MB makes it larger than CI
// has time for: 200 and ten kills on each side is the promise.
func TestAFileSurvivesKills(t *testing.T) {
	size, kills := int64(8e6), int64(3)
	if mb, err := strconv.ParseInt(os.Getenv("RELAY_FILE_MB"), 10, 64); err == nil {
		size, kills = mb*1e6, 10
	}
	node := testnode.Start(t, testnode.Options{})
	gate := newTollgate(t, node)
	alice, bob := user(t), user(t)
	for _, s := range []*terminal{alice, bob} {
		node.Grant(t, s.key())
		s.runs("relays", "add", gate.URL)
	}
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	bob.stdin = ""
	alice.runs("friend", "add", strings.TrimSpace(bob.runs("id", "--link")), "--name", "bob")

	path, data := bigFile(t, "survivor.bin", size)
	share := size * 4 / 3 / (kills + 1)
	for i := range kills {
		if !alice.killedWhen(gate, share, "send", "--file", path, "bob") {
			t.Fatalf("it was sent after %d kills", i)
		}
	}
	gate.allow(endless)
	var unsent struct{ Files []sentFileLine }
	alice.json(&unsent, "outbox")
	if len(unsent.Files) != 1 || unsent.Files[0].Told || unsent.Files[0].Relays[0].Stored == 0 {
		t.Fatalf("%+v", unsent)
	}
	alice.runs("send", "--resume")
	if again, errs, code := alice.types("send", "--resume"); code != exitNothing {
		t.Errorf("exit %d: %s%s", code, again, errs)
	}
	if used := node.Account(t, alice.key()).Stored; used > size*4/3+size/10 {
		t.Errorf("%d bytes are stored for a file of %d", used, size)
	}

	bob.runs("inbox")
	folder := t.TempDir()
	for i := range kills {
		if !bob.killedWhen(gate, share, "get", "latest", "--out", folder) {
			t.Fatalf("it was fetched after %d kills", i)
		}
	}
	gate.allow(endless)
	bob.runs("get", "latest", "--out", folder)
	got, err := os.ReadFile(filepath.Join(folder, "survivor.bin"))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes came, %v", len(got), err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	// Each piece was pulled once, or once more when its page was asked for again, and the sender learns of it.
	bob.runs("inbox")
	alice.runs("inbox")
	alice.json(&unsent, "outbox")
	if f := unsent.Files[0]; f.Relays[0].Pulled != f.Pieces {
		t.Errorf("%d of %d pieces are known as pulled", f.Relays[0].Pulled, f.Pieces)
	}
}
