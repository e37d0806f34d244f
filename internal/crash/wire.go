package main

import (
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
)

// A connection is cut within so many bytes of its requests, or of its replies, or late. Most requests and replies are
// shorter than any of these; several travel on one connection.
const (
	cutRequestBytes = 8_000
	cutReplyBytes   = 8_000
	cutLateBytes    = 40_000
)

// wire carries connections to a relay and cuts them at any byte.
type wire struct {
	url      string
	target   string
	listener net.Listener
	group    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	random  *rand.Rand
	cutting bool
	closed  bool
	open    map[net.Conn]bool
}

// newWire leads to the relay at a URL.
func newWire(url string, random *rand.Rand) (*wire, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{url: "http://" + listener.Addr().String(), target: strings.TrimPrefix(url, "http://"), listener: listener,
		random: random, open: map[net.Conn]bool{}}
	w.group.Go(w.accept)
	return w, nil
}

func (w *wire) set(cutting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutting = cutting
	if !cutting {
		return
	}
	for conn := range w.open {
		_ = conn.Close() // it was made to last
	}
}

// close ends the wire with all its connections.
func (w *wire) close() {
	_ = w.listener.Close()
	w.mu.Lock()
	w.closed = true
	for conn := range w.open {
		_ = conn.Close()
	}
	w.mu.Unlock()
	w.group.Wait()
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.group.Go(func() { w.carry(near) })
	}
}

// whole is more than any connection carries.
const whole = 1 << 62

// draw says after how many bytes each way a new connection is cut.
func (w *wire) draw(near, far net.Conn) (requests, replies int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, 0, false
	}
	w.open[near], w.open[far] = true, true
	requests, replies = whole, whole
	switch dice := w.random.IntN(3); {
	case !w.cutting:
	case dice == 0:
		requests = w.random.Int64N(cutRequestBytes)
	case dice == 1:
		replies = w.random.Int64N(cutReplyBytes)
	default:
		replies = w.random.Int64N(cutLateBytes)
	}
	return requests, replies, true
}

func (w *wire) carry(near net.Conn) {
	defer func() { _ = near.Close() }()
	far, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	requests, replies, ok := w.draw(near, far)
	if !ok {
		return
	}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, near)
		delete(w.open, far)
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(far, near, requests)
	}()
	pass(near, far, replies)
	<-done
}

// pass carries bytes one way, and when they are as many as may pass, or one side ends, it ends both, the way a lost
// network does.
func pass(to, from net.Conn, most int64) {
	_, _ = io.CopyN(to, from, most)
	for _, conn := range []net.Conn{to, from} {
		if tcp, isTCP := conn.(*net.TCPConn); isTCP {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}
