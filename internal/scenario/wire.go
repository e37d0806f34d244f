package scenario

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Wire is a TCP connection to a relay that can be cut within a reply. The request always arrives:
// what a cut leaves unknown is the outcome.
type Wire struct {
	URL string

	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu  sync.Mutex
	cut int64 // bytes of each reply that pass; negative: all
}

// NewWire leads to the relay at target, host:port. It ends with the test.
func NewWire(t testing.TB, target string) *Wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{URL: "http://" + listener.Addr().String(), listener: listener, target: target, cut: -1}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		w.wg.Wait()
	})
	return w
}

// CutAfter lets that many bytes of each following reply pass. Negative mends the wire.
func (w *Wire) CutAfter(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = bytes
}

func (w *Wire) accept() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.carry(conn) })
	}
}

func (w *Wire) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	defer far.Close()
	w.wg.Go(func() {
		_, _ = io.Copy(far, near)
		_ = far.(*net.TCPConn).CloseWrite()
	})
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut < 0 {
		_, _ = io.Copy(near, far)
		return
	}
	_, _ = io.CopyN(near, far, cut)
	if cut == 0 {
		// The relay has answered once a byte is there; only then is the effect beyond doubt.
		_, _ = far.Read(make([]byte, 1))
	}
	_ = near.(*net.TCPConn).SetLinger(0) // a reset, as a lost network is
}
