package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"relaymarket/protocol"
)

// writes is write and write_batch: each connection is one sender who writes to one friend.
type writes struct {
	b        *bench
	host     string
	size     int
	lines    int // records in a request; 1: one PUT each
	conns    []*conn
	senders  []*protocol.PrivateKey
	readers  []*protocol.PrivateKey
	requests [][][]byte // by connection
}

func openWrites(lines int) func(context.Context, *bench, point, int) (workload, error) {
	return func(ctx context.Context, b *bench, p point, size int) (workload, error) {
		w, err := openWritesAt(ctx, b, p, size, lines, b.relay.host)
		if err != nil {
			return nil, err
		}
		return w, nil
	}
}

func openWritesAt(ctx context.Context, b *bench, p point, size, lines int, host string) (*writes, error) {
	w := &writes{b: b, host: host, size: size, lines: lines, requests: make([][][]byte, p.conns)}
	var err error
	if w.senders, err = people(p.sender(), p.conns); err != nil {
		return nil, err
	}
	if w.readers, err = people(roleReader, p.conns); err != nil {
		return nil, err
	}
	w.conns, err = dialAll(ctx, host, p.conns)
	return w, err
}

func (w *writes) workers() int     { return len(w.conns) }
func (w *writes) servers() servers { return w.b.relay.proc }
func (w *writes) close() error     { return closeAll(w.conns) }

func (w *writes) prepare(_ context.Context, requests int) error {
	now := time.Now()
	for c := range w.requests {
		w.requests[c] = make([][]byte, (requests+len(w.conns)-1)/len(w.conns))
	}
	return each(len(w.conns)*len(w.requests[0]), func(i int) error {
		c := i % len(w.conns)
		var err error
		w.requests[c][i/len(w.conns)], _, err = writeRequest(w.b, w.senders[c], w.readers[c].Public(), w.size, w.lines, now)
		return err
	})
}

// writeRequest signs new records and lays out the request that writes them.
func writeRequest(b *bench, from *protocol.PrivateKey, to protocol.PublicKey, size, lines int, now time.Time) ([]byte, []*protocol.Envelope, error) {
	var body []byte
	envelopes := make([]*protocol.Envelope, lines)
	first := b.author.next.Add(int64(lines)) - int64(lines)
	for i := range envelopes {
		e, err := b.author.record(from, to, first+int64(i), size, now)
		if err != nil {
			return nil, nil, err
		}
		envelopes[i] = e
		if lines > 1 {
			body = append(append(body, e.Bytes()...), '\n')
		}
	}
	if lines == 1 {
		path := protocol.Path{Sender: from.Public(), Receiver: to, ID: b.author.id(first)}
		return request(http.MethodPut, path.String(), b.relay.host, "application/json", envelopes[0].Bytes()), envelopes, nil
	}
	return request(http.MethodPost, "/"+from.Public().String()+"/outbox", b.relay.host, mediaLines, body), envelopes, nil
}

func (w *writes) step(_ context.Context, c, i int) (sample, error) {
	if i >= len(w.requests[c]) {
		return sample{}, errSpent
	}
	next := w.requests[c][i]
	w.requests[c][i] = nil
	return sample{records: w.lines}, write(w.conns[c], next, w.lines)
}

// write sends a request of writeRequest and sees to it that every record was stored.
func write(c *conn, request []byte, lines int) error {
	if lines == 1 {
		_, err := c.expect(http.StatusCreated, request)
		return err
	}
	_, err := writeBatch(c, request, lines)
	return err
}

func writeBatch(c *conn, request []byte, lines int) ([]byte, error) {
	reply, err := c.expect(http.StatusOK, request)
	if err == nil && bytes.Count(reply, []byte(`"status":201`)) != lines {
		err = &refused{http.StatusOK, fmt.Sprintf("%d of %d records were stored: %.300s", bytes.Count(reply, []byte(`"status":201`)), lines, reply)}
	}
	return reply, err
}

func dialAll(ctx context.Context, host string, n int) ([]*conn, error) {
	conns := make([]*conn, 0, n)
	for range n {
		c, err := dial(ctx, host)
		if err != nil {
			return nil, errors.Join(err, closeAll(conns))
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*conn) error {
	var err error
	for _, c := range conns {
		err = errors.Join(err, c.close())
	}
	return err
}
