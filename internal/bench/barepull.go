package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// A bare pull is the least that could be one: Go's HTTP server, the check of form and signature of the request, with the
// acknowledgement that rides on it, one record read by its primary key, and one durable row with the acknowledgement, in one transaction and
// one round trip for all that wait. It looks at no reader, no page and no sender, and counts no pull.
type barePull struct {
	reader []byte
	got    []byte
	body   []byte // the record, set before done is closed
	err    error  // set before done is closed
	done   chan struct{}
}

// barePulledSQL makes the table of what was pulled.
const barePulledSQL = `DROP TABLE IF EXISTS bare_pulled; CREATE TABLE bare_pulled (id bigint PRIMARY KEY, reader bytea NOT NULL, got bytea)`

// pull answers a pull with one record, and takes the acknowledgement of a last page without a look at it.
func (r *bareRelay) pull(w http.ResponseWriter, q *http.Request, body []byte) {
	if strings.HasSuffix(q.URL.Path, "/got") {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	p, err := readBarePull(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.pulls = append(r.pulls, p)
	lead := !r.pulling
	r.pulling = true
	r.mu.Unlock()
	if lead {
		r.pullWaiting()
	}
	<-p.done
	if p.err != nil {
		http.Error(w, p.err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append([]byte(`{"records":1,"served":1}`+"\n"), p.body...))
}

func readBarePull(body []byte) (*barePull, error) {
	e, line, err := protocol.ParsePullBody(body)
	if err != nil {
		return nil, err
	}
	var pull protocol.Pull
	if err := e.Decode(&pull); err != nil {
		return nil, err
	}
	if _, err := protocol.ParsePullQuery(line); err != nil {
		return nil, err
	}
	if err := pull.CheckQuery(line); err != nil {
		return nil, err
	}
	p := &barePull{reader: append([]byte(nil), e.From[:]...), done: make(chan struct{})}
	if pull.Got != nil {
		p.got = e.Bytes()
	}
	return p, e.Verify()
}

// pullWaiting serves what waits, and leaves what came meanwhile to a goroutine.
func (r *bareRelay) pullWaiting() {
	r.mu.Lock()
	group := r.pulls
	r.pulls = nil
	first := r.next
	r.next += int64(len(group))
	r.mu.Unlock()
	err := r.servePulls(group, first)
	for _, p := range group {
		p.err = err
		close(p.done)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling = len(r.pulls) > 0; r.pulling {
		go r.pullWaiting()
	}
}

func (r *bareRelay) servePulls(group []*barePull, first int64) error {
	ids, records := make([]int64, len(group)), make([]int64, len(group))
	readers, gots := make([][]byte, len(group)), make([][]byte, len(group))
	for i, p := range group {
		ids[i] = first + int64(i)
		records[i] = ids[i]*selectRows%filledRows + 1
		readers[i], gots[i] = p.reader, p.got
	}
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(`SELECT t.i, b.body FROM unnest($1::bigint[]) WITH ORDINALITY AS t (id, i) JOIN bare b USING (id)`, records).Query(func(rows pgx.Rows) error {
		var i int
		var body []byte
		_, err := pgx.ForEachRow(rows, []any{&i, &body}, func() error {
			group[i-1].body, body = body, nil
			return nil
		})
		return err
	})
	b.Queue(`INSERT INTO bare_pulled SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[])`, ids, readers, gots)
	b.Queue(`COMMIT`)
	conn := <-r.conns
	defer func() { r.conns <- conn }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return conn.SendBatch(ctx, b).Close()
}

// openBarePulls is bare_pull: requests as those of pull, to a bare relay.
func openBarePulls(ctx context.Context, b *bench, p point, size int) (workload, error) {
	table, err := b.openBare(ctx, point{conns: 1}, size, 1, nil)
	if err == nil {
		err = table.fill(ctx, size)
	}
	if err == nil {
		if _, err = table.conns[0].Exec(ctx, barePulledSQL); err != nil {
			err = fmt.Errorf("make the table of bare pulls: %w", err)
		}
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
	w := &barePulls{pulls: &pulls{b: b, size: size, limit: 1}, server: server}
	conns, err := dialAll(ctx, server.address, p.conns)
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	for i, c := range conns {
		in := &inbox{conn: c, at: 1, hashes: make([]protocol.Hash, 2), cursors: []string{"bare.1", "bare.2"}}
		w.inboxes = append(w.inboxes, in)
		if in.sender, err = person(p.sender(), i); err != nil {
			return w, err
		}
		if in.reader, err = person(roleReader, i); err != nil {
			return w, err
		}
	}
	return w, nil
}

type barePulls struct {
	*pulls
	server *bareServer
}

func (w *barePulls) servers() servers { return w.server.proc }
func (w *barePulls) close() error     { return errors.Join(w.pulls.close(), w.server.stop()) }
