package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	// flight is how many pieces are on their way to or from one relay at once, and allFlight to or from all of them: each takes
	// some five times its size while it is.
	flight    = 4
	allFlight = 8
)

// uploader sends one file.
type uploader struct {
	c        *Client
	u        *state.Upload
	source   *source
	o        FileOptions
	progress *progress
	slots    chan struct{} // one taken for each piece on its way

	paying  sync.Mutex
	telling sync.Mutex
	thin    atomic.Bool // whether the friend cannot be told yet
}

// upload goes on with a file until all relays have all of it, enough of them do and the others had a little longer, or
// nothing moves any more.
func (c *Client) upload(ctx context.Context, u *state.Upload, o FileOptions) (*SentFile, error) {
	source, err := openSource(u.Path)
	if err != nil {
		return nil, err
	}
	defer source.file.Close()
	if source.size != u.Size || source.modified != u.Modified {
		return nil, fmt.Errorf("%w: %s", ErrFileChanged, u.Path)
	}
	ctx, end, err := c.hold(ctx, func(ctx context.Context, holder string, until protocol.Timestamp) (bool, protocol.Timestamp, error) {
		return c.state.LeaseUpload(ctx, u.N, holder, until)
	}, func(ctx context.Context, holder string) error { return c.state.ReleaseUpload(ctx, u.N, holder) })
	if err != nil {
		return nil, err
	}
	defer end()
	up := &uploader{c: c, u: u, source: source, o: o, progress: newProgress(u.Name, o.Progress), slots: make(chan struct{}, allFlight)}
	err = up.run(ctx)
	sent, readErr := c.sentFile(ctx, u)
	if readErr != nil {
		return nil, errors.Join(err, readErr)
	}
	return sent, err
}

func (up *uploader) run(ctx context.Context) error {
	relays, done, total, err := up.targets(ctx)
	if err != nil {
		return err
	}
	if up.u.Manifest == 0 {
		up.thin.Store(true)
		// All may be there already: a program died before it told the friend.
		if err := up.tell(ctx); err != nil {
			return err
		}
	}
	failures := make([]error, len(relays))
	err = up.progress.during(ctx, PhaseSending, done, total, func(ctx context.Context) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		go up.giveUp(ctx, stop)
		var all sync.WaitGroup
		for i, r := range relays {
			all.Go(func() {
				if failures[i] = up.feed(ctx, r, min(flight, max(1, allFlight/len(relays)))); failures[i] == nil {
					failures[i] = up.tell(ctx)
				}
				var refusal *RelayError
				if failures[i] != nil && !errors.As(failures[i], &refusal) {
					stop() // the file, or this side, is at fault
				}
			})
		}
		all.Wait()
		return nil
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	for _, f := range append(failures, err) {
		var refusal *RelayError
		if f != nil && !errors.As(f, &refusal) && !errors.Is(f, context.Canceled) {
			return f
		}
	}
	if up.thin.Load() {
		return fmt.Errorf("%w: %w", ErrFileNotStored, up.reasons(ctx, failures))
	}
	return nil
}

// giveUp ends what does not move: soon if the friend could be told, because the rest is done later.
func (up *uploader) giveUp(ctx context.Context, stop context.CancelFunc) {
	for wait(ctx, 50*time.Millisecond, nil) {
		patience := up.o.Patience
		if !up.thin.Load() {
			patience = min(patience, lateGrace)
		}
		if up.progress.idle() > patience {
			stop()
		}
	}
}

// reasons are those of the relays, as far as there are any.
func (up *uploader) reasons(ctx context.Context, failures []error) error {
	if err := errors.Join(failures...); err != nil {
		return err
	}
	_, lost, err := up.c.state.ThinPieces(context.WithoutCancel(ctx), up.u.N)
	if err == nil && lost > 0 {
		err = fmt.Errorf("%d pieces are on too few relays and wait for no other", lost)
	}
	return err
}

// targets are the relays that lack pieces, and how many bytes all relays have and are to have.
func (up *uploader) targets(ctx context.Context) (relays []Relay, done, total int64, err error) {
	own, err := up.c.state.Relays(ctx)
	if err != nil {
		return nil, 0, 0, err
	}
	copies, err := up.c.state.UploadCopies(ctx, up.u.N)
	if err != nil {
		return nil, 0, 0, err
	}
	all := int64(len(up.u.Hashes))
	for _, at := range copies {
		queued := at.Pieces[state.CopyQueued]
		there := at.Pieces[state.CopyStored]
		total += up.u.Size
		if queued == 0 {
			done += up.u.Size
			continue
		}
		done += min(there*up.u.ChunkBytes, up.u.Size*there/max(all, 1))
		for _, r := range own {
			if r.Key == at.Relay {
				relays = append(relays, r)
			}
		}
	}
	return relays, done, total, nil
}

// feed brings a relay the pieces that it lacks, some at once, and fewer when it cannot cope. It returns when all are settled, ctx
// ends, or the relay refuses for good.
func (up *uploader) feed(ctx context.Context, relay Relay, most int) error {
	p, err := up.c.peer(relay.Key, relay.Address)
	if err != nil {
		return err
	}
	queue, err := up.c.state.QueuedPieces(ctx, up.u.N, relay.Key)
	if err != nil {
		return err
	}
	next := make(chan state.QueuedPiece)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pace := &pace{most: most, limit: most}
	var all sync.WaitGroup
	for range most {
		all.Go(func() {
			if err := up.work(ctx, p, next, pace); err != nil {
				cancel(err)
			}
		})
	}
feeding:
	for _, piece := range queue {
		select {
		case next <- piece:
		case <-ctx.Done():
			break feeding
		}
	}
	close(next)
	all.Wait()
	if ctx.Err() == nil {
		return nil
	}
	var refusal *RelayError
	if cause := context.Cause(ctx); errors.As(cause, &refusal) || !errors.Is(cause, context.Canceled) {
		return cause
	}
	if last := pace.lastError(); last != nil {
		return last
	}
	return ctx.Err()
}

// work sends pieces, one after the other. Its buffer is its own.
func (up *uploader) work(ctx context.Context, p *peer, next <-chan state.QueuedPiece, pace *pace) error {
	buffer := make([]byte, up.u.ChunkBytes)
	for piece := range next {
		for {
			if !pace.enter(ctx) {
				return nil
			}
			err := up.one(ctx, p, piece, buffer)
			pace.leave()
			again, err := up.judge(ctx, p, piece, pace, err)
			if err != nil {
				return err
			}
			if !again {
				break
			}
		}
	}
	return nil
}

// one sends one piece once.
func (up *uploader) one(ctx context.Context, p *peer, q state.QueuedPiece, buffer []byte) error {
	select {
	case up.slots <- struct{}{}:
		defer func() { <-up.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m, err := up.c.pieceRecord(up.u, up.source, q, buffer)
	if err != nil {
		return err
	}
	ctx, cancel := linger(ctx, 3*time.Second)
	defer cancel()
	limited, end := context.WithTimeout(ctx, requestTimeout)
	defer end()
	if err := up.c.store(limited, p, m); err != nil {
		return err
	}
	up.progress.add(up.weight(q.Piece))
	return nil
}

// weight is what a piece counts in progress.
func (up *uploader) weight(i int64) int64 {
	if m := manifestOf(up.u); i < m.Chunks() {
		return m.PieceBytes(i)
	}
	return 0
}

// pieceRecord makes the record of a piece from the file. It is the same each time, or the file changed.
func (c *Client) pieceRecord(u *state.Upload, source *source, q state.QueuedPiece, buffer []byte) (*Outgoing, error) {
	m := manifestOf(u)
	data := buffer[:m.PieceBytes(q.Piece)]
	if q.Piece >= m.Chunks() {
		data = indexPart(u, q.Piece)
	} else if _, err := io.ReadFull(io.NewSectionReader(source.file, q.Piece*u.ChunkBytes, int64(len(data))), data); err != nil {
		return nil, changedOr(err)
	}
	piece, err := u.Secret.Piece(q.Piece)
	if err != nil {
		return nil, err
	}
	content, err := piece.Seal(data, u.ChunkBytes)
	if err != nil {
		return nil, err
	}
	if protocol.PieceHash(content) != u.Hashes[q.Piece] {
		return nil, fmt.Errorf("%w: %s", ErrFileChanged, u.Path)
	}
	return &Outgoing{N: q.N, ID: piece.ID, To: piece.Reader.Public(), Sealed: content, Expires: u.Expires, MaxPulls: u.MaxPulls}, nil
}

// judge notes what became of a piece. again asks to repeat it; an error ends the work with this relay, or, if it is no relay's,
// all of it.
func (up *uploader) judge(ctx context.Context, p *peer, q state.QueuedPiece, pace *pace, err error) (again bool, _ error) {
	if err == nil {
		pace.success()
		return false, nil
	}
	if ctx.Err() != nil {
		return false, nil
	}
	var refusal *RelayError
	switch {
	case errors.Is(err, errEnded):
		return false, up.c.state.SetCopy(ctx, q.N, p.key, state.CopyFailed, err.Error())
	case !errors.As(err, &refusal):
		return false, err
	case refusal.Code == protocol.CodeGone:
		return false, up.c.state.SetCopy(ctx, q.N, p.key, state.CopyGone, "")
	case refusal.Code == protocol.CodePaymentDue && up.o.Due != nil && up.due(ctx, refusal):
		return true, nil
	case refusal.later():
		if note := up.c.state.SetCopy(ctx, q.N, p.key, state.CopyQueued, err.Error()); note != nil {
			return false, note
		}
		pace.failure(err)
		return true, nil
	}
	return false, errors.Join(err, up.c.state.SetCopy(ctx, q.N, p.key, state.CopyFailed, err.Error()))
}

// due has the relay paid, by one of the workers.
func (up *uploader) due(ctx context.Context, refusal *RelayError) bool {
	up.paying.Lock()
	defer up.paying.Unlock()
	paid := up.o.Due(ctx, refusal)
	if paid {
		up.progress.add(0)
	}
	return paid
}

// tell sends the message that tells the friend, once enough relays have all pieces.
func (up *uploader) tell(ctx context.Context) error {
	up.telling.Lock()
	defer up.telling.Unlock()
	if !up.thin.Load() {
		return nil
	}
	thin, _, err := up.c.state.ThinPieces(ctx, up.u.N)
	if err != nil || thin > 0 {
		return err
	}
	told, err := up.c.tellOf(ctx, up.u)
	if told == nil {
		return err
	}
	up.thin.Store(false)
	if err != nil { // it is queued, and goes out by itself
		up.c.log.Info("the message of a file waits", "file", up.u.Name, "error", err)
	}
	return nil
}

// tellOf seals the manifest to the friend and leaves it on the relays.
func (c *Client) tellOf(ctx context.Context, u *state.Upload) (*Outgoing, error) {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	able, err := c.taking(ctx, relays, "", false)
	if err != nil {
		return nil, err
	}
	if len(able) > 0 {
		relays = able
	}
	f, err := c.Friend(ctx, u.To)
	if err != nil {
		return nil, err
	}
	to, ok := f.Card.SealingKey()
	if !ok {
		return nil, ErrNoSealing
	}
	body, err := protocol.Canonicalize(manifestOf(u))
	if err != nil {
		return nil, err
	}
	m := Outgoing{ID: u.ID, ContentType: protocol.FileType, Name: u.Name, Body: body, Expires: u.Expires, MaxPulls: max(u.MaxPulls, DefaultMaxPulls)}
	message, err := c.state.EnqueueManifest(ctx, u.N, u.To, relays, c.sealer(m, u.To, to, relays, u.Copies))
	if err != nil {
		return nil, err
	}
	return c.deliverNow(ctx, message.N, relays, min(u.Copies, len(relays)))
}
