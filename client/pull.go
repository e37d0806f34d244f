package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	leaseTime = 15 * time.Second
	// maxSetbacks bounds what one pull of a relay puts up with: cut replies, pages of other devices, and so on.
	maxSetbacks = 24
	// maxPages bounds what one pull takes from a relay, which may be a liar that always has more.
	maxPages = 10_000
)

// errStartOver says that the relay's cursors are of another life.
var errStartOver = errors.New("start over")

// puller pulls one relay.
type puller struct {
	c           *Client
	peer        *peer
	friends     []protocol.PublicKey
	invitations map[protocol.PublicKey]bool // those of friends that are keys of invitations
	backups     bool
	holder      string
	stored      int // new records
	setbacks    int
	pages       int
}

// pullPost pulls a relay at the first of its addresses that answers. The error is a failure on this side.
func (c *Client) pullPost(ctx context.Context, at post) (RelayReport, error) {
	defer c.lockPull(at.key).Unlock()
	report := RelayReport{Relay: at.key, Address: at.addresses[0]}
	for _, address := range at.addresses {
		report.Address = address
		var p *peer
		if p, report.Err = c.peer(at.key, address); report.Err != nil {
			continue
		}
		pull := &puller{c: c, peer: p, friends: at.friends, invitations: at.invitations, backups: at.backups, holder: uuid.NewString()}
		report.Err = pull.run(ctx)
		report.Records += pull.stored
		var refusal *RelayError
		if report.Err == nil {
			break
		}
		if !errors.As(report.Err, &refusal) {
			return report, report.Err
		}
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if refusal.Status != 0 {
			break // somebody answered there
		}
	}
	return report, nil
}

func (p *puller) run(ctx context.Context) error {
	if err := p.lease(ctx, true); err != nil {
		return err
	}
	defer p.release(ctx)
	err := p.pullSources(ctx)
	for tries := 0; errors.Is(err, errStartOver); tries++ {
		if tries == 2 {
			return p.peer.fail(errors.New("it refuses the cursors that it handed out itself"))
		}
		err = p.pullSources(ctx)
	}
	if err != nil {
		return err
	}
	return p.acknowledge(ctx)
}

// pullSources finishes the page that was left, pulls each group to its end, and then each newcomer
// from the beginning, who joins a group after that.
func (p *puller) pullSources(ctx context.Context) error {
	pending, err := p.c.state.Pending(ctx, p.peer.key)
	if err != nil {
		return err
	}
	if pending.Page != nil {
		if _, err := p.page(ctx, pending.Page); err != nil {
			return err
		}
	}
	sources, err := p.c.state.Plan(ctx, p.peer.key, p.friends)
	if err != nil {
		return err
	}
	for _, source := range sources {
		if err := p.drain(ctx, source); err != nil {
			return err
		}
		if source.Friend != nil {
			if err := p.c.state.Join(ctx, p.peer.key, *source.Friend); err != nil {
				return err
			}
		}
	}
	return nil
}

// newPageID is a page id that follows those before it: the relay's index of them then grows at one place for each reader.
func newPageID() protocol.PageID { return protocol.PageID(uuid.Must(uuid.NewV7()).String()) }

// drain pulls one source page by page until the relay has no more.
func (p *puller) drain(ctx context.Context, source state.Source) error {
	after := source.After
	for {
		pending, err := p.c.state.Pending(ctx, p.peer.key)
		if err != nil {
			return err
		}
		page := &state.Page{ID: newPageID(), Scope: &source.Scope, Senders: source.Senders, After: after, Limit: pending.Limit}
		end, err := p.page(ctx, page)
		if err != nil {
			return err
		}
		if end.cursor != nil {
			after = end.cursor
		}
		if !end.more {
			return nil
		}
		if p.pages++; p.pages > maxPages {
			return p.peer.fail(errors.New("it always says that there is more: the rest is pulled next time"))
		}
	}
}

// pageEnd is how a page ended.
type pageEnd struct {
	cursor *string // nil: the page was given up, ask again from where it began
	more   bool
}

// page has one page through to its end: asked for, checked, stored. It returns an error when it
// cannot be now; the page then stays noted and is asked for again next time.
func (p *puller) page(ctx context.Context, page *state.Page) (pageEnd, error) {
	for {
		if err := p.c.state.NotePage(ctx, p.peer.key, page); err != nil {
			return pageEnd{}, err
		}
		if err := p.lease(ctx, false); err != nil {
			return pageEnd{}, err
		}
		served, err := p.ask(ctx, page)
		if err == nil {
			return p.keep(ctx, page, served)
		}
		end, done, err := p.setback(ctx, page, served, err)
		if done || err != nil {
			return end, err
		}
	}
}

// ask asks for a page; the acknowledgement of the one before rides along.
func (p *puller) ask(ctx context.Context, page *state.Page) (*protocol.Page, error) {
	pending, err := p.c.state.Pending(ctx, p.peer.key)
	if err != nil {
		return nil, err
	}
	var got *protocol.PageRoot
	if pending.Ack != nil && pending.Ack.Page != page.ID {
		got = &protocol.PageRoot{PageID: pending.Ack.Page, Root: pending.Ack.Root}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	query := protocol.PullQuery{Senders: page.Senders, After: page.After, Limit: page.Limit, PageID: page.ID}
	served, err := p.peer.pull(ctx, query, got)
	if err == nil || got == nil {
		return served, err
	}
	// A relay that does not know the page, or has another root for it, will never take the acknowledgement.
	if errors.Is(err, protocol.CodeNotFound) || errors.Is(err, protocol.CodeRootMismatch) {
		p.c.log.Warn("a relay refuses an acknowledgement", "relay", p.peer.address, "page", got.PageID, "error", err)
		if err := p.c.state.Acked(ctx, p.peer.key, got.PageID); err != nil {
			return nil, err
		}
		return p.peer.pull(ctx, query, nil)
	}
	return served, err
}

// keep checks and stores a page that arrived whole.
func (p *puller) keep(ctx context.Context, page *state.Page, served *protocol.Page) (pageEnd, error) {
	messages, err := p.check(page, served)
	if err != nil {
		return pageEnd{}, err
	}
	var root *protocol.Hash
	if served.Header.Records > 0 {
		root = served.Header.Root
	}
	cursor := served.Header.Cursor
	if err := checkCursor(cursor); err != nil {
		return pageEnd{}, p.peer.tampered("%v", err)
	}
	stored, err := p.c.state.StorePage(ctx, p.peer.key, page, messages, root, cursor)
	p.stored += stored
	return pageEnd{cursor: &cursor, more: served.Header.More}, err
}

func checkCursor(cursor string) error {
	if len(cursor) < 1 || len(cursor) > protocol.MaxCursor {
		return fmt.Errorf("its cursor has %d bytes", len(cursor))
	}
	for i := range len(cursor) {
		if cursor[i] <= ' ' || cursor[i] > '~' {
			return errors.New("its cursor is not printable ASCII")
		}
	}
	return nil
}

// setback handles what came instead of a page. done tells that the page is over, one way or the
// other; neither done nor an error: ask again.
func (p *puller) setback(ctx context.Context, page *state.Page, part *protocol.Page, err error) (end pageEnd, done bool, _ error) {
	var refusal *RelayError
	var parse *protocol.Error
	if p.setbacks++; p.setbacks > maxSetbacks {
		return pageEnd{}, false, p.asRelayError(err)
	}
	switch {
	case ctx.Err() != nil:
		return pageEnd{}, false, ctx.Err()
	case !errors.As(err, &refusal) && errors.As(err, &parse):
		return pageEnd{}, false, p.peer.tampered("%v", parse)
	case refusal == nil:
		return pageEnd{}, false, p.cut(ctx, page, part, err)
	case refusal.Code == protocol.CodePageOpen && refusal.PageID != "" && refusal.PageID != page.ID:
		// Another device's page, or one of ours from before the state was lost. It is finished first,
		// and moves no cursor of ours: how far it reached is not what we have.
		open := &state.Page{ID: refusal.PageID, Senders: page.Senders, After: page.After, Limit: page.Limit}
		_, err := p.page(ctx, open)
		return pageEnd{}, false, err
	case refusal.Code == protocol.CodePageSpent && refusal.Root != nil:
		// The acknowledgement says that the relay served the page, which it did, three times. What did not
		// come through is pulled again from where the page began, in smaller pages.
		return pageEnd{more: true}, true, p.c.state.SpentPage(ctx, p.peer.key, page.ID, *refusal.Root)
	case refusal.Code == protocol.CodeCursorEpoch, refusal.Code == protocol.CodeBadCursor:
		return pageEnd{}, true, errors.Join(p.c.state.StartOver(ctx, p.peer.key), errStartOver)
	case refusal.Temporary() && p.setbacks < 3:
		wait(ctx, min((&backoff{first: 250 * time.Millisecond, most: time.Second}).next(err), 5*time.Second), nil)
		return pageEnd{}, false, nil
	}
	return pageEnd{}, false, refusal
}

// cut keeps what arrived whole of a reply that was cut, and has the page asked for again.
func (p *puller) cut(ctx context.Context, page *state.Page, part *protocol.Page, err error) error {
	if part != nil && len(part.Lines) > 0 {
		messages, err := p.check(page, part)
		if err != nil {
			return err
		}
		stored, err := p.c.state.StoreMessages(ctx, messages)
		p.stored += stored
		if err != nil {
			return err
		}
	}
	p.c.log.Debug("a reply was cut", "relay", p.peer.address, "page", page.ID, "error", err)
	wait(ctx, (&backoff{first: 100 * time.Millisecond, most: 500 * time.Millisecond, tries: p.setbacks / 2}).next(err), nil)
	return ctx.Err()
}

func (p *puller) asRelayError(err error) error {
	var refusal *RelayError
	if errors.As(err, &refusal) {
		return err
	}
	return p.peer.fail(fmt.Errorf("its replies are cut: %w", err))
}

// acknowledge tells the relay that the last page is stored. If it cannot be told now, it is with the next pull.
func (p *puller) acknowledge(ctx context.Context) error {
	pending, err := p.c.state.Pending(ctx, p.peer.key)
	if err != nil || pending.Ack == nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = p.peer.got(limited, &protocol.Got{PageID: pending.Ack.Page, Root: pending.Ack.Root})
	var refusal *RelayError
	switch {
	case err == nil, errors.Is(err, protocol.CodeNotFound):
		return p.c.state.Acked(ctx, p.peer.key, pending.Ack.Page)
	case errors.Is(err, protocol.CodeRootMismatch):
		return errors.Join(err, p.c.state.Acked(ctx, p.peer.key, pending.Ack.Page))
	case errors.As(err, &refusal) && refusal.Temporary():
		p.c.log.Info("an acknowledgement waits for the next pull", "relay", p.peer.address, "error", err)
		return ctx.Err()
	}
	return err
}

// lease keeps other processes on the same state from pulling the relay at the same time, which
// would be right and a waste. One that died in the middle is waited for until its lease is over.
func (p *puller) lease(ctx context.Context, first bool) error {
	for started := time.Now(); ; {
		ours, err := p.c.state.Lease(ctx, p.peer.key, p.holder, p.c.now().Add(leaseTime))
		if err != nil || ours || !first || time.Since(started) > leaseTime {
			return err
		}
		if !wait(ctx, 50*time.Millisecond, nil) {
			return ctx.Err()
		}
	}
}

func (p *puller) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.c.state.Release(ctx, p.peer.key, p.holder); err != nil {
		p.c.log.Info("a lease is left to run out", "relay", p.peer.address, "error", err)
	}
}
