package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/protocol"
)

// The bare relay is the least that could take writes: Go's HTTP server, the check of each envelope's form and
// signature, and COPY into a table with a primary key and nothing else, on the bare Postgres. It takes whatever waits
// into one commit, as a relay does. It looks at no account, knows no repetition, hands out no cursor, compares no path and no
// clock, has no index to find a record by, and counts nothing: what it does in a second, no relay built of these parts can pass.
type bareRelay struct {
	conns chan *pgx.Conn // one for each commit under way

	mu      sync.Mutex // guards what follows
	waiting []*bareWrite
	pulls   []*barePull
	pulling bool // a group of pulls is under way
	busy    int  // commits under way
	next    int64
}

// bareWrite is the envelopes of one request.
type bareWrite struct {
	envelopes [][]byte
	done      chan struct{}
	err       error // set before done is closed
}

// bareCommitters are as many as a relay has.
const bareCommitters = 2

// bareRows is the table, as that of limit_insert.
var bareRows = db.CopySQL("bare", "id", "body")

// relayServer runs a bare relay on the database at url.
func relayServer(ctx context.Context, url string) (address string, stop func(), err error) {
	r := &bareRelay{conns: make(chan *pgx.Conn, bareCommitters)}
	for range bareCommitters {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return "", nil, err
		}
		if _, err := conn.Exec(ctx, `SET synchronous_commit = on`); err != nil {
			return "", nil, err
		}
		r.conns <- conn
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: r}
	go func() { _ = s.Serve(l) }()
	return l.Addr().String(), func() {
		_ = s.Close()
		for range bareCommitters {
			_ = (<-r.conns).Close(context.Background())
		}
	}, nil
}

// ServeHTTP takes one envelope by PUT, or a line each by POST, and pulls of an inbox.
func (r *bareRelay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body := make([]byte, q.ContentLength)
	if _, err := io.ReadFull(q.Body, body); err != nil {
		return
	}
	if strings.HasPrefix(q.URL.Path, inboxPrefix) {
		r.pull(w, q, body)
		return
	}
	write := &bareWrite{envelopes: [][]byte{body}, done: make(chan struct{})}
	if q.Method == http.MethodPost {
		write.envelopes = bytes.Split(bytes.TrimSuffix(body, []byte{'\n'}), []byte{'\n'})
	}
	for _, line := range write.envelopes {
		e, err := protocol.ParseEnvelope(line)
		if err == nil {
			err = e.Verify()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	if err := r.store(write); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if q.Method == http.MethodPut {
		w.WriteHeader(http.StatusCreated)
		return
	}
	_, _ = w.Write(bytes.Repeat([]byte(`{"status":201}`+"\n"), len(write.envelopes)))
}

// store commits a write together with those that wait. Whoever finds a free committer is it.
func (r *bareRelay) store(w *bareWrite) error {
	r.mu.Lock()
	r.waiting = append(r.waiting, w)
	lead := r.busy < bareCommitters
	if lead {
		r.busy++
	}
	r.mu.Unlock()
	if lead {
		r.commitWaiting()
	}
	<-w.done
	return w.err
}

// commitWaiting is one commit, and leaves what came meanwhile to a goroutine.
func (r *bareRelay) commitWaiting() {
	r.mu.Lock()
	group := r.waiting
	r.waiting = nil
	first := r.next
	for _, w := range group {
		r.next += int64(len(w.envelopes))
	}
	r.mu.Unlock()
	if len(group) > 0 {
		err := r.commit(group, first)
		for _, w := range group {
			w.err = err
			close(w.done)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) > 0 {
		go r.commitWaiting()
		return
	}
	r.busy--
}

func (r *bareRelay) commit(group []*bareWrite, next int64) error {
	rows := db.NewEncoder(nil)
	for _, w := range group {
		for _, e := range w.envelopes {
			rows.Row(2)
			rows.Bigint(next)
			rows.Bytes(e)
			next++
		}
	}
	conn := <-r.conns
	defer func() { r.conns <- conn }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := db.CopyIn(ctx, conn.PgConn(), bareRows, rows.End())
	return err
}

// openBareWrites is bare_write, and bare_batch with more lines: the relay's own requests, to a bare relay.
func openBareWrites(lines int) func(context.Context, *bench, point, int) (workload, error) {
	return func(ctx context.Context, b *bench, p point, size int) (workload, error) {
		table, err := b.openBare(ctx, point{conns: 1}, size, 1, nil)
		if err == nil {
			err = table.empty(ctx)
		}
		if table != nil {
			err = errors.Join(err, table.close())
		}
		if err != nil {
			return nil, err
		}
		server, err := startBare(ctx, serveRelay, b.postgres.cluster.URL())
		if err != nil {
			return nil, err
		}
		server.proc.postmaster = postmasterOf(b.postgres.cluster)
		w, err := openWritesAt(ctx, b, p, size, lines, server.address)
		if err != nil {
			return nil, errors.Join(err, server.stop())
		}
		return &bareWrites{writes: w, server: server}, nil
	}
}

type bareWrites struct {
	*writes
	server *bareServer
}

func (w *bareWrites) servers() servers { return w.server.proc }
func (w *bareWrites) close() error     { return errors.Join(w.writes.close(), w.server.stop()) }

// bareDialPatience is how long a bare relay may take to reach the bare Postgres.
const bareDialPatience = patience

func serveRelayAt(url string) (address string, stop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), bareDialPatience)
	defer cancel()
	if address, stop, err = relayServer(ctx, url); err != nil {
		err = fmt.Errorf("bare relay: %w", err)
	}
	return address, stop, err
}
