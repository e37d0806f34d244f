package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"relaymarket/protocol"
)

// fanout follows messages from the one who sends them to all who are told. Messages go one after the other.
//
// The clock starts at the first sign of a message that shows anywhere outside the server, be it the sender's reply or
// one of the receivers', and stops when the last receiver has it. For a relay that is "from commit on", short of one
// way over loopback: nobody is told before the commit. The NATS server is measured by the same rule.
type fanout struct {
	receivers int
	base      time.Time
	messages  []message
	done      chan int // the message that all have
	failed    chan error
}

// message is one that is under way; times are nanoseconds since base, 0 is never.
type message struct {
	first atomic.Int64
	count atomic.Int32
}

// fanoutPatience is how long the last receiver may take.
const fanoutPatience = time.Minute

func newFanout(receivers int) *fanout {
	return &fanout{receivers: receivers, base: time.Now(), done: make(chan int, 1), failed: make(chan error, receivers)}
}

func (f *fanout) reset(messages int) { f.messages = make([]message, messages) }

func (f *fanout) now() int64 { return max(int64(time.Since(f.base)), 1) }

// told notes that one receiver has message i.
func (f *fanout) told(i int) {
	m := &f.messages[i]
	m.first.CompareAndSwap(0, f.now())
	if int(m.count.Add(1)) == f.receivers {
		f.done <- i
	}
}

// follow sends message i and waits until all have it.
func (f *fanout) follow(ctx context.Context, i int, send func() error) (sample, error) {
	began := f.now()
	if err := send(); err != nil {
		return sample{}, err
	}
	m := &f.messages[i]
	m.first.CompareAndSwap(0, f.now())
	patience := time.NewTimer(fanoutPatience)
	defer patience.Stop()
	select {
	case <-f.done:
	case err := <-f.failed:
		return sample{}, err
	case <-ctx.Done():
		return sample{}, ctx.Err()
	case <-patience.C:
		return sample{}, fmt.Errorf("after %s only %d of %d listeners were told", fanoutPatience, m.count.Load(), f.receivers)
	}
	last := f.now()
	return sample{records: f.receivers, took: time.Duration(max(last-m.first.Load(), 1)), whole: time.Duration(last - began)}, nil
}

// listen is listen_fanout: streams of one reader, one sender who writes to him.
type listen struct {
	*fanout
	b       *bench
	size    int
	sender  *protocol.PrivateKey
	reader  *protocol.PrivateKey
	writer  *conn
	streams []*conn
	reading sync.WaitGroup
	closing atomic.Bool
	first   int64 // number of the record that is message 0
	writes  [][]byte
}

func openListen(ctx context.Context, b *bench, p point, size int) (workload, error) {
	w := &listen{fanout: newFanout(p.conns), b: b, size: size}
	w.reset(0)
	var err error
	if w.sender, err = person(roleSender, 0); err != nil {
		return nil, err
	}
	// A reader of its own each time, for whom nothing was stored before.
	if w.reader, err = person(roleListener+b.author.run, int(b.author.next.Add(1))); err != nil {
		return nil, err
	}
	if w.writer, err = dial(ctx, b.relay.host); err != nil {
		return nil, err
	}
	if w.streams, err = dialAll(ctx, b.relay.listenHost(), p.conns); err != nil {
		return w, err
	}
	e, err := b.author.sign(w.reader, &protocol.Listen{Senders: []protocol.PublicKey{w.sender.Public()}})
	if err != nil {
		return w, err
	}
	ask := request(http.MethodPost, "/inbox/"+w.reader.Public().String()+"/listen", b.relay.host, mediaEnvelope, e.Bytes())
	for _, c := range w.streams {
		lines, err := c.stream(ask)
		if err == nil {
			_, err = lines.ReadSlice('\n') // the sign of life that says it listens
		}
		if err != nil {
			return w, fmt.Errorf("listen: %w", err)
		}
		w.reading.Go(func() { w.read(lines) })
	}
	return w, nil
}

// read notes what one stream tells.
func (w *listen) read(lines *bufio.Reader) {
	id := []byte(w.b.author.run + "-")
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			if !w.closing.Load() {
				w.failed <- fmt.Errorf("a listener's stream ended: %w", err)
			}
			return
		}
		_, rest, found := bytes.Cut(line, id)
		if !found || len(rest) < idDigits {
			continue // a sign of life
		}
		n, err := strconv.ParseInt(string(rest[:idDigits]), 10, 64)
		if err != nil || n < w.first || n >= w.first+int64(len(w.messages)) {
			w.failed <- fmt.Errorf("a listener was told of a record that it should not hear of: %s", line)
			return
		}
		w.told(int(n - w.first))
	}
}

func (w *listen) workers() int     { return 1 }
func (w *listen) servers() servers { return w.b.relay.proc }

func (w *listen) close() error {
	w.closing.Store(true)
	err := errors.Join(w.writer.close(), closeAll(w.streams))
	w.reading.Wait()
	return err
}

func (w *listen) prepare(_ context.Context, requests int) error {
	now := time.Now()
	w.reset(requests)
	w.first = w.b.author.next.Add(int64(requests)) - int64(requests)
	w.writes = make([][]byte, requests)
	return each(requests, func(i int) error {
		n := w.first + int64(i)
		e, err := w.b.author.record(w.sender, w.reader.Public(), n, w.size, now)
		if err != nil {
			return err
		}
		path := protocol.Path{Sender: w.sender.Public(), Receiver: w.reader.Public(), ID: w.b.author.id(n)}
		w.writes[i] = request(http.MethodPut, path.String(), w.b.relay.host, mediaEnvelope, e.Bytes())
		return nil
	})
}

func (w *listen) step(ctx context.Context, _, i int) (sample, error) {
	if i >= len(w.writes) {
		return sample{}, errSpent
	}
	return w.follow(ctx, i, func() error { return write(w.writer, w.writes[i], 1) })
}
