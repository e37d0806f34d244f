package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"relaymarket/protocol"
)

// pulls is pull and pull_page: each connection is one reader, who pulls page after page of what one friend left for
// him. The acknowledgement of a page rides on the request for the next, as clients do it; roots and cursors are known
// since the records were loaded, so all is signed beforehand.
type pulls struct {
	b       *bench
	size    int
	limit   int // records in a page
	inboxes []*inbox
}

// inbox is one reader's part.
type inbox struct {
	conn     *conn
	sender   *protocol.PrivateKey
	reader   *protocol.PrivateKey
	hashes   []protocol.Hash // of the loaded records, in order
	cursors  []string
	at       int // where the next page to be signed begins; record 0 is only where to begin after
	requests [][]byte
	pages    []protocol.PageRoot // of requests
	open     *protocol.PageRoot  // the page that waits for its acknowledgement
}

// What is loaded for all readers of a point, in records for each second of measurement. A reader who has had all
// begins again from the front.
const (
	loadSingles = 5000
	loadPaged   = 12_000
	loadLines   = 500 // records in one request of loading
)

func openPulls(limit int) func(context.Context, *bench, point, int) (workload, error) {
	return func(ctx context.Context, b *bench, p point, size int) (workload, error) {
		w := &pulls{b: b, size: size, limit: limit}
		conns, err := dialAll(ctx, b.relay.host, p.conns)
		if err != nil {
			return nil, err
		}
		for i, c := range conns {
			w.inboxes = append(w.inboxes, &inbox{conn: c, at: 1})
			if w.inboxes[i].sender, err = person(p.sender(), i); err != nil {
				return w, err
			}
			if w.inboxes[i].reader, err = person(roleReader, i); err != nil {
				return w, err
			}
		}
		return w, w.load(ctx)
	}
}

func (w *pulls) workers() int     { return len(w.inboxes) }
func (w *pulls) servers() servers { return w.b.relay.proc }

func (w *pulls) close() error {
	err := w.acknowledge()
	for _, in := range w.inboxes {
		err = errors.Join(err, in.conn.close())
	}
	return err
}

// load writes the records that are pulled: for each reader the same number, which makes whole pages after the first record.
func (w *pulls) load(ctx context.Context) error {
	perSecond := loadPaged
	if w.limit == 1 {
		perSecond = loadSingles
	}
	pages := max(int(float64(perSecond)*w.b.opts.duration.Seconds())/len(w.inboxes)/w.limit, 2)
	var loading sync.WaitGroup
	failures := make([]error, len(w.inboxes))
	turns := make(chan struct{}, 4) // a few at once: the relay commits what comes together together
	for i, in := range w.inboxes {
		loading.Go(func() {
			turns <- struct{}{}
			failures[i] = in.load(ctx, w.b, w.size, 1+pages*w.limit)
			<-turns
		})
	}
	loading.Wait()
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("load records: %w", err)
	}
	return nil
}

func (in *inbox) load(ctx context.Context, b *bench, size, n int) error {
	for len(in.hashes) < n && ctx.Err() == nil {
		// A batch of one line would be laid out as a single write, so the last takes a second record along.
		lines := max(min(loadLines, n-len(in.hashes)), 2)
		body, envelopes, err := writeRequest(b, in.sender, in.reader.Public(), size, lines, time.Now())
		if err != nil {
			return err
		}
		reply, err := writeBatch(in.conn, body, lines)
		if err != nil {
			return err
		}
		outcomes := json.NewDecoder(bytes.NewReader(reply))
		for _, e := range envelopes {
			var outcome struct {
				Cursor string `json:"cursor"`
			}
			if err := outcomes.Decode(&outcome); err != nil {
				return fmt.Errorf("outcome of a write: %w", err)
			}
			in.hashes, in.cursors = append(in.hashes, e.Hash()), append(in.cursors, outcome.Cursor)
		}
	}
	return ctx.Err()
}

// prepare acknowledges what the phase before left open, and signs the next requests.
func (w *pulls) prepare(_ context.Context, requests int) error {
	if err := w.acknowledge(); err != nil {
		return err
	}
	n := (requests + len(w.inboxes) - 1) / len(w.inboxes)
	return each(len(w.inboxes), func(i int) error { return w.inboxes[i].prepare(w.b, w.limit, n) })
}

// acknowledge closes the readers' open pages.
func (w *pulls) acknowledge() error {
	for _, in := range w.inboxes {
		if in.open == nil {
			continue
		}
		e, err := w.b.author.sign(in.reader, &protocol.Got{PageID: in.open.PageID, Root: in.open.Root})
		if err != nil {
			return err
		}
		if _, err := in.conn.expect(http.StatusNoContent, request(http.MethodPost, in.path()+"/got", w.b.relay.host, mediaEnvelope, e.Bytes())); err != nil {
			return fmt.Errorf("acknowledge the last page: %w", err)
		}
		in.open = nil
	}
	return nil
}

// inboxPrefix begins the path of every inbox.
const inboxPrefix = "/inbox/"

func (in *inbox) path() string { return inboxPrefix + in.reader.Public().String() }

func (in *inbox) prepare(b *bench, limit, n int) error {
	in.requests, in.pages = make([][]byte, n), make([]protocol.PageRoot, n)
	for i := range n {
		if in.at+limit > len(in.hashes) {
			in.at = 1
		}
		query := protocol.PullQuery{Senders: []protocol.PublicKey{in.sender.Public()}, After: &in.cursors[in.at-1], Limit: int64(limit), PageID: b.author.pageID()}
		var got *protocol.PageRoot
		if i > 0 {
			got = &in.pages[i-1]
		}
		in.pages[i] = protocol.PageRoot{PageID: query.PageID, Root: protocol.MerkleRoot(in.hashes[in.at : in.at+limit])}
		in.at += limit
		body, err := b.author.pull(in.reader, query, got)
		if err != nil {
			return err
		}
		in.requests[i] = request(http.MethodPost, in.path(), b.relay.host, mediaLines, body)
	}
	return nil
}

func (w *pulls) step(_ context.Context, c, i int) (sample, error) {
	in := w.inboxes[c]
	if i >= len(in.requests) {
		return sample{}, errSpent
	}
	page, err := in.conn.expect(http.StatusOK, in.requests[i])
	if err != nil {
		return sample{}, err
	}
	in.requests[i] = nil
	in.open = &in.pages[i]
	// That they are the right ones, the relay finds out: the root that is acknowledged next was computed here.
	header, _, _ := bytes.Cut(page, []byte("\n"))
	if want := fmt.Appendf(nil, `"records":%d,`, w.limit); !bytes.Contains(header, want) {
		return sample{}, fmt.Errorf("a page should have %d records: %s", w.limit, header)
	}
	return sample{records: w.limit}, nil
}
