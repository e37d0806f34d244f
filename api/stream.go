package api

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"relaymarket/records"
)

// gatherLines is how many lines are written at once while more are ready.
const gatherLines = 100

// streamBuffer is what the kernel keeps for a listener who does not read; it would keep megabytes.
const streamBuffer = 64 << 10

// pushPiece is what a slow listener has Bounds.FlushTimeout to take.
const pushPiece = 4 << 10

// stream is one listener's reply. It is written past net/http: a record goes to hundreds of listeners, and is
// encoded and framed once, and costs each of them one system call and no deadline.
//
// Who writes: first the stream's goroutine, while it reads what was committed before. Then the tellers, who try and
// never wait; what a connection does not take at once is left to one more goroutine, which may. So busy means that
// somebody writes who may wait, and the tellers pass the stream by. The stream's goroutine meanwhile watches for the
// client's leaving.
type stream struct {
	s      *Server
	log    *slog.Logger
	header http.Header     // of the reply; nil once it was sent
	ctx    context.Context // done when the stream is to end
	end    func()          // makes it so
	sub    *records.Subscription
	conn   net.Conn
	raw    syscall.RawConn // nil: the connection cannot be tried
	chunks bool            // the reply is chunked; else, for HTTP/1.0, it ends with the connection
	queued atomic.Bool     // the tellers have it on their list

	mu    sync.Mutex // guards what follows
	busy  bool       // see above; true at first
	over  bool       // nothing more is written
	last  bool       // the line was gathered after which there is none
	sent  int64      // bytes
	due   time.Time  // of the next sign of life
	timer *time.Timer
}

// wake says that there may be something to tell. It never blocks.
func (t *stream) wake() {
	if t.queued.CompareAndSwap(false, true) {
		t.s.tellers.put(t)
	}
}

// take takes the connection over from net/http. After an error it has not.
func (t *stream) take(x *exchange, r *http.Request) error {
	conn, _, err := x.control.Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection: %w", err)
	}
	t.conn, t.chunks = conn, r.ProtoAtLeast(1, 1)
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetWriteBuffer(streamBuffer) // it fails when the connection is closed
	}
	if c, ok := conn.(syscall.Conn); ok {
		t.raw, _ = c.SyscallConn() // it fails when the connection is closed, which writing tells as well
	}
	x.status, t.header = http.StatusOK, x.Header()
	return nil
}

// run tells until the client leaves or does not read, or ctx ends, and closes the connection.
func (t *stream) run() error {
	defer func() { _ = t.conn.Close() }()
	// Whatever waits for the connection ends with ctx.
	defer context.AfterFunc(t.ctx, func() { _ = t.conn.SetDeadline(time.Unix(1, 0)) })()
	err := t.catchUp()
	if err == nil {
		t.watch()
	}
	t.finish()
	return err
}

// catchUp writes the head, the first sign of life and what was committed before, then leaves the stream to the tellers.
func (t *stream) catchUp() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.busy = false }()
	t.due = time.Now() // the first line is a sign of life
	data := append(t.head(), t.gather()...)
	for {
		t.mu.Unlock()
		goesOn := t.push(data)
		caught, err := false, error(nil)
		if goesOn {
			caught, err = t.sub.CatchUp(t.ctx)
		}
		t.mu.Lock()
		if !goesOn || err != nil {
			return err
		}
		if data = t.gather(); caught && len(data) == 0 {
			t.timer = time.AfterFunc(time.Until(t.due), t.wake)
			return nil
		}
	}
}

// head is what net/http would send before the first chunk.
func (t *stream) head() []byte {
	h := t.header
	t.header = nil
	h.Set("Content-Type", mediaLines)
	h.Set("Connection", "close") // nothing can follow the stream
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if t.chunks {
		h.Set("Transfer-Encoding", "chunked")
	}
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&head) // a buffer takes all
	head.WriteString("\r\n")
	return head.Bytes()
}

// watch returns when the client has left or ctx is done.
func (t *stream) watch() {
	var one [1]byte
	if n, _ := t.conn.Read(one[:]); n > 0 {
		<-t.ctx.Done() // he sent more than a request: that he left will show when he is written to
	}
}

// finish ends the reply as it should be, if the connection takes that at once.
func (t *stream) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	if !t.over && !t.busy && t.chunks {
		_ = t.conn.SetDeadline(time.Time{})
		_, _ = t.try([]byte("0\r\n\r\n"))
	}
	t.over = true
	t.s.metrics.sent.WithLabelValues("listen").Add(float64(t.sent))
}

// tell writes what is ready, as a teller does: it does not wait.
func (t *stream) tell() {
	t.queued.Store(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.busy && !t.over {
		data := t.gather()
		if len(data) == 0 {
			return
		}
		n, err := t.try(data)
		if err != nil {
			t.slow(err)
			return
		}
		if n < len(data) {
			t.busy = true
			go t.pushOn(data[n:])
		}
	}
}

// pushOn writes what a teller could not, and goes on until nothing is ready.
func (t *stream) pushOn(data []byte) {
	for t.push(data) {
		t.mu.Lock()
		if data = t.gather(); len(data) == 0 {
			t.busy = false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
	}
}

// push writes and waits until it is taken, for as long as each piece may take. It tells whether the stream goes on.
func (t *stream) push(data []byte) bool {
	for len(data) > 0 {
		piece := data[:min(len(data), pushPiece)]
		data = data[len(piece):]
		_ = t.conn.SetWriteDeadline(time.Now().Add(t.s.cfg.Bounds.FlushTimeout))
		if t.ctx.Err() != nil {
			return false // run's deadline may have come before this one
		}
		n, err := t.conn.Write(piece)
		t.mu.Lock()
		t.sent += int64(n)
		if err != nil {
			t.slow(err)
			t.mu.Unlock()
			return false
		}
		t.mu.Unlock()
	}
	_ = t.conn.SetWriteDeadline(time.Time{}) // or tellers would be told that it has passed
	return true
}

// try writes what the connection takes at once. The caller holds mu.
func (t *stream) try(data []byte) (n int, err error) {
	if t.raw == nil {
		return 0, nil
	}
	err = t.raw.Write(func(fd uintptr) bool {
		var failed error
		if n, failed = syscall.Write(int(fd), data); failed != nil {
			n = 0 // it is full, or push will meet the same error
		}
		return true
	})
	t.sent += int64(n)
	return n, err
}

// slow is a write that failed: the client left, or did not read in time and is cut off. The caller holds mu.
func (t *stream) slow(err error) {
	t.over = true
	if t.ctx.Err() != nil {
		return // it was to end
	}
	t.s.metrics.drop(dropListenerSlow)
	t.log.Debug("listener cut off", "error", err)
	t.end()
}

// gather takes what can be told now, as it goes over the wire. The caller holds mu.
func (t *stream) gather() []byte {
	if t.last {
		t.end()
		return nil
	}
	var all []byte
	for lines := range gatherLines {
		event, ok := t.sub.Poll()
		if !ok {
			break
		}
		line := t.line(event)
		switch lines {
		case 0:
			all = line
		case 1: // the first is shared with the other listeners
			all = slices.Concat(all, line)
		default:
			all = append(all, line...)
		}
		if t.last {
			return all
		}
	}
	// Due also while records come all the time: it tells the relay's time.
	if now := time.Now(); !now.Before(t.due) {
		all = slices.Concat(all, t.frame(ListenLine{Alive: &Alive{Cursor: t.sub.Cursor(), Time: t.s.now()}}))
		t.due = now.Add(t.s.cfg.Bounds.KeepAlive)
		if t.timer != nil {
			t.timer.Reset(t.s.cfg.Bounds.KeepAlive)
		}
	}
	return all
}

// line is what an event is told by.
func (t *stream) line(event records.Event) []byte {
	if event.Behind {
		t.last = true
		t.s.metrics.drop(dropListenerBehind)
		return t.frame(ListenLine{Behind: &Behind{Cursor: event.Cursor}})
	}
	chunk, err := event.Entry.Encoded(recordChunk)
	if err != nil {
		t.log.Error("encode a listener's line", "error", err)
	}
	return t.unframed(chunk)
}

func (t *stream) frame(l ListenLine) []byte {
	chunk, err := chunkOf(l)
	if err != nil {
		t.log.Error("encode a listener's line", "error", err)
	}
	return t.unframed(chunk)
}

func recordChunk(e *records.Entry) ([]byte, error) {
	record := recordOf(e)
	return chunkOf(ListenLine{Record: &record})
}

// chunkOf is a line as a chunk of HTTP/1.1: its length in hex, CR LF, the line with its LF, CR LF.
func chunkOf(l ListenLine) ([]byte, error) {
	line, err := jsonv2.Marshal(l)
	if err != nil {
		return nil, err
	}
	chunk := make([]byte, 0, len(line)+16)
	chunk = strconv.AppendInt(chunk, int64(len(line)+1), 16)
	chunk = append(append(append(chunk, "\r\n"...), line...), "\n\r\n"...)
	return chunk, nil
}

// unframed is the line alone, for a client that knows no chunks.
func (t *stream) unframed(chunk []byte) []byte {
	if t.chunks || len(chunk) == 0 {
		return chunk
	}
	return chunk[bytes.IndexByte(chunk, '\n')+1 : len(chunk)-2]
}
