package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"relaymarket/client/files"
	"relaymarket/client/rest"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// fetcher fetches the pieces of one file.
type fetcher struct {
	c        *Client
	n        int64 // of the message
	from     protocol.PublicKey
	m        *protocol.FileManifest
	hashes   []protocol.Hash // of the chunks
	part     *files.Part
	o        FetchOptions
	progress *progress
	slots    chan struct{}
	at       []post
}

// sources are the relays on which the sender's records are looked for.
func (d *fetcher) sources(ctx context.Context) error {
	posts, err := d.c.posts(ctx)
	if err != nil {
		return err
	}
	for _, p := range posts {
		for _, f := range p.friends {
			if f == d.from {
				d.at = append(d.at, p)
			}
		}
	}
	if len(d.at) == 0 {
		return fmt.Errorf("%w: its sender is no friend of yours any more, or has no relay", ErrFileIncomplete)
	}
	return nil
}

// kept is called with each piece that came and is what it should be. Only when it returned nil is the piece acknowledged.
type kept func(ctx context.Context, i int64, data []byte, record Message, page protocol.PageID) error

// fetch fetches all pieces of the pool, from all relays at once, some at a time. hashes are those of the pool's pieces, in order.
func (d *fetcher) fetch(ctx context.Context, pool *pool, hashes []protocol.Hash, keep kept) error {
	if pool.missing() == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failures := make([]error, len(d.at))
	var all sync.WaitGroup
	for i, at := range d.at {
		r := &pieceSource{d: d, pool: pool, hashes: hashes, keep: keep, lacks: map[int64]bool{}}
		most := min(flight, max(1, allFlight/len(d.at)))
		r.pace = &pace{most: most, limit: most}
		r.next = pool.first + pool.count*int64(i)/int64(len(d.at))
		pool.join()
		all.Go(func() {
			defer pool.leave(r)
			failures[i] = r.drain(ctx, at, most)
			var refusal *RelayError
			if failures[i] != nil && !errors.As(failures[i], &refusal) {
				stop() // this side is at fault
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for d.progress.idle() <= d.o.Patience && wait(ctx, 50*time.Millisecond, pool.whole) {
		}
		stop() // also those that wait for a relay that does not answer
	}()
	all.Wait()
	stop()
	<-done
	for _, err := range failures {
		var refusal *RelayError
		if err != nil && !errors.As(err, &refusal) && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	if missing := pool.missing(); missing > 0 {
		return d.incomplete(missing, pool.count, failures)
	}
	return nil
}

func (d *fetcher) incomplete(missing, of int64, failures []error) error {
	var reasons []string
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) {
			reasons = append(reasons, err.Error())
		}
	}
	err := fmt.Errorf("%w: %d of %d pieces are on no relay that answers", ErrFileIncomplete, missing, of)
	if len(reasons) > 0 {
		err = fmt.Errorf("%w (%s)", err, strings.Join(reasons, "; "))
	}
	return err
}

// pieceSource is one relay that pieces are fetched from.
type pieceSource struct {
	d      *fetcher
	pool   *pool
	hashes []protocol.Hash
	keep   kept
	pace   *pace
	last   bool // no other address is left to try

	// guarded by the pool
	next   int64          // where it looks for a piece first
	lacks  map[int64]bool // what it does not have
	misses int            // in a row: one that has nothing is asked last
}

// drain fetches from one relay at the first of its addresses that answers.
func (r *pieceSource) drain(ctx context.Context, at post, most int) error {
	var last error
	for i, address := range at.addresses {
		r.last = i == len(at.addresses)-1
		p, err := r.d.c.peer(at.key, address)
		if err != nil {
			last = err
			continue
		}
		last = r.from(ctx, p, most)
		var refusal *RelayError
		if last == nil || !errors.As(last, &refusal) || refusal.Status != 0 {
			return last
		}
	}
	return last
}

func (r *pieceSource) from(ctx context.Context, p *peer, most int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for range most {
		all.Go(func() {
			if err := r.work(ctx, p); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if ctx.Err() == nil {
		return nil
	}
	var refusal *RelayError
	if cause := context.Cause(ctx); errors.As(cause, &refusal) || !errors.Is(cause, context.Canceled) {
		return cause
	}
	if last := r.pace.lastError(); last != nil {
		return last
	}
	return ctx.Err()
}

// work fetches pieces until there are none left that the relay may have.
func (r *pieceSource) work(ctx context.Context, p *peer) error {
	for {
		if !r.pace.enter(ctx) {
			return nil
		}
		i, ok := r.pool.take(ctx, r)
		if !ok {
			r.pace.leave()
			return nil
		}
		err := r.one(ctx, p, i)
		r.pace.leave()
		if err == nil {
			r.pace.success()
			continue
		}
		var refusal *RelayError
		switch {
		case ctx.Err() != nil:
			r.pool.put(r, i, false)
			return nil
		case errors.Is(err, protocol.CodeNotFound), errors.Is(err, protocol.CodeGone), errors.Is(err, errUnusable):
			r.pool.put(r, i, true)
		case errors.As(err, &refusal) && refusal.Temporary():
			r.pool.put(r, i, false)
			if refusal.Status == 0 && r.pace.tired() {
				if !r.last {
					return err
				}
				r.pool.doubt(r)
			}
			r.pace.failure(err)
		default:
			r.pool.put(r, i, false)
			return err
		}
	}
}

// one fetches one piece, keeps and acknowledges it.
func (r *pieceSource) one(ctx context.Context, p *peer, i int64) error {
	d := r.d
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	piece, err := d.m.Secret.Piece(i)
	if err != nil {
		return err
	}
	e, page, err := d.c.readPiece(ctx, p, d.from, piece)
	if err != nil {
		return err
	}
	record, data, err := d.open(p, e, piece, i, r.hashes[i-r.pool.first])
	if err != nil {
		return err
	}
	if err := r.keep(ctx, i, data, record, page); err != nil {
		return err
	}
	r.pool.done(r, i)
	d.acknowledge(ctx, p, piece, state.OpenPiece{Piece: i, Relay: p.key, Ack: state.Ack{Page: page, Root: record.Envelope}})
	return nil
}

// errUnusable: a piece is what its sender signed, and not what he said that it would be.
var errUnusable = errors.New("the sender's piece is not the one that he announced")

// open checks a piece: that the relay serves what was asked for, and that the sender sent what he said.
func (d *fetcher) open(p *peer, e *protocol.Envelope, piece protocol.Piece, i int64, want protocol.Hash) (Message, []byte, error) {
	var w protocol.Write
	if err := e.Decode(&w); err != nil {
		return Message{}, nil, p.tampered("a piece is no record: %v", err)
	}
	switch {
	case e.From != d.from || e.To != piece.Reader.Public() || w.RecordID != piece.ID:
		return Message{}, nil, p.tampered("it serves another record than the piece asked for")
	case w.Relay != p.key:
		return Message{}, nil, p.tampered("it serves a record that belongs on the relay %s", w.Relay.Short())
	}
	if err := e.Verify(); err != nil {
		return Message{}, nil, p.tampered("%v", err)
	}
	content, err := base64.StdEncoding.DecodeString(w.Content)
	if err != nil || protocol.PieceHash(content) != want {
		return Message{}, nil, errUnusable
	}
	data, err := piece.Open(content, d.m.PieceBytes(i), d.m.ChunkBytes)
	if err != nil {
		return Message{}, nil, errUnusable
	}
	return Message{From: e.From, ID: w.RecordID, Envelope: e.Hash(), Relay: p.key, Sent: e.Timestamp, Expires: w.Expires,
		Bytes: e.Size(), MaxPulls: w.MaxPulls}, data, nil
}

// maxPieceTries bounds the pages that a piece is asked for in: other devices, and programs that died, leave some.
const maxPieceTries = 8

// readPiece asks for a piece, as its reader. The page's name is the same each time, so that after a crash the same page is
// served again, which counts once; one that was served too often is acknowledged, which it deserves, and another begun.
func (c *Client) readPiece(ctx context.Context, p *peer, from protocol.PublicKey, piece protocol.Piece) (*protocol.Envelope, protocol.PageID, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	path := protocol.Path{Sender: from, Receiver: piece.Reader.Public(), ID: piece.ID}
	own := func(k int) protocol.PageID {
		return protocol.PageID(fmt.Sprintf("%s-%s-%d", piece.ID, c.state.Device(), k))
	}
	page := own(0)
	k := 0
	for tries := 0; ; tries++ {
		e, err := p.record(ctx, path, page, piece.Reader)
		var refusal *RelayError
		if err == nil || tries == maxPieceTries || !errors.As(err, &refusal) {
			return e, page, err
		}
		switch {
		case refusal.Code == protocol.CodePageOpen && refusal.PageID != "" && refusal.PageID != page:
			page = refusal.PageID
		case refusal.Code == protocol.CodePageSpent && refusal.Root != nil:
			if err := p.gotAs(ctx, &protocol.Got{PageID: page, Root: *refusal.Root}, piece.Reader); err != nil {
				return nil, page, err
			}
			k++
			page = own(k)
		case refusal.Code == protocol.CodeConflict:
			k++
			page = own(k)
		default:
			return nil, page, err
		}
	}
}

// acknowledge tells a relay that a piece is here. If it cannot be told now, it is at the end, or with the next fetch.
func (d *fetcher) acknowledge(ctx context.Context, p *peer, piece protocol.Piece, open state.OpenPiece) {
	// Also when all is here meanwhile, and nobody fetches any more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := p.gotAs(ctx, &protocol.Got{PageID: open.Page, Root: open.Root}, piece.Reader)
	if err == nil || errors.Is(err, protocol.CodeNotFound) || errors.Is(err, protocol.CodeRootMismatch) {
		err = d.c.state.AckedPiece(ctx, d.n, open.Piece, open.Relay, open.Page)
	}
	if err != nil {
		d.c.log.Info("an acknowledgement waits", "relay", p.address, "error", err)
	}
}

// acknowledgeRest tells the relays what they could not be told before. A relay that fails once is not tried further.
func (d *fetcher) acknowledgeRest(ctx context.Context) {
	open, err := d.c.state.OpenPieces(ctx, d.n)
	if err != nil {
		d.c.log.Warn("the acknowledgements that wait cannot be read", "error", err)
		return
	}
	failed := map[protocol.PublicKey]bool{}
	for _, o := range open {
		for _, at := range d.at {
			if at.key != o.Relay || failed[o.Relay] {
				continue
			}
			p, err := d.c.peer(at.key, at.addresses[0])
			if err != nil {
				continue
			}
			piece, err := d.m.Secret.Piece(o.Piece)
			if err != nil {
				continue
			}
			short, cancel := context.WithTimeout(ctx, 10*time.Second)
			if err := p.gotAs(short, &protocol.Got{PageID: o.Page, Root: o.Root}, piece.Reader); err == nil ||
				errors.Is(err, protocol.CodeNotFound) || errors.Is(err, protocol.CodeRootMismatch) {
				err = d.c.state.AckedPiece(ctx, d.n, o.Piece, o.Relay, o.Page)
				failed[o.Relay] = err != nil
			} else {
				failed[o.Relay] = true
			}
			cancel()
		}
	}
}

// record asks for one record, in a page of one, as the reader whose key it is.
func (p *peer) record(ctx context.Context, path protocol.Path, page protocol.PageID, reader *protocol.PrivateKey) (*protocol.Envelope, error) {
	var data []byte
	target := protocol.Target(http.MethodGet, path.String()+"?pageId="+string(page))
	err := p.do(ctx, exchange{
		build: p.signedBy(reader, &protocol.Targeted{Type: protocol.TypeRead, Target: target}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.ReadRecord(ctx, path.Sender, path.Receiver, string(path.ID), &rest.ReadRecordParams{PageId: string(page)}, authorize(e))
		},
		read: p.readUpTo(protocol.MaxEnvelopeSize, &data),
	})
	if err != nil {
		return nil, err
	}
	e, err := protocol.ParseEnvelope(data)
	if err != nil {
		return nil, p.tampered("%v", err)
	}
	return e, nil
}

// gotAs acknowledges a page, as the reader whose key it is.
func (p *peer) gotAs(ctx context.Context, got *protocol.Got, reader *protocol.PrivateKey) error {
	return p.do(ctx, exchange{
		build: p.signedBy(reader, got),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.GotWithBody(ctx, reader.Public(), contentJSON, strings.NewReader(string(e.Bytes())))
		},
	})
}

// signedBy builds the envelope of a request to this relay by a key that is not the user's own.
func (p *peer) signedBy(key *protocol.PrivateKey, request protocol.Request) func(protocol.Timestamp) (*protocol.Envelope, error) {
	return func(at protocol.Timestamp) (*protocol.Envelope, error) { return protocol.Sign(key, p.key, at, request) }
}
