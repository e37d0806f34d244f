package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"relaymarket/protocol"
)

// idle is idle_listeners: streams of as many readers, on which nothing happens but signs of life, while one sender
// writes to one of them after the other. The generator holds their other ends, so relayd's memory is its own.
//
// A step's time is from the request on until the listener has the line; beside it stands the time until the writer
// has his reply.
type idle struct {
	b       *bench
	size    int
	sender  *protocol.PrivateKey
	writer  *conn
	readers []*protocol.PrivateKey
	streams []*conn
	lines   []*bufio.Reader
	writes  [][]byte
	ids     []protocol.RecordID
}

// idleBuffer is what each of thousands of connections reads into: a line of a stream and its head fit.
const idleBuffer = 1 << 10

// idleMemory is what relayd may take with all of them open.
const idleMemory = 600e6

func openIdle(ctx context.Context, b *bench, p point, size int) (workload, error) {
	w := &idle{b: b, size: size}
	var err error
	if w.sender, err = person(roleSender, 0); err != nil {
		return nil, err
	}
	if w.writer, err = dial(ctx, b.relay.host); err != nil {
		return nil, err
	}
	w.readers, w.lines = make([]*protocol.PrivateKey, p.conns), make([]*bufio.Reader, p.conns)
	asks := make([][]byte, p.conns)
	first := b.author.next.Add(int64(p.conns))
	err = each(p.conns, func(i int) error {
		key, err := person(roleListener+b.author.run, int(first)-i)
		if err != nil {
			return err
		}
		e, err := b.author.sign(key, &protocol.Listen{Senders: []protocol.PublicKey{w.sender.Public()}})
		if err != nil {
			return err
		}
		w.readers[i] = key
		asks[i] = request(http.MethodPost, "/inbox/"+key.Public().String()+"/listen", b.relay.host, mediaEnvelope, e.Bytes())
		return nil
	})
	if err != nil {
		return w, err
	}
	for i, ask := range asks {
		c, err := dialSized(ctx, b.relay.host, idleBuffer)
		if err != nil {
			return w, fmt.Errorf("listener %d: %w; each takes an open file here and one at the relay", i, err)
		}
		w.streams = append(w.streams, c)
		if w.lines[i], err = c.stream(ask); err == nil {
			_, err = w.lines[i].ReadSlice('\n') // the sign of life that says it listens
		}
		if err != nil {
			return w, fmt.Errorf("listener %d: %w", i, err)
		}
	}
	return w, nil
}

func (w *idle) workers() int     { return 1 }
func (w *idle) servers() servers { return w.b.relay.proc }
func (w *idle) close() error     { return errors.Join(w.writer.close(), closeAll(w.streams)) }

func (w *idle) prepare(_ context.Context, requests int) error {
	w.writes, w.ids = make([][]byte, requests), make([]protocol.RecordID, requests)
	first := w.b.author.next.Add(int64(requests)) - int64(requests)
	return each(requests, func(i int) error {
		to := w.readers[w.target(i)].Public()
		w.ids[i] = w.b.author.id(first + int64(i))
		e, err := w.b.author.record(w.sender, to, first+int64(i), w.size, time.Now())
		if err != nil {
			return err
		}
		path := protocol.Path{Sender: w.sender.Public(), Receiver: to, ID: w.ids[i]}
		w.writes[i] = request(http.MethodPut, path.String(), w.b.relay.host, mediaEnvelope, e.Bytes())
		return nil
	})
}

// target is whom the i-th record is for: not the next one, whose memory is still at hand from the one before.
func (w *idle) target(i int) int { return i * 7919 % len(w.readers) }

func (w *idle) step(_ context.Context, _, i int) (sample, error) {
	if i >= len(w.writes) {
		return sample{}, errSpent
	}
	began := time.Now()
	if err := write(w.writer, w.writes[i], 1); err != nil {
		return sample{}, err
	}
	replied := time.Since(began)
	n := w.target(i)
	_ = w.streams[n].raw.SetReadDeadline(began.Add(fanoutPatience))
	for {
		line, err := w.lines[n].ReadSlice('\n')
		if err != nil {
			return sample{}, fmt.Errorf("a listener was not told of his record: %w", err)
		}
		if bytes.Contains(line, []byte(w.ids[i])) {
			return sample{records: 1, took: time.Since(began), whole: replied}, nil
		}
	}
}
